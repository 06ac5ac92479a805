"""What is promised of a budget and of Ctrl-C, with losses that are slow or hang."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import fastcheck
from fastcheck.run import Run
from tests.parallel import losses
from tests.parallel.test_limits import alive, clock  # noqa: F401

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("mode", ["auto", "full", "screen", "sample"])
@pytest.mark.parametrize("seconds, budget", [(0.5, 2.0), (0.5, 6.0), (3.0, 1.0), (0.1, 0.05), (0.1, 3.0)])
def test_a_budget_is_looked_at_before_anything_is_measured(
    clock,  # noqa: F811
    monkeypatch,
    seconds,
    budget,
    mode,
):
    """Within a tenth and the six evaluations of one coordinate's scheme; it covers something, or says so."""
    calls = 0

    def loss(params):
        nonlocal calls
        calls += 1
        clock[0] += seconds
        return losses.loss(params)

    monkeypatch.setattr("fastcheck.checks.Run", lambda *known: Run(*known, started=clock[0]))
    began = clock[0]
    report = fastcheck.check(loss, losses.gradient, losses.PARAMS, mode=mode, budget=budget, backend="serial")
    assert clock[0] - began <= 1.1 * budget + 6 * seconds
    assert report.evaluations == calls
    stopped = [finding for finding in report.findings if finding.kind == "stopped"]
    measured = [block for block in report.blocks.values() if block.checked or np.isfinite(block.bound)]
    if mode in ("screen", "auto") and (seconds, budget) == (0.1, 3.0):  # which is time enough
        assert report.passed
        assert not stopped
        return
    assert measured or "before anything was measured" in stopped[0].message or "0 of" in stopped[0].message
    assert not report.passed


def test_a_network_looks_at_the_clock_between_blocks(clock, monkeypatch):  # noqa: F811
    from fastcheck.networks import Dense, Network

    rng = np.random.default_rng(0)
    X, y, params = rng.normal(size=(5, 3)), rng.normal(size=(5, 2)), {"W": rng.normal(size=(2, 3)), "b": np.zeros(2)}
    bound = Network([Dense("W", "b")], loss="squared_error", samples="rows").bind(X, y)
    numerical = fastcheck.numerical_gradient(bound, params)
    measure = type(bound).measure

    def late(self, *rest, **options):
        clock[0] += 1000.0
        return measure(self, *rest, **options)

    monkeypatch.setattr(type(bound), "measure", late)
    monkeypatch.setattr("fastcheck.checks.Run", lambda *known: Run(*known, started=clock[0]))
    report = fastcheck.check(bound, numerical, params, mode="full", budget=10.0)
    assert report.coverage == 6 / 8  # the first block was measured, and is reported
    assert report.blocks["W"].verdict is fastcheck.Verdict.CORRECT
    assert report.verdict is fastcheck.Verdict.INCONCLUSIVE


HANGS = """
import pathlib, signal, sys, time
import numpy as np
import fastcheck
from tests.parallel import losses

def loss(params):
    if np.count_nonzero(params["W"] != losses.PARAMS["W"]) == 1 and params["W"][5, 5] != losses.PARAMS["W"][5, 5]:
        pathlib.Path(sys.argv[1]).touch()
        time.sleep(float(sys.argv[3]))
    return losses.loss(params)

signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored where the tests run under nohup
options = {"backend": sys.argv[2], "workers": 2, "step": 1e-5, "mode": "full"}
report = fastcheck.check(loss, losses.gradient, losses.PARAMS, **options)
print(report.coverage, [finding.kind for finding in report.findings], flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["serial", "processes", "multiprocessing", "threads"])
def test_ctrl_c_while_an_evaluation_hangs(tmp_path, backend):
    """It returns at once, but for threads, which nobody can end: there when the evaluation does."""
    hangs = 4.0 if backend == "threads" else 600.0
    command = [sys.executable, "-c", HANGS, str(tmp_path / "hangs"), backend, str(hangs)]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    child = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    while not (tmp_path / "hangs").exists():
        assert child.poll() is None
        time.sleep(0.01)
    time.sleep(0.2)
    began = time.monotonic()
    os.killpg(child.pid, signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    assert b"'stopped'" in out
    assert b"Traceback" not in err
    assert time.monotonic() - began < (hangs + 15 if backend == "threads" else 15)
    deadline = time.monotonic() + 5
    while alive(child.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(child.pid)


SCHEDULER = """
import sys, time
import distributed
cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
print(cluster.scheduler_address, flush=True)
time.sleep(600)
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_scheduler_that_is_killed_leaves_the_report_of_what_was_covered():
    distributed = pytest.importorskip("distributed")
    child = subprocess.Popen([sys.executable, "-c", SCHEDULER], stdout=subprocess.PIPE, text=True)
    address = child.stdout.readline().strip()
    calls = 0

    class Killing:
        """Ends the scheduler when its run has collected some shards."""

        def __call__(self, params):
            time.sleep(0.02)
            return losses.loss(params)

    original = Run._take

    def taking(self, *rest):
        nonlocal calls
        calls += 1
        if calls == 5:
            child.kill()
        return original(self, *rest)

    try:
        with pytest.MonkeyPatch.context() as patch, distributed.Client(address, timeout=20):
            patch.setattr(Run, "_take", taking)
            report = fastcheck.check(Killing(), losses.gradient, losses.PARAMS, backend="dask", mode="full")
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    assert 0 < report.coverage < 1
    kinds = [finding.kind for finding in report.findings]
    assert "stopped" in kinds
    assert "workers_gone" in kinds
