"""A net with batch normalisation, in training mode: every sample acts on every other."""

from __future__ import annotations

import numpy as np

from fastcheck.arrays import FloatArray, IntArray
from fastcheck.bugs.mutation import Net, with_bugs
from fastcheck.examples.digits import digits_batch

__all__ = ["batchnorm_net"]

Params = list[dict[str, FloatArray]]

EPSILON = 1e-5  # of the variance


def _loss(params: Params, X: FloatArray, y: IntArray, l2: float) -> float:
    """Return the mean softmax cross-entropy plus L2 of the weights; X is (m, 64)."""
    hidden, output = params
    Z = X @ hidden["weight"]
    standard = (Z - np.mean(Z, axis=0)) / np.sqrt(np.var(Z, axis=0) + EPSILON)
    scores = np.tanh(hidden["gain"] * standard + hidden["shift"]) @ output["weight"] + output["bias"]
    data = np.mean(np.logaddexp.reduce(scores, axis=1) - scores[np.arange(len(y)), y])
    return float(data + 0.5 * l2 * (np.sum(hidden["weight"] ** 2) + np.sum(output["weight"] ** 2)))


def _gradient(params: Params, X: FloatArray, y: IntArray, l2: float, *, bug: str = "") -> Params:
    """Return the gradient; through the batch statistics as in Ioffe & Szegedy (2015), section 3."""
    hidden, output = params
    m = len(y)
    Z = X @ hidden["weight"]
    centred = Z - Z.mean(axis=0)
    inverse_std = 1 / np.sqrt((centred**2).mean(axis=0) + EPSILON)
    standard = centred * inverse_std
    A = np.tanh(standard * hidden["gain"] + hidden["shift"])
    scores = A @ output["weight"] + output["bias"]
    P = np.exp(scores - scores.max(axis=1, keepdims=True))
    P /= P.sum(axis=1, keepdims=True)
    dS = (P - np.eye(10, dtype=P.dtype)[y]) / m
    if bug == "softmax_diagonal":
        dS = np.where(dS < 0, dS, 0)
    dA = dS @ output["weight"].T
    slope = {"missing_activation_derivative": np.ones_like(A), "wrong_activation_derivative": A * (1 - A)}
    dpre = dA * slope.get(bug, 1 - A * A)
    dstandard = dpre * hidden["gain"]
    if bug == "constant_statistics":  # mean and variance taken for numbers, as at test time
        dZ = dstandard * inverse_std
    else:
        through_variance = standard * (dstandard * standard).mean(axis=0)
        dZ = inverse_std * (dstandard - dstandard.mean(axis=0) - through_variance)
    return [
        {
            "weight": X.T @ dZ + l2 * hidden["weight"],
            "gain": (dpre * standard).sum(axis=0),
            "shift": dpre.sum(axis=0),
        },
        {"weight": A.T @ dS + l2 * output["weight"], "bias": dS.sum(axis=0)},
    ]


def batchnorm_net(*, units: int = 12, batch: int = 50, l2: float = 1e-2, seed: int = 0) -> Net:
    """Return dense, batch normalisation, tanh, dense softmax on the digits, its parameters in a list of dicts.

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
    params = [
        {
            "weight": rng.standard_normal((64, units)) / 8,
            "gain": 1 + 0.2 * rng.standard_normal(units),
            "shift": 0.1 * rng.standard_normal(units),
        },
        {"weight": rng.standard_normal((units, 10)) / np.sqrt(units), "bias": 0.1 * rng.standard_normal(10)},
    ]
    kinds = ("missing_activation_derivative", "wrong_activation_derivative", "softmax_diagonal", "constant_statistics")
    return Net(
        _loss,
        _gradient,
        params,
        (X, y, l2),
        name="batchnorm_net",
        description="batch-normalised tanh net on the digits, statistics of the batch",
        batch=batch,
        classes=10,
        decay={"0.weight": l2, "1.weight": l2} if l2 else {},
        biases=("0.shift", "1.bias"),
        bugs=with_bugs(_gradient, *kinds),
    )
