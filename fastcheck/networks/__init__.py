"""Networks: every coordinate of a layered net, by exactly propagated differences."""

from fastcheck.networks.activations import Activation, elu, leaky_relu
from fastcheck.networks.bound import BoundNetwork
from fastcheck.networks.layers import Dense, Embedding, Layer, Residual
from fastcheck.networks.maps import AvgPool2D, Conv2D, Flatten, MaxPool2D
from fastcheck.networks.network import Network
from fastcheck.networks.norms import BatchNorm, LayerNorm

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
