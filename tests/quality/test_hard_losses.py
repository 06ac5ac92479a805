"""Coarse, short-scaled, broken and iterated losses: a right gradient is never refuted, a wrong one never passes."""

from __future__ import annotations

import numpy as np
import pytest

import fastcheck
from tests.quality import hard_losses

MODES = ("full", "screen")
DECIDED = {  # share of right gradients that pass, at least; the others are inconclusive
    hard_losses.softplus: 0.97,
    hard_losses.margin: 0.97,
    hard_losses.nine_decimals: 0.97,
    hard_losses.six_digits: 0.0,
    hard_losses.eight_digits: 0.9,
    hard_losses.short_scale: 0.97,
    hard_losses.jump: 0.97,
    hard_losses.kink: 0.97,
    hard_losses.conjugate_gradients: 0.9,
    hard_losses.differential_equation: 0.9,
    hard_losses.fixed_point: 0.9,
}
TOLERANCE = dict.fromkeys(hard_losses.ITERATED, 0.02)  # a loss that stops iterating has another derivative
CALLED_WRONG = [  # once: on one line the rounding of an argument looked like a slope, and the noise like none
    (hard_losses.short_scale, 113, "screen"),
    (hard_losses.short_scale, 123, "full"),
    (hard_losses.short_scale, 190, "full"),
    (hard_losses.short_scale, 221, "screen"),
    (hard_losses.short_scale, 70174, "screen"),  # steps of a few spacings of theta, which the loss rounds itself
    (hard_losses.short_scale, 90324, "screen"),
]


def check(family, seed, mode, factor=1.0):
    loss, gradient, params = family(np.random.default_rng(seed))
    options = {"tolerance": TOLERANCE[family]} if family in TOLERANCE else {}
    with np.errstate(all="ignore"):  # far from theta an exponential may overflow
        return fastcheck.check(loss, lambda p: factor * gradient(p), params, mode=mode, seed=seed, **options)


def examined(family, seeds):
    """Return where a right gradient was refuted, where a wrong one passed, and the share of the right that passed."""
    runs = [(seed, mode) for seed in seeds for mode in MODES]
    right = {run: check(family, *run).verdict for run in runs}
    alarms = [run for run, verdict in right.items() if verdict.refuted]
    missed = [run for run in runs if check(family, *run, factor=-1.0).passed or check(family, *run, factor=1.2).passed]
    return alarms, missed, float(np.mean([verdict.passed for verdict in right.values()]))


@pytest.mark.parametrize(("family", "seed", "mode"), CALLED_WRONG)
def test_right_gradients_that_were_called_wrong(family, seed, mode):
    assert not check(family, seed, mode).verdict.refuted


@pytest.mark.parametrize("family", DECIDED, ids=lambda family: family.__name__)
def test_a_few_of_each(family):
    alarms, missed, _ = examined(family, range(5))
    assert (alarms, missed) == ([], [])


@pytest.mark.slow
@pytest.mark.parametrize("family", DECIDED, ids=lambda family: family.__name__)
def test_100_of_each(family):
    alarms, missed, decided = examined(family, range(1000, 1100))
    assert (alarms, missed) == ([], [])
    assert decided >= DECIDED[family]


@pytest.mark.explore
@pytest.mark.parametrize("family", DECIDED, ids=lambda family: family.__name__)
def test_fresh_ones(family, fresh):
    alarms, missed, _ = examined(family, fresh(20))
    assert (alarms, missed) == ([], [])
