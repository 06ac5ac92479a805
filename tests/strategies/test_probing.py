"""One directional derivative: what is believed, and on what evidence."""

import numpy as np
import pytest

from fastcheck.measure.ladder import Rung, State, _extrapolated, settled
from fastcheck.measure.probes import RATIO

NOISE = 1e-3  # uncertainty at the step 1


def rungs(residual, gap=lambda t: t, count=3, first=1.0):
    """Return what successive steps would measure where the residual and the gap are functions of the step."""
    steps = [first / RATIO**k for k in range(count)]
    return [Rung(t, 1.0, residual(t), NOISE / t, gap(t)) for t in steps]


def test_extrapolation_removes_what_falls_with_the_square():
    long, short = rungs(lambda t: 0.5 + 3 * t**2, count=2)
    assert _extrapolated(long, short).residual == pytest.approx(0.5, rel=1e-12)
    assert _extrapolated(long, short).uncertainty >= short.uncertainty


def test_a_residual_within_its_noise_is_clean_at_once():
    rung, state = settled(rungs(lambda t: 0.5 * NOISE, count=1))
    assert state is State.CLEAN
    assert rung.step == 1


def test_one_step_alone_proves_no_error():
    assert settled(rungs(lambda t: 1.0, count=1)) is None


def test_the_same_residual_at_another_step_is_an_error_and_the_longer_step_is_kept():
    rung, state = settled(rungs(lambda t: 0.5, count=2))
    assert state is State.REPEATED
    assert rung.step == 1


def test_what_two_steps_disagree_about_is_uncertain():
    rung, _ = settled(rungs(lambda t: 0.5 + 1e-3 * t, count=2))
    assert rung.uncertainty == pytest.approx(NOISE + 1e-3 * (1 - 1 / RATIO))


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_a_kink_that_fades_is_no_error(power):
    for count in range(1, 4):
        found = settled(rungs(lambda t: t**power, gap=lambda t: t**power, count=count))
        assert found is None or found[1] is not State.REPEATED


def test_curvature_is_taken_out_and_leaves_nothing():
    assert settled(rungs(lambda t: t**2, count=1)) is None
    _, state = settled(rungs(lambda t: t**2, count=2))
    assert state is State.CLEAN


def test_an_error_under_curvature_is_found_by_extrapolation():
    rung, state = settled(rungs(lambda t: 0.9 + 40 * t**2, count=3))
    assert state is State.REPEATED
    assert abs(rung.residual - 0.9) <= rung.uncertainty


def test_slopes_that_stay_apart_are_a_kink_at_theta():
    _, state = settled(rungs(lambda t: 0.5, gap=lambda t: 0.5, count=2))
    assert state is State.KINK


def test_slopes_far_smaller_than_the_error_are_no_excuse():
    for residual, gap in ((0.5, 0.005), (3.0, 0.05)):
        _, state = settled(rungs(lambda t, residual=residual: residual, gap=lambda t, gap=gap: gap, count=2))
        assert state is State.REPEATED


def test_kinks_of_many_samples_at_once_are_an_excuse_between_nothing_and_the_sum_of_both_slopes():
    _, state = settled(rungs(lambda t: 0.5, gap=lambda t: 0.05, count=2))
    assert state is State.KINK


def test_slopes_that_open_prove_nothing():
    assert settled(rungs(lambda t: 0.5, gap=lambda t: 10 / t, count=3)) is None


def test_failed_evaluations_settle_nothing():
    nan = float("nan")
    assert settled(rungs(lambda t: nan, gap=lambda t: nan, count=3)) is None
    assert np.isnan(_extrapolated(*rungs(lambda t: nan, count=2)).residual)
