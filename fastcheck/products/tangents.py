"""Random tangents block by block, as coordinates of their own: g(c) = f(x + V c), differentiated at c = 0."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from fastcheck.arrays import FloatArray
from fastcheck.judge.bounds import chi_square_above, chi_square_below
from fastcheck.measure.directions import gaussian
from fastcheck.parameters import Block
from fastcheck.products.point import LinearizationPoint
from fastcheck.products.vectors import TANGENT

__all__ = ["Along", "Tangents", "spread"]


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
