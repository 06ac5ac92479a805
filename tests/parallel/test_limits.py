"""Pace, budget, Ctrl-C, and whether workers are worth their start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import fastcheck
from fastcheck.losses import evaluator_for
from fastcheck.parallel.crew import JoblibCrew, LocalCrew
from fastcheck.parallel.payload import FilePayload, MemoryPayload
from fastcheck.parallel.shards import LARGEST, Pace, Staff
from fastcheck.parameters import Parameters
from fastcheck.run import Run
from tests.parallel import losses


def python_evaluator():
    layout = Parameters.of(losses.PARAMS)
    return evaluator_for(losses.loss, layout, layout.flatten(losses.PARAMS), ())


class Clocked:
    """An evaluator whose evaluations take exactly so many seconds of a clock of its own."""

    evaluations, failure = 0, None

    def __init__(self, clock, seconds):
        self.clock, self.seconds = clock, seconds

    def on_grid(self, coordinates, steps, offsets):
        self.evaluations += len(coordinates) * len(offsets)
        self.clock[0] += self.seconds * len(coordinates) * len(offsets)
        return np.zeros((len(coordinates), len(offsets)))


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    return now


@pytest.mark.parametrize("seconds", [1e-6, 1e-4, 1e-2, 0.3, 3.0, 50.0])
@pytest.mark.parametrize("budget", [0.2, 2.0, 20.0])
def test_a_budget_is_kept_within_a_tenth_and_one_evaluation(clock, budget, seconds):
    evaluator = Clocked(clock, seconds)
    count = 10**6
    run = Run(budget, started=clock[0])
    for _ in run.grid(evaluator, np.arange(count), np.ones(count), (1.0, -1.0)):
        pass
    # the first row's cost is not known before it, and it is two evaluations
    assert run.seconds <= max(1.1 * budget + seconds, 2 * seconds)
    if run.stopped:
        assert run.stopped == "budget"
        assert run.seconds >= 0.9 * budget - 2 * seconds
    else:
        assert evaluator.evaluations == 2 * count


@pytest.mark.parametrize("backend", ["serial", "processes"])
def test_a_run_over_budget_says_what_it_covered(backend):
    began = time.perf_counter()
    report = fastcheck.check(
        losses.slow, losses.gradient, losses.PARAMS, budget=1.0, backend=backend, workers=2, step=1e-5, mode="full"
    )
    assert time.perf_counter() - began < 30  # a net for what hangs; the ratio is the test above's
    assert report.findings[0].kind == "stopped"
    assert "budget of 1 s" in report.findings[0].message
    assert report.coverage < 1


INTERRUPTED = """
import pathlib, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # which is not there where the tests run under nohup
import numpy as np
import fastcheck
from tests.parallel import losses

def loss(params):
    if np.count_nonzero(params["W"] != losses.PARAMS["W"]) == 1:
        pathlib.Path(sys.argv[1]).touch()  # a coordinate is being measured, in whatever process
    return losses.slow(params)

report = fastcheck.check(loss, losses.gradient, losses.PARAMS, backend=sys.argv[2], workers=2, step=1e-5, mode="full")
print(report.coverage, *[finding.kind for finding in report.findings], flush=True)
"""


@pytest.mark.parametrize("backend", ["serial", "threads", "processes"])
def test_ctrl_c_returns_the_report_and_ends_the_workers(tmp_path, backend):
    working = tmp_path / "working"
    child = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", INTERRUPTED, str(working), backend],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    for _ in range(3000):
        if working.exists() or child.poll() is not None:
            break
        time.sleep(0.02)
    os.killpg(child.pid, signal.SIGINT)  # as a terminal does: every process of the group hears it
    out, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    coverage, kinds = out.split(maxsplit=1)
    assert float(coverage) < 1
    assert kinds == "stopped\n"
    assert "Traceback" not in err
    for _ in range(250):
        if not alive(child.pid):
            break
        time.sleep(0.02)
    assert not alive(child.pid)


def alive(session):
    """Return the processes of a session that are no zombies."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] not in "ZX":
            found.append(int(pid))
    return found


def test_a_shard_takes_what_it_should_and_grows_gently():
    pace = Pace(shard_seconds=0.05)
    assert pace.rows(1000) == 1
    pace.measured(1, 1e-5)
    assert pace.rows(10**9) == 4
    for rows in (4, 16, 64, 256, 1024):
        pace.measured(rows, rows * 1e-5)
    assert pace.rows(10**9) == 4096
    pace.measured(4096, 4096 * 1e-5)
    assert pace.rows(10**9) == 5000
    assert pace.rows(3000) == 3000
    assert pace.rows(3000, workers=2) == 750  # all end together
    pace.measured(10**6, 1e-3)
    assert pace.rows(10**9) == LARGEST
    pace.measured(10, 100.0)
    assert pace.rows(10**9) == 1


def test_the_first_shard_is_not_trusted():
    pace = Pace()
    pace.measured(1, 0.5)  # it may have compiled something
    assert not pace.known
    pace.measured(1, 1e-6)
    assert not pace.known
    pace.measured(4096, 0.02)
    assert pace.known


