"""Nothing of a run that was killed holds anything after a few seconds: no process, no lock, no file."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import fastcheck
from tests.parallel import losses
from tests.parallel.test_bits import same
from tests.parallel.test_limits import alive

ROOT = Path(__file__).parents[2]
RUN = """
import sys
import fastcheck
from tests.parallel import losses
print("started", flush=True)
options = {"checkpoint": sys.argv[1], "backend": sys.argv[2], "workers": 2, "mode": "full"}
fastcheck.check(losses.slow, losses.gradient, losses.PARAMS, **options)
"""
CASES = [
    (backend, number)
    for backend in ("processes", "multiprocessing", "threads")
    for number in (signal.SIGKILL, signal.SIGTERM)
]


def killed(folder, backend, number, after, others=0):
    """Run until it has started so many other processes and some seconds more, and kill it; return its session."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(folder)}
    command = [sys.executable, "-c", RUN, str(folder / "run.fastcheck"), backend]
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    child = subprocess.Popen(command, env=env, cwd=ROOT, start_new_session=True, **quiet)
    child.stdout.readline()
    while len(alive(child.pid)) <= others:
        time.sleep(0.001)
    time.sleep(after)
    child.send_signal(number)
    child.wait()
    child.stdout.close()
    return child.pid


def the_lock_is_free(folder):
    fresh = {"backend": "serial", "mode": "full", "checkpoint": folder / "run.fastcheck"}
    return fastcheck.check(losses.slow, losses.gradient, losses.PARAMS, **fresh)


@pytest.mark.slow
@pytest.mark.parametrize("backend, number", CASES)
def test_killed_at_any_moment(tmp_path, backend, number):
    rng = random.Random(f"{backend} {number}")
    whole = fastcheck.check(losses.slow, losses.gradient, losses.PARAMS, backend="serial", mode="full")
    others = 0 if backend == "threads" else 1
    for k in range(5):
        folder = tmp_path / str(k)
        folder.mkdir()
        session = killed(folder, backend, number, 1.2 * rng.random(), others)
        same(the_lock_is_free(folder), whole)  # at once, while workers may still be there
        deadline = time.monotonic() + 5
        while alive(session) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not alive(session)
        assert os.listdir(folder) == ["run.fastcheck"]


@pytest.mark.parametrize("after", [0.0, 0.2])
@pytest.mark.parametrize("backend", [pytest.param("processes", marks=pytest.mark.slow), "multiprocessing"])
def test_killed_while_its_workers_begin(tmp_path, backend, after):
    session = killed(tmp_path, backend, signal.SIGKILL, after, others=1)
    deadline = time.monotonic() + 10
    while alive(session) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(session)
    assert [name for name in os.listdir(tmp_path) if name != "run.fastcheck"] == []


def test_a_forked_child_holds_no_lock(tmp_path):
    """A process that the loss itself forks, and that outlives the run, holds nothing of it."""
    left, right = os.pipe()
    children = []

    def loss(params):
        if not children and (tmp_path / "run").exists():
            children.append(os.fork())
            if not children[0]:
                os.close(right)
                os.read(left, 1)  # until the other end is closed
                os._exit(0)
        return losses.loss(params)

    try:
        options = {"backend": "serial", "mode": "full", "checkpoint": tmp_path / "run"}
        loss_of_run = Stateless(loss)
        first = fastcheck.check(loss_of_run, losses.gradient, losses.PARAMS, **options)
        assert children
        assert os.waitpid(children[0], os.WNOHANG) == (0, 0), "it should be there still"
        same(first, fastcheck.check(loss_of_run, losses.gradient, losses.PARAMS, **options))
    finally:
        os.close(right)
        os.close(left)
        for child in children:
            os.waitpid(child, 0)


class Stateless:
    """A loss that counts by its name alone."""

    def __init__(self, loss):
        self.loss = loss

    def __call__(self, params):
        return self.loss(params)

    def __getstate__(self):
        return None
