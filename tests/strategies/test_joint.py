"""One direction through many blocks: the evaluations do not grow with their number, and nothing hides in the sum."""

import numpy as np
import pytest

import fastcheck
from fastcheck import Verdict
from fastcheck.examples import mlp
from fastcheck.gradients import match_gradient
from fastcheck.judge.coordinates import Judge
from fastcheck.judge.directions import BlockProbes
from fastcheck.losses.python import PythonLoss
from fastcheck.measure.ladder import State
from fastcheck.measure.noise import Noise
from fastcheck.measure.probes import Probe, Probing
from fastcheck.parameters import Parameters
from fastcheck.run import Run
from fastcheck.strategies.screen import screen


def blocks(count, decades=0.0, seed=0):
    """Return loss, gradient and params of many blocks in units of their own, gradients over some decades."""
    rng = np.random.default_rng(seed)
    params = {f"w{i}": rng.normal(size=(3, 4)) * 10.0 ** rng.integers(-2, 3) for i in range(count)}
    A = {name: rng.normal(size=(3, 4)) for name in params}
    unit = {name: np.abs(value).max() for name, value in params.items()}
    size = {name: 10.0 ** rng.uniform(-decades, 0) for name in params}

    def loss(p):
        return float(sum(size[n] * np.sum(np.tanh(A[n] * p[n] / unit[n])) for n in p) / count)

    def gradient(p):
        return {n: size[n] * A[n] / unit[n] / np.cosh(A[n] * p[n] / unit[n]) ** 2 / count for n in p}

    return loss, gradient, params


def screened(loss, gradient, params, **options):
    return fastcheck.check(loss, gradient, params, mode="screen", **options)


@pytest.mark.parametrize("count", [1, 6, 100])
def test_the_evaluations_do_not_depend_on_the_number_of_blocks(count):
    report = screened(*blocks(count))
    assert report.verdict is Verdict.CORRECT
    assert report.evaluations <= 24
    assert max(block.bound for block in report.blocks.values()) <= 1e-6


@pytest.mark.slow
def test_a_thousand_blocks_and_one_wrong_among_them():
    loss, gradient, params = blocks(1000)
    right = screened(loss, gradient, params)
    assert right.verdict is Verdict.CORRECT
    assert right.evaluations <= 64  # a few groups
    wrong = gradient(params)
    wrong["w617"] = 1.01 * wrong["w617"]
    report = screened(loss, wrong, params)
    assert [name for name, block in report.blocks.items() if block.verdict.refuted] == ["w617"]
    assert report.evaluations <= right.evaluations + 60


def test_gradients_over_six_decades_are_bounded_in_groups():
    report = screened(*blocks(200, decades=6))
    assert report.verdict is Verdict.CORRECT
    assert report.evaluations <= 80
    assert all(block.bound <= 1e-4 for block in report.blocks.values())


def test_one_wrong_block_among_gradients_over_six_decades_costs_its_own_search_and_no_more():
    loss, gradient, params = blocks(200, decades=6)
    wrong = gradient(params)
    wrong["w33"] = 1.01 * wrong["w33"]
    report = screened(loss, wrong, params)
    assert [name for name, block in report.blocks.items() if block.verdict.refuted] == ["w33"]
    assert report.evaluations <= 150


def test_blocks_of_a_deep_net_are_grouped_by_their_magnitude():
    """41 layers of relu, whose gradients fall by six decades on the way back: the later half is bounded in groups."""
    net = mlp((32,) * 41 + (10,), batch=32, activation="relu", seed=1)
    layout = Parameters.of(net.params)
    theta, gradient = layout.flatten(net.params), match_gradient(net.claimed(), layout)
    loss = PythonLoss(net.loss, layout, theta, net.args)
    noise = Noise(1e-16, 1e-16, True)
    plan = Probing(loss, gradient, loss.base(), noise, Judge(1e-7, 0.9999, 1000), Run(), 0)
    found = screen(plan, list(enumerate(layout.blocks)), 0.9999)
    joint = [one for one in found if one.joint]
    assert len(joint) >= 24
    assert all(one.verdict is Verdict.CORRECT for one in joint)
    assert max(one.bound for one in joint) <= 3e-6


