"""The noise of a loss, against noise that was put there. The probabilities are over the seeds, which are fixed."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fastcheck.losses.python import PythonLoss
from fastcheck.measure import noise
from fastcheck.measure.grain import grain_of
from fastcheck.measure.noise import difference_table_noise, measure_noise, scale_of_blocks
from fastcheck.parameters import Parameters
from tests.naive import moving_difference_table

POINTS = 7


@pytest.mark.parametrize("level", [1e-12, 1e-6, 1.0])
def test_white_noise_on_a_smooth_function(level):
    # Of 500 draws with 7 points: the level is found within a factor of 4 in all but a few, and is right in the median.
    rng = np.random.default_rng(1)
    x = 1e-4 * np.arange(POINTS) * level
    found = np.array(
        [difference_table_noise(np.sin(0.3 + x) + level * rng.standard_normal(POINTS)) for _ in range(500)]
    )
    answered = found[np.isfinite(found) & (found > 0)] / level
    assert len(answered) > 350
    assert np.mean((answered > 0.25) & (answered < 4)) > 0.98
    assert 0.7 < np.median(answered) < 1.4


def test_uniform_noise_too():
    rng = np.random.default_rng(2)
    found = np.array([difference_table_noise(1 + rng.uniform(-1, 1, POINTS)) for _ in range(500)])
    assert np.median(found[np.isfinite(found)]) == pytest.approx(1 / math.sqrt(3), rel=0.3)


def test_a_smooth_function_has_none():
    for function in (np.sin, np.exp, lambda x: x**5):
        assert math.isnan(difference_table_noise(function(np.linspace(0.5, 1.5, POINTS))))


def test_a_grid_too_fine_for_the_loss_to_move():
    assert difference_table_noise(np.full(POINTS, 3.0)) == 0.0
    assert difference_table_noise(np.array([1.0, 1, 1, 2, 2, 2, 2])) == 0.0


def test_weights_are_those_of_the_source():
    # Section 5 of the source: E[(Delta^k)^2] gamma_k = sigma^2 with gamma_k = (k!)^2 / (2k)!. Over many long tables of
    # unit noise the mean square of each column times gamma_k is 1, within 5 standard errors.
    rng = np.random.default_rng(3)
    for k in range(1, 5):
        gamma = math.factorial(k) ** 2 / math.factorial(2 * k)
        columns = [moving_difference_table(rng.standard_normal(12).tolist())[k] for _ in range(600)]
        assert gamma * np.mean(np.square(columns)) == pytest.approx(1, abs=0.12)


def test_twin_of_the_table():
    rng = np.random.default_rng(4)
    for _ in range(50):
        values = 1 + 1e-9 * rng.standard_normal(POINTS)
        found = difference_table_noise(values)
        if not found > 0:
            continue
        table = moving_difference_table(values.tolist())
        levels = [
            math.sqrt(math.factorial(k) ** 2 / math.factorial(2 * k) * float(np.mean(np.square(table[k]))))
            for k in range(1, POINTS - 1)
        ]
        assert min(abs(found / level - 1) for level in levels) < 1e-6


def evaluator(loss, params):
    layout = Parameters.of(params)
    return PythonLoss(loss, layout, layout.flatten(params))


@pytest.mark.parametrize("level", [1e-13, 1e-10, 1e-6])
def test_noise_of_a_noisy_loss(level, first_seed):
    # Of 40 losses with a noise of their own, the level is within a factor of 4 for at least 36.
    good = 0
    for seed in range(first_seed, first_seed + 40):
        rng = np.random.default_rng(seed)
        noise = np.random.default_rng(seed + 1000)
        loss = evaluator(lambda t, noise=noise: float(np.sum(np.sin(t))) + level * noise.standard_normal(), np.ones(10))
        found = measure_noise(loss, loss.base(), rng)
        good += level / 4 < found.level < 4 * level
        assert found.resolved
    assert good >= 36


def test_noise_of_rounding():
    x = np.linspace(0.1, 1, 1000)
    loss = evaluator(lambda t: float(np.mean(np.sin(t * x))), np.array([0.7]))
    found = measure_noise(loss, loss.base(), np.random.default_rng(0))
    assert 1e-18 < found.relative < 1e-14
    assert found.kind == "float64 rounding"
    assert found.digits >= 14


def test_noise_of_float32():
    x = np.linspace(0.1, 1, 1000, dtype=np.float32)
    loss = evaluator(lambda t: float(np.mean(np.sin(np.float32(t[0]) * x + np.float32(t[1])))), np.array([0.7, 0.2]))
    found = measure_noise(loss, loss.base(), np.random.default_rng(0))
    assert 1e-9 < found.relative < 1e-5
    assert found.grain == pytest.approx(2.0**-24)
    assert "float32" in found.kind


def test_a_constant_loss_has_the_noise_of_its_own_rounding():
    loss = evaluator(lambda t: 3.0, np.ones(3))
    found = measure_noise(loss, 3.0, np.random.default_rng(0))
    assert 0 < found.level < 1e-14


def test_scales_of_blocks():
    loss = evaluator(lambda t: 1.0, {"a": np.array([3.0, 4.0]), "zero": np.zeros(2), "empty": np.zeros(0)})
    whole = math.sqrt(25 / 4)
    assert scale_of_blocks(loss).tolist() == [math.sqrt(12.5), whole, whole]
    assert scale_of_blocks(evaluator(lambda t: 1.0, np.zeros(3))).tolist() == [1.0]


@pytest.mark.parametrize("seed", range(6))
def test_a_short_length_scale_is_no_noise(seed):
    # Both lose digits to the rounding of theta, and are looked at on wider grids, which see their shape.
    wave = evaluator(lambda t: float(np.sin(1e4 * t).sum()), np.random.default_rng(2).standard_normal(10))
    assert measure_noise(wave, wave.base(), np.random.default_rng(seed)).level < 1e-9
    pole = evaluator(lambda t: float(np.sum(1 / (t - 1))), 1 + 10.0 ** -np.arange(1, 8))
    assert measure_noise(pole, pole.base(), np.random.default_rng(seed)).level < 1e2


def test_a_smooth_loss_has_no_grain():
    # Even moves on an even grid are a lattice too: one value at the golden section tells. None of 200.
    for seed in range(200):
        rng = np.random.default_rng(seed)
        a, b = rng.normal(size=(2, 5))
        loss = evaluator(lambda t, a=a, b=b: float(a @ np.sin(t + b)), rng.normal(size=5))
        assert measure_noise(loss, loss.base(), rng).grain == 0


@pytest.mark.parametrize(
    ("printed", "grain"),
    [
        (lambda x: round(x, 9), 1e-9),
        (lambda x: float(f"{x:.6g}"), 1e-6),
        (lambda x: 3.7e-8 * math.floor(x / 3.7e-8) + 0.1, 3.7e-8),
        (lambda x: (x + 1e6) - 1e6, 2.0**-33),
    ],
)
def test_the_grain_of_a_printed_loss(printed, grain):
    # Of 40 directions the grain is found in all, and that it is all of the noise in at least 36.
    x = np.array([0.1, 0.2, 0.05])
    exact = 0
    for seed in range(40):
        loss = evaluator(lambda t: printed(float(np.sin(t) @ np.ones(3))), x)
        found = measure_noise(loss, loss.base(), np.random.default_rng(seed))
        quanta = found.grain / grain  # where all values that were seen are even, it is two
        assert quanta == pytest.approx(round(quanta), rel=1e-3)
        assert 1 <= round(quanta) <= 4
        exact += found.level < 0.1 * grain
    assert exact >= 36


def test_the_words_name_the_grain():
    loss = evaluator(lambda t: round(float(np.sum(np.sin(t))), 9), np.array([0.3, 0.4]))
    assert measure_noise(loss, loss.base(), np.random.default_rng(0)).kind == (
        "J moves in steps of 1e-09: printed with 9 decimals or 9 digits?"
    )


@pytest.mark.parametrize("center", [1e7, 2459000.5, 1.7e9])
def test_a_steep_loss_at_large_parameters_is_not_noisy(center):
    # The places of a grid are rounded to floats: a steep J would seem to scatter by its slope times their spacing.
    for seed in range(20):
        loss = evaluator(lambda t: float(np.sin((t[0] - center) / 0.3)), np.array([center + 0.1]))
        assert measure_noise(loss, loss.base(), np.random.default_rng(seed)).level < 1e-14


def test_the_uneven_place_and_its_weights():
    # A polynomial of degree six is what its seven values say, at the uneven place too.
    place = noise.PLACES[noise.UNEVEN_ONE - 1]
    for power in range(POINTS):
        values = np.arange(POINTS, dtype=np.float64) ** power
        assert noise.INTERPOLATED @ values == pytest.approx(place**power, rel=1e-12)


def test_a_loss_that_moves_by_whole_roundings_is_noisy_all_the_same():
    # log(1 + tiny) moves in steps of 2.2e-16; for one direction in ten about by nearly as many from place to place, and
    # an even grid then sees no noise. Of 300 losses of one to three terms at most 6 are thought better than they are.
    thought_better = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        x = rng.uniform(8, 20, size=rng.integers(1, 4))
        loss = evaluator(lambda t: float(np.mean(np.log(1 + np.exp(-t)))), x)
        thought_better += measure_noise(loss, loss.base(), rng).typical < 0.05 * 2.0**-52 / len(x)
    assert thought_better <= 6


@pytest.mark.parametrize("quanta", [[2660, 2659, 2660, 1016, 1643, 2660, 2659], [771, 771, 771, 295, 476, 771, 771]])
def test_the_grain_of_moves_without_a_short_one(quanta):
    grain = 2.0**-52 * (1 - 6e-6)  # of log(1 + x) near 6e-6, whose values are known to 1e-21
    values = 6e-6 + grain * np.cumsum([0, *quanta])
    assert grain_of([values]) == pytest.approx(grain, rel=1e-6)
