"""A deep residual net: many equal blocks, each adding to what it received."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastcheck.arrays import FloatArray, IntArray
from fastcheck.bugs.mutation import Net, rows, with_bugs
from fastcheck.examples.digits import digits_batch

__all__ = ["residual_net"]


def _loss(params: dict[str, Any], X: FloatArray, y: IntArray, l2: float) -> float:
    """Return the mean softmax cross-entropy plus L2 of all weights; X is (m, 64)."""
    A = X @ params["stem"]
    penalty = np.sum(params["stem"] ** 2)
    for W, b in params["blocks"]:
        A = A + np.tanh(A @ W + b)
        penalty += np.sum(W**2)
    W, b = params["head"]
    scores = A @ W + b
    data = np.mean(np.logaddexp.reduce(scores, axis=1) - scores[np.arange(len(y)), y])
    return float(data + 0.5 * l2 * (penalty + np.sum(W**2)))


def _gradient(params: dict[str, Any], X: FloatArray, y: IntArray, l2: float, *, bug: str = "") -> dict[str, Any]:
    W_head, b_head = params["head"]
    inputs, outputs = [X @ params["stem"]], []
    for W, b in params["blocks"]:
        outputs.append(np.tanh(inputs[-1] @ W + b))
        inputs.append(inputs[-1] + outputs[-1])
    scores = inputs[-1] @ W_head + b_head
    P = np.exp(scores - scores.max(axis=1, keepdims=True))
    P /= P.sum(axis=1, keepdims=True)
    dS = (P - np.eye(10, dtype=P.dtype)[y]) / len(y)
    dA = dS @ W_head.T
    blocks = []
    for layer in reversed(range(len(outputs))):
        W, _ = params["blocks"][layer]
        T = outputs[layer]
        slope = {"missing_activation_derivative": np.ones_like(T), "wrong_activation_derivative": T * (1 - T)}
        dZ = dA * slope.get(bug, 1 - T * T)
        blocks.append((inputs[layer].T @ dZ + l2 * W, dZ.sum(axis=0)))
        dA = dZ @ W.T if bug == "skip_forgotten" else dA + dZ @ W.T
    return {
        "stem": X.T @ dA + l2 * params["stem"],
        "blocks": blocks[::-1],
        "head": (inputs[-1].T @ dS + l2 * W_head, dS.sum(axis=0)),
    }


def residual_net(*, depth: int = 8, units: int = 10, batch: int = 40, l2: float = 1e-2, seed: int = 0) -> Net:
    """Return `depth` residual tanh blocks on the digits, their (W, b) tuples in a list inside a dict.

    Parameters
    ----------
    depth, units, batch : int
        Number of blocks, their width, number of digits.
    l2 : float
        Weight of ``l2 / 2 * sum(W**2)``, on the weights only and not averaged over the batch.
    seed : int
        Of the batch and the parameters.
    """
    rng = np.random.default_rng(seed)
    X, y = digits_batch(batch, rng)
    params = {
        "stem": rng.standard_normal((64, units)) / 8,
        "blocks": [
            (rng.standard_normal((units, units)) / np.sqrt(units), 0.1 * rng.standard_normal(units))
            for _ in range(depth)
        ],
        "head": (rng.standard_normal((units, 10)) / units, 0.1 * rng.standard_normal(10)),
    }
    weights = ("stem", *(f"blocks.{i}.0" for i in range(depth)), "head.0")
    return Net(
        _loss,
        _gradient,
        params,
        (X, y, l2),
        name="residual_net",
        description=f"{depth} residual tanh blocks on the digits",
        batch=batch,
        classes=10,
        decay=dict.fromkeys(weights, l2) if l2 else {},
        biases=(*(f"blocks.{i}.1" for i in range(depth)), "head.1"),
        take=rows,
        bugs=with_bugs(_gradient, "missing_activation_derivative", "wrong_activation_derivative", "skip_forgotten"),
    )
