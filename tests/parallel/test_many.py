"""Many interrupts and many deaths, each at a moment of its own: everything is put back, and every bit is the same."""

from __future__ import annotations

import os
import random
import signal
import threading

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController, threadpool_limits

import fastcheck
from tests.parallel import losses
from tests.parallel.test_bits import same
from tests.parallel.test_checkpoint import Interrupting

pytestmark = pytest.mark.slow


def wrong(params):
    found = losses.gradient(params)
    found["W"][2] *= 1.01
    return found


@pytest.mark.parametrize("mode", ["full", "screen", "sample"])
@pytest.mark.parametrize("gradient", [losses.gradient, wrong])
def test_interrupts_restore_everything(tmp_path, mode, gradient):
    rng = random.Random(f"{mode} {gradient.__name__}")
    options = {"mode": mode, "backend": "serial"}
    before = losses.PARAMS["W"].tobytes()
    whole = fastcheck.check(losses.loss, gradient, losses.PARAMS, **options)
    for k in range(20):
        with threadpool_limits(2, user_api="blas"), np.errstate(over="raise", under="ignore"):
            pools = [pool["num_threads"] for pool in ThreadpoolController().info()]
            state, threads = np.geterr(), threading.active_count()
            path = tmp_path / f"{k}"
            loss = Interrupting(rng.randrange(1, whole.evaluations))
            try:
                report = fastcheck.check(loss, gradient, losses.PARAMS, **options, checkpoint=path)
                assert report.verdict is whole.verdict or not report.passed
            except KeyboardInterrupt:  # before anything was measured
                pass
            assert losses.PARAMS["W"].tobytes() == before
            assert np.geterr() == state
            assert threading.active_count() == threads
            assert [pool["num_threads"] for pool in ThreadpoolController().info()][: len(pools)] == pools
        same(fastcheck.check(Interrupting(10**9), gradient, losses.PARAMS, **options, checkpoint=path), whole)


class Dying:
    """Ends its worker at one coordinate, the first time that anybody comes there."""

    def __init__(self, flag, place):
        self.flag, self.place, self.home = flag, place, os.getpid()

    def __call__(self, params):
        moved = np.flatnonzero(params["W"].ravel() != losses.THETA)
        if os.getpid() != self.home and len(moved) == 1 and moved[0] == self.place:
            try:
                os.close(os.open(self.flag, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return losses.loss(params)
            os.kill(os.getpid(), signal.SIGKILL)
        return losses.loss(params)


@pytest.mark.parametrize("backend", ["processes", "multiprocessing"])
def test_killed_workers_change_no_bit(tmp_path, backend):
    rng = random.Random(backend)
    whole = fastcheck.check(losses.loss, losses.gradient, losses.PARAMS, backend="serial", mode="full")
    for k in range(13):
        flag = tmp_path / str(k)
        loss = Dying(str(flag), rng.randrange(losses.THETA.size))
        same(fastcheck.check(loss, losses.gradient, losses.PARAMS, backend=backend, workers=2, mode="full"), whole)
        assert flag.exists()
