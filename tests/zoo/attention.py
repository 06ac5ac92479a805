"""One pre-norm self-attention block over the rows of a digit: layernorm, single head, residual, mean pool, softmax."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastcheck.arrays import FloatArray, IntArray
from fastcheck.bugs.mutation import Net, rows, with_bugs
from fastcheck.examples.digits import digits_batch

__all__ = ["attention_block"]

EPSILON = 1e-5  # of the layernorm's variance


def _loss(params: dict[str, Any], tokens: FloatArray, y: IntArray) -> float:
    """Return the mean softmax cross-entropy; tokens are (m, length, width)."""
    norm, attention, head = params["norm"], params["attention"], params["head"]
    centred = tokens - tokens.mean(axis=-1, keepdims=True)
    normed = norm["gain"] * centred / np.sqrt(np.var(tokens, axis=-1, keepdims=True) + EPSILON) + norm["shift"]
    query, key, value = normed @ attention["query"], normed @ attention["key"], normed @ attention["value"]
    scores = np.einsum("mid,mjd->mij", query, key) / np.sqrt(query.shape[-1])
    weights = np.exp(scores - np.logaddexp.reduce(scores, axis=-1, keepdims=True))
    mixed = tokens + np.einsum("mij,mjd->mid", weights, value) @ attention["output"]
    logits = mixed.mean(axis=1) @ head["weight"] + head["bias"]
    return float(np.mean(np.logaddexp.reduce(logits, axis=1) - logits[np.arange(len(y)), y]))


def _softmax(scores: FloatArray) -> FloatArray:
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def _gradient(params: dict[str, Any], tokens: FloatArray, y: IntArray, *, bug: str = "") -> dict[str, Any]:
    norm, attention, head = params["norm"], params["attention"], params["head"]
    m, length, width = tokens.shape
    inverse_std = 1 / np.sqrt(tokens.var(axis=-1, keepdims=True) + EPSILON)
    standard = (tokens - tokens.mean(axis=-1, keepdims=True)) * inverse_std
    normed = standard * norm["gain"] + norm["shift"]
    Q, K, V = (normed @ attention[name] for name in ("query", "key", "value"))
    scale = 1 / float(np.sqrt(Q.shape[-1]))
    A = _softmax(Q @ K.swapaxes(1, 2) * scale)
    context = A @ V
    pooled = (tokens + context @ attention["output"]).mean(axis=1)
    dlogits = (_softmax(pooled @ head["weight"] + head["bias"]) - np.eye(10, dtype=tokens.dtype)[y]) / m
    dpooled = dlogits @ head["weight"].T
    dmixed = np.broadcast_to(dpooled[:, None] / length, tokens.shape)
    dcontext = dmixed @ attention["output"].T
    dA = dcontext @ V.swapaxes(1, 2)
    dscores = A * dA if bug == "softmax_diagonal" else A * (dA - np.sum(dA * A, axis=-1, keepdims=True))
    if bug == "softmax_diagonal":
        dscores = dscores * (1 - A)
    if bug != "missing_scale":
        dscores = dscores * scale
    dQ, dK, dV = dscores @ K, dscores.swapaxes(1, 2) @ Q, A.swapaxes(1, 2) @ dcontext
    if bug == "query_key_swapped":
        dQ, dK = dK, dQ
    by_width = normed.reshape(-1, width).T
    dnormed = sum(d @ attention[name].T for name, d in (("query", dQ), ("key", dK), ("value", dV)))
    return {
        "norm": {"gain": (dnormed * standard).sum(axis=(0, 1)), "shift": dnormed.sum(axis=(0, 1))},
        "attention": {
            "query": by_width @ dQ.reshape(-1, dQ.shape[-1]),
            "key": by_width @ dK.reshape(-1, dK.shape[-1]),
            "value": by_width @ dV.reshape(-1, dV.shape[-1]),
            "output": context.reshape(-1, context.shape[-1]).T @ dmixed.reshape(-1, width),
        },
        "head": {"weight": pooled.T @ dlogits, "bias": dlogits.sum(axis=0)},
    }


def attention_block(*, width: int = 8, batch: int = 24, seed: int = 0) -> Net:
    """Return a single-head attention block whose 8 tokens are the rows of a digit, in a doubly nested dict.

    Parameters
    ----------
    width, batch : int
        Width of query, key and value; number of digits.
    seed : int
        Of the batch and the parameters.
    """
    rng = np.random.default_rng(seed)
    X, y = digits_batch(batch, rng)
    # normal noise: layernorm of a blank row would divide by sqrt(EPSILON) alone
    tokens = X.reshape(-1, 8, 8) + 0.1 * rng.standard_normal((batch, 8, 8))
    matrix = {name: rng.standard_normal((8, width)) / np.sqrt(8) for name in ("query", "key", "value")}
    params = {
        "norm": {"gain": 1 + 0.1 * rng.standard_normal(8), "shift": 0.1 * rng.standard_normal(8)},
        "attention": {**matrix, "output": rng.standard_normal((width, 8)) / np.sqrt(width)},
        "head": {"weight": rng.standard_normal((8, 10)), "bias": 0.1 * rng.standard_normal(10)},
    }
    return Net(
        _loss,
        _gradient,
        params,
        (tokens, y),
        name="attention_block",
        description="layernorm and single-head self-attention over the rows of the digits",
        batch=batch,
        classes=10,
        biases=("norm.shift", "head.bias"),
        take=rows,
        bugs=with_bugs(_gradient, "softmax_diagonal", "missing_scale", "query_key_swapped"),
    )
