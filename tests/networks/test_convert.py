"""Networks read off named arrays, torch and scikit-learn, against those libraries' own losses and gradients."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pytest

from fastcheck.errors import InputError, MissingDependencyError
from fastcheck.networks import Dense, Network
from fastcheck.parameters import Parameters


def check_against(network, params, x, y, loss, gradient):
    """The bound network gives this loss and, measured, this gradient (dict of arrays, by block)."""
    layout = Parameters.of(params)
    bound = network.bind(x, y)
    assert bound(params) == pytest.approx(loss, rel=1e-12)
    found = bound.measure(layout.flatten(params), layout, workers=2)
    truth = np.concatenate([gradient[block.name].ravel() for block in layout.blocks])
    assert np.linalg.norm(found.value - truth) <= 1e-12 * np.linalg.norm(truth)
    assert (np.abs(found.value - truth) <= 2 * found.uncertainty + 1e-16).all()


@pytest.mark.parametrize(
    ("shapes", "weights", "names"),
    [
        ({"W1": (5, 4), "b1": (5, 1), "W2": (3, 5), "b2": (3, 1)}, "out_in", ("W1", "W2")),
        ({"layers.0.weight": (4, 5), "layers.0.bias": (5,), "layers.1.weight": (5, 3)}, "in_out", None),
        ({"b2": (3,), "W2": (3, 5), "W1": (5, 4), "b1": (5,)}, "out_in", ("W1", "W2")),
        ({"w10": (3, 5), "w9": (5, 4)}, "out_in", ("w9", "w10")),
    ],
)
def test_from_params(shapes, weights, names):
    network = Network.from_params({n: np.ones(s) for n, s in shapes.items()}, activation="relu", loss="hinge")
    assert all(isinstance(layer, Dense) and layer.weights == weights for layer in network.layers)
    assert [layer.activation for layer in network.layers] == ["relu", None]
    if names:
        assert tuple(layer.weight for layer in network.layers) == names


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"alpha": (3, 4)}, "does not understand block 'alpha'"),
        ({"W1": (3, 4), "W2": (7, 9)}, "allow no order"),
        ({"W1": (4, 4), "W2": (4, 4)}, "fit both"),
        ({"b1": (4,)}, "finds no weight for"),
        ({"W1": (3, 4), "weight1": (3, 3)}, "have one number"),
    ],
)
def test_from_params_refuses(shapes, message):
    with pytest.raises(InputError, match=message):
        Network.from_params({n: np.ones(s) for n, s in shapes.items()})


def _torch_nets(torch):
    nn = torch.nn
    yield nn.Sequential(nn.Linear(30, 20), nn.Tanh(), nn.Linear(20, 10), nn.LeakyReLU(0.2), nn.Linear(10, 4)), (16, 30)
    yield nn.Sequential(nn.Linear(9, 8, bias=False), nn.BatchNorm1d(8), nn.ELU(0.7), nn.Linear(8, 4)), (12, 9)
    yield nn.Sequential(nn.Linear(9, 8), nn.LayerNorm(8), nn.GELU(approximate="tanh"), nn.Linear(8, 4)), (12, 9)
    yield (
        nn.Sequential(
            nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Sequential(nn.Conv2d(6, 5, 3, stride=2), nn.BatchNorm2d(5), nn.SiLU()),
            nn.AvgPool2d(2), nn.Flatten(), nn.Dropout(0.0), nn.Linear(20, 4),
        ),
        (5, 2, 20, 20),
    )  # fmt: skip
    yield (
        nn.Sequential(
            nn.Conv2d(1, 8, 5), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 8, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 4),
        ),
        (4, 1, 28, 28),
    )  # fmt: skip
    yield nn.Sequential(nn.Embedding(11, 3), nn.Flatten(), nn.Linear(12, 8), nn.Softplus(), nn.Linear(8, 4)), (16, 4)


@pytest.mark.parametrize("which", range(6))
def test_from_torch_against_autodiff(which):
    torch = pytest.importorskip("torch")
    generator = np.random.default_rng(which)
    torch.manual_seed(which)
    module, shape = list(_torch_nets(torch))[which]
    module = module.double().train()
    x = generator.integers(0, 11, shape) if which == 5 else generator.normal(size=shape)
    y = generator.integers(0, 4, shape[0])
    loss = torch.nn.functional.cross_entropy(module(torch.tensor(x)), torch.tensor(y))
    loss.backward()
    params = {name: value.detach().numpy() for name, value in module.named_parameters()}
    gradient = {name: value.grad.numpy() for name, value in module.named_parameters()}
    check_against(Network.from_torch(module), params, x, y, float(loss.detach()), gradient)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_large_dense_net_against_autodiff(activation):
    torch = pytest.importorskip("torch")
    nn = torch.nn
    kind = {"tanh": nn.Tanh, "relu": nn.ReLU}[activation]
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(784, 256), kind(), nn.Linear(256, 128), kind(), nn.Linear(128, 10)).double()
    generator = np.random.default_rng(0)
    x, y = generator.random((64, 784)), generator.integers(0, 10, 64)
    loss = nn.functional.cross_entropy(module(torch.tensor(x)), torch.tensor(y))
    loss.backward()
    params = {name: value.detach().numpy() for name, value in module.named_parameters()}
    gradient = {name: value.grad.numpy() for name, value in module.named_parameters()}
    check_against(Network.from_torch(module), params, x, y, float(loss.detach()), gradient)


def test_from_torch_refuses():
    torch = pytest.importorskip("torch")
    nn = torch.nn
    for module, message in (
        (nn.Linear(2, 2), "reads a torch.nn.Sequential"),
        (nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)), "Call eval"),
        (nn.Sequential(nn.Linear(2, 2), nn.Bilinear(2, 2, 2)), "does not know layer 1"),
        (nn.Sequential(nn.Conv2d(2, 2, 3, groups=2)), "groups"),
        (nn.Sequential(nn.Tanh()), "cannot place the activation"),
        (nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).eval(), "running statistics"),
        (nn.Sequential(nn.MaxPool2d((2, 3))), "equal whole numbers"),
    ):
        with pytest.raises(InputError, match=message):
            Network.from_torch(module)


@pytest.mark.parametrize("kind", ["multiclass", "binary", "regression", "regression, 2 outputs"])
def test_from_sklearn_against_its_own_backprop(kind):
    neural = pytest.importorskip("sklearn.neural_network")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 6))
    y = {
        "multiclass": rng.integers(0, 3, 40),
        "binary": rng.integers(0, 2, 40),
        "regression": rng.normal(size=40),
        "regression, 2 outputs": rng.normal(size=(40, 2)),
    }[kind]
    options = {"hidden_layer_sizes": (7, 5), "activation": "tanh", "alpha": 0.3, "random_state": 0, "solver": "lbfgs"}
    model = (neural.MLPRegressor if "regression" in kind else neural.MLPClassifier)(**options, max_iter=15000, tol=1e-1)
    model.fit(x, y)
    network = Network.from_sklearn(model, batch=len(x))
    params = {"coefs": model.coefs_, "intercepts": model.intercepts_}
    loss, coefs, intercepts = _sklearn_backprop(model, x, y)
    gradient = {f"coefs.{i}": g for i, g in enumerate(coefs)} | {f"intercepts.{i}": g for i, g in enumerate(intercepts)}
    assert network.bind(x, y)(params) == pytest.approx(loss, rel=1e-10)
    if kind == "regression, 2 outputs":
        # scikit-learn reports the mean over outputs and descends their sum: its gradient is that of twice this loss.
        network = dataclasses.replace(network, scale=1.0)
    layout = Parameters.of(params)
    found = network.bind(x, y).measure(layout.flatten(params), layout)
    truth = np.concatenate([gradient[block.name].ravel() for block in layout.blocks])
    np.testing.assert_allclose(found.value, truth, atol=1e-12)


def _sklearn_backprop(model, x, y):
    """scikit-learn's private loss and gradient at the fitted parameters."""
    y = model._label_binarizer.transform(y) if hasattr(model, "_label_binarizer") else y.reshape(len(y), -1)
    count = len(model.coefs_)
    empty = [np.empty(0)] * count
    arguments = [x, y, [x] + [None] * count, empty, [np.empty_like(w) for w in model.coefs_], model.intercepts_[:]]
    if model._backprop.__code__.co_argcount == 8:
        arguments.insert(2, np.ones(len(x)))  # sample_weight, from scikit-learn 1.7 on
    return model._backprop(*arguments)


def test_from_sklearn_refuses():
    neural = pytest.importorskip("sklearn.neural_network")
    with pytest.raises(InputError, match="Fit it first"):
        Network.from_sklearn(neural.MLPClassifier(), batch=3)
    model = neural.MLPClassifier((3,), max_iter=5, solver="lbfgs", alpha=1.0, tol=10.0)
    model.fit(np.eye(4), [0, 1, 0, 1])
    with pytest.raises(InputError, match="pass batch=len"):
        Network.from_sklearn(model)


@pytest.mark.parametrize(("name", "call"), [("torch", Network.from_torch), ("sklearn", Network.from_sklearn)])
def test_without_the_library(monkeypatch, name, call):
    for module in [m for m in sys.modules if m == name or m.startswith(f"{name}.")]:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, "sklearn.neural_network" if name == "sklearn" else "torch", None)
    with pytest.raises(MissingDependencyError, match="pip install"):
        call(object())
