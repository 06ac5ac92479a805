"""Many functions of many variables whose derivatives are known, for calibrating the uncertainty."""

from __future__ import annotations

import numpy as np


def families(rng: np.random.Generator):
    """Yield (name, loss, gradient, theta); gradients are exact to a few roundings."""
    n = int(rng.integers(1, 12))
    c = rng.normal(size=n) * 10 ** rng.uniform(-3, 3)
    w = 10 ** rng.uniform(-2, 2, size=n)
    x = rng.normal(size=n) * 10 ** rng.uniform(-2, 2)
    A = rng.normal(size=(n, n))
    A = A @ A.T
    yield "quadratic", lambda t: float(0.5 * t @ A @ t + c @ t), A @ x + c, x
    yield "cubic", lambda t: float(np.sum(c * t**3 + t)), 3 * c * x**2 + 1, x
    z = x / np.abs(x).max()
    yield "sines", lambda t: float(np.sum(c * np.sin(w * t))), c * w * np.cos(w * z), z
    yield "exponentials", lambda t: float(np.sum(c * np.exp(t))), c * np.exp(z), z
    yield "softplus", lambda t: float(np.sum(np.logaddexp(0, w * t))), w / (1 + np.exp(-w * z)), z
    yield "rational", lambda t: float(np.sum(c / (1 + t**2))), -2 * c * z / (1 + z**2) ** 2, z
    yield "offset", lambda t: float(1e6 + np.sum(c * np.tanh(t))), c / np.cosh(z) ** 2, z
    p = np.abs(x) + 0.1
    yield "logarithms", lambda t: float(np.sum(c * np.log(t))), c / p, p
    yield "powers", lambda t: float(np.prod(np.abs(t) ** 0.5)), 0.5 * np.prod(np.abs(p) ** 0.5) / p, p
    s = rng.normal(size=n)
    yield "logsumexp", lambda t: float(np.log(np.sum(np.exp(t)))), np.exp(s) / np.exp(s).sum(), s
    if n > 1:
        r = rng.normal(size=n)
        g = np.zeros(n)
        g[:-1] = -400 * r[:-1] * (r[1:] - r[:-1] ** 2) - 2 * (1 - r[:-1])
        g[1:] += 200 * (r[1:] - r[:-1] ** 2)
        yield "rosenbrock", lambda t: float(np.sum(100 * (t[1:] - t[:-1] ** 2) ** 2 + (1 - t[:-1]) ** 2)), g, r
    mixed = 10 ** rng.uniform(-6, 6, size=n)
    yield "mixed scales", lambda t: float(np.sum(np.sin(t / mixed))), np.cos(1.0) / mixed, mixed.copy()
    k = np.where(np.abs(x) > 1e-3, x, 1.0)
    yield "kinks", lambda t: float(np.sum(np.abs(t) + np.maximum(t, 0))), np.sign(k) + (k > 0), k
