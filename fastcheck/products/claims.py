"""How a claimed product becomes the gradient of <u, f>: three ways, behind one interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastcheck.arrays import FloatArray
from fastcheck.products.point import LinearizationPoint, Product
from fastcheck.products.tangents import Along, Tangents
from fastcheck.products.vectors import unit
from fastcheck.report import Coordinate

__all__ = ["Claim", "ColumnClaim", "TangentClaim", "TransposedClaim"]


@dataclass(frozen=True)
class Claim(ABC):
    """A product as the claimed gradient of the loss <u, f>, for any cotangent u.

    Attributes
    ----------
    point : LinearizationPoint
        The function.
    product : Product
        The user's product.
    """

    point: LinearizationPoint
    product: Product

    @property
    def params(self) -> Any:
        """What the loss is differentiated by: the inputs, a private copy."""
        return self.point.inputs.astype_user(self.point.theta)

    def loss(self, u: FloatArray) -> Callable[..., Any]:
        """Return the loss of a cotangent, a function of params."""
        return self.point.weighted(u)

    def direction(self, coordinate: Coordinate) -> FloatArray:
        """Return the direction of the inputs that a coordinate of params stands for, shape (n,)."""
        block = self.point.inputs[coordinate.block]
        return unit(block.coordinate(coordinate.index), self.point.theta.size)

    @abstractmethod
    def gradient(self, u: FloatArray) -> Callable[..., Any]:
        """Return a function of a tree like params, and of args: the claimed gradient of the loss."""

    @abstractmethod
    def slope_along(self, v: FloatArray) -> Callable[[FloatArray], float]:
        """Return the claimed <u, J v> as a function of u."""


@dataclass(frozen=True)
class TransposedClaim(Claim):
    """J^T u itself: the product is called once for each cotangent."""

    def gradient(self, u: FloatArray) -> Callable[..., Any]:
        """See `Claim.gradient`."""
        cotangent = self.point.cotangent(u)
        return lambda tree, *args: self.product.function(tree, cotangent, *args)

    def slope_along(self, v: FloatArray) -> Callable[[FloatArray], float]:
        """See `Claim.slope_along`."""
        return lambda u: float(self.point.pulled(self.product, u).flat @ v)


@dataclass(frozen=True)
class ColumnClaim(Claim):
    """J^T u by columns, <u, J e_i> for every unit tangent: the product is called once for each input and cotangent."""

    def gradient(self, u: FloatArray) -> Callable[..., Any]:
        """See `Claim.gradient`."""
        size = self.point.theta.size

        def columns(tree: Any, *args: Any) -> Any:
            flat = np.array([self.slope(u, unit(i, size), tree) for i in range(size)])
            return self.point.inputs.unflatten(flat)

        return columns

    def slope_along(self, v: FloatArray) -> Callable[[FloatArray], float]:
        """See `Claim.slope_along`."""
        pushed = self.point.pushed(self.product, v).flat
        return lambda u: float(u @ pushed)

    def slope(self, u: FloatArray, v: FloatArray, tree: Any = None) -> Any:
        """Return the claimed <u, J v> as a scalar of the precision that the claim came in."""
        pushed = self.point.pushed(self.product, v, tree)
        eps = float(pushed.eps.max()) / len(self.point.outputs.blocks)
        kind = next((kind for kind in (np.float64, np.float32) if eps <= np.finfo(kind).eps), np.float16)
        return kind(u @ pushed.flat)


@dataclass(frozen=True)
class TangentClaim(ColumnClaim):
    """<u, J v> for random tangents of each block, as the gradient of c -> <u, f(x + V c)> at c = 0."""

    tangents: Tangents

    @property
    def params(self) -> Any:
        """The coefficients c, zeros."""
        return self.tangents.params

    def loss(self, u: FloatArray) -> Callable[..., Any]:
        """See `Claim.loss`."""
        return replace(self.point.weighted(u), function=Along(self.point, self.tangents))

    def gradient(self, u: FloatArray) -> Callable[..., Any]:
        """See `Claim.gradient`."""
        return lambda tree, *args: self.tangents.gradient(lambda v: self.slope(u, v), self.point.theta.size)

    def direction(self, coordinate: Coordinate) -> FloatArray:
        """See `Claim.direction`."""
        return self.tangents.vector(self.point.inputs[coordinate.block], coordinate.index[0], self.point.theta.size)
