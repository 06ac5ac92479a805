"""The layers of a network, as the user writes them: small frozen records naming the user's own blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fastcheck.arrays import FloatArray
from fastcheck.errors import InputError
from fastcheck.networks.activations import Activation, resolve
from fastcheck.networks.operators import Bend, Operator, Softmax
from fastcheck.networks.unweighted import AveragePool, MaxPool, Normalise, Residue
from fastcheck.networks.weighted import Convolve, Embed, Multiply, Scale

__all__ = [
    "AvgPool2D",
    "BatchNorm",
    "Conv2D",
    "Dense",
    "Embedding",
    "Flatten",
    "Layer",
    "LayerNorm",
    "MaxPool2D",
    "Residual",
    "Slot",
    "activate",
    "expect",
    "orientation",
    "vector",
    "vectors",
]

Orientation = Literal["out_in", "in_out"]
Values = Callable[[str], FloatArray]


@dataclass(frozen=True)
class Slot:
    """How one block of the user's is used.

    Attributes
    ----------
    name : str
    axes : tuple of int or None
        Transposition from the user's array to the canonical one, W (out, in) or (O, C, kh, kw); None: flattened.
    weight : bool
        Whether common practice regularises it: weights of dense layers and convolutions, not biases, gains or tables.
    """

    name: str
    axes: tuple[int, ...] | None
    weight: bool = False

    def canonical(self, array: NDArray[Any], where: str) -> NDArray[Any]:
        """Return the canonical view of an array in the user's shape."""
        if self.axes is None:
            if max((*array.shape, 1)) != array.size:
                raise InputError(f"{where}: block {self.name!r} has shape {array.shape}; it must be a vector.")
            return array.reshape(-1)
        if array.ndim != len(self.axes):
            raise InputError(
                f"{where}: block {self.name!r} has shape {array.shape}; it must have {len(self.axes)} axes."
            )
        return array.transpose(self.axes)


@dataclass(frozen=True)
class Layer:
    """Base class of the layers."""

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The blocks that the layer uses."""
        return ()

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers inside this one."""
        return ()

    def forward(self, x: FloatArray, values: Values, where: str) -> list[Operator]:
        """Return the operators of the layer at its input, shape (*features, B).

        `values` gives the canonical array of a block; error messages call the layer `where`.
        """
        raise NotImplementedError


def activate(z: FloatArray, activation: str | Activation | None, where: str) -> list[Operator]:
    """Return the operator of an activation, or none for the identity."""
    if activation == "softmax":
        return [Softmax(z)]
    found = resolve(activation, where)
    return [Bend(z, found)] if found is not None else []


def expect(where: str, name: str, shape: tuple[int, ...], rule: bool, wanted: str) -> None:
    """Raise InputError unless the block fits."""
    if not rule:
        raise InputError(
            f"{where}: block {name!r} has shape {shape}; it must be {wanted}. Check the order of the layers."
        )


def vector(where: str, name: str | None, values: Values, size: int) -> tuple[str, FloatArray] | None:
    """Return the name and values of a vector block of this size; None for no name."""
    if name is None:
        return None
    found = values(name)
    expect(where, name, found.shape, found.size == size, f"a vector of {size}")
    return name, found


def orientation(weights: str, where: str) -> None:
    """Raise InputError unless weights is "out_in" or "in_out"."""
    if weights not in ("out_in", "in_out"):
        raise InputError(f"{where}: weights={weights!r}; it must be 'out_in' or 'in_out'.")


@dataclass(frozen=True)
class Dense(Layer):
    """activation(W @ x + b); a map is flattened first, in (C, H, W) order.

    Parameters
    ----------
    weight, bias : str
        Block names; no bias for None. The bias may have shape (n,), (n, 1) or (1, n).
    activation : str or Activation, optional
        A name of `fastcheck.networks.activations.ACTIVATIONS`, or "softmax".
    weights : {"out_in", "in_out"}
        Shape of W: (out, in), as in W @ X and torch, or (in, out), as in X @ W and scikit-learn.
    """

    weight: str
    bias: str | None = None
    activation: str | Activation | None = None
    weights: Orientation = "out_in"

    @property
    def slots(self) -> tuple[Slot, ...]:
        """See `Layer.slots`."""
        orientation(self.weights, "Dense")
        axes = (0, 1) if self.weights == "out_in" else (1, 0)
        return (Slot(self.weight, axes, True), *vectors(self.bias))

    def forward(self, x: FloatArray, values: Values, where: str) -> list[Operator]:
        """See `Layer.forward`."""
        w = values(self.weight)
        size = x[..., 0].size
        wanted = f"{'(out, in)' if self.weights == 'out_in' else '(in, out)'} with in={size}, the size of what comes in"
        shape = w.shape if self.weights == "out_in" else w.shape[::-1]
        expect(where, self.weight, shape, w.ndim == 2 and w.shape[1] == size, wanted)
        product = Multiply(x, (self.weight, w), vector(where, self.bias, values, len(w)))
        return [product, *activate(product.out, self.activation, where)]


