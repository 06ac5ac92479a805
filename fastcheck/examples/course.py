"""The classic 4-5-3-1 net of the gradient checking exercise, in the exercise's own style."""

from __future__ import annotations

from functools import partial

import numpy as np

from fastcheck.arrays import FloatArray, IntArray
from fastcheck.bugs.mutation import Net, with_bugs

__all__ = ["course_net"]

Params = dict[str, FloatArray]


def _sigmoid(z: FloatArray) -> FloatArray:
    return np.asarray(1 / (1 + np.exp(-z)))


def _loss(params: Params, x: FloatArray, y: FloatArray) -> float:
    """Return the mean binary cross-entropy; x is (4, m), y is (1, m)."""
    hidden1 = np.maximum(params["W1"] @ x + params["b1"], 0)
    hidden2 = np.maximum(params["W2"] @ hidden1 + params["b2"], 0)
    a = _sigmoid(params["W3"] @ hidden2 + params["b3"])
    return float(np.sum(-np.log(a) * y - np.log(1 - a) * (1 - y)) / y.size)


def _gradient(params: Params, x: FloatArray, y: FloatArray, *, bug: str = "") -> Params:
    """Return the exercise's dict of gradients: dW1, db1, ... and the dZ and dA on the way."""
    m = x.shape[1]
    W2, W3 = params["W2"], params["W3"]
    A1 = np.maximum(params["W1"] @ x + params["b1"], 0)
    A2 = np.maximum(W2 @ A1 + params["b2"], 0)
    A3 = _sigmoid(W3 @ A2 + params["b3"])
    dZ3 = A3 - y
    if bug == "missing_output_derivative":  # dA3 taken for dZ3: the sigmoid's a (1 - a) is forgotten
        dZ3 = dZ3 / (A3 * (1 - A3))
    dW3 = dZ3 @ A2.T / m
    db3 = np.sum(dZ3, axis=1, keepdims=True) / m
    dA2 = W3.T @ dZ3
    dZ2 = dA2 if bug == "missing_activation_derivative" else dA2 * (A2 > 0)
    dW2 = dZ2 @ A1.T if bug == "classic" else dZ2 @ A1.T / m
    db2 = np.sum(dZ2, axis=1, keepdims=True) / m
    dA1 = W2.T @ dZ2
    dZ1 = dA1 if bug == "missing_activation_derivative" else dA1 * (A1 > 0)
    dW1 = dZ1 @ x.T / m
    db1 = (2 if bug == "classic" else 1) * np.sum(dZ1, axis=1, keepdims=True) / m
    return {
        "dZ3": dZ3, "dW3": dW3, "db3": db3,
        "dA2": dA2, "dZ2": dZ2, "dW2": dW2, "db2": db2,
        "dA1": dA1, "dZ1": dZ1, "dW1": dW1, "db1": db1,
    }  # fmt: skip


def _columns(args: tuple[FloatArray, FloatArray], indices: IntArray) -> tuple[FloatArray, FloatArray]:
    x, y = args
    return x[:, indices], y[:, indices]


def course_net(*, bugs: bool = False) -> Net:
    """Return the 4-5-3-1 relu, relu, sigmoid net of the exercise: 47 coordinates, 3 samples.

    The gradient is a dict in the exercise's style (``dW1``, ``db1``, ... and the intermediate ``dZ1``, ``dA1``).

    Parameters
    ----------
    bugs : bool
        Make its two classic bugs: ``dW2`` lacks 1/m (3 times too large), ``db1`` has 2/m (2 times too large).
    """
    # The legacy generator and the order of the draws are the exercise's; they fix its published figures.
    rng = np.random.RandomState(1)
    x, y = rng.randn(4, 3), np.array([[1.0, 1.0, 0.0]])
    shapes = {"W1": (5, 4), "b1": (5, 1), "W2": (3, 5), "b2": (3, 1), "W3": (1, 3), "b3": (1, 1)}
    return Net(
        _loss,
        partial(_gradient, bug="classic") if bugs else _gradient,
        {name: rng.randn(*shape) for name, shape in shapes.items()},
        (x, y),
        name="course_net with bugs" if bugs else "course_net",
        description="4-5-3-1 relu net of the gradient checking exercise, mean binary cross-entropy of 3 samples",
        batch=3,
        biases=("b1", "b2", "b3"),
        take=_columns,
        bugs=with_bugs(_gradient, "missing_activation_derivative", "missing_output_derivative"),
    )
