"""A loss that evaluates K perturbed parameter sets in one call."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from fastcheck.arrays import FloatArray, IntArray
from fastcheck.errors import InputError, LossError
from fastcheck.losses.evaluator import Direction, PerturbedLoss, written
from fastcheck.parameters import Parameters

__all__ = ["Batched", "BatchedLoss", "batched"]

MEMORY = 1 << 28  # bytes that K copies of theta may take
LARGEST = 4096  # parameter sets in one call
PAYS = 0.9  # K is doubled as long as an evaluation then costs less than this share of what it did


@dataclass(frozen=True)
class Batched:
    """A loss marked as batched; see `batched`."""

    loss: Callable[..., Any]
    size: int | None = None

    def __call__(self, params: Any, *args: Any) -> Any:
        """Call the loss with stacked parameters; returns K values."""
        return self.loss(params, *args)


def batched(loss: Callable[..., Any] | None = None, *, size: int | None = None) -> Any:
    r"""Mark a loss that takes a leading axis of K stacked parameter sets and returns K values.

    Parameters
    ----------
    loss : callable
        ``loss(stacked, *args)``; stacked is a tree like params with arrays of shape (K, \*shape), float64, and what
        it returns has shape (K,). Value k depends on set k alone.
    size : int, optional
        K, the same in every call. By default K is doubled while that makes an evaluation cheaper and K copies of
        theta fit into 256 MiB; the last bits of a value may then differ from run to run, where the loss's own rounding
        depends on K.

    Returns
    -------
    Batched
        To be passed to `fastcheck.check` as the loss; also usable as a decorator.

    Raises
    ------
    InputError
        The loss is not callable, or size is not a positive integer.

    Examples
    --------
    >>> import numpy as np, fastcheck
    >>> loss = fastcheck.batched(lambda theta: np.sum(theta**2, axis=1))
    >>> fastcheck.check(loss, lambda theta: 2 * theta, np.array([1.0, 2.0])).passed
    True
    """
    if loss is None:
        return lambda function: batched(function, size=size)
    if not callable(loss):
        raise InputError(f"loss={loss!r} (type={type(loss).__name__}) is not callable: pass the function.")
    if size is not None and (isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1):
        raise InputError(f"size={size!r} must be a positive integer, or None to have it measured.")
    return Batched(loss, None if size is None else int(size))


class BatchedLoss(PerturbedLoss):
    """An `Evaluator` over a `Batched` loss.

    The layout is of one parameter set; `size` is K as found by another evaluator of the same loss, and kept.
    """

    def __init__(
        self,
        loss: Batched,
        layout: Parameters,
        theta: FloatArray,
        args: tuple[Any, ...] = (),
        size: int | None = None,
    ) -> None:
        super().__init__(loss, layout, theta, args)
        self._limit = max(1, min(LARGEST, MEMORY // max(8, theta.nbytes)))
        self._settled = size is not None or loss.size is not None
        self._cost = math.inf  # seconds an evaluation took with the present K
        self._stack(size or loss.size or 1)

    def twin(self) -> Self:
        """See `Shardable.twin`; with the same K."""
        return type(self)(self.loss, self.layout, self.theta, self.args, self.size)  # type: ignore[arg-type]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.loss, self.layout, self.theta, self.args, self.size)

    @property
    def untouched(self) -> bool:
        """See `Evaluator.untouched`."""
        same = all(np.array_equal(part, self._base_of(k)) for k, part in enumerate(self._parts))
        if not same:
            self._stack(self.size)
        return same

    def call(self) -> Any:
        """Evaluate K times at theta, and return one value."""
        self.evaluations += 1  # the same K times counts once
        return self._evaluate(self._tree)[0]

    def on_grid(self, coordinates: IntArray, steps: FloatArray, offsets: tuple[float, ...]) -> FloatArray:
        """See `Evaluator.on_grid`."""
        moved = np.repeat(coordinates, len(offsets))
        values = np.outer(steps, offsets)
        targets = (self.theta[coordinates][:, None] + values).reshape(-1)
        out = np.full(len(moved), np.nan)
        self.evaluations += len(moved)
        start = 0
        while start < len(moved):
            part = slice(start, start + self.size)
            began = time.perf_counter()
            out[part] = self._one_batch(moved[part], targets[part])
            start += self.size
            if start + 2 * self.size <= len(moved):
                self._settle((time.perf_counter() - began) / self.size)
        return self._mask_failures(out.reshape(values.shape), coordinates)

    def lent(self) -> FloatArray:
        """See `Evaluator.lent`."""
        return self.theta.copy()

    def along(self, start: int, direction: FloatArray | Direction, steps: FloatArray) -> FloatArray:
        """See `Evaluator.along`."""
        direction = written(direction)
        self.evaluations += len(steps)
        out = np.full(len(steps), np.nan)
        saved = self.theta[start : start + len(direction)]
        for first in range(0, len(steps), self.size):
            part = steps[first : first + self.size]
            points = np.tile(self.theta, (self.size, 1))
            points[: len(part), start : start + len(direction)] = part[:, None] * direction + saved
            tree = self.layout.unflatten_stack([points[:, block.slice] for block in self.layout.blocks])
            try:
                out[first : first + len(part)] = self._evaluate(tree)[: len(part)]
            except (Exception, SystemExit) as error:
                self._fail(error, self._direction_in(start))
        for value in out[~np.isfinite(out)]:
            self._fail(float(value), self._direction_in(start))
        out[~np.isfinite(out)] = np.nan
        return out

    def _one_batch(self, coordinates: IntArray, targets: FloatArray) -> FloatArray:
        """Evaluate K sets, the first of them with one coordinate each set to its target."""
        rows = np.arange(len(coordinates))
        number = np.searchsorted(self.layout.stops, coordinates, side="right")
        places = []
        for k in np.unique(number):
            mine = number == k
            places.append((self._parts[k], rows[mine], coordinates[mine] - self.layout.blocks[k].start, mine))
        for part, row, column, mine in places:
            part[row, column] = targets[mine]
        try:
            return self._evaluate(self._tree)[: len(rows)]
        except (Exception, SystemExit) as error:
            if len(rows) == 1:
                return np.array([self._fail(error, self.layout.breadcrumb(int(coordinates[0])))])
        finally:
            for part, row, column, mine in places:
                part[row, column] = self.theta[coordinates[mine]]
        # One of them made the loss raise, and the others are not to be lost with it.
        return np.concatenate([self._one_batch(coordinates[[k]], targets[[k]]) for k in rows])

    def _evaluate(self, tree: Any) -> FloatArray:
        return self._checked(self._returned(tree, counts=0))  # each of the batch is counted where it is made

    def _checked(self, returned: Any) -> FloatArray:
        values = np.asarray(returned)
        if values.shape != (self.size,) or values.dtype.kind not in "fiu":
            raise LossError(
                f"a batched loss of {self.size} stacked parameter sets returned shape {values.shape}, dtype "
                f"{values.dtype}; it must return one real number for each: shape ({self.size},)."
            )
        return values.astype(np.float64)

    def _settle(self, cost: float) -> None:
        """Double K while that pays."""
        if self._settled:
            return
        if cost > PAYS * self._cost or 2 * self.size > self._limit:
            self._settled = True
            return
        self._cost = cost
        self._stack(2 * self.size)

    def _stack(self, size: int) -> None:
        """Lay out K copies of theta, each block contiguous: its memory is (K, size of the block)."""
        self.size = size
        self._parts = [np.tile(self.theta[block.slice], (size, 1)) for block in self.layout.blocks]
        self._tree = self.layout.unflatten_stack(self._parts)

    def _base_of(self, number: int) -> FloatArray:
        return np.broadcast_to(self.theta[self.layout.blocks[number].slice], self._parts[number].shape)
