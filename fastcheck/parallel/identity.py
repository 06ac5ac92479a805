"""What a checkpoint belongs to: the loss, its data, theta, the gradient and the settings, as digests."""

from __future__ import annotations

import platform
from typing import Any

import numpy as np

from fastcheck import __version__
from fastcheck.arrays import FloatArray
from fastcheck.losses.evaluator import Evaluator
from fastcheck.parallel.digest import digest

__all__ = ["identity"]

FREE = ("workers", "backend", "budget", "checkpoint", "progress")  # settings that no number depends on


def identity(
    evaluator: Evaluator, loss: Any, args: tuple[Any, ...], base: float, gradient: FloatArray, settings: dict[str, Any]
) -> dict[str, Any]:
    """Return what must be the same for a run to resume another.

    Parameters
    ----------
    evaluator : Evaluator
        Has the layout and theta.
    loss : callable
        The user's loss.
    args : tuple
        Its data.
    base : float
        J(theta).
    gradient : float64, shape (P,)
        The analytic gradient.
    settings : dict
        The settings as plain data.

    Raises
    ------
    InputError
        The loss or its data hold something that can't be told from another.
    """
    layout = [[b.name, list(b.shape), str(b.dtype), b.order] for b in evaluator.layout.blocks]
    return {
        "version": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "layout": digest(layout),
        "theta": digest(evaluator.theta),
        "args": digest(args, "args"),
        "loss": digest(loss, "loss"),
        "J(theta)": float(base).hex(),
        "gradient": digest(gradient),
        **{key: value for key, value in settings.items() if key not in FREE},
    }