@pytest.mark.parametrize("decades", [0, 6])
@pytest.mark.parametrize("seed", range(6))
def test_one_wrong_coordinate_in_any_block_is_found_and_nothing_else(seed, decades):
    loss, gradient, params = blocks(30, decades, seed)
    rng = np.random.default_rng(seed)
    name, index = f"w{rng.integers(30)}", (int(rng.integers(3)), int(rng.integers(4)))
    wrong = gradient(params)
    wrong[name][index] *= 1.5
    report = screened(loss, wrong, params, seed=seed)
    assert [one.name for one in report.wrong] == [f"{name}[{index[0]}, {index[1]}]"], report
    assert {n for n, block in report.blocks.items() if not block.verdict.passed} == {name}


def test_errors_that_cancel_along_a_direction_are_found_along_others():
    """Two blocks whose errors are the same in size and opposite in sign."""
    loss, gradient, params = blocks(2)
    wrong = gradient(params)
    wrong["w0"], wrong["w1"] = 1.01 * wrong["w0"], 0.99 * wrong["w1"]
    report = screened(loss, wrong, params)
    assert {name for name, block in report.blocks.items() if block.verdict.refuted} == {"w0", "w1"}


def test_a_joint_bound_holds():
    """The bound of each block against its error, over many draws: at 99.99% none may be exceeded."""
    loss, gradient, params = blocks(8)
    right = gradient(params)
    for seed in range(60):
        rng = np.random.default_rng(seed)
        errors = {n: 1e-9 * np.linalg.norm(g) * rng.standard_normal(g.shape) for n, g in right.items()}
        report = screened(loss, {n: g + errors[n] for n, g in right.items()}, params, seed=seed)
        for name, block in report.blocks.items():
            assert np.linalg.norm(errors[name]) <= block.bound * np.linalg.norm(right[name]), (seed, name)


def test_blocks_in_units_far_apart_are_seen_as_well_as_is_said():
    """A gradient that is small for its unit is not next to nothing: slopes are compared."""
    units = {f"w{decade}": 10.0**decade for decade in (-8, -4, 0, 4, 8)}
    rng = np.random.default_rng(0)
    params = {name: unit * rng.normal(size=(2, 3)) for name, unit in units.items()}

    def loss(p):
        return float(sum(np.sum(np.tanh(p[n] / unit)) for n, unit in units.items()))

    right = {n: 1 / np.cosh(params[n] / unit) ** 2 / unit for n, unit in units.items()}
    report = screened(loss, right, params)
    assert report.passed
    for name, block in report.blocks.items():
        assert block.detectable < 1e-5
        found = screened(loss, {**right, name: (1 + 1.2 * block.detectable) * right[name]}, params)
        assert [n for n, one in found.blocks.items() if one.verdict.refuted] == [name]


def singled_out(residual, uncertainty, step=1e-2):
    return Probe(0, step, 1.0, residual, uncertainty / 8, uncertainty, State.REPEATED, 0)


@pytest.mark.parametrize(
    ("accused", "acquitted"),
    [
        (None, True),
        (singled_out(1e-3, 1e-4), True),  # the directions over the block alone are sharper
        (singled_out(5e-7, 1e-8), False),  # they are not, and it may be so
        (singled_out(2e-6, 1e-8), True),  # the same direction with a shorter step leaves no room for it
        (singled_out(2e-6, 1e-8, step=1e-4), False),  # that was the shorter one
    ],
)
def test_what_acquits_a_block_that_was_singled_out(accused, acquitted):
    block = Parameters.of(np.ones(3)).blocks[0]
    one = BlockProbes(0, block, 1.0, 1e-7, 1e-4, 0.9999, 0.9999, 0.0, singled_out=accused)
    one.probes = [Probe(k, 1e-3, 1.0, 0.0, 1e-7, 1e-6, State.CLEAN, 0) for k in range(3)]
    one.bound_of_error = 1e-5  # enough for a pass, though not for the tolerance
    assert one.inconclusive is not acquitted
