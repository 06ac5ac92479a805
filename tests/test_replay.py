"""A random loss is made one function: by the draws that every call replays."""

from __future__ import annotations

import random
from collections import deque

import numpy as np
import pytest

import fastcheck
from fastcheck import InputError, Verdict
from fastcheck.replay import Draws, Replayed
from tests.parallel import losses

DATA = np.random.default_rng(1)
X, Y = DATA.standard_normal((16, 6)), DATA.standard_normal((16, 2))
PARAMS = {
    "W1": 0.4 * DATA.standard_normal((6, 12)),
    "b1": 0.1 * DATA.standard_normal(12),
    "W2": 0.3 * DATA.standard_normal((12, 10)),
    "b2": 0.1 * DATA.standard_normal(10),
    "W3": 0.4 * DATA.standard_normal((10, 2)),
    "b3": np.array([0.1, 0.2]),
}


def uniform(source):
    """Return a function that draws from a source, and what tells its state."""
    if source == "numpy":
        return lambda shape: np.random.random(shape), lambda: repr(np.random.get_state())  # noqa: NPY002
    if source == "python":
        return lambda shape: np.reshape([random.random() for _ in range(np.prod(shape))], shape), random.getstate
    own = {"generator": np.random.default_rng, "RandomState": np.random.RandomState, "random": random.Random}[source](3)
    if source == "generator":
        return own.random, lambda: own.bit_generator.state
    if source == "RandomState":
        return own.random_sample, lambda: repr(own.get_state())
    return lambda shape: np.reshape([own.random() for _ in range(np.prod(shape))], shape), own.getstate


def dropout(draw, bug=None, rate=0.4):
    """Return a net of three layers with dropout after two of them, and its gradient with a bug."""

    def forward(p):
        A1 = np.tanh(X @ p["W1"] + p["b1"])
        M1 = (draw(A1.shape) >= rate) / (1 - rate)
        A2 = np.tanh((A1 * M1) @ p["W2"] + p["b2"])
        M2 = (draw(A2.shape) >= rate) / (1 - rate)
        return A1, M1, A2, M2, (A2 * M2) @ p["W3"] + p["b3"]

    def loss(p):
        return float(np.sum((forward(p)[-1] - Y) ** 2) / (2 * len(X)))

    def gradient(p):
        A1, M1, A2, M2, out = forward(p)
        back = {None: M2, "anew": M2, "mask": np.ones_like(M2), "scale": M2 * (1 - rate)}[bug]
        if bug == "anew":
            back = (draw(A2.shape) >= rate) / (1 - rate)
        d3 = (out - Y) / len(X)
        d2 = (d3 @ p["W3"].T) * back * (1 - A2**2)
        d1 = (d2 @ p["W2"].T) * M1 * (1 - A1**2)
        of_3 = {"W3": (A2 * M2).T @ d3, "b3": d3.sum(axis=0)}
        return of_3 | {"W2": (A1 * M1).T @ d2, "b2": d2.sum(axis=0), "W1": X.T @ d1, "b1": d1.sum(axis=0)}

    return loss, gradient


SOURCES = ["numpy", "python", "generator", "RandomState", "random"]


@pytest.mark.parametrize("mode", ["full", "sample", "screen"])
@pytest.mark.parametrize("source", SOURCES)
def test_a_net_with_dropout_gets_a_verdict_and_its_generator_back(source, mode):
    draw, state = uniform(source)
    loss, gradient = dropout(draw)
    before = state()
    report = fastcheck.check(loss, gradient, PARAMS, mode=mode)
    assert report.verdict is Verdict.CORRECT, str(report)
    assert "replayed" in [finding.kind for finding in report.findings]
    assert state() == before
    report = fastcheck.check(loss, gradient, PARAMS, mode=mode, replay=False)
    assert (report.verdict, report.findings[0].kind) == (Verdict.INCONCLUSIVE, "random_loss")


