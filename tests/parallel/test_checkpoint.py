from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import fastcheck
from fastcheck.errors import CheckpointError
from tests.parallel import losses
from tests.parallel.test_bits import same


def run(path, loss=losses.loss, gradient=losses.gradient, params=losses.PARAMS, **options):
    return fastcheck.check(loss, gradient, params, checkpoint=path, **{"backend": "serial", **options}, mode="full")


@pytest.fixture(autouse=True)
def _ctrl_c_is_heard():
    """Handle SIGINT as Python does by default, also where the tests run under nohup, which has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Interrupting:
    """The loss, and Ctrl-C at its n-th call; a call more or less is not part of what it is."""

    def __init__(self, calls):
        self.left = [calls]

    def __call__(self, params):
        self.left[0] -= 1
        if self.left[0] == 0:
            signal.raise_signal(signal.SIGINT)
        return losses.loss(params)

    def __getstate__(self):
        return None


def test_an_interrupted_run_reports_what_it_covered_and_resumes_bit_for_bit(tmp_path):
    path = tmp_path / "run.fastcheck"
    part = run(path, Interrupting(150))
    assert 0 < part.coverage < 1
    assert [f.kind for f in part.findings] == ["stopped"]
    assert "interrupted" in part.findings[0].message
    whole = run(path, Interrupting(10**9))
    same(whole, run(None, losses.loss))
    calls = Interrupting(10**9)
    same(whole, run(path, calls))
    assert 10**9 - calls.left[0] < 60  # preflight, noise, steps; no coordinate again


KILLED = """
import sys, time
import fastcheck
from tests.parallel import losses
print("started", flush=True)
options = {"checkpoint": sys.argv[1], "backend": sys.argv[2], "workers": 2}
fastcheck.check(losses.slow, losses.gradient, losses.PARAMS, **options, mode="full")
"""


@pytest.mark.parametrize("backend", ["serial", "processes"])
def test_a_run_killed_with_minus_nine_resumes_bit_for_bit(tmp_path, backend):
    path = tmp_path / "run.fastcheck"
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(path), backend], stderr=subprocess.DEVNULL)
    size = wait_until(lambda: path.exists() and path.stat().st_size > 1500, child)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert size
    resumed = fastcheck.check(
        losses.slow, losses.gradient, losses.PARAMS, checkpoint=path, backend="serial", mode="full"
    )
    same(
        resumed, fastcheck.check(losses.slow, losses.gradient, losses.PARAMS, backend="threads", workers=4, mode="full")
    )


def wait_until(done, child, seconds=60):
    for _ in range(int(seconds / 0.02)):
        if done():
            return True
        assert child.poll() is None, "it ended before it could be killed"
        time.sleep(0.02)
    raise AssertionError("it never got that far")


def variants():
    other = {"W": losses.PARAMS["W"] * 1.0}
    other["W"][2, 3] = np.nextafter(other["W"][2, 3], 2)
    wrong = losses.gradient(losses.PARAMS)
    wrong["W"][0, 0] *= 1 + 1e-15
    scaled = lambda params: 1.0 * losses.loss(params)  # noqa: E731
    yield "theta", {"params": other}
    yield "gradient", {"gradient": wrong}
    yield "loss", {"loss": scaled}
    yield "step", {"step": 1e-5}
    yield "seed", {"seed": 1}
    yield (
        "layout",
        {
            "params": {"V": losses.PARAMS["W"]},
            "loss": lambda p: losses.loss({"W": p["V"]}),
            "gradient": lambda p: {"V": losses.gradient({"W": p["V"]})["W"]},
        },
    )


@pytest.mark.parametrize("what, change", list(variants()), ids=lambda v: v if isinstance(v, str) else "")
def test_a_checkpoint_of_something_else_is_refused_and_kept(tmp_path, what, change):
    path = tmp_path / "run.fastcheck"
    run(path)
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match=what):
        run(path, **change)
    assert path.read_bytes() == before


def test_another_version_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "run.fastcheck"
    run(path)
    monkeypatch.setattr("fastcheck.parallel.digest.__version__", "99.0")
    with pytest.raises(CheckpointError, match=r"version: 0\.1\.0 there, 99\.0 here"):
        run(path)


def damaged(data):
    yield "empty", b""
    yield "garbage", os.urandom(5000)
    yield "text", b"W1 = 3\n" * 100
    yield "truncated", data[:-1]
    yield "truncated in the header", data[:40]
    for place in (9, 17, 60, len(data) // 2, len(data) - 3):
        flipped = bytearray(data)
        flipped[place] ^= 1
        yield f"one bit at {place}", bytes(flipped)


def test_a_damaged_file_is_refused_and_kept(tmp_path):
    path = tmp_path / "run.fastcheck"
    run(path)
    for name, data in damaged(path.read_bytes()):
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match="can't be resumed"):
            run(path)
        assert path.read_bytes() == data, name


def test_a_tail_that_was_being_written_when_the_run_was_killed_does_not_count(tmp_path):
    path = tmp_path / "run.fastcheck"
    whole = run(path)
    data = path.read_bytes()
    path.write_bytes(data + data[-200:-50])
    same(whole, run(path))
    assert path.read_bytes() == data


def test_two_runs_do_not_write_to_one_file(tmp_path):
    from fastcheck.parallel.checkpoint import Checkpoint

    path = tmp_path / "run.fastcheck"
    first = Checkpoint(path, {"a": 1})
    with pytest.raises(CheckpointError, match="in use"):
        Checkpoint(path, {"a": 1})
    first.close()
    Checkpoint(path, {"a": 1}).close()


def test_a_folder_that_is_not_there_is_bad_input(tmp_path):
    with pytest.raises(fastcheck.InputError, match="checkpoint="):
        run(tmp_path / "nowhere" / "run.fastcheck")


def test_nothing_is_unpickled(tmp_path, monkeypatch):
    import pickle

    path = tmp_path / "run.fastcheck"
    whole = run(path)

    def refuse(*_, **__):
        raise AssertionError("unpickled")

    monkeypatch.setattr(pickle, "load", refuse)
    monkeypatch.setattr(pickle, "loads", refuse)
    same(whole, run(path))


def test_what_failed_is_remembered(tmp_path):
    def loss(params):
        if params["W"][1, 1] > losses.PARAMS["W"][1, 1] + 1e-7:
            raise ValueError("bad weather")
        return losses.loss(params)

    first = run(tmp_path / "run.fastcheck", loss)
    assert any("bad weather" in finding.message for finding in first.findings)
    same(first, run(tmp_path / "run.fastcheck", loss))


MANY = 10**9


def test_second_looks_are_kept_too(tmp_path):
    wrong = losses.gradient(losses.PARAMS)
    wrong["W"][2] *= 1.01
    calls = Interrupting(MANY)
    first = run(tmp_path / "run.fastcheck", calls, gradient=wrong)
    assert len(first.wrong) == wrong["W"].shape[1]
    ladders = 16 * len(first.wrong)
    once = MANY - calls.left[0]
    same(run(tmp_path / "run.fastcheck", calls, gradient=wrong), first)
    twice = MANY - calls.left[0]
    assert twice - once <= once - 2 * wrong["W"].size - ladders


@pytest.mark.parametrize("stop", [30, 40, 50, 60, 70])
def test_a_screen_interrupted_on_the_way_resumes_bit_for_bit(tmp_path, stop):
    path = tmp_path / "run.fastcheck"
    wrong = losses.gradient(losses.PARAMS)
    wrong["W"][2, 1] *= 1.5
    wrong["W"][4, 4] += 1.0
    whole = fastcheck.check(losses.loss, wrong, losses.PARAMS, mode="screen")
    assert {c.index for c in whole.wrong} == {(2, 1), (4, 4)}
    part = fastcheck.check(Interrupting(stop), wrong, losses.PARAMS, mode="screen", checkpoint=path)
    assert part.evaluations < whole.evaluations
    calls = Interrupting(MANY)
    same(fastcheck.check(calls, wrong, losses.PARAMS, mode="screen", checkpoint=path), whole)
    kept = whole.evaluations - (MANY - calls.left[0])
    assert kept > stop - 20  # all but preflight and noise


@pytest.mark.parametrize("path", ["", "."])
def test_a_folder_is_no_checkpoint(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(fastcheck.InputError, match=r"can't be written.*Name a file in a folder you own"):
        fastcheck.check(losses.loss, losses.gradient, losses.PARAMS, checkpoint=path)
