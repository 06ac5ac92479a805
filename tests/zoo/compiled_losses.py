"""Numba losses of a flat theta: the compiled twins of two nets. Importing this module imports Numba."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from fastcheck.arrays import FloatArray, IntArray

__all__ = ["course_loss", "mlp_loss"]

LOG2_E = 1.4426950408889634
LN2_HIGH = 0.6931471803691238  # the 33 highest bits of ln 2: k times it is exact
LN2_LOW = 1.9082149292705877e-10
ROUNDING = 1.5 * 2.0**52


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
def _exp(x: FloatArray, bits: IntArray) -> None:
    """Replace every x <= 0 by exp(x); Numba calls math.exp one number at a time, LLVM vectorises this.

    exp(x) = 2^k exp(r) with |r| <= ln(2)/2 (Cody and Waite 1980), exp(r) by its Taylor series to r^13.
    """
    shifted = bits.view(np.float64)  # k, as the lowest bits of a sum with 1.5 * 2^52
    for j in range(len(x)):
        v = -708.0 if x[j] < -708.0 else x[j]  # NaN stays
        shifted[j] = v * LOG2_E + ROUNDING
        k = shifted[j] - ROUNDING
        r = (v - k * LN2_HIGH) - k * LN2_LOW
        p = r / 6227020800.0 + 1.0 / 479001600.0
        p = p * r + 1.0 / 39916800.0
        p = p * r + 1.0 / 3628800.0
        p = p * r + 1.0 / 362880.0
        p = p * r + 1.0 / 40320.0
        p = p * r + 1.0 / 5040.0
        p = p * r + 1.0 / 720.0
        p = p * r + 1.0 / 120.0
        p = p * r + 1.0 / 24.0
        p = p * r + 1.0 / 6.0
        p = p * r + 0.5
        x[j] = (p * r + 1.0) * r + 1.0
    for j in range(len(x)):
        bits[j] = (bits[j] + 1023) << 52
    for j in range(len(x)):
        x[j] *= shifted[j]


@njit(nogil=True)
def _cross_entropy(scores: FloatArray, y: IntArray) -> float:
    """Return the mean of log sum exp minus the score of the true class; scores, (classes, m), are used up."""
    classes, m = scores.shape
    top, norm, bits = scores[0].copy(), np.zeros(m), np.empty(m, np.int64)
    for k in range(1, classes):
        for s in range(m):
            top[s] = max(top[s], scores[k, s])
    total = 0.0
    for s in range(m):
        total += top[s] - scores[y[s], s]
    for k in range(classes):
        row = scores[k]
        row -= top
        _exp(row, bits)
        norm += row
    for s in range(m):
        total += math.log(norm[s])
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
