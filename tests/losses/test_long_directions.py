"""Directions that nobody keeps: what the loss sees along them, and what memory a check takes."""

import tracemalloc

import numpy as np
import pytest

import fastcheck
from fastcheck.arrays import PIECE, equal
from fastcheck.losses.evaluator import written
from fastcheck.losses.python import PythonLoss
from fastcheck.measure.noise import EVEN, LONG, PARTS, PLACES, Repeated, generic_direction
from fastcheck.parameters import Parameters


class Drawn:
    def __init__(self, size):
        self.size, self.times = size, 0

    def __len__(self):
        return self.size

    def write(self, out):
        self.times += 1
        out[:] = np.random.default_rng(1).standard_normal(self.size)

    def exact(self, step):
        return False


def evaluator(theta, loss=lambda p: float(np.sum(np.sin(p)))):
    return PythonLoss(loss, Parameters.of(theta), theta)


def test_along_a_direction_that_is_written_the_loss_sees_what_it_does_along_an_array():
    theta, direction = np.linspace(0.5, 2, 700), Drawn(300)
    steps = np.array([1e-3, -1e-3, 0.25, -0.25, 0.125])
    losses = evaluator(theta).along(200, direction, steps)
    expected = evaluator(theta).along(200, written(Drawn(300)), steps)
    np.testing.assert_allclose(losses, expected, rtol=1e-15)
    assert direction.times == 3  # the point on the other side is mirrored


def test_a_point_that_the_loss_has_spoilt_is_not_mirrored():
    def clipped(p):
        np.clip(p, -1.0, 1.0, out=p)
        return float(np.sum(p * np.arange(len(p))))

    theta, steps = np.linspace(-0.9, 0.9, 300), np.array([0.5, -0.5])
    direction = Drawn(300)
    losses = evaluator(theta, clipped).along(0, direction, steps)
    np.testing.assert_array_equal(losses, evaluator(theta, clipped).along(0, written(Drawn(300)), steps))
    assert direction.times == 2


def test_a_direction_through_many_parameters_repeats_and_is_scaled_by_blocks():
    params = {"a": np.full(LONG, 2.0), "b": np.full((300, 5), -0.25), "c": np.logspace(-9, 3, 1000)}
    layout = Parameters.of(params)
    loss = PythonLoss(lambda p: 0.0, layout, layout.flatten(params))
    direction = generic_direction(loss, np.random.default_rng(0))
    assert isinstance(direction, Repeated)
    values = written(direction)
    period = len(direction.drawn)
    assert np.array_equal(values[:LONG], 2 * np.resize(direction.drawn, LONG))
    assert np.array_equal(values[LONG : LONG + 1500], 0.25 * np.resize(direction.drawn, layout.size)[LONG:][:1500])
    assert np.array_equal(values[-1000:], params["c"] * np.resize(direction.drawn, layout.size)[-1000:])
    assert direction.largest >= values.max()
    direction.spacing = 2.0**-20
    rounded = written(direction)
    theta = loss.theta
    for k in (1, 2, 3, 6):
        assert np.array_equal((theta + k * 2.0**-20 * rounded) - theta, k * 2.0**-20 * rounded)
    assert period < LONG


def test_a_direction_of_exact_points_is_had_back_from_them():
    rng = np.random.default_rng(3)
    params = {"a": rng.standard_normal(LONG), "b": 1e3 * rng.standard_normal(900), "c": np.logspace(-9, 3, 1000)}
    layout = Parameters.of(params)
    loss = PythonLoss(lambda p: float(sum(np.sum(np.sin(v)) for v in p.values())), layout, layout.flatten(params))
    direction = generic_direction(loss, rng)
    assert isinstance(direction, Repeated)
    times, write = [], direction.write
    direction.write = lambda out: (times.append(1), write(out))
    for spacing, parts, places, drawn in (
        (2.0**-27, 1, PLACES, 2),  # the uneven place is no multiple, and nothing can be had back from there
        (2.0**-13, PARTS, PLACES, 1),
        (2.0**-27, 1, PLACES[EVEN[1:]] + 1, 1),
    ):
        direction.spacing, direction.parts = spacing, parts
        expected = loss.along(0, written(direction), spacing * places)
        times.clear()
        np.testing.assert_array_equal(loss.along(0, direction, spacing * places), expected)
        assert len(times) == drawn


@pytest.mark.parametrize("shape", [(), (0,), (3,), (PIECE + 5,), (3, PIECE), (PIECE, 3), (1, PIECE + 1)])
def test_arrays_are_the_same_or_not(shape):
    a = np.ones(shape)
    assert equal(a, a.copy())
    assert not equal(a, np.ones((*shape, 2)))
    b = a.copy()
    if a.size:
        b[(-1,) * a.ndim] = 2.0
        assert not equal(a, b)


@pytest.mark.parametrize("form", ["function", "tree"])
def test_a_screen_takes_three_vectors_beside_the_loss_and_the_gradient(form):
    rng = np.random.default_rng(0)
    params = {"W": rng.standard_normal((900, 700)), "b": rng.standard_normal(400), "V": rng.standard_normal((500, 400))}
    size = sum(v.nbytes for v in params.values())
    gradient = {name: np.cos(value) for name, value in params.items()}

    def loss(p):
        return sum(float(np.einsum("i->", np.sin(row))) for v in p.values() for row in np.atleast_2d(v))

    def own(p):
        return {name: np.cos(value) for name, value in p.items()}

    given = own if form == "function" else gradient
    fastcheck.check(loss, given, params, mode="screen")
    tracemalloc.start()
    try:
        report = fastcheck.check(loss, given, params, mode="screen")
        peak = tracemalloc.get_traced_memory()[1] / size
    finally:
        tracemalloc.stop()
    assert report.passed
    assert peak < 3.1 + (form == "function")
