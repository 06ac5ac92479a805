"""Kinks: found, told apart from mere crossings, and measured to both sides."""

from __future__ import annotations

import numpy as np
import pytest

from fastcheck.estimates import Status
from fastcheck.networks import BatchNorm, Conv2D, Dense, Embedding, MaxPool2D, Network, leaky_relu
from fastcheck.parameters import Parameters

ENGINES = ("unit", "coordinate")


def measure(net, params, x, y, **options):
    layout = Parameters.of(params)
    return layout, net.bind(x, y).measure(layout.flatten(params), layout, **options)


def one_sided(net, params, x, y, h=1e-7):
    """Slopes to the right and left of every coordinate by plain one-sided quotients of the loss."""
    layout = Parameters.of(params)
    theta, bound = layout.flatten(params), net.bind(x, y)
    here = bound(params)
    right, left = np.empty(layout.size), np.empty(layout.size)
    for i in range(layout.size):
        for sign, out in ((h, right), (-h, left)):
            moved = theta.copy()
            moved[i] += sign
            out[i] = (bound(layout.unflatten(moved)) - here) / sign
    return right, left


def kinked_net(activation="relu", seed=0):
    """Unit 1 of the second layer is exactly at zero for sample 2, and unit 0 of the first layer for sample 1."""
    rng = np.random.default_rng(seed)
    params = {"W1": rng.normal(size=(4, 3)), "b1": rng.normal(size=4), "W2": rng.normal(size=(3, 4)), "b2": np.zeros(3)}
    params |= {"W3": rng.normal(size=(2, 3))}
    x = rng.normal(size=(3, 5))
    x[:, 1] = 0.0
    params["b1"][0] = 0.0
    x[:, 2] = (1.0, 0.0, 0.0)
    params["W1"][:, 0] = (0.5, 0.25, -1.0, -1.0)
    params["b1"][1:] = (0.25, 0.5, 0.5)
    params["W2"][1] = (0.5, -0.5, 0.3, 0.3)
    net = Network([Dense("W1", "b1", activation), Dense("W2", "b2", activation), Dense("W3")])
    return net, params, x, rng.integers(0, 2, 5)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("activation", ["relu", leaky_relu(0.3), leaky_relu(-1.0)])
def test_a_kink_at_theta_is_measured_to_both_sides(engine, activation):
    net, params, x, y = kinked_net(activation)
    _, found = measure(net, params, x, y, engine=engine)
    right, left = one_sided(net, params, x, y)
    apart = np.abs(right - left) > 1e-5
    assert apart.any()
    assert not apart.all()
    assert np.array_equal(found.status == Status.KINK, apart)
    np.testing.assert_allclose(found.right[apart], right[apart], atol=1e-6)
    np.testing.assert_allclose(found.left[apart], left[apart], atol=1e-6)
    np.testing.assert_allclose(found.value, (right + left) / 2, atol=1e-6)
    assert np.isnan(found.right[~apart]).all()


def test_the_engines_agree_on_kinks():
    net, params, x, y = kinked_net()
    _, unit = measure(net, params, x, y, engine="unit")
    _, coordinate = measure(net, params, x, y, engine="coordinate")
    assert np.array_equal(unit.status, coordinate.status)
    for name in ("value", "left", "right"):
        np.testing.assert_allclose(getattr(unit, name), getattr(coordinate, name), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_kink_beside_theta_is_crossed_and_then_avoided(engine):
    """A pre-activation 1e-11 from zero: the first step passes it, the value is the slope of theta's own side."""
    net = Network([Dense("W1", "b1", "relu"), Dense("W2")], "squared_error")
    params = {"W1": np.array([[1.0, 1.0]]), "b1": np.array([1e-11 - 1.0]), "W2": np.array([[2.0]])}
    x, y = np.array([[1.0, 3.0], [0.0, 1.0]]), np.array([[1.0, 2.0]])
    layout, found = measure(net, params, x, y, engine=engine)
    z = params["W1"] @ x + params["b1"]
    assert (z > 0).all()
    slope = (2.0 * z - y) * 2.0 / 2
    truth = layout.flatten(
        {"W1": slope @ x.T, "b1": slope.sum(keepdims=True)[0], "W2": (slope / 2 * z).sum(keepdims=True)}
    )
    np.testing.assert_allclose(found.value, truth, rtol=1e-12)
    # W1[0, 1] has no input in sample 0, so nothing is crossed by it; W2 acts above the kink.
    assert found.status.tolist() == [Status.CROSSED, Status.SMOOTH, Status.CROSSED, Status.SMOOTH]
    assert np.isnan(found.left).all()


@pytest.mark.parametrize("engine", ENGINES)
def test_elu_has_a_corner_in_its_curvature_only(engine):
    net = Network([Dense("W1", None, "elu"), Dense("W2")], "squared_error")
    params = {"W1": np.ones((1, 1)), "W2": np.full((1, 1), 2.0)}
    _, found = measure(net, params, np.zeros((1, 2)), np.ones((1, 2)), engine=engine)
    assert (found.status == Status.SMOOTH).all()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("loss", "outputs"), [("hinge", 1), ("hinge", 3)])
