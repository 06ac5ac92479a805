"""No correct gradient is called wrong, and no planted error above what the report says it can see is missed.

Each run's chance of a false alarm by noise alone is at most 1 - confidence = 1e-4 by construction; over 200 nets a
single alarm would have a probability of at most 0.02.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import fastcheck
from fastcheck.examples import mlp
from fastcheck.judge.verdict import Verdict
from fastcheck.networks import Network
from fastcheck.parameters import Parameters
from tests.quality.nets import random_net
from tests.zoo import train

ALARMS = (Verdict.WRONG, Verdict.SUSPICIOUS)
FEW, ALL = range(24), range(200)
TOO_LARGE = [166]  # in float64: a loss of 1e65, whose uncertainties would leave the numbers
FLAT = [145, 160]  # in float64: a gradient of zeros, in which no coordinate can be planted


class Refused(Exception):
    """The net overflows at its parameters, or has nothing to plant in."""


def gradient_of(net):
    with np.errstate(all="ignore"):
        gradient = net.gradient(net.params)
    if not all(np.isfinite(g).all() for g in gradient.values()):
        raise Refused("it overflows at its parameters")
    return gradient


def check(net, gradient=None, **options):
    gradient = gradient_of(net) if gradient is None else gradient
    try:
        with np.errstate(all="ignore"):
            return fastcheck.check(net.loss, gradient, net.params, **options)
    except fastcheck.LossError as error:
        raise Refused(str(error)) from error


def step_quantisation(net):
    """Return the relative error of the gradient that comes in the precision of the parameters."""
    layout = Parameters.of(net.params)
    with np.errstate(all="ignore"):
        g = layout.flatten(net.gradient(net.params))
        exact = layout.flatten(net.gradient({name: value.astype(np.float64) for name, value in net.params.items()}))
    return np.linalg.norm(g - exact) / np.linalg.norm(exact)


def alarms(seeds, precision=None, **options):
    """Return the nets whose gradient was called wrong though it is right to half its digits, and those refused."""
    called, refused = [], []
    for seed in seeds:
        net = random_net(seed, precision=precision)
        try:
            alarmed = check(net, **options).verdict in ALARMS
        except Refused:
            refused.append(seed)
        else:
            if alarmed and not step_quantisation(net) > 1e-3:
                called.append(seed)
    return called, refused


CALLED_WRONG = [  # once: kinks at every scale, some of them closer to theta than the noise lets see
    (876984447, None, "full"),
    (876984422, None, "full"),
    (876984422, "float32_inside", "screen"),
    (876984311, "float32_inside", "full"),
    (674636114, "float32_inside", "full"),
    (876984323, "float32_inside", "full"),
    (876984323, "float32_inside", "screen"),
    (876984387, "float32_inside", "full"),
    (876984387, "float32_inside", "screen"),
    (63, "float32_inside", "screen"),
]


@pytest.mark.parametrize(("seed", "precision", "mode"), CALLED_WRONG)
def test_correct_nets_that_were_called_wrong(seed, precision, mode):
    assert alarms([seed], precision, mode=mode) == ([], [])


def test_few_correct_nets_raise_no_alarm():
    assert alarms(FEW, mode="full") == ([], [])


@pytest.mark.slow
def test_200_correct_nets_raise_no_alarm():
    assert alarms(ALL, mode="full") == ([], [])


@pytest.mark.slow
def test_200_correct_nets_sampled_raise_no_alarm():
    assert alarms(ALL, mode="sample", samples=40) == ([], [])


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["full", "screen"])
def test_100_correct_nets_with_float32_inside_raise_no_alarm(mode):
    called, refused = alarms(range(100), "float32_inside", mode=mode)
    assert called == []
    assert len(refused) <= 5


@pytest.mark.explore
@pytest.mark.parametrize("mode", ["full", "screen"])
@pytest.mark.parametrize("precision", [None, "float32_inside"])
def test_fresh_correct_nets_raise_no_alarm(precision, mode, fresh):
    called, refused = alarms(fresh(100), precision, mode=mode)
    assert called == []
    assert len(refused) <= 5


@pytest.mark.parametrize("seed", FEW)
def test_a_float64_net_passes_or_says_what_it_could_not_see(seed):
    net = random_net(seed, precision="float64")
    report = check(net, mode="full")
    unchecked = {finding.block for finding in report.findings if finding.kind == "unchecked"}
    assert {name for name, block in report.blocks.items() if not block.verdict.passed} == unchecked
    assert report.passed == (not unchecked)
    allowed = check(net, mode="full", unchecked="allow")
    assert allowed.passed or allowed.uncertainty > 1e-4 or not allowed.difference >= 0


FAINT = 1e-14  # of the norm of a block: 1% of such a derivative is less than a rounding of the others


def planted_coordinate(seed):
    """Plant 1% in the coordinate of median size; return the report, the block, and whether it was the only find."""
    net = random_net(seed, precision="float64")
    layout = Parameters.of(net.params)
    g = layout.flatten(gradient_of(net))
    if not np.any(g):
        raise Refused("no coordinate has a gradient")
    place = int(np.flatnonzero(np.abs(g) == np.sort(np.abs(g[g != 0]))[np.count_nonzero(g) // 2])[0])
    block = layout.block_at(place)
    if abs(g[place]) < FAINT * np.linalg.norm(g[block.slice]):
        raise Refused("a derivative that is nothing beside those of its block")
    g[place] *= 1.01
    report = check(net, layout.unflatten(g), mode="full")
    found = [(c.block, c.index) for c in report.wrong]
    exactly = found == [(block.name, block.multi_index(place))]
    if not found and report.blocks[block.name].detectable == np.inf:  # seen in the block as a whole only
        exactly = [name for name, b in report.blocks.items() if b.verdict in ALARMS] == [block.name]
    return report, report.blocks[block.name], exactly


def planted_block(seed):
    """Plant 0.1% in a block that has a gradient; return the report, the block, and whether it was the only find."""
    net = random_net(seed, precision="float64")
    layout = Parameters.of(net.params)
    g = layout.flatten(gradient_of(net))
    blocks = [block for block in layout.blocks if g[block.slice].any()]
    if not blocks:
        raise Refused("no block has a gradient")
    block = blocks[seed % len(blocks)]
    g[block.slice] *= 1.001
    report = check(net, layout.unflatten(g), mode="full")
    alarmed = [name for name, b in report.blocks.items() if b.verdict in ALARMS]
    return report, report.blocks[block.name], alarmed == [block.name]


@pytest.mark.parametrize("plant", [planted_coordinate, planted_block])
@pytest.mark.parametrize("seed", FEW)
def test_planted_errors_are_found_and_nothing_else(seed, plant):
    report, block, exactly = plant(seed)
    assert exactly or (block.verdict is Verdict.INCONCLUSIVE and block.detectable == np.inf), str(report)


def planted_in(seeds, plant):
    """Plant in many nets; return the seeds where the error was found, could not be seen, was missed, and refused."""
    found, hidden, missed, refused = [], [], [], []
    for seed in seeds:
        try:
            _, block, exactly = plant(seed)
        except Refused:
            refused.append(seed)
        else:
            inconclusive = block.verdict is Verdict.INCONCLUSIVE
            (found if exactly else hidden if inconclusive else missed).append(seed)
    return found, hidden, missed, refused


@pytest.mark.slow
@pytest.mark.parametrize("plant", [planted_coordinate, planted_block])
def test_planted_errors_in_200_nets(plant):
    found, hidden, missed, refused = planted_in(ALL, plant)
    assert missed == []
    assert refused == sorted(FLAT + TOO_LARGE)
    assert len(found) > 4 * len(hidden)


@pytest.mark.explore
@pytest.mark.parametrize("plant", [planted_coordinate, planted_block])
def test_planted_errors_in_fresh_nets(plant, fresh):
    found, hidden, missed, refused = planted_in(fresh(60), plant)
    assert missed == []
    assert len(found) > 2 * len(hidden)
    assert len(refused) <= 6


@pytest.mark.parametrize("seed", range(2))
def test_digits_lost_by_cancellation_are_the_block_s_and_no_coordinate_s(seed):
    """Where the loss is 7e-7, p - y keeps ten digits, and the smallest entries of a block hardly any."""
    net = train(mlp((100, 150, 150, 10), batch=32, seed=seed), 300, learning_rate=3e-3)
    X, y, activation, _ = net.args
    params = net.params | {"W3": 1.5 * net.params["W3"]}
    loss = Network.from_params(params, activation=activation, samples="columns").bind(X, y)
    gradient = net.gradient(params, *net.args)
    report = fastcheck.check(loss, gradient, params, mode="full")
    assert report.verdict is Verdict.CORRECT
    assert min(block.difference for block in report.blocks.values()) > 100 * report.uncertainty

    row, column = np.unravel_index(np.argsort(np.abs(gradient["W1"]), axis=None)[10000], (150, 100))
    gradient["W1"][row, column] *= -1
    report = fastcheck.check(loss, gradient, params, mode="full")
    assert [(c.block, c.index) for c in report.wrong] == [("W1", (row, column))]


def of_integers(seed):
    """Return loss, gradient and params of a relu net of integer weights and data, many of its units at their kinks."""
    rng = np.random.default_rng(seed)
    X, y = rng.integers(-2, 3, (20, 5)).astype(float), rng.normal(size=20)
    params = {"W": rng.integers(-2, 3, (5, 7)).astype(float), "b": np.zeros(7), "v": rng.normal(size=7)}

    def loss(p):
        return float(np.mean((np.maximum(X @ p["W"] + p["b"], 0) @ p["v"] - y) ** 2))

    def gradient(p):
        z = X @ p["W"] + p["b"]
        r = 2 * (np.maximum(z, 0) @ p["v"] - y) / 20
        dz = np.outer(r, p["v"]) * (z > 0)
        return {"W": X.T @ dz, "b": dz.sum(0), "v": np.maximum(z, 0).T @ r}

    return loss, gradient, params


def times(gradient, name, factor, p):
    found = gradient(p)
    return found | {name: factor * found[name]}


@pytest.mark.parametrize("mode", ["full", "sample", "screen"])
def test_kinks_that_coincide_are_no_error_and_hide_none(mode):
    for seed in range(12):
        loss, gradient, params = of_integers(seed)
        report = fastcheck.check(loss, gradient, params, mode=mode, seed=seed)
        assert report.verdict not in ALARMS, seed
        located = ("coordinate", "region", "not_located", "unknown")
        assert not [f for f in report.findings if f.kind in located], str(
            report
        )  # nor is it said to be wrong somewhere
        for name, factor in (("W", 1.05), ("b", -1.0)):
            wrong = partial(times, gradient, name, factor)
            assert fastcheck.check(loss, wrong, params, mode=mode, seed=seed).verdict in ALARMS, (seed, name)
