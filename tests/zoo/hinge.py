"""A net with kinks everywhere: leaky relu and a multi-class hinge loss."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastcheck.arrays import FloatArray, IntArray
from fastcheck.bugs.mutation import Net, rows, with_bugs
from fastcheck.examples.digits import digits_batch

__all__ = ["HingeParams", "hinge_net"]

LEAK = 0.1


class HingeParams(NamedTuple):
    """Parameters of `hinge_net`; weights are (inputs, outputs), biases (outputs,)."""

    hidden: FloatArray
    hidden_bias: FloatArray
    output: FloatArray
    output_bias: FloatArray


def _loss(params: HingeParams, X: FloatArray, y: IntArray, l2: float) -> float:
    """Return the mean over samples of ``sum_{k != y} max(0, 1 + s_k - s_y)`` (Weston & Watkins 1999) plus L2."""
    Z = X @ params.hidden + params.hidden_bias
    scores = np.maximum(Z, LEAK * Z) @ params.output + params.output_bias
    margins = np.maximum(0, 1 + scores - scores[np.arange(len(y)), y][:, None])
    # the true class stands in the sum with a margin of exactly 1
    data = (margins.sum() - len(y)) / len(y)
    return float(data + 0.5 * l2 * (np.sum(params.hidden**2) + np.sum(params.output**2)))


def _gradient(params: HingeParams, X: FloatArray, y: IntArray, l2: float, *, bug: str = "") -> HingeParams:
    m, samples = len(y), np.arange(len(y))
    Z = X @ params.hidden + params.hidden_bias
    A = np.where(Z > 0, Z, LEAK * Z)
    scores = A @ params.output + params.output_bias
    violated = 1 + scores - scores[samples, y][:, None] > 0
    violated[samples, y] = False
    dS = violated.astype(scores.dtype) / m
    # the true class is pushed up once for every violated margin
    dS[samples, y] = -1 / m if bug == "hinge_counted_once" else -violated.sum(axis=1) / m
    dA = dS @ params.output.T
    slope = {"missing_activation_derivative": np.ones_like(Z), "leak_dropped": (Z > 0).astype(Z.dtype)}
    dZ = dA * slope.get(bug, np.where(Z > 0, 1, LEAK).astype(Z.dtype))
    return HingeParams(
        X.T @ dZ + l2 * params.hidden, dZ.sum(axis=0), A.T @ dS + l2 * params.output, dS.sum(axis=0)
    )  # fmt: skip


def hinge_net(*, units: int = 16, batch: int = 60, l2: float = 1e-2, seed: int = 0) -> Net:
    """Return a 64-units-10 leaky-relu net on the digits with a hinge loss, its parameters in a namedtuple.

    Parameters
    ----------
    units, batch : int
        Hidden units, number of digits.
    l2 : float
        Weight of ``l2 / 2 * sum(W**2)``, on the weights only and not averaged over the batch.
    seed : int
        Of the batch and the parameters.
    """
    rng = np.random.default_rng(seed)
    X, y = digits_batch(batch, rng)
    params = HingeParams(
        rng.standard_normal((64, units)) / 8,
        0.1 * rng.standard_normal(units),
        rng.standard_normal((units, 10)) / np.sqrt(units),
        0.1 * rng.standard_normal(10),
    )
    return Net(
        _loss,
        _gradient,
        params,
        (X, y, l2),
        name="hinge_net",
        description="leaky-relu net on the digits, multi-class hinge loss",
        batch=batch,
        decay={"hidden": l2, "output": l2} if l2 else {},
        biases=("hidden_bias", "output_bias"),
        take=rows,
        bugs=with_bugs(_gradient, "missing_activation_derivative", "leak_dropped", "hinge_counted_once"),
    )