@pytest.mark.parametrize("mode", ["full", "screen"])
@pytest.mark.parametrize(
    "bug, kind, said",
    [
        ("scale", "dropout_backward", "the scale of the dropout forgotten"),
        ("mask", "first_wrong_layer", "the mask that the loss drew there (dropout)"),
        ("anew", "drawn_anew", "does the way back draw its masks anew"),
    ],
)
def test_the_bugs_of_dropout_are_named(bug, kind, said, mode):
    loss, gradient = dropout(uniform("generator")[0], bug)
    report = fastcheck.check(loss, gradient, PARAMS, mode=mode)
    assert report.verdict is Verdict.WRONG
    assert [name for name, block in report.blocks.items() if block.verdict.refuted] == ["W1", "b1", "W2", "b2"]
    assert report.findings[0].kind == kind
    assert said in report.findings[0].message


def test_a_bug_that_has_nothing_to_do_with_draws_has_its_own_name():
    loss, gradient = dropout(uniform("generator")[0])
    flipped = fastcheck.check(loss, lambda p: (lambda g: g | {"b3": -g["b3"]})(gradient(p)), PARAMS)
    assert (flipped.findings[0].kind, flipped.findings[0].block) == ("sign", "b3")


@pytest.mark.parametrize("backend", ["threads", "processes", "multiprocessing"])
@pytest.mark.parametrize("source", ["numpy", "generator"])
def test_workers_replay_the_same_draws(backend, source):
    loss, gradient = dropout(uniform(source)[0])
    if source == "numpy":
        np.random.seed(7)  # noqa: NPY002
    serial = fastcheck.check(loss, gradient, PARAMS, mode="full", backend="serial")
    parallel = fastcheck.check(loss, gradient, PARAMS, mode="full", backend=backend, workers=2)
    assert serial.passed
    assert parallel.numerical.keys() == serial.numerical.keys()
    assert all(np.array_equal(parallel.numerical[name], serial.numerical[name]) for name in PARAMS)


def test_workers_that_import_the_loss_replay_its_own_generator():
    report = fastcheck.check(losses.random_loss, losses.random_gradient, losses.PARAMS, mode="full", backend="serial")
    again = fastcheck.check(
        losses.random_loss, losses.random_gradient, losses.PARAMS, mode="full", backend="processes", workers=2
    )
    assert report.passed
    assert np.array_equal(report.numerical["W"], again.numerical["W"])


def test_a_net_that_keeps_its_generator_and_its_masks():
    class Net:
        def __init__(self, forgets=False):
            self.W = PARAMS["W1"].copy()
            self.V = np.random.default_rng(0).standard_normal((12, 2))
            self.rng, self.forgets = np.random.default_rng(5), forgets

        def loss(self):
            self.A = np.tanh(X @ self.W)
            self.mask = self.rng.random(self.A.shape) < 0.8
            self.E = (self.A * self.mask / 0.8) @ self.V - Y
            return np.mean(self.E**2)

        def backward(self):
            d = 2 * self.E / self.E.size
            back = d @ self.V.T / 0.8 * (1 if self.forgets else self.mask)
            return {"V": (self.A * self.mask / 0.8).T @ d, "W": X.T @ (back * (1 - self.A**2))}

    for forgets in (False, True):
        net = Net(forgets)
        state = net.rng.bit_generator.state
        report = fastcheck.check(net.loss, net.backward, fastcheck.attributes(net, "W", "V"))
        assert report.verdict is (Verdict.WRONG if forgets else Verdict.CORRECT)
        assert [name for name, block in report.blocks.items() if block.verdict.refuted] == ["W"] * forgets
        assert net.rng.bit_generator.state == state


def test_a_loss_that_returns_its_gradient_too():
    def both(p, rng):
        loss, gradient = dropout(rng.random)
        state = rng.bit_generator.state
        value = loss(p)
        rng.bit_generator.state = state
        return value, gradient(p)

    report = fastcheck.check(both, True, PARAMS, args=(np.random.default_rng(2),))
    assert report.verdict is Verdict.CORRECT


