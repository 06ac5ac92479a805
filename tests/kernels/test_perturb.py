"""The kernels against the slow obvious loop, bit for bit, and the policy of their compilation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numba import config, njit

from fastcheck.estimates import SCHEMES
from fastcheck.kernels import perturb
from fastcheck.losses import JittedLoss
from fastcheck.parameters import Parameters


@njit
def wave(theta, scale):
    total = 0.0
    for i in range(len(theta)):
        total += math.sin(scale * theta[i]) * theta[i - 1]
    return total


compiled = pytest.mark.skipif(bool(config.DISABLE_JIT), reason="is about compiled code")


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


@compiled
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


@compiled
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


@pytest.mark.parametrize("slot", [0, 4])
def test_kernels_go_on_where_they_are_told_to_and_leave_theta_as_it_was(theta, slot):
    work, cursor, offsets = theta.copy(), np.array([slot]), np.array([2.0, -1.0, 0.5])
    coordinates, steps, out = np.array([3, 0, 16]), np.array([1e-2, 1e-3, 0.5]), np.full((3, 3), np.nan)
    perturb.on_grid(wave, work, work, (coordinates, steps), offsets, out, cursor, (1.3,))
    expected = np.full((3, 3), np.nan)
    for place in range(slot, 9):
        moved = theta.copy()
        moved[coordinates[place // 3]] += offsets[place % 3] * steps[place // 3]
        expected[divmod(place, 3)] = wave(moved, 1.3)
    assert np.array_equal(out, expected, equal_nan=True)
    assert cursor[0] == 9
    assert np.array_equal(work, theta)


@compiled
def test_a_kernel_is_compiled_once_for_a_loss_and_again_for_another(theta):
    first, second = make(1.0), make(2.0)
    grid = (np.array([0]), np.array([0.5]), (1.0, -1.0))
    expected = theta[0] + np.array([[0.5, -0.5]])
    assert np.array_equal(evaluator(theta, first, ()).on_grid(*grid), expected)
    before = len(perturb.on_grid.signatures)
    assert np.array_equal(evaluator(theta, first, ()).on_grid(*grid), expected)
    assert len(perturb.on_grid.signatures) == before
    assert np.array_equal(evaluator(theta, second, ()).on_grid(*grid), 2 * expected)
    assert len(perturb.on_grid.signatures) == before + 1


@compiled
def test_kernels_release_the_lock_and_are_not_cached_on_disk():
    assert perturb.on_grid.targetoptions["nogil"]
    assert not perturb.on_grid.stats.cache_path
