"""The kernels against the slow obvious loop, bit for bit, and the policy of their compilation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numba import njit

from fastcheck.differences import SCHEMES
from fastcheck.kernels import perturb
from fastcheck.losses import JittedLoss
from fastcheck.parameters import Parameters


@njit
def wave(theta, scale):
    total = 0.0
    for i in range(len(theta)):
        total += math.sin(scale * theta[i]) * theta[i - 1]
    return total


def make(constant):
    @njit
    def same_name(theta):
        return constant * theta[0]

    return same_name


def evaluator(theta, loss=wave, args=(1.3,)):
    return JittedLoss(loss, Parameters.of(theta), theta.copy(), args)


@pytest.fixture
def theta():
    return np.random.default_rng(0).standard_normal(17)


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=lambda scheme: scheme.name)
def test_grid_is_the_obvious_loop_bit_for_bit(theta, scheme):
    rng = np.random.default_rng(1)
    coordinates = rng.permutation(17)[:11]
    steps = rng.uniform(1e-7, 1e-2, 11)
    slow = np.empty((11, len(scheme.offsets)))
    for row, (i, h) in enumerate(zip(coordinates, steps, strict=True)):
        for column, offset in enumerate(scheme.offsets):
            moved = theta.copy()
            moved[i] = theta[i] + offset * h
            slow[row, column] = wave(moved, 1.3)
    loss = evaluator(theta)
    fast = loss.on_grid(coordinates, steps, scheme.offsets)
    assert np.array_equal(fast, slow)
    assert loss.untouched
    assert loss.evaluations == slow.size


def test_along_is_the_obvious_loop_bit_for_bit(theta):
    direction, steps = np.random.default_rng(2).standard_normal(5), np.array([1e-3, -1e-3, 0.0, 0.25])
    slow = []
    for t in steps:
        moved = theta.copy()
        moved[4:9] = direction * t + theta[4:9]
        slow.append(wave(moved, 1.3))
    loss = evaluator(theta)
    assert np.array_equal(loss.along(4, direction, steps), slow)
    assert loss.untouched


def test_a_kernel_is_compiled_once_for_a_loss_and_again_for_another(theta):
    first, second = make(1.0), make(2.0)
    grid = (np.array([0]), np.array([0.5]), (1.0, -1.0))
    expected = theta[0] + np.array([[0.5, -0.5]])
    assert np.array_equal(evaluator(theta, first, ()).on_grid(*grid), expected)
    compiled = len(perturb.on_grid.signatures)
    assert np.array_equal(evaluator(theta, first, ()).on_grid(*grid), expected)
    assert len(perturb.on_grid.signatures) == compiled
    assert np.array_equal(evaluator(theta, second, ()).on_grid(*grid), 2 * expected)
    assert len(perturb.on_grid.signatures) == compiled + 1


def test_kernels_release_the_lock_and_are_not_cached_on_disk():
    for kernel in (perturb.on_grid, perturb.along):
        assert kernel.targetoptions["nogil"]
        assert not kernel.stats.cache_path
