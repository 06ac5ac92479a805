"""How J is evaluated at many probes; one module for each kind of loss, `evaluator_for` chooses."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from fastcheck.arrays import FloatArray
from fastcheck.errors import InputError
from fastcheck.losses.batched import Batched, BatchedLoss
from fastcheck.losses.evaluator import Evaluator, MeasuresItself, Shardable, measures_itself, own_loss
from fastcheck.losses.jitted import JittedLoss
from fastcheck.losses.python import PythonLoss
from fastcheck.parameters import Parameters

__all__ = [
    "BatchedLoss",
    "Evaluator",
    "JittedLoss",
    "MeasuresItself",
    "PythonLoss",
    "Shardable",
    "evaluator_for",
    "measures_itself",
    "own_loss",
    "structured",
]


def structured(loss: object) -> str:
    """Return in words what a loss is that moves its parameters itself; empty for a plain one."""
    if isinstance(loss, Batched):
        return "a fastcheck.batched loss"
    return "a bound Network" if measures_itself(loss) else ""


def evaluator_for(loss: Callable[..., Any], layout: Parameters, theta: FloatArray, args: tuple[Any, ...]) -> Evaluator:
    """Return the evaluator that fits the loss: a Python function, one compiled by Numba, or a `fastcheck.batched` one.

    The base point, theta of shape (P,), is made read-only.

    Raises
    ------
    InputError
        The loss is not callable, or compiled for other arguments.
    """
    if not callable(loss):
        raise InputError(
            f"loss={loss!r} (type={type(loss).__name__}) is not callable: pass the function, not its value."
        )
    theta.flags.writeable = False
    if isinstance(loss, Batched):
        return BatchedLoss(loss, layout, theta, args)
    if _is_compiled(loss):
        return JittedLoss(loss, layout, theta, args)
    return PythonLoss.in_its_precision(loss, layout, theta, args)


def _is_compiled(loss: Any) -> bool:
    """Say whether a loss is a function compiled by Numba; does not import Numba."""
    registry = sys.modules.get("numba.core.registry")  # a compiled function can't exist where this is not loaded
    return registry is not None and isinstance(loss, registry.CPUDispatcher)
