"""Programs of random array operations in random units: jax's gradient is never refuted, what is planted never passes.

Each run raises a false alarm, and misses an error above what it calls detectable, with probability 1e-4 at most. A
screen that chance let pass an error sees it along other directions: what passes twice is no chance.
"""

from __future__ import annotations

import numpy as np
import pytest

import fastcheck
from tests.quality.programs import random_program

pytest.importorskip("jax")

ABOVE = 1.2
MODES = ("full", "screen")


def check(program, gradient, mode, seed):
    with np.errstate(all="ignore"):  # far from theta a program may overflow
        return fastcheck.check(program.loss, gradient, program.params, mode=mode, seed=seed)


def errors(rng, g, size):
    """Yield errors of one block of at least a norm: in one coordinate, of a factor, of one sign, of all signs."""
    single = np.zeros(g.size)
    single[rng.integers(g.size)] = rng.choice([-1.0, 1.0]) * size
    yield single.reshape(g.shape)
    yield g * rng.choice([-1.0, 1.0]) * size / np.linalg.norm(g)
    large = np.flatnonzero(2 * np.abs(g.ravel()) >= size)
    if len(large):
        flipped = np.zeros(g.size)
        place = rng.choice(large)
        flipped[place] = -2 * g.ravel()[place]
        yield flipped.reshape(g.shape)
    if 2 * np.linalg.norm(g) >= size:
        yield -2 * g


def examined(seeds):
    """Return where a right gradient was refuted, where a planted error passed, and how many were planted."""
    alarms, missed, planted = [], [], 0
    for seed in seeds:
        program, rng = random_program(seed), np.random.default_rng((seed, 1))
        right = program.gradient(program.params)
        for mode in MODES:
            report = check(program, program.gradient, mode, seed)
            if report.verdict.refuted:
                alarms.append((seed, mode))
                continue
            names = [n for n, block in report.blocks.items() if np.isfinite(block.detectable) and right[n].any()]
            for name in rng.permutation(names)[:1]:
                size = ABOVE * report.blocks[name].detectable * np.linalg.norm(right[name])
                for error in errors(rng, right[name], size):
                    planted += 1
                    wrong = {**right, name: right[name] + error}
                    if passes(program, wrong, name, mode, seed) and passes(program, wrong, name, mode, seed + 10**6):
                        missed.append((seed, mode, name))
    return alarms, missed, planted


def passes(program, wrong, name, mode, seed):
    report = check(program, wrong, mode, seed)
    return report.passed or report.blocks[name].verdict.passed


# found by exploring: units in which one gradient is 1e-6 of another, a softmax whose gradient is its rounding
SEEN = (15, 45, 426)


def test_a_few_programs():
    alarms, missed, planted = examined([*range(8), *SEEN])
    assert (alarms, missed) == ([], [])
    assert planted > 40


@pytest.mark.slow
def test_300_programs():
    alarms, missed, planted = examined(range(1000, 1300))
    assert (alarms, missed) == ([], [])
    assert planted > 2000


@pytest.mark.explore
def test_fresh_programs(fresh):
    alarms, missed, _ = examined(fresh(60))
    assert (alarms, missed) == ([], [])


def test_the_programs_are_what_they_say():
    """The gradient is that of the loss: along a direction, of units of each block's own, in all of 20."""
    for seed in range(20):
        program = random_program(seed)
        assert 2 <= len(program.steps) <= 12
        rng = np.random.default_rng(seed)
        move = {name: unit * rng.normal(size=program.params[name].shape) for name, unit in program.units.items()}
        slope = sum(float(np.sum(g * move[name])) for name, g in program.gradient(program.params).items())
        h = 2.0**-20
        ends = [program.loss({n: v + s * h * move[n] for n, v in program.params.items()}) for s in (1, -1)]
        assert (ends[0] - ends[1]) / (2 * h) == pytest.approx(slope, rel=1e-3, abs=1e-6 * abs(program.scale))
