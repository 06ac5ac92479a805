"""Small nets with data, one for each layer, activation, loss and convention."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastcheck.networks import (
    AvgPool2D,
    BatchNorm,
    Conv2D,
    Dense,
    Embedding,
    Flatten,
    LayerNorm,
    MaxPool2D,
    Network,
    Residual,
)

ELEMENTWISE = ("identity", "relu", "leaky_relu", "elu", "tanh", "sigmoid", "softplus", "gelu", "gelu_tanh", "silu")


@dataclass(frozen=True, eq=False)
class Case:
    name: str
    net: Network
    params: dict
    x: np.ndarray
    y: np.ndarray

    def __str__(self) -> str:
        return self.name


def draw(rng, **shapes):
    """Blocks of N(0, 1/fan-in) entries, biases too."""
    return {
        name: rng.normal(size=shape) / np.sqrt(max(np.prod(shape[1:]), 1.0)) * 1.3 for name, shape in shapes.items()
    }


def dense(name, activation="tanh", loss="softmax_cross_entropy", outputs=3, last=None, y=None, seed=0, **options):
    rng = np.random.default_rng(seed)
    net = Network(
        [Dense("W1", "b1", activation), Dense("W2", "b2", activation), Dense("W3", "b3", last)], loss, **options
    )
    params = draw(rng, W1=(5, 4), b1=(5, 1), W2=(4, 5), b2=(4, 1), W3=(outputs, 4), b3=(outputs, 1))
    x = rng.normal(size=(4, 6))
    y = rng.integers(0, outputs, 6) if y is None else y(rng, (outputs, 6))
    return Case(name, net, params, x, y)


def stack(name, layers, shapes, x, seed=0, loss="softmax_cross_entropy", classes=3, **options):
    rng = np.random.default_rng(seed)
    params = draw(rng, **shapes)
    data = rng.normal(size=x) if isinstance(x, tuple) else x
    return Case(
        name, Network(layers, loss, samples="rows", **options), params, data, rng.integers(0, classes, len(data))
    )


def smooth_cases():
    yield from (dense(f"dense {a}", a) for a in ELEMENTWISE)
    yield dense("dense softmax inside", "softmax")
    yield dense("logistic", loss="binary_cross_entropy", y=lambda rng, s: rng.random(s))
    yield dense(
        "bernoulli",
        loss="binary_cross_entropy_sigmoid",
        last="sigmoid",
        outputs=1,
        y=lambda rng, s: rng.integers(0, 2, s),
    )
    yield dense("squared", loss="squared_error", y=lambda rng, s: rng.normal(size=s), scale=2.0)
    yield dense("hinge", loss="hinge", y=None)
    yield dense("binary hinge", loss="hinge", outputs=1, y=lambda rng, s: rng.choice([-1, 1], s))
    yield dense("sum, l2, l1", reduction="sum", l2=0.1, l1={"W1": 0.2, "b2": 0.3})
    yield dense("l2 everywhere", l2=0.1, penalise="all")
    rows = [Dense("W1", "b1", "tanh", weights="in_out"), Dense("W2", None, weights="in_out")]
    yield stack("rows, in_out", rows, {"W1": (4, 5), "b1": (5,), "W2": (5, 3)}, (6, 4))
    norm = [Dense("W1", "b1"), LayerNorm("g", "s", "tanh"), Dense("W2", "b2")]
    shapes = {"W1": (5, 4), "b1": (5,), "g": (5,), "s": (5,), "W2": (3, 5), "b2": (3,)}
    yield stack("layer norm", norm, shapes, (6, 4))
    batch = [Dense("W1", "b1"), BatchNorm("g", "s", "relu"), Dense("W2", "b2")]
    yield stack("batch norm", batch, shapes, (6, 4))
    wide = shapes | {"W1": (5, 9)}
    yield stack("batch norm, wide input", [Dense("W1", "b1"), BatchNorm("g", "s"), Dense("W2", "b2")], wide, (3, 9))
    inner = [Dense("V1", "c1", "gelu"), LayerNorm("g", "s"), Dense("V2", "c2", "tanh")]
    shapes = {"W1": (5, 4), "V1": (3, 5), "c1": (3,), "g": (3,), "s": (3,), "V2": (5, 3), "c2": (5,), "W2": (3, 5)}
    yield stack("residual", [Dense("W1", None, "tanh"), Residual(inner), Dense("W2")], shapes, (6, 4))
    ids = np.random.default_rng(3).integers(0, 5, (6, 3))
    shapes = {"E": (5, 2), "W1": (4, 6), "b1": (4,), "W2": (3, 4)}
    yield stack("embedding", [Embedding("E"), Dense("W1", "b1", "silu"), Dense("W2")], shapes, ids)
    yield from _convolutions()


def _convolutions():
    for name, pool, stride, padding, side in (
        ("conv, max pool", MaxPool2D(2), 1, 0, 2),
        ("conv, stride, padding, avg pool", AvgPool2D(2), 2, 1, 1),
        ("conv, overlapping max pool", MaxPool2D(3, stride=2, padding=1), 1, 1, 3),
        ("conv, overlapping avg pool", AvgPool2D(3, stride=1, padding=1), 1, 0, 4),
    ):
        layers = [Conv2D("K1", "k1", "relu", stride, padding), pool, Flatten(), Dense("W", "b")]
        shapes = {"K1": (2, 1, 3, 3), "k1": (2,), "W": (3, 2 * side * side), "b": (3,)}
        yield stack(name, layers, shapes, (3, 1, 6, 6))
    layers = [
        Conv2D("K1", "k1", "tanh", padding=1),
        MaxPool2D(2),
        Conv2D("K2", "k2", "relu", stride=2, padding=1, weights="in_out"),
        Conv2D("K3", None, "silu", padding=1),
        AvgPool2D(2),
        Dense("W"),
    ]
    shapes = {"K1": (2, 2, 3, 3), "k1": (2,), "K2": (3, 3, 2, 3), "k2": (3,), "K3": (2, 3, 3, 3), "W": (3, 2)}
    yield stack("deep conv", layers, shapes, (2, 2, 8, 8))
    layers = [Conv2D("K1", None), BatchNorm("g", "s", "relu"), MaxPool2D(2), LayerNorm("u", "v"), Dense("W")]
    shapes = {"K1": (2, 1, 3, 3), "g": (2,), "s": (2,), "u": (2, 2, 2), "v": (8,), "W": (3, 8)}
    yield stack("conv, batch norm, layer norm", layers, shapes, (2, 1, 6, 6))
    inner = [Conv2D("K2", "k2", "tanh", padding=1), Conv2D("K3", padding=1)]
    layers = [Conv2D("K1", None, "tanh"), Residual(inner), MaxPool2D(2), Dense("W", None)]
    shapes = {"K1": (2, 1, 3, 3), "K2": (3, 2, 3, 3), "k2": (3,), "K3": (2, 3, 3, 3), "W": (3, 8)}
    yield stack("conv residual", layers, shapes, (2, 1, 6, 6))
