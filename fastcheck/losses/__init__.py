"""How J is evaluated at many probes; one module for each kind of loss, `evaluator_for` chooses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastcheck.arrays import FloatArray
from fastcheck.errors import InputError
from fastcheck.losses.evaluator import Evaluator
from fastcheck.losses.python import PythonLoss
from fastcheck.parameters import Parameters

__all__ = ["Evaluator", "PythonLoss", "evaluator_for"]


def evaluator_for(loss: Callable[..., Any], layout: Parameters, theta: FloatArray, args: tuple[Any, ...]) -> PythonLoss:
    """Return the evaluator that fits the loss.

    Parameters
    ----------
    loss : callable
        The user's loss.
    layout : Parameters
        Layout of its parameters.
    theta : float64, shape (P,)
        The base point.
    args : tuple
        Extra positional arguments of the loss.

    Raises
    ------
    InputError
        The loss is not callable.
    """
    if not callable(loss):
        raise InputError(
            f"loss={loss!r} (type={type(loss).__name__}) is not callable: pass the function, not its value."
        )
    theta.flags.writeable = False
    return PythonLoss(loss, layout, theta, args)
