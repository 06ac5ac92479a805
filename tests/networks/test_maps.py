"""Maps: what is done in one kernel, or for one cell at once, equals what is done step by step."""

from __future__ import annotations

import numpy as np
import pytest

from fastcheck.estimates import Status
from fastcheck.networks import AvgPool2D, Conv2D, Dense, MaxPool2D, Network, leaky_relu, weighted
from fastcheck.networks.fused import through_pool
from fastcheck.parameters import Parameters

from .nets import Case, stack

POOLS = {
    "max": MaxPool2D(2),
    "max, overlapping, padded": MaxPool2D(3, stride=2, padding=1),
    "average": AvgPool2D(2),
    "average, overlapping, padded": AvgPool2D(3, stride=2, padding=1),
    "max, apart": MaxPool2D(2, stride=3),
}


def two_convolutions(pool, activation, stride=1, seed=0):
    """Convolution, pool, convolution (with a stride and padding), pool, dense: the shape of LeNet."""
    layers = [
        Conv2D("K1", "k1", activation, padding=1),
        MaxPool2D(2),
        Conv2D("K2", "k2", activation, stride=stride, padding=2),
        pool,
        Dense("W", "b"),
    ]
    side = (5 + 4 - 3) // stride + 1
    size = (side + 2 * pool.padding - pool.size) // (pool.stride or pool.size) + 1
    shapes = {"K1": (3, 2, 3, 3), "k1": (3,), "K2": (4, 3, 3, 3), "k2": (4,), "W": (3, 4 * size**2), "b": (3,)}
    return stack("", layers, shapes, (5, 2, 10, 10), seed)


def measure(case: Case, **options):
    layout = Parameters.of(case.params)
    return layout, case.net.bind(case.x, case.y).measure(layout.flatten(case.params), layout, **options)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    "activation", [None, "relu", "tanh", "gelu", leaky_relu(-2.0)], ids=lambda a: str(getattr(a, "name", a))
)
@pytest.mark.parametrize("pool", POOLS)
def test_convolution_activation_and_pool_in_one_kernel(pool, activation, stride, monkeypatch):
    case = two_convolutions(POOLS[pool], activation, stride)
    taken = []
    monkeypatch.setattr(weighted, "through_pool", lambda *a: taken.append(through_pool(*a)) or taken[-1])
    _, together = measure(case)
    assert taken
    assert all(change is not None for change in taken)
    monkeypatch.setattr(weighted, "through_pool", lambda *a: None)
    _, apart = measure(case)
    assert np.linalg.norm(together.value - apart.value) <= 1e-15 * np.linalg.norm(apart.value)
    assert (together.status == Status.SMOOTH).all()
    assert (apart.status == Status.SMOOTH).all()


def tied(activation):
    """Two 1 x 1 convolutions; in sample 1 two cells of the last pool are equal, by different inputs."""
    layers = [Conv2D("K1", None, activation), MaxPool2D(2), Conv2D("K2"), MaxPool2D(2), Dense("W")]
    net = Network(layers, "squared_error", samples="rows")
    params = {"K1": np.array([[1.0, 0.5], [0.5, 0.25]]), "K2": np.array([[1.0, -1.0]]), "W": np.array([[1.5]])}
    params |= {name: params[name][..., None, None] for name in ("K1", "K2")}
    x = np.random.default_rng(0).random((3, 2, 4, 4)) + 0.1
    x[1] = 0.1
    x[1, :, 0, 0] = (1.0, 0.0)
    x[1, :, 2, 3] = (0.0, 2.0)
    x[1, :, 1, 1] = (0.5, 0.25)
    return Case("", net, params, x, np.ones((3, 1)))


@pytest.mark.parametrize("activation", [None, "relu", "tanh"])
def test_a_tie_in_a_pool_further_up(activation):
    case = tied(activation)
    _, unit = measure(case)
    _, coordinate = measure(case, engine="coordinate")
    assert (unit.status == Status.KINK).any()
    assert np.array_equal(unit.status, coordinate.status)
    for name in ("value", "left", "right"):
        np.testing.assert_allclose(getattr(unit, name), getattr(coordinate, name), rtol=1e-12, atol=1e-15)


def test_a_blank_border_and_biases_of_zero():
    """There z is exactly 0 for every kernel: a kink by the bias alone. Weights of places beside it have none."""
    layers = [Conv2D("K1", "k1", "relu"), MaxPool2D(2), Conv2D("K2", "k2", "relu"), MaxPool2D(2), Dense("W", "b")]
    shapes = {"K1": (3, 1, 3, 3), "k1": (3,), "K2": (4, 3, 2, 2), "k2": (4,), "W": (3, 16), "b": (3,)}
    case = stack("", layers, shapes, (4, 1, 12, 12))
    case.params["k1"][:] = 0.0
    case.x[:, :, :4] = 0.0
    case.x[:, :, :, -3:] = 0.0
    layout, unit = measure(case)
    _, coordinate = measure(case, engine="coordinate")
    kinks = unit.status == Status.KINK
    assert kinks[layout["k1"].slice].all()
    assert kinks.sum() == 3
    assert (unit.status[~kinks] == Status.SMOOTH).all()
    assert np.array_equal(unit.status, coordinate.status)
    for name in ("value", "left", "right"):
        np.testing.assert_allclose(getattr(unit, name), getattr(coordinate, name), rtol=1e-11, atol=1e-15)


def test_a_loser_that_wins_past_a_steep_kink():
    """A change of -2^-30 takes the loser, at 1e-11, past its kink and up a slope of 50, above the first at 1e-8."""
    net = Network([Conv2D("K", None, leaky_relu(-50.0)), MaxPool2D(2), Dense("W")], "squared_error", samples="rows")
    params = {"K": np.array([1.0, 1e-11]).reshape(1, 2, 1, 1), "W": np.array([[2.0]])}
    x = np.array([[[[1e-8, 2e-9], [0.0, 2e-9]], [[0.0, 0.0], [1.0, 0.0]]]])
    case = Case("", net, params, x, np.ones((1, 1)))
    _, unit = measure(case)
    _, coordinate = measure(case, engine="coordinate")
    assert unit.status.tolist() == [Status.SMOOTH, Status.CROSSED, Status.SMOOTH]
    assert np.array_equal(unit.status, coordinate.status)
    np.testing.assert_allclose(unit.value, coordinate.value, rtol=1e-12)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_the_numbers_of_maps_do_not_depend_on_the_workers(activation, monkeypatch):
    monkeypatch.setattr("fastcheck.networks.engines._ALONE", 0.0)
    case = two_convolutions(MaxPool2D(2), activation)
    case.params["k1"][:] = 0.0
    case.x[:, :, :3] = 0.0
    _, one = measure(case, workers=1)
    for workers in (2, 3):
        _, several = measure(case, workers=workers)
        for name in ("value", "rounding", "left", "right", "status"):
            assert np.array_equal(getattr(one, name), getattr(several, name), equal_nan=True)


def test_channels_of_a_place_that_do_not_fit_are_taken_in_turns(monkeypatch):
    case = two_convolutions(MaxPool2D(2), "tanh")
    _, whole = measure(case)
    monkeypatch.setattr("fastcheck.networks.unit._HELD", 1)
    _, parts = measure(case)
    assert np.linalg.norm(whole.value - parts.value) <= 1e-15 * np.linalg.norm(whole.value)