def test_the_kink_of_the_hinge(engine, loss, outputs):
    net = Network([Dense("W")], loss)
    params = {"W": np.zeros((outputs, 2))}
    params["W"][0, 0] = 1.0  # a margin of exactly zero for the first sample
    x = np.array([[1.0, 0.2], [0.5, -1.0]])
    y = np.array([[1.0, -1.0]]) if outputs == 1 else np.array([0, 2])
    _, found = measure(net, params, x, y, engine=engine)
    right, left = one_sided(net, params, x, y)
    apart = np.abs(right - left) > 1e-5
    assert apart.any()
    assert np.array_equal(found.status == Status.KINK, apart)
    np.testing.assert_allclose(found.right[apart], right[apart], atol=1e-6)
    np.testing.assert_allclose(found.left[apart], left[apart], atol=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_kink_of_l1(engine):
    net = Network([Dense("W1", "b1", "tanh"), Dense("W2")], l1=0.3, l2=0.1)
    rng = np.random.default_rng(0)
    params = {"W1": rng.normal(size=(3, 2)), "b1": np.zeros(3), "W2": rng.normal(size=(2, 3))}
    params["W1"][1, 0] = 0.0
    params["W2"][0, 2] = 1e-12
    x, y = rng.normal(size=(2, 5)), rng.integers(0, 2, 5)
    layout, found = measure(net, params, x, y, engine=engine)
    right, left = one_sided(net, params, x, y)
    at = layout["W1"].coordinate((1, 0))
    assert np.flatnonzero(found.status == Status.KINK).tolist() == [at]
    assert found.right[at] == pytest.approx(right[at], abs=1e-6)
    assert found.left[at] == pytest.approx(left[at], abs=1e-6)
    assert found.right[at] - found.left[at] == pytest.approx(0.6, rel=1e-12)
    assert np.flatnonzero(found.status == Status.CROSSED).tolist() == [layout["W2"].coordinate((0, 2))]
    smooth = found.status == Status.SMOOTH
    np.testing.assert_allclose(found.value[smooth], right[smooth], atol=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
def test_ties_that_move_together_are_no_kink(engine):
    """Blank cells: all places of a cell have one value, z = b; the bias moves them together, so nothing is kinked."""
    rng = np.random.default_rng(1)
    net = Network([Conv2D("K", "k", "relu"), MaxPool2D(2), Dense("W", "b")], samples="rows")
    params = {"K": rng.normal(size=(2, 1, 3, 3)), "k": np.array([0.4, -0.4]), "W": rng.normal(size=(3, 8))}
    params |= {"b": np.zeros(3)}
    x = rng.normal(size=(4, 1, 6, 6))
    x[1] = 0.0
    x[2, :, 3:] = 0.0
    y = rng.integers(0, 3, 4)
    _, found = measure(net, params, x, y, engine=engine)
    right, left = one_sided(net, params, x, y)
    np.testing.assert_allclose(right, left, atol=1e-5)
    assert (found.status == Status.SMOOTH).all()
    np.testing.assert_allclose(found.value, (right + left) / 2, atol=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
def test_ties_that_part_are_a_kink(engine):
    net = Network([Conv2D("K", "k"), MaxPool2D(2), Dense("W")], "squared_error", samples="rows")
    params = {"K": np.ones((1, 1, 1, 2)), "k": np.zeros(1), "W": np.full((1, 1), 1.5)}
    x = np.array([[[[1.0, 2.0, 1.0], [0.0, 0.0, 0.0]]]])  # both places of the cell are 3, from (1, 2) and (2, 1)
    _, found = measure(net, params, x, np.array([[1.0]]), engine=engine)
    right, left = one_sided(net, params, x, np.array([[1.0]]))
    assert found.status.tolist() == [Status.KINK, Status.KINK, Status.SMOOTH, Status.SMOOTH]
    np.testing.assert_allclose(found.right[:2], right[:2], atol=1e-6)
    np.testing.assert_allclose(found.left[:2], left[:2], atol=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_kink_reached_by_several_entries_at_once(engine):
    """An embedding's entry acts through two positions of a sample, which meet in one relu at zero."""
    net = Network([Embedding("E"), Dense("W1", None, "relu"), Dense("W2")], "squared_error", samples="rows")
    params = {"E": np.array([[1.0], [0.5]]), "W1": np.array([[1.0, -1.0], [0.5, 0.5]]), "W2": np.ones((1, 2))}
    x, y = np.array([[0, 0], [0, 1]]), np.array([[1.0], [2.0]])
    _, found = measure(net, params, x, y, engine=engine)
    right, left = one_sided(net, params, x, y)
    np.testing.assert_allclose(found.value, (right + left) / 2, atol=1e-6)
    # Token 0 moves both inputs of the unit at zero alike: no kink by E, though each position alone would show one.
    assert found.status[:2].tolist() == [Status.SMOOTH, Status.SMOOTH]


@pytest.mark.parametrize("away", [0.0, 1e-11])
def test_a_kink_above_a_batch_normalisation(away):
    """Every weight into unit 1 acts on all samples, and takes sample 2 past, or from, the kink of the relu."""
    rng = np.random.default_rng(3)
    layers = [Dense("W1"), BatchNorm(None, "s", "relu"), Dense("W2", None, "tanh"), Dense("W3")]
    net = Network(layers, "squared_error")
    params = {"W1": rng.normal(size=(3, 4)), "s": np.zeros(3), "W2": rng.normal(size=(4, 3)), "W3": np.ones((1, 4))}
    x, y = rng.normal(size=(4, 6)), rng.normal(size=(1, 6))
    layout = Parameters.of(params)
    normal = net.forward(layout.flatten(params), layout, x, y).operators[1]
    params["s"][1] = away - normal.out[1, 2]
    _, unit = measure(net, params, x, y)
    _, coordinate = measure(net, params, x, y, engine="coordinate")
    expected = Status.CROSSED if away else Status.KINK
    assert (unit.status[layout["W1"].slice].reshape(3, 4)[1] == expected).all()
    assert np.array_equal(unit.status, coordinate.status)
    for name in ("value", "left", "right"):
        np.testing.assert_allclose(getattr(unit, name), getattr(coordinate, name), rtol=1e-11, atol=1e-15)
