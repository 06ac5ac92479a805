"""What an experiment may ask for: losses elsewhere than at theta, on a part of the data, and the gradient again."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastcheck.arithmetic import theirs
from fastcheck.arrays import FloatArray
from fastcheck.diagnosis.evidence import BlockEvidence, Evidence
from fastcheck.gradients import match_gradient
from fastcheck.losses.python import PythonLoss

__all__ = ["NEAR", "Change", "OutOfTimeError", "UserFunctions", "unchanged"]

Change = Callable[[tuple[Any, ...]], tuple[Any, ...]]
NEAR = 1e-3  # of the error along a direction that may be left

STEP = 2.0**-18  # of a direction, relative to the parameters it moves


class OutOfTimeError(Exception):
    """An experiment takes too long: far away a loss may cost thousands of times what it does at theta."""


@dataclass
class UserFunctions:
    """A loss, its data and its gradient, to be asked a few more questions.

    Attributes
    ----------
    loss : callable
        The user's own loss, also where a network measures for it.
    data : tuple
        Extra positional arguments of the loss.
    gradient : tree or callable
        The user's gradient.
    args : tuple
        Extra positional arguments of the gradient.
    evaluator : PythonLoss
        The loss around theta.
    base : float
        J(theta).
    claimed : float64, shape (P,)
        The analytic gradient as it was when the run began.
    affordable : float
        Evaluations that one experiment may ask for.
    over : callable
        () -> bool: says whether there is no time for another one.
    """

    loss: Callable[..., Any]
    data: tuple[Any, ...]
    gradient: Any
    args: tuple[Any, ...]
    evaluator: PythonLoss
    base: float
    claimed: FloatArray
    affordable: float = math.inf
    over: Callable[[], bool] = lambda: False

    @property
    def theta(self) -> FloatArray:
        """The parameters, shape (P,)."""
        return self.evaluator.theta

    def on(self, data: tuple[Any, ...]) -> PythonLoss:
        """Return the loss around theta on other data."""
        return PythonLoss(self.loss, self.evaluator.layout, self.theta, data)

    def gradient_at(self, theta: FloatArray, args: tuple[Any, ...] | None = None) -> FloatArray | None:
        """Return the gradient at another theta or of other data, shape (P,); None where it is no function, or fails."""
        if not callable(self.gradient):
            return None
        self._in_time()
        try:
            tree = self.evaluator.tree_of(theta.copy())
            with theirs():
                returned = self.gradient(tree, *(self.args if args is None else args))
            return match_gradient(returned, self.evaluator.layout).flat
        except (Exception, SystemExit):
            return None

    def directions(self, evidence: Evidence, blocks: Sequence[BlockEvidence], count: int) -> list[FloatArray]:
        """Return directions in some blocks, shape (P,), blind to L2 and L1 where a block has room for that."""
        rng = np.random.default_rng(len(self.theta))
        found = []
        for _ in range(count):
            v = np.zeros(len(self.theta))
            for block in blocks:
                part = rng.standard_normal(block.block.size)
                if block.block.size > 2:
                    part = _apart(part, block.theta)
                v[block.block.slice] = part * (float(np.sqrt(np.mean(block.theta**2))) or 1.0)
            found.append(v)
        return found

    def slope(self, evaluator: PythonLoss, v: FloatArray, away: FloatArray | None = None) -> float:
        """Return the derivative along v at theta, or at theta + away; two evaluations."""
        if away is None:
            self._in_time()
            values = evaluator.along(0, v, np.array([STEP, -STEP]))
            return float(values[0] - values[1]) / (2 * STEP)
        forth, back = (self.value(evaluator, away + h * v) for h in (STEP, -STEP))
        return (forth - back) / (2 * STEP)

    def value(self, evaluator: PythonLoss, away: FloatArray) -> float:
        """Return the loss at theta + away."""
        self._in_time()
        return float(evaluator.along(0, away, np.ones(1))[0])

    def _in_time(self) -> None:
        if self.over():
            raise OutOfTimeError

    def agrees(self, directions: Sequence[FloatArray], theta: FloatArray, change: Change) -> bool:
        """Say whether loss and gradient agree elsewhere, or on changed data, along directions where they do not here.

        The directions, each of shape (P,), are in the wrong blocks.
        """
        g = self.gradient_at(theta, change(self.args))
        if g is None:
            return False
        elsewhere, away = self.on(change(self.data)), theta - self.theta
        for v in directions:
            before = self.slope(self.evaluator, v) - float(self.claimed @ v)
            slope = self.slope(elsewhere, v, away if away.any() else None)
            self.evaluator.evaluations += 2
            if not (abs(slope - float(g @ v)) <= NEAR * abs(before) and abs(slope) > NEAR * abs(before)):
                return False
        return True


def _apart(part: FloatArray, theta: FloatArray) -> FloatArray:
    """Return the part of a vector orthogonal to theta and to its signs."""
    basis, _ = np.linalg.qr(np.stack([theta, np.sign(theta)], axis=1))
    return np.asarray(part - basis @ (basis.T @ part))


def unchanged(data: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the data as they are."""
    return data