@pytest.mark.parametrize(
    "home, seconds, workers, expected",
    [
        ("threads", 0.01, None, 1),
        ("threads", 10.0, None, 4),
        ("threads", 10.0, 3, 3),
        ("threads", 10.0, -1, 4),
        ("threads", 10.0, 1, 1),
        ("threads", 0.2, None, 4),
        ("processes", 0.5, None, 1),
        ("processes", 3.0, None, 4),
        ("processes", 3.0, 2, 1),  # two save 1.5 s of 3, for a start of 1
        ("processes", 100.0, None, 4),
    ],
)
def test_workers_are_hired_where_they_save_more_than_they_cost(monkeypatch, home, seconds, workers, expected):
    monkeypatch.setattr("fastcheck.parallel.shards.cores", lambda: 4)
    evaluator = python_evaluator()
    evaluator.home = home
    staff = Staff(workers)
    crew = staff.crew_for(evaluator, seconds)
    assert (crew.workers if crew else 1) == expected
    if crew:
        assert isinstance(crew, {"threads": LocalCrew, "processes": JoblibCrew}[home])
        assert staff.crew_for(evaluator, 0.0) is crew
    staff.close()


def test_a_named_backend_is_obeyed_and_serial_too(monkeypatch):
    monkeypatch.setattr("fastcheck.parallel.shards.cores", lambda: 4)
    staff = Staff(backend="threads")
    assert staff.crew_for(python_evaluator(), 0.0).workers == 4
    assert Staff(8, backend="serial").crew_for(python_evaluator(), 1e9) is None


@pytest.mark.parametrize("kind", [FilePayload.write, MemoryPayload.of])
def test_a_packed_loss_is_the_loss_and_its_arrays_are_writable_and_apart(kind):
    data = np.asfortranarray(np.random.default_rng(0).standard_normal((300, 200)))
    scratch = np.zeros(200)
    layout = Parameters.of(losses.PARAMS)

    def loss(params, data):
        scratch[:] = data[0]
        return float((scratch * params["W"].sum()).sum())

    evaluator = evaluator_for(loss, layout, layout.flatten(losses.PARAMS), (data,))
    payload = kind(evaluator)
    first, second = payload.load(), payload.load()
    payload.discard()
    grid = np.arange(120), np.full(120, 1e-3), (1.0, -1.0)
    expected = evaluator.on_grid(*grid)
    assert np.array_equal(first.on_grid(*grid), expected)
    first.args[0][:] = 0
    assert np.array_equal(second.on_grid(*grid), expected)
    assert second.args[0].flags.f_contiguous
    assert not second.theta.flags.writeable


def test_a_file_payload_holds_its_arrays_once_and_goes(tmp_path):
    evaluator = python_evaluator()
    evaluator.args = (np.zeros(10**6),)
    payload = FilePayload.write(evaluator)
    assert 8 * 10**6 < os.path.getsize(payload.path) < 8 * 10**6 + 20_000
    assert payload.head < 5000
    assert all(start % 64 == 0 for start, _ in payload.spans)
    payload.discard()
    assert not os.path.exists(payload.path)


def layer(factor):
    """Return a relu layer with many coordinates whose first steps cross kinks, and its gradient times a factor."""
    rng = np.random.default_rng(0)
    X, u = rng.normal(size=(32, 100)), rng.normal(size=(32, 50))
    params = {"W": rng.normal(size=(100, 50)) / 10, "b": rng.normal(size=50)}

    def gradient(p):
        d = u * (X @ p["W"] + p["b"] > 0)
        return {"W": factor * X.T @ d, "b": d.sum(axis=0)}

    return lambda p: float(np.sum(u * np.maximum(X @ p["W"] + p["b"], 0))), gradient, params


@pytest.mark.parametrize("budget", [0.02, 0.04, 0.08, 0.15])
def test_a_budget_that_ends_before_the_second_looks_is_no_alarm(budget):
    report = fastcheck.check(*layer(1.0), mode="full", budget=budget)
    assert not report.verdict.refuted
    assert not report.wrong
    assert report.passed is (report.coverage == 1)


def test_what_was_kept_back_of_the_budget_confirms_a_wrong_gradient():
    report = fastcheck.check(*layer(1.01), mode="full", budget=0.5, backend="serial")
    assert report.verdict.refuted
    assert {c.block for c in report.wrong} == {"W"}


def test_what_was_found_before_ctrl_c_is_confirmed():
    loss, gradient, params = layer(1.01)
    calls = 0

    def interrupted(p):
        nonlocal calls
        calls += 1
        if calls == 2000:
            raise KeyboardInterrupt
        return loss(p)

    report = fastcheck.check(interrupted, gradient, params, mode="full", backend="serial")
    assert report.verdict.refuted
    assert report.coverage < 1
    assert report.findings[-1].kind != "loss_failed"


def test_ctrl_c_in_the_diagnosis_is_said():
    loss, right, params = layer(1.0)
    error = np.random.default_rng(1).normal(size=params["W"].shape)  # of no known kind
    calls = 0

    def gradient(p):
        return {**right(p), "W": right(p)["W"] + error}

    whole = fastcheck.check(loss, gradient, params, mode="full", backend="serial")

    def again(p):
        nonlocal calls
        calls += 1
        if calls == 3:  # the first is the check's own, the others are experiments of the diagnosis
            raise KeyboardInterrupt
        return gradient(p)

    report = fastcheck.check(loss, again, params, mode="full", backend="serial")
    assert calls == 3
    assert report.verdict is whole.verdict
    assert report.wrong == whole.wrong
    assert [f.kind for f in report.findings if f.kind == "stopped"] == ["stopped"]
