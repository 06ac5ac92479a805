"""How a claimed product becomes the gradient of <u, f>: by J^T u itself, by its columns, or by random tangents."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from fastcheck.arrays import FloatArray
from fastcheck.judge.bounds import chi_square_above, chi_square_below
from fastcheck.measure.directions import TANGENT, gaussian, unit
from fastcheck.parameters import Block
from fastcheck.products.point import LinearizationPoint, Product
from fastcheck.report import Coordinate

__all__ = ["Along", "Claim", "ColumnClaim", "TangentClaim", "Tangents", "TransposedClaim", "spread"]


@dataclass(frozen=True)
class Along:
    """The function g(c) = f(x + V c); c is a dict of arrays by block."""

    point: LinearizationPoint
    tangents: Tangents

    def __call__(self, coefficients: dict[str, FloatArray], *args: Any) -> Any:
        """Return f where the coefficients lead."""
        theta = self.point.theta.astype(np.result_type(self.point.theta, *coefficients.values()))
        for block, vectors in self.tangents.of.items():
            c = coefficients[block.name]
            for k in np.flatnonzero(c):
                theta[block.slice] += c[k] * vectors[k]
        return self.point.function(self.point.tree(theta), *args)


@dataclass(frozen=True)
class Tangents:
    """Vectors over blocks of the inputs.

    Attributes
    ----------
    of : mapping of Block to float64 array, shape (k, size of the block)
        The vectors of each block.
    """

    of: dict[Block, FloatArray]

    @classmethod
    def at_random(cls, point: LinearizationPoint, blocks: tuple[Block, ...], count: int, seed: int) -> Self:
        """Draw Gaussian tangents over each block in proportion to its magnitude."""
        drawn = {}
        for number, block in enumerate(blocks):
            vectors = [gaussian(seed, TANGENT + number, k, 0, block.size) for k in range(count)]
            drawn[block] = _scale(point, block) * np.array(vectors)
        return cls(drawn)

    @classmethod
    def parts(cls, point: LinearizationPoint, block: Block, start: int, stop: int, count: int) -> Self:
        """Return vectors that share out the entries start:stop of a block between them, each with its own part."""
        whole = _scale(point, block) * gaussian(0, TANGENT, 0, 0, block.size)
        cuts = np.unique(np.linspace(start, stop, count + 1).astype(int))
        vectors = np.zeros((len(cuts) - 1, block.size))
        for row, (low, high) in enumerate(itertools.pairwise(cuts)):
            vectors[row, low:high] = whole[low:high]
        return cls({block: vectors})

    @property
    def params(self) -> dict[str, FloatArray]:
        """The coefficients at x: zeros."""
        return {block.name: np.zeros(len(vectors)) for block, vectors in self.of.items()}

    def vector(self, block: Block, k: int, size: int) -> FloatArray:
        """Return one of the vectors over all inputs, shape (size,)."""
        v = np.zeros(size)
        v[block.slice] = self.of[block][k]
        return v

    def gradient(self, slope: Callable[[FloatArray], float], size: int) -> dict[str, Any]:
        """Return what a slope along v is for each of the vectors, as a tree like `params`."""
        return {
            block.name: np.array([slope(self.vector(block, k, size)) for k in range(len(vectors))])
            for block, vectors in self.of.items()
        }


def spread(count: int, blocks: int, confidence: float) -> float:
    """Return the factor from a relative error along tangents to one of the whole block, at a confidence.

    Along a Gaussian v an error e is e.v ~ N(0, |e|^2), so over k of them the sum of squares is |e|^2 times a chi-square
    of k degrees: at least its low quantile; that of the gradient at most its high one.
    """
    chance = (1 - confidence) / (2 * blocks)
    return math.sqrt(chi_square_above(chance, count) / chi_square_below(chance, count))


def _scale(point: LinearizationPoint, block: Block) -> float:
    part = point.theta[block.slice]
    return math.sqrt(float(part @ part) / max(1, block.size)) or 1.0


@dataclass(frozen=True)
class Claim(ABC):
    """A product as the claimed gradient of the loss <u, f>, for any cotangent u."""

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
