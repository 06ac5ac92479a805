"""The numbers are the same to the last bit, whoever computes them and in whatever portions."""

from __future__ import annotations

import numpy as np
import pytest
from joblib import register_parallel_backend
from joblib.parallel import ThreadingBackend

import fastcheck
from fastcheck.examples.dense import mlp
from fastcheck.parallel.shards import Staff
from fastcheck.run import Run
from tests.parallel import losses
from tests.zoo.compiled import compiled_mlp

COMPILED = compiled_mlp((9, 30, 4), batch=16)
PYTHON = mlp((9, 30, 4), batch=16)
# The product of these two is large enough for OpenBLAS to use several threads if it may.
WIDE = np.random.default_rng(3).standard_normal((400, 300))


FREE = ("workers", "backend", "checkpoint", "loss", "where", "date", "versions")


def same(first, second):
    def plain(report):
        data = report.to_dict()
        data.pop("seconds")
        data["settings"] = {k: v for k, v in data["settings"].items() if k not in FREE}
        return data

    assert repr(plain(first)) == repr(plain(second))


def bits(net, **options):
    report = fastcheck.check(net.loss, net.gradient, net.params, args=net.args, **options, mode="full")
    return report


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("backend", ["threads", "processes", "auto"])
@pytest.mark.parametrize("net", [COMPILED, PYTHON], ids=["compiled", "python"])
def test_every_backend_and_number_of_workers(net, backend, workers):
    same(bits(net, backend="serial"), bits(net, backend=backend, workers=workers))


@pytest.mark.parametrize("net", [COMPILED, PYTHON], ids=["compiled", "python"])
def test_a_joblib_backend_by_name(net):
    same(bits(net, backend="serial"), bits(net, backend="multiprocessing", workers=2))


class Waves(ThreadingBackend):
    """A registered backend of joblib that gives its results back only all together, as older ones do."""

    supports_return_generator = False


def test_a_registered_backend_that_does_not_stream():
    register_parallel_backend("waves", Waves)
    same(bits(PYTHON, backend="serial"), bits(PYTHON, backend="waves", workers=2))


@pytest.mark.parametrize("seconds", [1e-6, 1e-3, 1.0])
@pytest.mark.parametrize("backend", ["serial", "threads"])
def test_every_shard_size(monkeypatch, seconds, backend):
    expected = bits(COMPILED, backend="serial")
    monkeypatch.setattr("fastcheck.parallel.shards.SHARD_SECONDS", seconds)
    monkeypatch.setattr("fastcheck.parallel.shards.Pace.within", lambda budget, cost: full_pace(seconds))
    same(expected, bits(COMPILED, backend=backend, workers=3))


def test_the_uncertainty_of_a_complex_step_is_that_of_its_block_however_it_is_cut(monkeypatch):
    scale = np.logspace(-3, 3, 200)

    def report(seconds):
        monkeypatch.setattr("fastcheck.parallel.shards.SHARD_SECONDS", seconds)
        monkeypatch.setattr("fastcheck.parallel.shards.Pace.within", lambda budget, cost: full_pace(seconds))
        theta = np.linspace(-1, 1, 200)
        loss, gradient = (lambda p: np.sum(np.sin(scale * p))), scale * np.cos(scale * theta)
        return fastcheck.check(loss, gradient, theta, mode="full", scheme="complex", backend="serial").blocks["theta"]

    assert report(1e-6) == report(1.0)


def full_pace(seconds):
    from fastcheck.parallel.shards import Pace

    return Pace(shard_seconds=seconds)


def test_every_scheme_with_workers():
    for scheme in ("central", "forward", "richardson"):
        try:
            serial = bits(COMPILED, backend="serial", scheme=scheme)
        except KeyError:  # a scheme that this version does not have yet
            continue
        same(serial, bits(COMPILED, backend="threads", workers=2, scheme=scheme))


def test_a_product_that_blas_would_split_among_its_threads():
    theta = np.linspace(-1, 1, 300)

    def loss(theta):
        return float(np.tanh(WIDE @ (WIDE.T @ (WIDE * theta))).sum())

    def numerical(**options):
        return fastcheck.numerical_gradient(loss, theta, step=1e-4, **options)

    assert np.array_equal(numerical(backend="serial"), numerical(backend="processes", workers=2))


def test_blas_has_one_thread_inside_and_its_own_number_after():
    from threadpoolctl import threadpool_info, threadpool_limits

    with threadpool_limits(2):
        seen = []

        def loss(theta):
            seen.append(max((pool["num_threads"] for pool in threadpool_info()), default=1))
            return float(theta @ theta)

        fastcheck.check(loss, lambda theta: 2 * theta, np.ones(2), mode="full")
        assert set(seen) == {1}
        assert max((pool["num_threads"] for pool in threadpool_info()), default=2) == 2


def test_a_batched_loss_of_fixed_size():
    loss = fastcheck.batched(lambda theta: np.tanh(theta @ losses.A.T).sum(axis=1), size=8)
    reports = [
        fastcheck.check(
            loss,
            losses.gradient({"W": losses.THETA})["W"].ravel(),
            losses.THETA,
            backend=backend,
            workers=2,
            mode="full",
        )
        for backend in ("serial", "threads", "processes")
    ]
    assert reports[0].passed
    same(reports[0], reports[1])
    same(reports[0], reports[2])


def test_several_blocks_in_one_stream_are_the_blocks_alone():
    whole = bits(PYTHON, backend="serial")
    for name in PYTHON.params:
        alone = bits(PYTHON, backend="serial", blocks=name)
        assert alone.blocks[name].difference == pytest.approx(whole.blocks[name].difference, rel=1e-2)


def test_the_stream_asks_for_rows_once_and_in_order():
    asked = []

    class Doubling:
        evaluations, failure = 0, None

        def on_grid(self, coordinates, steps, offsets):
            return np.outer(coordinates, offsets) + steps[:, None]

    def probes(rows):
        asked.extend(range(rows.start, rows.stop))
        return np.arange(rows.start, rows.stop), np.zeros(rows.stop - rows.start)

    with Run(staff=Staff(backend="serial")) as run:
        values = [values for _, values in run.stream(Doubling(), 1000, probes, (1.0, -1.0))]
    assert asked == list(range(1000))
    assert np.array_equal(np.concatenate(values)[:, 0], np.arange(1000))
