"""One-layer models: logistic regression (with L2 and L1), linear regression."""

from __future__ import annotations

import numpy as np

from fastcheck.arrays import FloatArray
from fastcheck.bugs.mutation import Net, rows, with_bugs
from fastcheck.examples.digits import digits_batch

__all__ = ["linear_regression", "logistic_regression"]

Pair = tuple[FloatArray, FloatArray]


def _logistic_loss(params: dict[str, FloatArray], X: FloatArray, y: FloatArray, l2: float, l1: float) -> float:
    """Return the mean of -log p(y) plus ``l2 / 2 * sum(w**2) + l1 * sum(|w|)``; X is (m, n), y is 0 or 1."""
    w = params["w"]
    scores = X @ w + params["b"]
    data = np.mean(np.logaddexp(0, scores) - y * scores)
    return float(data + 0.5 * l2 * np.sum(w**2) + l1 * np.sum(np.abs(w)))


def _logistic_gradient(
    params: dict[str, FloatArray], X: FloatArray, y: FloatArray, l2: float, l1: float, *, bug: str = ""
) -> dict[str, FloatArray]:
    w = params["w"]
    probability = 1 / (1 + np.exp(-(X @ w + params["b"])))
    dz = (probability - y) / len(y)
    if bug == "missing_output_derivative":  # the sigmoid's p (1 - p) that cancels the cross-entropy's is forgotten
        dz = dz / (probability * (1 - probability))
    return {"w": X.T @ dz + l2 * w + l1 * np.sign(w), "b": dz.sum()}


def logistic_regression(*, l2: float = 0.1, l1: float = 0.0, batch: int = 200, seed: int = 0) -> Net:
    """Return "is this digit a 3?": weights (64,), a bias of shape (), in a dict.

    Parameters
    ----------
    l2, l1 : float
        Weights of ``l2 / 2 * sum(w**2)`` and ``l1 * sum(|w|)``, not averaged over the batch.
    batch : int
        Number of digits.
    seed : int
        Of the batch and the parameters.
    """
    rng = np.random.default_rng(seed)
    X, digits = digits_batch(batch, rng)
    return Net(
        _logistic_loss,
        _logistic_gradient,
        {"w": 0.3 * rng.standard_normal(64), "b": np.array(-0.2)},
        (X, (digits == 3).astype(float), l2, l1),
        name="logistic_regression" + (" l2" if l2 else "") + (" l1" if l1 else ""),
        description="logistic regression on the digits, mean binary cross-entropy",
        batch=batch,
        decay={"w": l2} if l2 else {},
        lasso={"w": l1} if l1 else {},
        biases=("b",),
        take=rows,
        bugs=with_bugs(_logistic_gradient, "missing_output_derivative"),
    )


def _linear_loss(params: Pair, X: FloatArray, Y: FloatArray) -> float:
    """Return half the squared error, summed over outputs, mean over samples; X is (m, 8), Y is (m, 3)."""
    W, b = params
    return float(0.5 * np.sum((X @ W + b - Y) ** 2) / len(X))


def _linear_gradient(params: Pair, X: FloatArray, Y: FloatArray) -> Pair:
    W, b = params
    residual = X @ W + b - Y
    return X.T @ residual / len(X), residual.mean(axis=0)


def linear_regression(*, batch: int = 50, seed: int = 0) -> Net:
    """Return least squares of 3 outputs on 8 inputs: weights (8, 3) and biases (3,), in a tuple.

    Parameters
    ----------
    batch : int
        Number of samples.
    seed : int
        Of the data and the parameters.
    """
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((batch, 8))
    Y = X @ rng.standard_normal((8, 3)) + 0.5 * rng.standard_normal((batch, 3))
    return Net(
        _linear_loss,
        _linear_gradient,
        (rng.standard_normal((8, 3)), 0.1 * rng.standard_normal(3)),
        (X, Y),
        name="linear_regression",
        description="linear regression on normal data, squared error",
        batch=batch,
        biases=("1",),
        take=rows,
    )