def test_what_can_t_be_made_one_function_is_said():
    loss, gradient = dropout(uniform("generator")[0])
    report = fastcheck.check(loss, gradient(PARAMS), PARAMS)
    assert (report.verdict, report.findings[0].kind) == (Verdict.INCONCLUSIVE, "random_loss")
    assert "is an array, of other draws. Pass the function" in report.findings[0].message
    _, other = dropout(np.random.default_rng(9).random)
    report = fastcheck.check(loss, other, PARAMS)
    assert (report.verdict, report.findings[0].kind) == (Verdict.INCONCLUSIVE, "random_loss")
    assert "of different draws" in report.findings[0].message
    loss, gradient = dropout(lambda shape: np.random.default_rng().random(shape))
    report = fastcheck.check(loss, gradient, PARAMS)
    assert (report.verdict, report.findings[0].kind) == (Verdict.INCONCLUSIVE, "random_loss")


def test_a_gradient_of_the_mean_is_not_called_wrong():
    rng = np.random.default_rng(0)
    at = np.linspace(0.1, 1, 7)
    report = fastcheck.check(lambda p: float(np.sum(np.sin(p))) * (1 + rng.standard_normal()), np.cos, at)
    assert (report.verdict, report.findings[0].kind) == (Verdict.INCONCLUSIVE, "random_loss")
    assert "the gradient is the same whatever that gives" in report.findings[0].message
    # where the draws only add to the loss, it is right whatever they are
    report = fastcheck.check(lambda p: float(np.sum(np.sin(p))) + rng.standard_normal(), np.cos, at)
    assert report.verdict is Verdict.CORRECT


def test_the_generators_are_put_back_after_an_exception():
    rng = np.random.default_rng(0)
    calls = 0

    def loss(p):
        nonlocal calls
        calls += 1
        if calls == 100:
            raise KeyboardInterrupt
        return float(np.sum(np.sin(p) * rng.random(len(p))))

    state = rng.bit_generator.state
    report = fastcheck.check(loss, lambda p: np.cos(p) * rng.random(len(p)), np.linspace(0.1, 1, 50), mode="full")
    assert report.verdict is Verdict.INCONCLUSIVE
    assert rng.bit_generator.state == state


def test_a_checkpoint_is_of_these_draws(tmp_path):
    loss, gradient = dropout(uniform("numpy")[0])
    options = {"mode": "full", "checkpoint": tmp_path / "run"}
    np.random.seed(1)  # noqa: NPY002
    first = fastcheck.check(loss, gradient, PARAMS, **options)
    again = fastcheck.check(loss, gradient, PARAMS, **options)
    assert again.difference == first.difference
    np.random.seed(2)  # noqa: NPY002
    with pytest.raises(fastcheck.CheckpointError, match="loss"):
        fastcheck.check(loss, gradient, PARAMS, **options)


def test_terms_and_the_self_test_replay_too():
    draw, state = uniform("generator")
    loss, gradient = dropout(draw)
    before = state()
    penalty = (
        lambda p: 0.5 * sum(float(np.sum(leaf**2)) for leaf in p.values()),
        lambda p: {name: leaf.copy() for name, leaf in p.items()},
    )
    terms = fastcheck.check_terms({"data": (loss, gradient), "l2": penalty}, PARAMS)
    assert terms.passed
    assert [(finding.kind, finding.block) for finding in terms.findings if finding.kind == "replayed"] == [
        ("replayed", "data")
    ]
    assert state() == before
    found = fastcheck.self_test(loss, gradient, PARAMS, kinds=["sign", "zero", "coordinate_scaled"], smallest=False)
    assert found.passed
    assert state() == before


