"""The reader of step ladders: what stands at a coordinate, from losses alone."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fastcheck.estimates import Status
from fastcheck.losses.python import PythonLoss
from fastcheck.measure.ladder import resolve
from fastcheck.measure.looks import LADDER, look_again
from fastcheck.parameters import Parameters
from fastcheck.run import Run

H = 2.0**-10 * np.array(LADDER)


def read(f, at=0.0, error=1e-16, h=H):
    ahead, behind = (at + h) - at, at - (at - h)
    return resolve(ahead, behind, *(np.array([f(at + s) for s in side]) for side in (h, -h)), f(at), error)


def test_a_smooth_function():
    seen = read(math.sin, 0.3, 4e-16)
    assert seen.status is Status.SMOOTH
    assert abs(seen.value - math.cos(0.3)) <= seen.uncertainty < 1e-9


def test_a_loss_that_is_huge_far_away_has_all_its_digits_close_by():
    """A square of 1e16 at the longest steps, whose spacing is no noise of the shortest ones."""
    at = 1.5
    seen = read(lambda x: 0.1 * x * x + math.tanh(x), at, 4e-16, 2.0**27 * 8.0 ** -np.arange(15.0))
    assert abs(seen.value - (0.2 * at + 1 - math.tanh(at) ** 2)) <= seen.uncertainty < 1e-4


def test_a_noise_that_was_measured_too_small_is_found_out():
    # Of 200 ladders with a thousand times the noise that was measured, the uncertainty covers the error in all but two.
    missed = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        seen = read(lambda x, rng=rng: math.sin(0.3 + x) + 1e-10 * rng.standard_normal(), error=1e-13)
        missed += abs(seen.value - math.cos(0.3)) > seen.uncertainty
    assert missed <= 2


def test_kinks_that_the_noise_hides_are_allowed_for():
    # Of 200 ladders over 3,000 kinks in single precision, the uncertainty covers the error in all but two.
    missed = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        places, bends = rng.uniform(-1, 1, 3000), rng.normal(size=3000) / 50

        def f(x, places=places, bends=bends):
            return float(np.float32(1 + math.sin(x) + np.sum(bends * (np.abs(x - places) - np.abs(places)))))

        seen = read(f, error=1e-7, h=2.0**-4 * np.array(LADDER))
        missed += abs(seen.value - (1 - np.sum(bends * np.sign(places)))) > seen.uncertainty
    assert missed <= 2


def test_stairs_that_one_coordinate_climbs_alone():
    # J has the same bits at every short step: no evidence of a derivative of zero.
    seen = read(lambda x: round(0.7 * x + 0.1234561, 6), h=2.0**-9 * np.array(LADDER))
    assert abs(seen.value - 0.7) <= seen.uncertainty < 0.1


def test_a_unit_that_is_dead_near_theta_has_the_slope_zero():
    seen = read(lambda x: 1.0 + max(0.0, x - 2.0**-9), h=H)
    assert (seen.value, seen.uncertainty < 1e-9) == (0.0, True)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_slopes_at_a_kink_are_limits(scale):
    seen = read(lambda t: min(t**2, (t - 2 * scale) ** 2), scale, 1e-16 * scale**2, scale * H)
    assert seen.status is Status.KINK
    assert seen.left == pytest.approx(2 * scale, rel=1e-9)
    assert seen.right == pytest.approx(-2 * scale, rel=1e-9)
    assert abs(seen.left - 2 * scale) <= seen.uncertainty < 1e-6 * scale


def test_a_kink_near_theta_is_none_at_theta():
    # In single precision: the gap of the slopes stays down to the kink and then closes, as far as the noise tells.
    seen = read(lambda x: float(np.float32(1 + x + 0.2 * abs(x - 6e-5))), error=1e-7, h=2.0**-4 * np.array(LADDER))
    assert seen.status is not Status.KINK
    assert abs(seen.value - 0.8) <= seen.uncertainty


def test_a_jump():
    assert read(lambda x: 2 * x + (x >= 0)).status is Status.JUMP


def look(f, at, step, error=1e-15, wanted=None):
    layout = Parameters.of(np.array([at]))
    evaluator = PythonLoss(lambda t: float(f(t[0])), layout, layout.theta_of(np.array([at])))
    with Run() as run:
        (seen,) = look_again(run, evaluator, evaluator.base(), np.array([0]), np.array([step]), error, wanted)
    return seen, evaluator.evaluations


def test_an_ordinary_ladder_costs_16_evaluations():
    seen, evaluations = look(math.sin, 0.3, 2.0**-10)
    assert seen.status is Status.SMOOTH
    assert evaluations == 17


def test_a_ladder_goes_up_until_the_loss_moves():
    seen, _ = look(lambda x: round(math.sin(x), 9), 0.3, 2.0**-30, 0.5e-9)
    assert abs(seen.value - math.cos(0.3)) <= seen.uncertainty < 1e-2


def test_a_ladder_goes_up_until_it_tells_what_is_asked():
    short, evaluations = look(math.sin, 0.3, 2.0**-30)
    longer, more = look(math.sin, 0.3, 2.0**-30, wanted=np.array([1e-9]))
    assert more == evaluations + 8
    assert abs(longer.value - math.cos(0.3)) <= longer.uncertainty < 0.1 * short.uncertainty


def test_no_jump_is_believed_before_the_shortest_steps():
    # Far away the bump is a constant: the ladder from the size of theta sees J change by the same amount at each step.
    seen, _ = look(lambda x: math.exp(-0.5 * (x - 1e9) ** 2), 1e9 + 0.5, 1e9, 1e-16)
    assert seen.status is not Status.JUMP
    assert abs(seen.value + 0.5 * math.exp(-0.125)) <= seen.uncertainty


@pytest.mark.parametrize("error", [1e-18, 1e-15, 1e-13])
@pytest.mark.parametrize("name", ["root", "entropy"])
def test_a_vertical_tangent_is_no_kink_and_has_no_derivative(name, error):
    """Beyond its end the function is the parabola through three points, as beyond a bound; noise hides short steps."""
    f = {"root": np.sqrt, "entropy": lambda x: x * np.log(np.maximum(x, 1e-300))}[name]
    for seed in range(20):
        noise = error * np.random.default_rng(seed).uniform(-0.3, 0.3, (2, len(H)))
        plus, minus = f(H) + noise[0], -3 * f(H) + f(2 * H) + noise[1]
        assert resolve(H, H, plus, minus, 0.0, error).status is Status.UNRESOLVED


def test_a_ladder_that_still_changes_at_its_shortest_step_tells_nothing():
    """J varies on a scale of 1e-9, and no step was that short: the quotients grow all the way down."""
    ahead = 8.0 ** -np.arange(1, 9)
    plus, minus = (np.sin(0.4 + s * ahead / 1e-9) for s in (1, -1))
    found = resolve(ahead, ahead, plus, minus, float(np.sin(0.4)), 1e-15)
    assert found.status is Status.UNRESOLVED
    assert math.isinf(found.uncertainty)
