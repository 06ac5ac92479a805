"""Binding: the user's own loss compared first, and every kind of bad input refused by name."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from fastcheck import examples
from fastcheck.errors import InputError
from fastcheck.networks import BatchNorm, Conv2D, Dense, Embedding, LayerNorm, MaxPool2D, Network, Residual
from fastcheck.parameters import Parameters

LAYERS = (Dense("W1", "b1", "tanh"), Dense("W2", "b2"))


def problem(seed=0, samples=7):
    rng = np.random.default_rng(seed)
    params = {"W1": rng.normal(size=(5, 4)), "b1": rng.normal(size=(5, 1)), "W2": rng.normal(size=(3, 5))}
    params |= {"b2": rng.normal(size=(3, 1))}
    return params, rng.normal(size=(4, samples)), rng.integers(0, 3, samples)


def own_loss(params, x, y, l2=0.0, scale=1.0, activation=np.tanh):
    z = params["W2"] @ activation(params["W1"] @ x + params["b1"]) + params["b2"]
    loss = np.log(np.exp(z).sum(axis=0)) - z[y, np.arange(len(y))]
    return scale * float(loss.mean()) + l2 / 2 * sum(float((params[n] ** 2).sum()) for n in ("W1", "W2"))


def test_the_users_loss_is_accepted_when_it_is_the_same():
    params, x, y = problem()
    bound = Network(LAYERS, l2=0.2).bind(x, y, like=lambda p: own_loss(p, x, y, l2=0.2), params=params)
    assert bound.verified
    assert bound(params) == pytest.approx(own_loss(params, x, y, l2=0.2), rel=1e-13)


@pytest.mark.parametrize(
    "wrong",
    [
        {"l2": 0.1},
        {"scale": 1.0 + 1e-7},
        {"activation": lambda z: np.maximum(z, 0.0)},
        # Equal at params, where every pre-activation is small, and nowhere else.
        {"activation": lambda z: np.where(np.abs(z) < 1.0, np.tanh(z), z)},
    ],
)
def test_another_loss_is_refused_with_both_numbers(wrong):
    params, x, y = problem()
    params = {name: value * 0.3 for name, value in params.items()} if "activation" in wrong else params
    x = x * 0.5
    bound = Network(LAYERS).bind(x, y, like=lambda p: own_loss(p, x, y, **wrong))
    ours, theirs = bound(params), own_loss(params, x, y, **wrong)
    with pytest.raises(InputError, match="not the same function") as caught:
        bound.verify(params)
    if "moved by" not in str(caught.value):
        assert repr(ours) in str(caught.value)
        assert repr(theirs) in str(caught.value)
    layout = Parameters.of(params)
    with pytest.raises(InputError, match="not the same function"):
        bound.measure(layout.flatten(params), layout)


def test_a_loss_equal_at_params_only_is_refused_by_the_perturbed_points():
    params, x, y = problem()
    here = Network(LAYERS).bind(x, y)(params)
    with pytest.raises(InputError, match="moved by"):
        Network(LAYERS).bind(x, y, like=lambda p: here, params=params)


def test_measure_compares_once_and_before_it_measures():
    params, x, y = problem()
    calls = []

    def like(p, *data):
        calls.append(1)
        return own_loss(p, *data)

    bound = Network(LAYERS).bind(x, y, like=like, args=(x, y))
    assert not calls
    layout = Parameters.of(params)
    bound.measure(layout.flatten(params), layout)
    count = len(calls)
    assert count >= 3
    bound.measure(layout.flatten(params), layout)
    assert len(calls) == count


def test_float32_parameters_are_compared_at_their_own_precision():
    params, x, y = problem()
    params = {name: value.astype(np.float32) for name, value in params.items()}
    Network(LAYERS).bind(x, y, like=lambda p: own_loss(p, x.astype(np.float32), y), params=params)


def test_nothing_of_the_users_is_changed():
    params, x, y = problem()
    layout = Parameters.of(params)
    theta = layout.flatten(params)
    kept = [array.copy() for array in (x, y, theta, *params.values())]
    for array in (x, y, theta, *params.values()):
        array.flags.writeable = False
    bound = Network(LAYERS, l1=0.1).bind(x, y, params=params)
    bound.measure(theta, layout)
    for array, before in zip((x, y, theta, *params.values()), kept, strict=True):
        assert np.array_equal(array, before)


def test_workers_do_not_change_a_bit():
    rng = np.random.default_rng(0)
    sizes = (40, 60, 50, 5)
    params = {f"W{i}": rng.normal(size=(o, n)) / np.sqrt(n) for i, (n, o) in enumerate(pairwise(sizes))}
    net = Network([Dense("W0", None, "gelu"), Dense("W1", None, "relu"), Dense("W2")])
    bound = net.bind(rng.normal(size=(40, 64)), rng.integers(0, 5, 64))
    layout = Parameters.of(params)
    theta = layout.flatten(params)
    one, two = (bound.measure(theta, layout, workers=n) for n in (1, 2))
    for name in ("value", "rounding", "truncation", "status"):
        assert np.array_equal(getattr(one, name), getattr(two, name))


def test_coordinates_may_be_a_few_in_any_order():
    params, x, y = problem()
    layout = Parameters.of(params)
    theta = layout.flatten(params)
    bound = Network(LAYERS, l2=0.3).bind(x, y)
    whole = bound.measure(theta, layout)
    chosen = np.array([41, 3, 3, 20, 0])
    for engine in ("unit", "coordinate"):
        part = bound.measure(theta, layout, chosen, engine=engine)
        assert np.array_equal(part.coordinates, chosen)
        np.testing.assert_allclose(part.value, whole.value[chosen], rtol=1e-13)
    backwards = np.arange(layout.size)[::-1]
    assert np.array_equal(bound.measure(theta, layout, backwards).value, whole.value[::-1])
    assert len(bound.measure(theta, layout, np.array([], int))) == 0


def test_targets_may_be_one_hot():
    params, x, y = problem()
    hot = np.eye(3)[:, y]
    assert Network(LAYERS).bind(x, hot)(params) == Network(LAYERS).bind(x, y)(params)


@pytest.mark.parametrize(("seed", "size"), [(0, 30.0), (1, 300.0)])
def test_a_sure_net_keeps_its_digits(seed, size):
    """A trained net: the loss and its gradient are tiny, and still measured to many digits (nothing cancels)."""
    import mpmath as mp

    from . import naive

    params, x, y = problem(seed)
    net = Network((Dense("W2", None),))
    params, x = {"W2": params["W2"][:, :4] * size}, x[:, :2]
    y = (params["W2"] @ x).argmax(axis=0)
    layout = Parameters.of(params)
    found = net.bind(x, y).measure(layout.flatten(params), layout)
    with mp.workdps(400):
        truth = layout.flatten(naive.gradient(net, params, x, y, mp.mpf(10) ** -150, digits=500))
    assert 0 < np.abs(truth).max() < 1e-4
    # The logits themselves are rounded, by size * 1e-16, which is what the softmax of them can be known to.
    np.testing.assert_allclose(found.value, truth, rtol=1e-13 * size)


BAD = {
    "missing block": (LAYERS, {"W2": None}, "layer 1 .Dense. uses block 'W2', which params lacks"),
    "spare block": (LAYERS, {"W9": np.ones((2, 2))}, "block 'W9', which no layer uses"),
    "wrong weight": (
        LAYERS,
        {"W1": np.ones((5, 6))},
        "layer 0 .Dense.: block 'W1' has shape .5, 6.; it must be .out, in.",
    ),
    "wrong bias": (LAYERS, {"b2": np.ones(4)}, "layer 1 .Dense.: block 'b2' has shape"),
    "matrix for a bias": (LAYERS, {"b1": np.ones((2, 5))}, "block 'b1' has shape .2, 5.; it must be a vector"),
    "vector for a weight": (LAYERS, {"W1": np.ones(5)}, "block 'W1' has shape .5,.; it must have 2 axes"),
    "map needed": (
        (Conv2D("W1", "b1"), *LAYERS[1:]),
        {"W1": np.ones((5, 4, 1, 1))},
        "needs maps .channels, height, width.",
    ),
    "pool needs maps": ((LAYERS[0], MaxPool2D(2), LAYERS[1]), {}, "layer 1 .MaxPool2D.: needs maps"),
    "embedding inside": ((LAYERS[0], Embedding("E"), LAYERS[1]), {"E": np.ones((2, 2))}, "only the first layer"),
    "residual": ((Residual([LAYERS[0]]), LAYERS[1]), {}, "they are added, so they must be equal"),
    "unknown activation": ((Dense("W1", "b1", "tahn"), LAYERS[1]), {}, "activation='tahn' is not known"),
    "wrong gain": ((LAYERS[0], LayerNorm("g"), LAYERS[1]), {"g": np.ones(4)}, "layer 1 .LayerNorm.: block 'g'"),
}


@pytest.mark.parametrize("case", BAD, ids=str)
def test_a_net_that_does_not_fit_the_parameters(case):
    layers, changes, message = BAD[case]
    params, x, y = problem()
    params = {name: value for name, value in (params | changes).items() if value is not None}
    with pytest.raises(InputError, match=message):
        Network(layers).bind(x, y, params=params)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "mse"}, "loss='mse'; it must be one of"),
        ({"reduction": "none"}, "reduction='none'"),
        ({"samples": "cols"}, "samples='cols'"),
        ({"penalise": "biases"}, "penalise='biases'"),
        ({"l2": -1.0}, "l2=-1.0 for block 'W1'"),
        ({"l1": {"W7": 1.0}}, "l1 names the block 'W7'"),
        ({"layers": [Dense("W1", "b1"), Dense("W1")]}, "'W1' is used twice, by layer 0 .Dense. and by layer 1 .Dense."),
        ({"layers": [Dense("W1", "b1"), Residual([Dense("V", "b1")])]}, "'b1' is used twice"),
        ({"layers": [Dense("W1", weights="oi")]}, "weights='oi'"),
        ({"layers": ["W1"]}, "not a layer"),
    ],
)
def test_a_network_that_breaks_a_rule(options, message):
    with pytest.raises(InputError, match=message):
        Network(**({"layers": LAYERS} | options))


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.full((4, 7), np.nan), None, r"X\[0, 0\]=nan: the data must be finite"),
        (None, np.array([0.0, 1, 2, np.inf, 0, 0, 0]), r"y\[3\]=inf"),
        (None, np.array([0, 1, 2, 3, 0, 0, 0]), "y has the labels 0, 1, 2, 3: the last layer has 3 outputs"),
        (None, np.array([0, 1, 2, -1, 0, 0, 0]), "labels -1, 0, 1, 2"),
        (None, np.array([0, 1, 0.5, 0, 0, 0, 0]), "labels 0.0, 0.5, 1.0"),
        (None, np.zeros(6, int), "X has 7 samples and y has 6"),
        (None, np.ones((3, 7)), "not one-hot"),
        (np.empty((4, 0)), None, "non-empty"),
        (np.array([["a"] * 7] * 4), None, "array of numbers"),
        (np.ones((6, 7)), None, "with in=6"),
    ],
)
def test_data_that_do_not_fit(x, y, message):
    params, good_x, good_y = problem()
    with pytest.raises(InputError, match=message):
        Network(LAYERS).bind(good_x if x is None else x, good_y if y is None else y, params=params)


@pytest.mark.parametrize(
    ("loss", "outputs", "y", "message"),
    [
        ("hinge", 1, np.array([0.0, 1, 1, 1, 1, 1, 1]), "needs labels -1 and 1"),
        ("binary_cross_entropy", 1, np.array([-1.0, 1, 1, 1, 1, 1, 1]), "targets between 0 and 1"),
        ("binary_cross_entropy_sigmoid", 1, np.ones(7), "outside .0, 1."),
        ("squared_error", 2, np.ones((3, 7)), "y has shape .3, 7. .outputs, samples. and the network gives .2, 7."),
    ],
)
def test_targets_that_do_not_fit_the_loss(loss, outputs, y, message):
    params, x, _ = problem()
    params = {"W": np.full((outputs, 4), 3.0)}
    with pytest.raises(InputError, match=message):
        Network([Dense("W")], loss).bind(x, y, params=params)


def test_bad_arguments_of_measure():
    params, x, y = problem()
    bound = Network(LAYERS).bind(x, y)
    layout = Parameters.of(params)
    theta = layout.flatten(params)
    for options, message in (
        ({"engine": "fast"}, "engine='fast'"),
        ({"step": 0.0}, "step=0.0"),
        ({"workers": 0}, "workers=0"),
        ({"coordinates": [99]}, "coordinates must be in"),
    ):
        with pytest.raises(InputError, match=message):
            bound.measure(theta, layout, **options)
    with pytest.raises(InputError, match="finite numbers"):
        bound.measure(theta[:-1], layout)
    with pytest.raises(InputError, match="like=3"):
        Network(LAYERS).bind(x, y, like=3)


def test_tokens_and_batches_that_do_not_fit():
    ids = np.array([[0, 5]])
    net = Network([Embedding("E"), Dense("W")], samples="rows")
    with pytest.raises(InputError, match="X holds 0 to 5; tokens are the integers 0 to 4"):
        net.bind(ids, np.array([0]), params={"E": np.ones((5, 2)), "W": np.ones((2, 4))})
    net = Network([Dense("W1"), BatchNorm(), Dense("W2")])
    with pytest.raises(InputError, match="one sample has no variance"):
        net.bind(np.ones((2, 1)), np.array([0]), params={"W1": np.ones((2, 2)), "W2": np.ones((2, 2))})


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_an_overflowing_loss_is_not_measured():
    params, x, _ = problem()
    params["W2"] = params["W2"] * 1e307
    layout = Parameters.of(params)
    bound = Network(LAYERS, "squared_error").bind(x, np.ones((3, 7)))
    with pytest.raises(InputError, match="no difference can be measured"):
        bound.measure(layout.flatten(params), layout)


def test_an_output_that_saturates_far_from_params_is_no_reason_to_refuse():
    net = examples.course_net()
    network = Network.from_params(
        net.params, activation="relu", last="sigmoid", loss="binary_cross_entropy_sigmoid", samples="columns"
    )
    assert network.bind(*net.args, like=net.loss, args=net.args, params=net.params).verified


def test_losses_that_are_finite_at_params_only_are_not_shown_to_be_the_same():
    params = {"W": np.ones((1, 2))}
    net = Network([Dense("W")], loss="squared_error", samples="columns")
    X, y = np.ones((2, 3)), np.zeros((1, 3))
    here = net.bind(X, y)(params)
    with pytest.raises(InputError, match="finite together at params only"):
        net.bind(X, y, like=lambda p: here if p["W"][0, 0] == 1 else np.nan, params=params)


@pytest.mark.parametrize("error", [ZeroDivisionError("no"), SystemExit(0)])
def test_like_that_raises_is_bad_input(error):
    def like(params):
        raise error

    net = Network([Dense("W")], loss="squared_error", samples="columns")
    with pytest.raises(InputError, match=f"like raised {type(error).__name__}"):
        net.bind(np.ones((2, 3)), np.zeros((1, 3)), like=like, params={"W": np.ones((1, 2))})
