"""A dense net of any size with softmax cross-entropy, on synthetic data.

One sample per column: ``W @ X + b``, b a column. Loss and gradient share no code, here as in every example, so that
one bug cannot hide in both.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

import numpy as np

from fastcheck.arrays import FloatArray, IntArray
from fastcheck.bugs.mutation import Net, with_bugs

__all__ = ["Activation", "mlp"]

Activation = Literal["tanh", "relu"]
Params = dict[str, FloatArray]


def _loss(params: Params, X: FloatArray, y: IntArray, activation: Activation, l2: float) -> float:
    """Return the mean softmax cross-entropy plus ``l2 / 2 * sum(W**2)``; X is (n_0, m), y is (m,)."""
    depth, m = len(params) // 2, X.shape[1]
    A = X
    for layer in range(1, depth + 1):
        A = params[f"W{layer}"] @ A
        A += params[f"b{layer}"]
        if layer < depth:
            A = np.tanh(A, out=A) if activation == "tanh" else np.maximum(A, 0, out=A)
    A -= A.max(axis=0)
    data = np.log(np.exp(A).sum(axis=0)) - A[y, np.arange(m)]
    penalty = sum(float(np.vdot(W, W)) for name, W in params.items() if name[0] == "W") if l2 else 0.0
    return float(data.mean()) + 0.5 * l2 * penalty


def _gradient(
    params: Params, X: FloatArray, y: IntArray, activation: Activation, l2: float, *, bug: str = ""
) -> Params:
    """Return the gradient of `_loss`, a dict like params."""
    depth, m = len(params) // 2, X.shape[1]
    outputs = [X]
    for layer in range(1, depth):
        Z = params[f"W{layer}"] @ outputs[-1] + params[f"b{layer}"]
        outputs.append(np.tanh(Z) if activation == "tanh" else Z * (Z > 0))
    scores = params[f"W{depth}"] @ outputs[-1] + params[f"b{depth}"]
    P = np.exp(scores - scores.max(axis=0))
    P /= P.sum(axis=0)
    dZ = P.copy()
    dZ[y, np.arange(m)] -= 1
    if bug == "softmax_diagonal":  # -(y / p) through the Jacobian's diagonal p (1 - p) alone
        dZ = np.where(dZ < 0, dZ, 0)
    dZ /= m
    gradient: Params = {}
    for layer in range(depth, 0, -1):
        W = params[f"W{layer}"]
        gradient[f"b{layer}"] = dZ.sum(axis=1, keepdims=True)
        gradient[f"W{layer}"] = dZ @ outputs[layer - 1].T + l2 * W
        if layer > 1:
            A = outputs[layer - 1]
            dZ = W.T @ dZ
            if bug == "wrong_activation_derivative":
                dZ *= A * (1 - A)
            elif bug != "missing_activation_derivative":
                dZ *= (1 - A * A) if activation == "tanh" else (A > 0)
    return {name: gradient[name] for name in params}


def _columns(
    args: tuple[FloatArray, IntArray, Activation, float], indices: IntArray
) -> tuple[FloatArray, IntArray, Activation, float]:
    X, y, activation, l2 = args
    return X[:, indices], y[indices], activation, l2


def mlp(
    sizes: Sequence[int] = (784, 1024, 1024, 10),
    *,
    batch: int = 64,
    activation: Activation = "tanh",
    l2: float = 0.0,
    seed: int = 0,
) -> Net:
    """Return a dense softmax net on normal data with random labels, one sample per column.

    Parameters
    ----------
    sizes : sequence of int
        Units of every layer, inputs and classes included; the default has 1,863,690 coordinates.
    batch : int
        Number of samples m.
    activation : {"tanh", "relu"}
        Of the hidden layers.
    l2 : float
        Weight of ``l2 / 2 * sum(W**2)``, on the weights only and not averaged over the batch.
    seed : int
        Of data and parameters.
    """
    rng = np.random.default_rng(seed)
    X, y = rng.standard_normal((sizes[0], batch)), rng.integers(0, sizes[-1], batch)
    params: Params = {}
    for layer, (n_in, n_out) in enumerate(itertools.pairwise(sizes), 1):
        params[f"W{layer}"] = rng.standard_normal((n_out, n_in)) / np.sqrt(n_in)
        params[f"b{layer}"] = 0.1 * rng.standard_normal((n_out, 1))
    kinds = ["missing_activation_derivative", "softmax_diagonal"]
    if activation == "tanh":
        kinds.append("wrong_activation_derivative")
    return Net(
        _loss,
        _gradient,
        params,
        (X, y, activation, l2),
        name=f"mlp {'-'.join(map(str, sizes))} {activation}",
        description="dense net on normal data, mean softmax cross-entropy",
        batch=batch,
        classes=sizes[-1],
        decay={name: l2 for name in params if name[0] == "W"} if l2 else {},
        biases=tuple(name for name in params if name[0] == "b"),
        take=_columns,
        bugs=with_bugs(_gradient, *kinds),
    )
