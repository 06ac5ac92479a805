"""The layers of maps (C, H, W): convolution and pools."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastcheck.arrays import FloatArray
from fastcheck.errors import InputError
from fastcheck.networks.activations import Activation
from fastcheck.networks.layers import Layer, Orientation, Slot, Values, activate, expect, orientation, vector, vectors
from fastcheck.networks.linear import Convolve
from fastcheck.networks.operators import Operator
from fastcheck.networks.pools import AveragePool, MaxPool

__all__ = ["AvgPool2D", "Conv2D", "Flatten", "MaxPool2D"]


def _whole(where: str, name: str, value: int, least: int) -> None:
    if not isinstance(value, int | np.integer) or value < least:
        raise InputError(f"{where}: {name}={value!r}; it must be a whole number of at least {least}.")


@dataclass(frozen=True)
class Conv2D(Layer):
    """2-D convolution (as deep learning has it: the kernel is not flipped) of maps (C, H, W), then the activation.

    Parameters
    ----------
    weight, bias : str
        Block names. The kernel has shape (out, in, kh, kw) for ``weights="out_in"`` (torch), (kh, kw, in, out) for
        ``"in_out"`` (Keras, Flax).
    stride, padding : int
        Of both axes; the padding is of zeros.
    """

    weight: str
    bias: str | None = None
    activation: str | Activation | None = None
    stride: int = 1
    padding: int = 0
    weights: Orientation = "out_in"

    @property
    def slots(self) -> tuple[Slot, ...]:
        """See `Layer.slots`."""
        orientation(self.weights, "Conv2D")
        axes = (0, 1, 2, 3) if self.weights == "out_in" else (3, 2, 0, 1)
        return (Slot(self.weight, axes, True), *vectors(self.bias))

    def forward(self, x: FloatArray, values: Values, where: str) -> list[Operator]:
        """See `Layer.forward`."""
        _whole(where, "stride", self.stride, 1)
        _whole(where, "padding", self.padding, 0)
        w = values(self.weight)
        _expect_maps(x, where)
        channels, height, width = x.shape[:3]
        wanted = f"a kernel with {channels} input channels"
        expect(where, self.weight, w.shape, w.ndim == 4 and w.shape[1] == channels, wanted)
        fits = w.shape[2] <= height + 2 * self.padding and w.shape[3] <= width + 2 * self.padding
        expect(where, self.weight, w.shape, fits, f"no larger than the padded map of {height} x {width}")
        bias = vector(where, self.bias, values, len(w))
        product = Convolve(x, (self.weight, w), bias, self.stride, self.padding)
        return [product, *activate(product.out, self.activation, where)]


def _expect_maps(x: FloatArray, where: str) -> None:
    if x.ndim != 4:
        raise InputError(
            f"{where}: needs maps (channels, height, width) for each sample, and gets features {x.shape[:-1]}. X of a "
            "convolutional network has shape (B, C, H, W) for samples='rows', (C, H, W, B) for samples='columns'."
        )


@dataclass(frozen=True)
class _Pool2D(Layer):
    size: int = 2
    stride: int | None = None
    padding: int = 0

    def _geometry(self, x: FloatArray, where: str) -> tuple[int, int, int]:
        _expect_maps(x, where)
        stride = self.size if self.stride is None else self.stride
        _whole(where, "size", self.size, 1)
        _whole(where, "stride", stride, 1)
        _whole(where, "padding", self.padding, 0)
        if 2 * self.padding > self.size or self.size > min(x.shape[1:3]) + 2 * self.padding:
            raise InputError(
                f"{where}: size={self.size}, padding={self.padding} do not fit a map of {x.shape[1]} x {x.shape[2]}; "
                "the padding is at most half the size."
            )
        return self.size, stride, self.padding


@dataclass(frozen=True)
class MaxPool2D(_Pool2D):
    """Largest of each cell of size x size; the stride is the size unless given."""

    def forward(self, x: FloatArray, values: Values, where: str) -> list[Operator]:
        """See `Layer.forward`."""
        return [MaxPool(x, *self._geometry(x, where))]


@dataclass(frozen=True)
class AvgPool2D(_Pool2D):
    """Mean of each cell of size x size, padding counted as zeros; the stride is the size unless given."""

    def forward(self, x: FloatArray, values: Values, where: str) -> list[Operator]:
        """See `Layer.forward`."""
        return [AveragePool(x, *self._geometry(x, where))]


@dataclass(frozen=True)
class Flatten(Layer):
    """Maps to a vector in (C, H, W) order. `Dense` does it by itself; the layer is there to be written."""

    def forward(self, x: FloatArray, values: Values, where: str) -> list[Operator]:
        """See `Layer.forward`."""
        return []
