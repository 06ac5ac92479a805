"""Random correct nets of every kind, with a backward pass written by hand, layer by layer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

ACTIVATIONS = ("relu", "leaky_relu", "abs", "maxpool", "tanh", "gelu", "softmax", "identity")
LOSSES = ("softmax_cross_entropy", "hinge", "squared", "logistic")


@dataclass(frozen=True)
class RandomNet:
    """A net with its draw: what it is made of, its loss, its gradient and its parameters."""

    facts: dict[str, Any]
    params: dict[str, np.ndarray]
    X: np.ndarray
    y: np.ndarray
    activations: tuple[str, ...]
    kind: str
    scale: float
    work: Any  # dtype of the arithmetic, or None to follow the parameters

    def _forward(self, params):
        dtype = self.work or params["W0"].dtype
        A, kept = self.X.astype(dtype), []
        for i, name in enumerate(self.activations):
            W, b = params[f"W{i}"].astype(dtype, copy=False), params[f"b{i}"].astype(dtype, copy=False)
            Z = A @ W + b
            out, back = activate(name, Z)
            kept.append((A, W, back))
            A = out
        return A, kept

    def loss(self, params) -> float:
        scores, _ = self._forward(params)
        return float(final(self.kind, scores, self.y)[0] * scores.dtype.type(self.scale))

    def gradient(self, params):
        scores, kept = self._forward(params)
        d = final(self.kind, scores, self.y)[1] * scores.dtype.type(self.scale)
        grads = {}
        for i in reversed(range(len(kept))):
            A, W, back = kept[i]
            d = back(d)
            grads[f"W{i}"], grads[f"b{i}"] = A.T @ d, d.sum(axis=0)
            d = d @ W.T
        return {name: grads[name] for name in params}


def activate(name, Z):
    if name == "relu":
        return np.maximum(Z, 0), lambda d: d * (Z > 0)
    if name == "leaky_relu":
        slope = np.where(Z > 0, Z.dtype.type(1), Z.dtype.type(0.1))
        return Z * slope, lambda d: d * slope
    if name == "abs":
        return np.abs(Z), lambda d: d * np.sign(Z)
    if name == "maxpool":
        m, n = Z.shape
        if n % 2:
            return Z, lambda d: d
        pairs = Z.reshape(m, n // 2, 2)
        first = pairs[:, :, 0] >= pairs[:, :, 1]
        mask = np.stack([first, ~first], axis=2)
        return pairs.max(axis=2), lambda d: (d[:, :, None] * mask).reshape(m, n)
    if name == "tanh":
        A = np.tanh(Z)
        return A, lambda d: d * (1 - A * A)
    if name == "gelu":
        c = Z.dtype.type(math.sqrt(2 / math.pi))
        inner = c * (Z + Z.dtype.type(0.044715) * Z**3)
        t = np.tanh(inner)
        half = Z.dtype.type(0.5)
        slope = half * (1 + t) + half * Z * (1 - t * t) * c * (1 + Z.dtype.type(3 * 0.044715) * Z**2)
        return half * Z * (1 + t), lambda d: d * slope
    if name == "softmax":
        E = np.exp(Z - Z.max(axis=1, keepdims=True))
        S = E / E.sum(axis=1, keepdims=True)
        return S, lambda d: S * (d - (d * S).sum(axis=1, keepdims=True))
    return Z, lambda d: d


def final(kind, scores, y):
    """Return the mean loss and its derivative by the scores."""
    m = len(scores)
    one = scores.dtype.type(1)
    rows = np.arange(m)
    if kind == "softmax_cross_entropy":
        shifted = scores - scores.max(axis=1, keepdims=True)
        E = np.exp(shifted)
        total = E.sum(axis=1, keepdims=True)
        P = E / total
        P[rows, y] -= one
        return np.mean(np.log(total[:, 0]) - shifted[rows, y]), P / m
    if kind == "hinge":
        margins = np.maximum(scores - scores[rows, y][:, None] + one, 0)
        margins[rows, y] = 0
        mask = (margins > 0).astype(scores.dtype)
        mask[rows, y] = -mask.sum(axis=1)
        return margins.sum() / m, mask / m
    target = np.eye(scores.shape[1], dtype=scores.dtype)[y]
    if kind == "squared":
        apart = scores - target
        return scores.dtype.type(0.5) * np.sum(apart**2) / m, apart / m
    sign = 2 * target - 1
    t = -sign * scores
    soft = np.maximum(t, 0) + np.log1p(np.exp(-np.abs(t)))
    slope = np.where(t > 0, one / (1 + np.exp(-np.abs(t))), np.exp(-np.abs(t)) / (1 + np.exp(-np.abs(t))))
    return np.sum(soft) / m, -sign * slope / m


def random_net(seed: int, *, precision: str | None = None) -> RandomNet:
    """Draw a net; precision "float64", "float32" (follows the parameters) or "float32_inside" (casts them)."""
    rng = np.random.default_rng(seed)
    depth = int(rng.integers(1, 13))
    width = int(rng.choice([2, 4, 6, 8, 12]))
    batch = int(rng.choice([1, 2, 3, 8, 32, 128, 512]))
    features, classes = int(rng.integers(2, 8)), int(rng.integers(2, 6))
    theta_scale = float(10 ** rng.uniform(-3, 3)) if rng.random() < 0.5 else 1.0
    loss_scale = float(10 ** rng.uniform(-6, 6)) if rng.random() < 0.5 else 1.0
    precision = precision or str(rng.choice(["float64", "float64", "float64", "float32", "float32_inside"]))
    names = (*(str(rng.choice(ACTIVATIONS)) for _ in range(depth - 1)), "identity")
    dtype = np.float64 if precision == "float64" else np.float32
    params, n = {}, features
    for i, name in enumerate(names):
        out = classes if i == depth - 1 else width
        params[f"W{i}"] = (theta_scale * rng.normal(size=(n, out)) * math.sqrt(2 / n)).astype(dtype)
        params[f"b{i}"] = (theta_scale * 0.3 * rng.normal(size=out)).astype(dtype)
        n = out // 2 if name == "maxpool" and out % 2 == 0 else out
    facts = {
        "seed": seed, "depth": depth, "width": width, "batch": batch, "theta_scale": theta_scale,
        "loss_scale": loss_scale, "precision": precision, "activations": names,
    }  # fmt: skip
    kind = str(rng.choice(LOSSES))
    X, y = rng.normal(size=(batch, features)), rng.integers(0, classes, batch)
    work = np.float32 if precision == "float32_inside" else None
    return RandomNet(facts | {"loss": kind}, params, X, y, names, kind, loss_scale, work)