def test_a_monitor_leaves_the_training_its_numbers():
    draw, state = uniform("generator")
    loss, gradient = dropout(draw)
    before = state()
    assert fastcheck.Monitor(loss, gradient).step(PARAMS).verdict is Verdict.CORRECT
    assert state() == before


def test_the_keys_of_jax_that_a_loss_exchanges():
    jax = pytest.importorskip("jax")

    class Net:
        def __init__(self, key):
            self.key = key

        def mask(self):
            self.key, key = jax.random.split(self.key)
            return np.asarray(jax.random.bernoulli(key, 0.6, (7,)))

    at, state = np.linspace(0.1, 1, 7), jax.random.key(3)

    def drawn():
        nonlocal state
        state, key = jax.random.split(state)
        return np.asarray(jax.random.bernoulli(key, 0.6, (7,)))

    net, kept = Net(jax.random.PRNGKey(0)), {"key": jax.random.key(1)}

    def held():
        kept["key"], key = jax.random.split(kept["key"])
        return np.asarray(jax.random.bernoulli(key, 0.6, (7,)))

    for draw in (net.mask, drawn, held):
        before = net.key, state, kept["key"]
        report = fastcheck.check(
            lambda p, draw=draw: float(np.sum(np.sin(p) * draw())), lambda p, draw=draw: np.cos(p) * draw(), at
        )
        kinds = [finding.kind for finding in report.findings]
        assert "replayed" in kinds, str(report)
        assert report.blocks["theta"].verdict in (Verdict.CORRECT, Verdict.INCONCLUSIVE)
        assert all((a == b).all() for a, b in zip(before, (net.key, state, kept["key"]), strict=True))


def test_products_do_not_replay():
    with pytest.raises(InputError, match="replay=True: check_vjp compares several calls"):
        fastcheck.check_vjp(np.sin, lambda x, u: u * np.cos(x), np.ones(3), replay=True)


@pytest.mark.parametrize("value", [None, 1, "yes"])
def test_replay_is_true_or_false(value):
    with pytest.raises(InputError, match="replay="):
        fastcheck.check(np.sum, np.ones_like, np.ones(3), replay=value)


class Slotted:
    __slots__ = ("other", "rng")

    def __init__(self, rng):
        self.rng = rng


def reached_from(function, rng):
    """Say whether a generator is found from a function, by what becomes of it."""
    draws = Draws(function)
    before = rng.bit_generator.state
    rng.random()
    draws.put_back()
    return rng.bit_generator.state == before


OWN = np.random.default_rng(11)


def from_a_global():
    return OWN.random()


def test_where_generators_are_looked_for():
    rng = np.random.default_rng(4)
    holders = [[rng], (rng,), {"a": rng}, {1: [rng]}, deque([rng]), Slotted(rng), rng.random, rng.bit_generator]
    for holder in holders:
        assert reached_from(lambda holder=holder: holder, rng), holder
        assert reached_from(Slotted(holder), rng), holder
    assert reached_from(from_a_global, OWN)
    assert reached_from(lambda: [from_a_global() for _ in range(2)], OWN)
    kept = type("Kept", (), {"draw": lambda self: OWN.random()})()
    assert reached_from(kept, OWN)
    assert not reached_from(lambda: np.random.default_rng(4).random(), rng)


class Hostile:
    """An object that lies about what it holds."""

    @property
    def __dict__(self):
        raise RuntimeError("no")


def test_objects_of_any_kind_are_no_trouble():
    ring = []
    ring.append(ring)
    odd = [Hostile(), ring, random.SystemRandom(), np.random, type, object(), iter(()), lambda: odd]
    Draws(lambda: odd)
    rng, many = np.random.default_rng(0), [[0.5] * 1000 for _ in range(10_000)]
    assert reached_from(lambda: (many, rng), rng)  # in a moment: not all ten million are looked at
    assert Draws(Replayed(lambda: odd, ())).rates() == ()
