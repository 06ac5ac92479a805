"""The examples that a `Network` can describe, each with its description, and deeper nets derived by torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from fastcheck import examples
from fastcheck.bugs.mutation import Net, Subject, rows
from fastcheck.examples.digits import digits_batch
from fastcheck.networks import BatchNorm, Conv2D, Dense, Embedding, Flatten, MaxPool2D, Network, Residual
from fastcheck.networks.activations import leaky_relu
from fastcheck.parameters import Parameters
from tests import zoo


@dataclass(frozen=True, eq=False)
class Described:
    """An example and the network that is to be the same function.

    ``shapes`` has the blocks to which the network wants an axis of length one added: theta is the same vector.
    """

    net: Net
    network: Network
    x: np.ndarray
    y: np.ndarray
    shapes: dict = field(default_factory=dict)

    def __str__(self):
        return self.net.name

    @cached_property
    def subject(self):
        return Subject.of(self.net)

    @cached_property
    def exact(self):
        """The hand-derived gradient in float64, shape (P,)."""
        return self.subject.g

    @cached_property
    def params(self):
        own, theta = self.subject.layout, self.subject.theta
        if not self.shapes:
            return self.net.params
        return {b.name: b.view(theta).reshape(self.shapes.get(b.name, b.shape)) for b in own.blocks}

    @cached_property
    def layout(self):
        layout, own = Parameters.of(self.params), self.subject.layout
        assert [(b.name, b.start, b.stop) for b in layout.blocks] == [(b.name, b.start, b.stop) for b in own.blocks]
        return layout

    @cached_property
    def uncertainty(self):
        """Of every measured derivative, shape (P,)."""
        return self.bound.measure(self.subject.theta, self.layout).uncertainty

    @cached_property
    def bound(self):
        """The network on the example's data, shown to be the example's own loss."""

        def like(params, *args):
            return self.net.loss(self.subject.layout.unflatten(Parameters.of(params).flatten(params)), *args)

        like = like if self.shapes else self.net.loss
        bound = self.network.bind(self.x, self.y, like=like, args=self.net.args, params=self.params)
        assert bound.verified
        return bound


def course():
    net = examples.course_net()
    # Its loss of probabilities is that of their logits, which has a value however large the weights are.
    network = Network.from_params(net.params, activation="relu", loss="binary_cross_entropy")
    return Described(net, network, *net.args)


def dense(net):
    """`mlp`, with samples as columns, or `digits_net`, with samples as rows and perhaps dropout."""
    x, y, activation, l2 = net.args[:4]
    samples = "rows" if len(net.args) == 5 else "columns"
    return Described(net, Network.from_params(net.params, activation=activation, l2=l2, samples=samples), x, y)


def by_hand(net):
    """Like `dense`, where the shapes leave open which axis is which."""
    x, y, activation, l2 = net.args[:4]
    depth = len(net.params) // 2
    layers = [Dense(f"W{i}", f"b{i}", activation if i < depth else None) for i in range(1, depth + 1)]
    samples = "rows" if len(net.args) == 5 else "columns"
    return Described(net, Network(layers, l2=l2, samples=samples), x, y)


def linear():
    net = examples.linear_regression()
    return Described(net, Network([Dense("0", "1", weights="in_out")], "squared_error", samples="rows"), *net.args)


def logistic(**options):
    net = examples.logistic_regression(**options)
    x, y, l2, l1 = net.args
    network = Network([Dense("w", "b")], "binary_cross_entropy", samples="rows", l2=l2, l1=l1)
    return Described(net, network, x, y, {"w": (1, 64)})


def hinge():
    net = zoo.hinge_net()
    x, y, l2 = net.args
    layers = [
        Dense("hidden", "hidden_bias", leaky_relu(0.1), weights="in_out"),
        Dense("output", "output_bias", weights="in_out"),
    ]
    return Described(net, Network(layers, "hinge", samples="rows", l2=l2), x, y)


def conv(**options):
    net = zoo.conv_net(**options)
    images, y, l2 = net.args
    layers = [
        Conv2D("kernel", "kernel_bias", "relu"),
        MaxPool2D(2),
        Flatten(),
        Dense("weight", "bias", weights="in_out"),
    ]
    shapes = {"kernel": (len(net.params.kernel), 1, 3, 3)}
    return Described(net, Network(layers, samples="rows", l2=l2), images[:, None], y, shapes)


def batchnorm():
    net = zoo.batchnorm_net()
    x, y, l2 = net.args
    layers = [
        Dense("0.weight", None, weights="in_out"),
        BatchNorm("0.gain", "0.shift", "tanh"),
        Dense("1.weight", "1.bias", weights="in_out"),
    ]
    return Described(net, Network(layers, samples="rows", l2=l2), x, y)


def embedding():
    net = zoo.embedding_net(length=1)  # the mean of one word is that word
    layers = [Embedding("table"), Dense("weight", "bias", weights="in_out")]
    return Described(net, Network(layers, samples="rows"), *net.args)


def residual():
    net = zoo.residual_net()
    x, y, l2 = net.args
    inner = [Dense(f"blocks.{i}.0", f"blocks.{i}.1", "tanh", weights="in_out") for i in range(8)]
    layers = [Dense("stem", None, weights="in_out"), *(Residual([layer]) for layer in inner)]
    layers.append(Dense("head.0", "head.1", weights="in_out"))
    return Described(net, Network(layers, samples="rows", l2=l2), x, y)


def by_torch(name, layers, *, batch, l2=0.0, alone=True):
    """A ``torch.nn.Sequential`` on digits with noise; ``alone``: samples do not act on one another."""
    import torch

    model = torch.nn.Sequential(*layers).double()
    rng = np.random.default_rng(0)
    params = {key: rng.normal(size=p.shape) / np.sqrt(p[0].numel()) for key, p in model.named_parameters()}
    x, y = digits_batch(batch, rng)
    x = x.reshape(batch, 1, 8, 8) + 0.1 * rng.normal(size=(batch, 1, 8, 8))
    weights = [key for key, value in params.items() if value.ndim > 1]

    def value(tree, x, y):
        scores = torch.func.functional_call(model, tree, (torch.as_tensor(x),))
        data = torch.nn.functional.cross_entropy(scores, torch.as_tensor(y))
        return data + 0.5 * l2 * sum((tree[key] ** 2).sum() for key in weights)

    def loss(params, x, y):
        with torch.no_grad():
            return float(value({key: torch.as_tensor(p) for key, p in params.items()}, x, y))

    def gradient(params, x, y):
        tree = {key: torch.tensor(p, requires_grad=True) for key, p in params.items()}
        found = torch.autograd.grad(value(tree, x, y), list(tree.values()))
        return {key: g.numpy() for key, g in zip(tree, found, strict=True)}

    net = Net(
        loss,
        gradient,
        params,
        (x, y),
        name=name,
        batch=batch,
        classes=10,
        decay=dict.fromkeys(weights, l2) if l2 else {},
        biases=tuple(key for key in params if key.endswith("bias")),
        take=rows if alone else None,
    )
    return Described(net, Network.from_torch(model, l2=l2), x, y)


def lenet():
    from torch import nn

    layers = [nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3, padding=1), nn.Tanh()]
    layers += [nn.AvgPool2d(2), nn.Flatten(), nn.Linear(24, 12), nn.ReLU(), nn.Linear(12, 10)]
    return by_torch("lenet", layers, batch=20, l2=1e-2)


def strided():
    from torch import nn

    layers = [nn.Conv2d(1, 3, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(3, track_running_stats=False)]
    layers += [nn.SiLU(), nn.Conv2d(3, 5, 3, padding=1), nn.GELU(), nn.MaxPool2d(3, 2, 1), nn.Flatten()]
    return by_torch("strided", [*layers, nn.Linear(20, 8), nn.LayerNorm(8), nn.Linear(8, 10)], batch=16, alone=False)
