"""What an operator of a network is: a function at a fixed point, and how a change of its input comes out.

A network at theta on its data is a chain of operators, each holding its input and output. Arrays inside are
"samples last": shape (*features, B), with features (n,) or (C, H, W). Changes carry one more axis before B, so that
many are propagated at once: shape (*features, m, B).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastcheck.arrays import FloatArray, IntArray
from fastcheck.kernels import network as kernels
from fastcheck.networks.activations import Activation
from fastcheck.networks.windows import Labels, Window

__all__ = [
    "AT_KINK",
    "CROSSED",
    "Bend",
    "Change",
    "Operator",
    "Softmax",
    "Starts",
    "Weighted",
    "fast_through",
    "selected",
]


@dataclass(frozen=True)
class Change:
    """Small changes on their way through the network.

    Attributes
    ----------
    d : float64
        Full: shape (*features, S, m', B) with S and m' flattened, that is (n or C, [h, w], m, S, B). Own (``rows``
        given): shape (m, S, B); change k is of feature (or channel) ``rows.start + k`` alone.
    rows : slice or None
        The features that change, one each.
    window : (y0, y1, x0, x1) or None
        Rows and columns of the map that ``d`` covers; the differences elsewhere are zero. None: all, or no map.
    """

    d: FloatArray
    rows: slice | None = None
    window: Window | None = None

    @property
    def lone(self) -> bool:
        """Whether each change is of one feature at one position."""
        y0, y1, x0, x1 = self.window or (0, 1, 0, 1)
        return self.rows is not None and y1 - y0 == 1 == x1 - x0

    @property
    def many(self) -> tuple[int, int, int]:
        """The trailing axes (m, S, B)."""
        m, s, b = self.d.shape[-3:]
        return m, s, b

    def spread(self, features: tuple[int, ...]) -> Change:
        """Return the same changes with one row per feature, still only over the window."""
        if self.rows is None:
            return self
        m = self.many[0]
        position = (1, 1) if self.window else ()
        d = np.zeros((features[0], *position, *self.many))
        index: tuple[Any, ...] = (np.arange(self.rows.start, self.rows.stop), *(0 for _ in position), np.arange(m))
        d[index] = self.d
        return Change(d, None, self.window)

    def everywhere(self, features: tuple[int, ...]) -> FloatArray:
        """Return the differences of every feature, shape (*features, m * S, B)."""
        m, s, b = self.many
        whole = self.spread(features)
        if whole.window is None:
            return whole.d.reshape(*features, m * s, b)
        d = np.zeros((*features, m * s, b))
        y0, y1, x0, x1 = whole.window
        d[:, y0:y1, x0:x1] = whole.d.reshape(*whole.d.shape[:3], m * s, b)
        return d


@dataclass(frozen=True)
class Starts:
    """Where changes of a map start: at each position by itself, leaving an operator, to go through those after it."""

    operator: Operator
    after: tuple[Operator, ...]

    def holding(self, wanted: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which starts, shape (C, H', W'), are needed for some entries (C, H, W) of the map."""
        return wanted

    def start(self, rows: slice, y: int, x: int, steps: FloatArray) -> Change:
        """Return the changes at one start in each of some channels; ``steps``: (m, S, B)."""
        return Change(steps, rows, (y, y + 1, x, x + 1))

    def share(
        self, rows: slice, y: int, x: int, slopes: FloatArray, far: NDArray[np.bool_], h: float
    ) -> tuple[tuple[slice | int, ...], FloatArray, NDArray[np.bool_]]:
        """Return the entries of the map that the slopes and marks (m, B) of one start are for, and those of each."""
        return (rows, y, x), slopes, far


Bits = NDArray[np.uint8]
Far = NDArray[np.uint8]
Transform = Callable[[FloatArray], FloatArray]

CROSSED, AT_KINK = np.uint8(1), np.uint8(2)


Holder = TypeVar("Holder")


def selected(holder: Holder, names: tuple[str, ...], samples: IntArray) -> Holder:
    """Return a shallow copy with only some samples of the named attributes, of shape (..., B)."""
    chosen = copy.copy(holder)
    for name in names:
        setattr(chosen, name, getattr(holder, name)[..., samples])
    return chosen


class Operator:
    """One step of the network at a point: ``out`` is its output, shape (*features, B)."""

    inputs: tuple[int, ...]
    """Features of the input."""
    out: FloatArray
    by_sample: tuple[str, ...] = ()
    """Attributes that `exact` uses, of shape (..., B)."""
    couples = False
    """Whether a change of one sample's input changes other samples' outputs."""
    kinked = False
    """Whether there is a kink in it anywhere."""

    def exact(self, d: FloatArray, bits: Bits) -> FloatArray:
        """Return the exact differences of the output.

        Parameters
        ----------
        d : shape (*input features, m, B)
            Differences of the input, of any size. Not changed.
        bits : uint8, shape (m, B)
            `CROSSED` is set where a difference passes a kink, `AT_KINK` where the point itself is one.
        """
        raise NotImplementedError

    def fast(self, change: Change, far: Far) -> Change:
        """Return small changes of the output, for both signs of those of the input.

        What is carried is half of [change of +d] - [change of -d], of which alone a central difference is made. After a
        curved f that is d f'(z) but for terms of order d^3; half of the sum, of order d^2, enters it with another d.
        ``far``, shape (m * S, B), marks changes that go too far for that. This one is for a function that is linear
        but for kinks.
        """
        m, s, b = change.many
        bits = np.zeros((m * s, b), np.uint8)
        d = self.exact(change.everywhere(self.inputs), bits)
        far |= bits > 0
        return Change(d.reshape(*self.out.shape[:-1], m, s, b))

    def fused(self, following: tuple[Operator, ...], change: Change, far: Far) -> tuple[Change, int]:
        """Do the same, and as many of the following operators as one kernel takes along; return their number too."""
        return self.fast(change, far), 0

    def squares_below(self, squares: FloatArray) -> FloatArray:
        """Return the mean squares of slopes by the input from those by the output, if all terms had random signs.

        Both are of shape (*features, B). Slopes are sums of such terms: what is left of them may be far smaller, but
        has their rounding.
        """
        raise NotImplementedError

    def select(self, samples: IntArray) -> Self:
        """Return the operator with only these samples; of use for `exact` alone."""
        return selected(self, self.by_sample, samples)

    def identify(self, labels: Labels) -> Labels | None:
        """Return the labels (H', W', B) of the positions of the output map from those of the input's; None if unknown.

        Two positions of one sample have one label if they hold the same function of the parameters, having the same
        data below them: all channels of both stay equal whatever the parameters are.
        """
        return None


class Weighted(Operator):
    """An operator with parameters, in which its output is linear."""

    blocks: Mapping[str, tuple[int, ...]]
    """Block names and canonical shapes."""
    single = True
    """Whether each coordinate acts on a sample through one entry of the output."""

    def contract(self, slopes: FloatArray, transform: Transform | None = None) -> dict[str, FloatArray]:
        """Return sum over entries and samples of slopes times (transformed) derivative of the output by each block."""
        raise NotImplementedError

    def impulse(self, name: str, flat: IntArray, h: float) -> FloatArray:
        """Return the output's differences, shape (*features, m, B), when each coordinate of a block moves by h."""
        raise NotImplementedError

    def rows_of(self, name: str, flat: IntArray) -> IntArray:
        """Return the leading features of the output on which these coordinates of the block act."""
        raise NotImplementedError


def fast_through(operators: tuple[Operator, ...], change: Change, far: Far) -> Change:
    """Carry small changes through a chain of operators."""
    done = 0
    while done < len(operators):
        change, more = operators[done].fused(operators[done + 1 :], change, far)
        done += 1 + more
    return change


class Bend(Operator):
    """An elementwise activation."""

    by_sample = ("z",)

    def __init__(self, z: FloatArray, activation: Activation) -> None:
        self.z = z
        self.inputs = z.shape[:-1]
        self.activation = activation
        self.kinked = activation.kinked
        self.out = activation.value(z)

    @cached_property
    def tables(self) -> tuple[FloatArray, FloatArray]:
        """Slope and reach, each shaped like z."""
        rho = np.full_like(self.z, kernels.REACH if self.activation.curvature else np.inf)
        slope = np.ascontiguousarray(self.activation.slope(self.z))
        return slope, np.minimum(rho, np.abs(self.z)) if self.kinked else rho

    def tables_of(self, window: Window | None) -> tuple[FloatArray, FloatArray]:
        """Return the tables of a window, each of shape (features in the window, B)."""
        slope, rho = (_cut(table, window) for table in self.tables)
        return slope, rho

    def exact(self, d: FloatArray, bits: Bits) -> FloatArray:
        """See `Operator.exact`."""
        z = self.z[..., None, :]
        if self.activation.kinked:
            axes = tuple(range(self.z.ndim - 1))
            bits |= CROSSED * (((z > 0) & (d < -z)) | ((z < 0) & (d > -z))).any(axis=axes)
            bits |= AT_KINK * ((z == 0) & (d != 0)).any(axis=axes)
        return self.activation.difference(z, d)

    def fast(self, change: Change, far: Far) -> Change:
        """See `Operator.fast`."""
        m, s, b = change.many
        if change.rows is None:
            d = np.ascontiguousarray(change.d)
            kernels.bend(d.reshape(-1, m * s, b), *self.tables_of(change.window), far)
            return replace(change, d=d)
        position = () if change.window is None else (change.window[0], change.window[2])
        slope, rho = (table[(change.rows, *position)][:, None, :] for table in self.tables)
        far |= (np.abs(change.d) > rho).reshape(m * s, b)
        return replace(change, d=change.d * slope)

    def squares_below(self, squares: FloatArray) -> FloatArray:
        """See `Operator.squares_below`."""
        return np.asarray(self.tables[0] ** 2 * squares)

    def identify(self, labels: Labels) -> Labels:
        """See `Operator.identify`."""
        return labels


def _cut(table: FloatArray, window: Window | None) -> FloatArray:
    if window is not None:
        table = table[:, window[0] : window[1], window[2] : window[3]]
    return np.ascontiguousarray(table).reshape(-1, table.shape[-1])


class Softmax(Operator):
    """Softmax over the first axis of the features of each sample."""

    by_sample = ("out",)

    def __init__(self, z: FloatArray) -> None:
        self.inputs = z.shape[:-1]
        e = np.exp(z - z.max(axis=0))
        self.out = e / e.sum(axis=0)

    def exact(self, d: FloatArray, bits: Bits) -> FloatArray:
        """See `Operator.exact`."""
        # p_k e^{d_k} / sum_j p_j e^{d_j} - p_k, with r = sum_j p_j expm1(d_j).
        p = self.out[..., None, :]
        e = np.expm1(d)
        r = (p * e).sum(axis=0)
        return np.asarray(p * (e - r) / (1.0 + r))

    def fast(self, change: Change, far: Far) -> Change:
        """See `Operator.fast`."""
        d, p = change.everywhere(self.inputs), self.out[..., None, :]
        return Change((p * (d - (p * d).sum(axis=0))).reshape(*self.inputs, *change.many))

    def squares_below(self, squares: FloatArray) -> FloatArray:
        """See `Operator.squares_below`."""
        p2 = self.out**2
        return np.asarray(p2 * (squares + (p2 * squares).sum(axis=0)))

    def identify(self, labels: Labels) -> Labels:
        """See `Operator.identify`."""
        return labels
