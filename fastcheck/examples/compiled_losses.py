"""Numba losses of a flat theta: the compiled twins of two examples. Importing this module imports Numba."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from fastcheck.examples.net import FloatArray, IntArray

__all__ = ["course_loss", "mlp_loss"]


@njit(nogil=True, inline="always")
def _hidden1(theta: FloatArray, x: FloatArray, sample: int, unit: int) -> float:
    z: float = theta[20 + unit]
    for i in range(4):
        z += theta[4 * unit + i] * x[i, sample]
    return z if z > 0.0 else 0.0


@njit(nogil=True, inline="always")
def _hidden2(theta: FloatArray, hidden: tuple[float, float, float, float, float], unit: int) -> float:
    z: float = theta[40 + unit]
    for i in range(5):
        z += theta[25 + 5 * unit + i] * hidden[i]
    return z if z > 0.0 else 0.0


@njit(nogil=True)
def course_loss(theta: FloatArray, x: FloatArray, y: FloatArray) -> float:
    """Return the mean binary cross-entropy of the 4-5-3-1 net.

    Parameters
    ----------
    theta : float64, shape (47,)
        W1 (5, 4), b1, W2 (3, 5), b2, W3 (1, 3), b3, each row by row.
    x : float64, shape (4, m)
    y : float64, shape (1, m)
    """
    m = x.shape[1]
    total = 0.0
    for s in range(m):
        # tuples stay in registers: an evaluation allocates nothing, so threads share nothing
        hidden1 = (
            _hidden1(theta, x, s, 0),
            _hidden1(theta, x, s, 1),
            _hidden1(theta, x, s, 2),
            _hidden1(theta, x, s, 3),
            _hidden1(theta, x, s, 4),
        )
        score: float = theta[46]
        score += theta[43] * _hidden2(theta, hidden1, 0)
        score += theta[44] * _hidden2(theta, hidden1, 1)
        score += theta[45] * _hidden2(theta, hidden1, 2)
        # -log sigmoid(s) y - log(1 - sigmoid(s)) (1 - y), without overflow for large |s|
        total += max(score, 0.0) - score * y[0, s] + math.log1p(math.exp(-abs(score)))
    return float(total / m)


@njit(nogil=True)
def _add_bias(Z: FloatArray, bias: FloatArray, floor: float) -> None:
    """Add one bias per row in place, and cut below `floor` (0 for relu, -inf for the output)."""
    for unit in range(Z.shape[0]):
        b = bias[unit]
        for s in range(Z.shape[1]):
            z = Z[unit, s] + b
            Z[unit, s] = z if z > floor else floor


@njit(nogil=True)
def _cross_entropy(scores: FloatArray, y: IntArray) -> float:
    """Return the mean of log sum exp minus the score of the true class; scores are (classes, m)."""
    classes, m = scores.shape
    total = 0.0
    for s in range(m):
        top = scores[0, s]
        for k in range(1, classes):
            top = max(top, scores[k, s])
        norm = 0.0
        for k in range(classes):
            norm += math.exp(scores[k, s] - top)
        total += math.log(norm) + (top - scores[y[s], s])
    return float(total / m)


@njit(nogil=True)
def mlp_loss(theta: FloatArray, X: FloatArray, y: IntArray, sizes: IntArray) -> float:
    """Return the mean softmax cross-entropy of a dense relu net.

    Parameters
    ----------
    theta : float64, shape (P,)
        W1 (sizes[1], sizes[0]), b1, W2, b2, ..., each row by row.
    X : float64, shape (sizes[0], m)
    y : int64, shape (m,)
        Classes.
    sizes : int64
        Units of every layer, inputs and classes included.
    """
    A, start, layers = X, 0, len(sizes) - 1
    for layer in range(layers):
        n_in, n_out = sizes[layer], sizes[layer + 1]
        W = theta[start : start + n_out * n_in].reshape(n_out, n_in)
        start += n_out * n_in
        A = np.dot(W, A)
        _add_bias(A, theta[start : start + n_out], 0.0 if layer < layers - 1 else -np.inf)
        start += n_out
    return float(_cross_entropy(A, y))
