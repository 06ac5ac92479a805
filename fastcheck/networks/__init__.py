"""Networks: every coordinate of a layered net, by exactly propagated differences."""

from fastcheck.networks.activations import Activation, elu, leaky_relu
from fastcheck.networks.bound import BoundNetwork
from fastcheck.networks.layers import (
    AvgPool2D,
    BatchNorm,
    Conv2D,
    Dense,
    Embedding,
    Flatten,
    Layer,
    LayerNorm,
    MaxPool2D,
    Residual,
)
from fastcheck.networks.network import Network

__all__ = [
    "Activation",
    "AvgPool2D",
    "BatchNorm",
    "BoundNetwork",
    "Conv2D",
    "Dense",
    "Embedding",
    "Flatten",
    "Layer",
    "LayerNorm",
    "MaxPool2D",
    "Network",
    "Residual",
    "elu",
    "leaky_relu",
]
