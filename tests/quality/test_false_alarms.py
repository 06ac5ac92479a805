"""No correct gradient is called wrong, and no planted error above what the report says it can see is missed.

Each run's chance of a false alarm by noise alone is at most 1 - confidence = 1e-4 by construction; over 200 nets a
single alarm would have a probability of at most 0.02.
"""

from __future__ import annotations

import numpy as np
import pytest

import fastcheck
from fastcheck.parameters import Parameters
from fastcheck.verdict import Verdict
from tests.quality.nets import random_net

ALARMS = (Verdict.WRONG, Verdict.SUSPICIOUS)
FEW, ALL = range(24), range(200)


def check(net, gradient=None, **options):
    with np.errstate(all="ignore"):
        gradient = net.gradient(net.params) if gradient is None else gradient
        if not all(np.isfinite(g).all() for g in gradient.values()):
            pytest.skip("the net overflows at its parameters")
        try:
            return fastcheck.check(net.loss, gradient, net.params, **options)
        except fastcheck.LossError as error:  # losses of 1e65
            pytest.skip(f"the net is refused: {error}")


def lost_to_rounding(net):
    """Return the relative error of the gradient that comes in the precision of the parameters."""
    layout = Parameters.of(net.params)
    with np.errstate(all="ignore"):
        g = layout.flatten(net.gradient(net.params))
        exact = layout.flatten(net.gradient({name: value.astype(np.float64) for name, value in net.params.items()}))
    return np.linalg.norm(g - exact) / np.linalg.norm(exact)


def alarms(seeds, **options):
    """Return the nets whose gradient was called wrong though it is right, or as right as half its digits say."""
    called = [seed for seed in seeds if check(random_net(seed), **options).verdict in ALARMS]
    return [seed for seed in called if not lost_to_rounding(random_net(seed)) > 1e-3]


def test_few_correct_nets_raise_no_alarm():
    assert alarms(FEW, mode="full") == []


@pytest.mark.slow
def test_200_correct_nets_raise_no_alarm():
    assert alarms(ALL, mode="full") == []


@pytest.mark.slow
def test_200_correct_nets_sampled_raise_no_alarm():
    assert alarms(ALL, mode="sample", samples=40) == []


@pytest.mark.parametrize("seed", FEW)
def test_a_float64_net_passes_or_says_what_it_could_not_see(seed):
    report = check(random_net(seed, precision="float64"), mode="full")
    assert report.passed or report.uncertainty > 1e-4 or not report.difference >= 0


def planted_coordinate(seed):
    """Plant 1% in the coordinate of median size; return the report, the block, and whether it was the only find."""
    net = random_net(seed, precision="float64")
    layout = Parameters.of(net.params)
    with np.errstate(all="ignore"):
        g = layout.flatten(net.gradient(net.params))
    if not np.isfinite(g).all() or not np.any(g):
        pytest.skip("no finite gradient")
    place = int(np.flatnonzero(np.abs(g) == np.sort(np.abs(g[g != 0]))[np.count_nonzero(g) // 2])[0])
    g[place] *= 1.01
    block = layout.block_at(place)
    report = check(net, layout.unflatten(g), mode="full")
    found = [(c.block, c.index) for c in report.wrong]
    exactly = found == [(block.name, block.multi_index(place))]
    if not found and report.blocks[block.name].detectable == np.inf:  # seen in the block as a whole only
        exactly = [name for name, b in report.blocks.items() if b.verdict in ALARMS] == [block.name]
    return report, report.blocks[block.name], exactly


def planted_block(seed):
    net = random_net(seed, precision="float64")
    layout = Parameters.of(net.params)
    with np.errstate(all="ignore"):
        g = layout.flatten(net.gradient(net.params))
    if not np.isfinite(g).all():
        pytest.skip("no finite gradient")
    block = layout.blocks[seed % len(layout.blocks)]
    g[block.slice] *= 1.001
    report = check(net, layout.unflatten(g), mode="full")
    alarmed = [name for name, b in report.blocks.items() if b.verdict in ALARMS]
    return report, report.blocks[block.name], alarmed == [block.name]


@pytest.mark.parametrize("plant", [planted_coordinate, planted_block])
@pytest.mark.parametrize("seed", FEW)
def test_planted_errors_are_found_and_nothing_else(seed, plant):
    report, block, exactly = plant(seed)
    assert exactly or (block.verdict is Verdict.INCONCLUSIVE and block.detectable == np.inf), str(report)


@pytest.mark.slow
@pytest.mark.parametrize("plant", [planted_coordinate, planted_block])
def test_planted_errors_in_200_nets(plant):
    found, hidden = 0, 0
    for seed in ALL:
        try:
            _, block, exactly = plant(seed)
        except pytest.skip.Exception:
            continue
        hidden += block.verdict is Verdict.INCONCLUSIVE
        found += exactly
        assert exactly or block.verdict is Verdict.INCONCLUSIVE, seed
    assert found > 4 * hidden
