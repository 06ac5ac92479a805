"""One BLAS thread for every evaluation, and the former number for everybody else, whoever ends first."""

from __future__ import annotations

import random
import threading
import time

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController, threadpool_limits

import fastcheck
from fastcheck.parallel.blas import one_blas_thread
from tests.parallel import losses


def blas():
    return ThreadpoolController().select(user_api="blas")


@pytest.fixture
def two():
    with threadpool_limits(2, user_api="blas"):
        if {pool.num_threads for pool in blas().lib_controllers} != {2}:
            pytest.skip("this BLAS has one thread")
        yield


@pytest.mark.usefixtures("two")
def test_checks_in_several_threads_share_one_count():
    pools, seen, rng = blas(), [], random.Random(0)

    def check(pause, coordinates):
        def loss(params):
            seen.append({pool.get_num_threads() for pool in pools.lib_controllers})
            time.sleep(pause)
            return losses.loss(params)

        time.sleep(0.1 * rng.random())
        fastcheck.check(loss, losses.gradient, losses.PARAMS, mode="sample", samples=coordinates, backend="serial")

    threads = [threading.Thread(target=check, args=(1e-3, 10 + 30 * k)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) > 300
    assert all(counts == {1} for counts in seen)
    assert {pool.get_num_threads() for pool in pools.lib_controllers} == {2}


@pytest.mark.usefixtures("two")
def test_the_count_returns_in_whatever_order_they_end():
    first, second = one_blas_thread(), one_blas_thread(look=False)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert {pool.num_threads for pool in blas().lib_controllers} == {1}
    second.__exit__(None, None, None)
    assert {pool.num_threads for pool in blas().lib_controllers} == {2}


@pytest.mark.usefixtures("two")
def test_it_returns_when_the_run_fails():
    def loss(params):
        raise ValueError("bad weather")

    with pytest.raises(fastcheck.LossError):
        fastcheck.check(loss, losses.gradient, losses.PARAMS)
    assert {pool.num_threads for pool in blas().lib_controllers} == {2}
    assert np.isfinite(losses.loss(losses.PARAMS))
