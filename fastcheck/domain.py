"""Functions of parameters that have bounds: beyond one the function is extrapolated from three points inside.

With y the nearest point of the box, p = y + d becomes 3 f(y) - 3 f(y - d) + f(y - 2d), the parabola through the three.
The function so continued has two continuous derivatives across the bound (reflections of this kind are Hestenes', Duke
Math. J. 8, 1941), so that differences and their errors are what they are elsewhere: a central difference of step h at a
bound is the one-sided formula (-3 f(x) + 4 f(x + h) - f(x + 2h)) / 2h. The function itself is evaluated inside alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcheck.arrays import FloatArray
from fastcheck.errors import InputError, LossError
from fastcheck.parameters import ROOT, Parameters, leaves, rebuilt

__all__ = ["BIAS", "DEVIATION", "Box", "Continued", "Inside"]

DEVIATION, BIAS = 19**0.5, 7.0  # of a value beyond a bound, in those of the values inside: 3, -3 and 1 times them
NEAR = 0.1  # to a bound, relative to the coordinate and to 1: steps may cross it
AT = 1e-6  # and so near is at it


@dataclass(frozen=True, eq=False)
class Box:
    """Where parameters may lie.

    Attributes
    ----------
    names : tuple of str
        Of the blocks.
    low, high : tuple of float64 arrays
        One for each block; infinite where there is no bound.
    """

    names: tuple[str, ...]
    low: tuple[FloatArray, ...]
    high: tuple[FloatArray, ...]

    @classmethod
    def of(cls, bounds: Any, params: Any, name: str = "params") -> Box:
        """Read bounds and compare them with where the parameters are.

        Parameters
        ----------
        bounds : (low, high)
            Each None, a number, or a tree like params with None, numbers or arrays; blocks that are left out have
            none. Or an object with ``lb`` and ``ub``, as ``scipy.optimize.Bounds``.
        params : tree of float arrays
            Where to check.
        name : str
            How messages call it.

        Raises
        ------
        InputError
            They are not of that form, leave no room, or the parameters are outside.
        """
        layout = Parameters.of(params, name=name)
        if hasattr(bounds, "lb") and hasattr(bounds, "ub"):
            bounds = (bounds.lb, bounds.ub)
        if not isinstance(bounds, (tuple, list)) or len(bounds) != 2:
            raise InputError(
                f"bounds={bounds!r} must be (low, high), each None, a number or a tree like {name}; pairs for each "
                "coordinate are low, high = zip(*pairs)."
            )
        low, high = (_side(side, which, layout, name) for which, side in zip(("low", "high"), bounds, strict=True))
        box = cls(tuple(block.name for block in layout.blocks), low, high)
        box._refuse_outside([np.asarray(leaf) for _, leaf in leaves(params)], name)
        return box

    def nearest(self, arrays: Sequence[Any]) -> list[Any]:
        """Return the nearest arrays inside; imaginary parts, of a complex step, are left alone."""
        found = []
        for x, low, high in zip(arrays, self.low, self.high, strict=True):
            inside = np.asarray(np.clip(x.real, low, high), dtype=x.real.dtype)
            found.append(inside + 1j * x.imag if np.iscomplexobj(x) else inside)
        return found

    def holds(self, arrays: Sequence[Any]) -> bool:
        """Say whether all of them are inside."""
        rows = zip(arrays, self.low, self.high, strict=True)
        return all(bool(np.all((x.real >= low) & (x.real <= high))) for x, low, high in rows)

    def near(self, arrays: Sequence[Any]) -> bool:
        """Say whether any entry is so near to a bound that a step may cross it."""
        rows = zip(arrays, self.low, self.high, strict=True)
        return any(bool(np.any(np.minimum(x - low, high - x) <= NEAR * (1 + np.abs(x)))) for x, low, high in rows)

    def at(self, arrays: Sequence[Any]) -> NDArray[np.bool_]:
        """Return which entries of all of them, flat, are at a bound."""
        rows = zip(arrays, self.low, self.high, strict=True)
        return np.concatenate(
            [(np.minimum(x - low, high - x) <= AT * (1 + np.abs(x))).ravel() for x, low, high in rows]
        )

    def _refuse_outside(self, arrays: Sequence[Any], name: str) -> None:
        for block, x, low, high in zip(self.names, arrays, self.low, self.high, strict=True):
            tight = np.argwhere(~(low < high))
            out = np.argwhere(~((x >= low) & (x <= high)))
            where = tight if len(tight) else out
            if not len(where):
                continue
            index = tuple(int(i) for i in where[0])
            at = f"{name if block == ROOT else block}{list(index) if index else ''}"
            if len(tight):
                raise InputError(
                    f"bounds={float(low[index])!r}, {float(high[index])!r} of {at}: low must be below high. What is "
                    "fixed is no parameter: leave it out of them, and let the loss know it otherwise."
                )
            raise InputError(
                f"{at}={float(x[index])!r} is outside its bounds {float(low[index])!r}, {float(high[index])!r}: the "
                "point to check at must be inside, or on them."
            )


@dataclass(frozen=True, eq=False)
class Continued:
    """A function of a tree of arrays, continued beyond a box; see the module."""

    function: Callable[..., Any]
    box: Box

    def __call__(self, tree: Any, *args: Any) -> Any:
        """Return the function inside; outside, the parabola through three values of it."""
        arrays = [np.asarray(leaf) for _, leaf in leaves(tree)]
        if self.box.holds(arrays):
            return self.function(tree, *args)
        near = self.box.nearest(arrays)
        points = [[np.asarray(y - k * (x - y)) for x, y in zip(arrays, near, strict=True)] for k in (0, 1, 2)]
        if not all(map(self.box.holds, points)):
            raise LossError(
                "the bounds are nearer to each other than the steps of the differences: give smaller steps with step=, "
                "or a loss with more digits"
            )
        values = [self.function(rebuilt(tree, point), *args) for point in points]
        parts = zip(*([np.asarray(leaf) for _, leaf in leaves(value)] for value in values), strict=True)
        return rebuilt(values[0], [3 * a - 3 * b + c for a, b, c in parts])


@dataclass(frozen=True, eq=False)
class Inside:
    """A gradient that is asked inside a box alone."""

    function: Callable[..., Any]
    box: Box

    def __call__(self, tree: Any, *args: Any) -> Any:
        """Return the gradient.

        Raises
        ------
        LossError
            The parameters are outside.
        """
        if not self.box.holds([np.asarray(leaf) for _, leaf in leaves(tree)]):
            raise LossError("outside the bounds the gradient is not asked.")
        return self.function(tree, *args)


def _side(side: Any, which: str, layout: Parameters, name: str) -> tuple[FloatArray, ...]:
    """Return the low or the high bounds, an array for each block."""
    none = -np.inf if which == "low" else np.inf
    blocks = layout.blocks
    if side is None or isinstance(side, (int, float, np.number)):
        given = {block.name: side for block in blocks}
    elif len(blocks) == 1 and blocks[0].name == ROOT:
        given = {ROOT: side}
    else:
        given = dict(side) if isinstance(side, Mapping) else {}
        if not (given and set(given) <= {block.name for block in blocks}):
            given = {".".join(path): leaf for path, leaf in leaves(side)}
    unknown = sorted(set(given) - {block.name for block in blocks})
    if unknown:
        raise InputError(
            f"bounds: {which} has {unknown[0]!r}, and {name} has {', '.join(block.name for block in blocks)}. Name "
            "the blocks as they are, or pass one number for all."
        )
    return tuple(_array(given.get(block.name), none, block.shape, f"{which} of {block.name}") for block in blocks)


def _array(value: Any, none: float, shape: tuple[int, ...], what: str) -> FloatArray:
    try:
        array = np.asarray(none if value is None else value, dtype=np.float64)
        found = np.broadcast_to(array, shape).copy()
    except (TypeError, ValueError) as error:
        raise InputError(
            f"bounds: {what} (type={type(value).__name__}, shape={np.shape(value)}) must be a number, or numbers of "
            f"shape {shape}; -inf or inf where there is no bound."
        ) from error
    if np.isnan(found).any():
        raise InputError(f"bounds: {what} has a NaN. Write -inf or inf where there is no bound.")
    return found
