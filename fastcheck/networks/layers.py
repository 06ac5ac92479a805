"""The layers of a network, as the user writes them: small frozen records naming the user's own blocks.

The layers of maps (convolution, pools) stand in `fastcheck.networks.maps`, the normalisations in
`fastcheck.networks.norms`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fastcheck.arrays import FloatArray
from fastcheck.errors import InputError
from fastcheck.networks.activations import Activation, resolve
from fastcheck.networks.linear import Multiply
from fastcheck.networks.operators import Bend, Operator, Softmax
from fastcheck.networks.tables import Embed
from fastcheck.networks.unweighted import Residue

__all__ = [
    "Dense",
    "Embedding",
    "Layer",
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
        """Return the operators of the layer at its input, shape (*features, B), and parameters.

        Parameters
        ----------
        x : float64, shape (*features, B)
        values : callable
            Block name -> canonical array.
        where : str
            How error messages call the layer.
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