def vectors(*names: str | None) -> tuple[Slot, ...]:
    """Return the slots of vector blocks, without those that have no name."""
    return tuple(Slot(name, None) for name in names if name is not None)


@dataclass(frozen=True)
class Residual(Layer):
    """x + layers(x)."""

    inner: Sequence[Layer]

    @property
    def layers(self) -> tuple[Layer, ...]:
        """See `Layer.layers`."""
        return tuple(self.inner)

    def forward(self, x: FloatArray, values: Values, where: str) -> list[Operator]:
        """See `Layer.forward`."""
        found: list[Operator] = []
        y = x
        for i, layer in enumerate(self.inner):
            found += layer.forward(y, values, f"{where}, inner layer {i} ({type(layer).__name__})")
            y = found[-1].out if found else x
        if y.shape != x.shape:
            raise InputError(
                f"{where}: what comes in has features {x.shape[:-1]} and the layers inside give {y.shape[:-1]}; they "
                "are added, so they must be equal."
            )
        return [Residue(x, tuple(found))]


@dataclass(frozen=True)
class Embedding(Layer):
    """Rows of a table (tokens, width) by the tokens in X, of integers: (B, T) as rows, (T, B) as columns, or (B,).

    The T rows of a sample stand one after the other. Only the first layer of a network can be one.
    """

    weight: str

    @property
    def slots(self) -> tuple[Slot, ...]:
        """See `Layer.slots`."""
        return (Slot(self.weight, (0, 1)),)

    def forward(self, x: FloatArray, values: Values, where: str) -> list[Operator]:
        """See `Layer.forward`."""
        table = values(self.weight)
        ids = x.astype(np.int64).reshape(-1, x.shape[-1])
        if not np.array_equal(ids, x.reshape(ids.shape)) or (ids < 0).any() or (ids >= len(table)).any():
            raise InputError(
                f"{where}: X holds {x.min():g} to {x.max():g}; tokens are the integers 0 to {len(table) - 1}, the rows "
                f"of block {self.weight!r}."
            )
        return [Embed(ids, self.weight, table)]


# -- layers of maps (C, H, W) -----------------------------------------------------------------------------------------


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


# -- layers that normalise --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Norm(Layer):
    gain: str | None = None
    shift: str | None = None
    activation: str | Activation | None = None
    eps: float = 1e-5

    @property
    def slots(self) -> tuple[Slot, ...]:
        return vectors(self.gain, self.shift)

    def _forward(self, x: FloatArray, values: Values, where: str, over_samples: bool) -> list[Operator]:
        normal = Normalise(x, self.eps, over_samples)
        size = len(x) if over_samples else x[..., 0].size
        gain, shift = vector(where, self.gain, values, size), vector(where, self.shift, values, size)
        found: list[Operator] = [normal]
        if gain or shift:
            found.append(Scale(normal.out, gain, shift, channels=over_samples))
        return [*found, *activate(found[-1].out, self.activation, where)]


@dataclass(frozen=True)
class BatchNorm(_Norm):
    """gain * (x - mean) / sqrt(variance + eps) + shift with the statistics of this batch, per feature or channel.

    The mean and (biased) variance are those of the batch, as in training: every sample then acts on every other.
    """

    def forward(self, x: FloatArray, values: Values, where: str) -> list[Operator]:
        """See `Layer.forward`."""
        if x.shape[-1] * int(np.prod(x.shape[1:-1])) < 2:
            raise InputError(f"{where}: batch normalisation of one sample has no variance. Bind at least 2 samples.")
        return self._forward(x, values, where, over_samples=True)


@dataclass(frozen=True)
class LayerNorm(_Norm):
    """gain * (x - mean) / sqrt(variance + eps) + shift over all features of each sample.

    For maps, the gain and shift have one entry for each of the C * H * W positions.
    """

    @property
    def slots(self) -> tuple[Slot, ...]:
        """See `Layer.slots`."""
        return tuple(_Anything(name) for name in (self.gain, self.shift) if name is not None)

    def forward(self, x: FloatArray, values: Values, where: str) -> list[Operator]:
        """See `Layer.forward`."""
        return self._forward(x, values, where, over_samples=False)


class _Anything(Slot):
    """A block of any shape, flattened."""

    def __init__(self, name: str) -> None:
        super().__init__(name, None)

    def canonical(self, array: NDArray[Any], where: str) -> NDArray[Any]:
        if not array.flags.c_contiguous:
            raise InputError(f"{where}: block {self.name!r} must be C-contiguous.")
        return array.reshape(-1)
