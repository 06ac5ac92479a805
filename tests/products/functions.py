"""Small functions with exact Jacobian products, of many kinds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Case:
    """A function, J^T u, J v, and where to look."""

    name: str
    function: Callable[..., Any]
    vjp: Callable[..., Any]
    jvp: Callable[..., Any]
    inputs: Any


def dense(rng: np.random.Generator) -> Case:
    inputs = {"W": rng.normal(size=(6, 5)), "x": rng.normal(size=5)}

    def slope(p):
        return 1 - np.tanh(p["W"] @ p["x"]) ** 2

    def vjp(p, u):
        d = u * slope(p)
        return {"W": np.outer(d, p["x"]), "x": p["W"].T @ d}

    return Case(
        "dense",
        lambda p: np.tanh(p["W"] @ p["x"]),
        vjp,
        lambda p, t: slope(p) * (t["W"] @ p["x"] + p["W"] @ t["x"]),
        inputs,
    )


def elementwise(rng):
    return Case("elementwise", np.sin, lambda x, u: np.cos(x) * u, lambda x, t: np.cos(x) * t, rng.normal(size=(4, 6)))


def relu(rng):
    return Case(
        "relu",
        lambda x: np.maximum(x, 0),
        lambda x, u: u * (x > 0),
        lambda x, t: t * (x > 0),
        rng.normal(size=7) + 0.01,
    )


def broadcast(rng):
    """A row added to a matrix and scaled: the sums over the broadcast axes are where bugs are."""
    inputs = (rng.normal(size=(3, 4)), rng.normal(size=4), rng.normal(size=(3, 1)))

    def vjp(p, u):
        x, b, s = p
        return u * s, (u * s).sum(axis=0), (u * (x + b)).sum(axis=1, keepdims=True)

    def jvp(p, t):
        return (t[0] + t[1]) * p[2] + (p[0] + p[1]) * t[2]

    return Case("broadcast", lambda p: (p[0] + p[1]) * p[2], vjp, jvp, inputs)


def softmax(rng):
    def f(x):
        e = np.exp(x - x.max())
        return e / e.sum()

    def product(x, u):
        p = f(x)
        return p * (u - p @ u)

    return Case("softmax", f, product, product, rng.normal(size=12))


def several_outputs(rng):
    """Outputs of very different sizes."""
    A = rng.normal(size=(3, 4))

    def f(x):
        return {"small": 1e-6 * np.tanh(A @ x), "large": (1e6 * (x @ x), np.exp(x))}

    def vjp(x, u):
        inner = 1e-6 * A.T @ (u["small"] * (1 - np.tanh(A @ x) ** 2))
        return inner + 2e6 * x * u["large"][0] + np.exp(x) * u["large"][1]

    def jvp(x, t):
        return {"small": 1e-6 * (1 - np.tanh(A @ x) ** 2) * (A @ t), "large": (2e6 * (x @ t), np.exp(x) * t)}

    return Case("several_outputs", f, vjp, jvp, rng.normal(size=4))


def scalar(rng):
    return Case("scalar", lambda x: x @ x, lambda x, u: 2 * x * u, lambda x, t: 2 * (x @ t), rng.normal(size=5))


def linear(rng):
    A = rng.normal(size=(30, 20))
    return Case("linear", lambda x: A @ x, lambda x, u: A.T @ u, lambda x, t: A @ t, rng.normal(size=20))


def layer(rng):
    """A layer with more inputs than are looked at one by one, and kinks."""
    X = rng.normal(size=(8, 12))
    inputs = {"W": rng.normal(size=(12, 9)) / 3, "b": rng.normal(size=9)}

    def on(p):
        return X @ p["W"] + p["b"] > 0

    def vjp(p, u):
        d = u * on(p)
        return {"W": X.T @ d, "b": d.sum(axis=0)}

    return Case(
        "layer",
        lambda p: np.maximum(X @ p["W"] + p["b"], 0),
        vjp,
        lambda p, t: on(p) * (X @ t["W"] + t["b"]),
        inputs,
    )


def normalised(rng):
    """Batch normalisation without its scale and shift."""

    def parts(x):
        centred = x - x.mean(axis=0)
        return centred / np.sqrt((centred**2).mean(axis=0) + 1e-5), np.sqrt((centred**2).mean(axis=0) + 1e-5)

    def product(x, u):
        y, s = parts(x)
        return (u - u.mean(axis=0) - y * (u * y).mean(axis=0)) / s

    return Case("normalised", lambda x: parts(x)[0], product, product, rng.normal(size=(9, 3)))


CASES = [
    dense, elementwise, relu, broadcast, softmax, several_outputs, scalar, linear, layer, normalised
]  # fmt: skip


def cases(seed: int = 0) -> list[Case]:
    return [build(np.random.default_rng((seed, number))) for number, build in enumerate(CASES)]
