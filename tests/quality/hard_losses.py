"""Families of losses that are hard to difference, with right gradients: coarse, short of scale, broken, iterated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Problem = tuple[Callable[[Any], float], Any, Any]  # loss, gradient, params


def softplus(rng) -> Problem:
    """The mean of ``log(1 + exp(-x))``, which moves in steps of 2.2e-16 however small it is."""
    x = rng.uniform(8, 20, size=rng.integers(1, 7))
    return lambda x: float(np.mean(np.log(1 + np.exp(-x)))), lambda x: -1 / (1 + np.exp(x)) / len(x), x


def margin(rng) -> Problem:
    """Softmax cross-entropy of one sample that is classified with a margin, as by a trained classifier."""
    z = rng.normal(size=rng.integers(3, 8))
    z[0] = z[1:].max() + rng.uniform(8, 20)

    def loss(z):
        return float(np.log(np.sum(np.exp(z - z[0]))))

    def gradient(z):
        p = np.exp(z - z[0]) / np.sum(np.exp(z - z[0]))
        p[0] = -p[1:].sum()
        return p

    return loss, gradient, z


def sines(rng, rounded=float) -> Problem:
    """A sum of sines, written as an external program prints it."""
    n = int(rng.integers(2, 7))
    c, w, x = rng.normal(size=n), 10 ** rng.uniform(-0.5, 0.5, size=n), rng.normal(size=n)
    return lambda x: rounded(np.sum(c * np.sin(w * x))), lambda x: c * w * np.cos(w * x), x


def nine_decimals(rng) -> Problem:
    return sines(rng, lambda value: round(float(value), 9))


def six_digits(rng) -> Problem:
    return sines(rng, lambda value: float(f"{value:.6g}"))


def eight_digits(rng) -> Problem:
    return sines(rng, lambda value: float(f"{value:.8g}"))


def short_scale(rng) -> Problem:
    """Changes on a scale far shorter than the parameters: a time in seconds, a wavelength."""
    n, short = int(rng.integers(1, 5)), 10 ** rng.uniform(-7, -1)
    c, x = rng.normal(size=n), rng.normal(size=n) * 10 ** rng.uniform(-3, 3)
    scale = short * np.abs(x).max()
    return lambda x: float(np.sum(c * np.sin(x / scale))), lambda x: c * np.cos(x / scale) / scale, x


def jump(rng) -> Problem:
    """A smooth loss that jumps somewhere near."""
    n = int(rng.integers(1, 5))
    c, x = rng.normal(size=n), rng.normal(size=n)
    away = rng.choice([-1, 1]) * 10 ** rng.uniform(-9, -1) * np.abs(x[0])
    place, height = x[0] + away, 10 ** rng.uniform(-8, 0)
    return lambda x: float(np.sum(c * np.sin(x)) + height * (x[0] > place)), lambda x: c * np.cos(x), x


def kink(rng) -> Problem:
    """A smooth loss with a kink near in each coordinate."""
    n = int(rng.integers(1, 7))
    c, x, k = rng.normal(size=n), rng.normal(size=n), rng.normal(size=n)
    place = x + rng.choice([-1, 1], size=n) * 10 ** rng.uniform(-10, 0, size=n)

    def gradient(x):
        return c * np.cos(x) + k * np.sign(x - place)

    return lambda x: float(np.sum(c * np.sin(x) + k * np.abs(x - place))), gradient, x


def conjugate_gradients(rng, tolerance=1e-5) -> Problem:
    """``b(x) . A(x)^-1 b(x)`` by conjugate gradients that stop at a relative residual."""
    n = 12
    Q = np.linalg.qr(rng.normal(size=(n, n)))[0]
    A = Q @ np.diag(10 ** rng.uniform(0, 2, size=n)) @ Q.T
    b, x = rng.normal(size=n), rng.uniform(0.5, 2, size=5)

    def system(x):
        return A + np.diag(np.resize(x, n)), b * np.resize(1 + x**2, n)

    def loss(x):
        M, rhs = system(x)
        y, r = np.zeros(n), rhs.copy()
        p, rr = r.copy(), r @ r
        while rr > tolerance**2 * (rhs @ rhs):
            Mp = M @ p
            a = rr / (p @ Mp)
            y, r = y + a * p, r - a * Mp
            p, rr = r + (r @ r) / rr * p, r @ r
        return float(rhs @ y)

    def gradient(x):
        M, rhs = system(x)
        y = np.linalg.solve(M, rhs)
        each = -(y**2) + 2 * y * b * 2 * np.resize(x, n)
        return np.bincount(np.resize(np.arange(len(x)), n), each)

    return loss, gradient, x


def differential_equation(rng, tolerance=1e-5) -> Problem:
    """The end of ``y' = -x0 y + x1 cos(x2 t)``, by Heun's method with an adaptive step."""
    x = rng.uniform(0.5, 2, size=3)
    end, first = 0.7, float(rng.normal())

    def loss(x):
        def slope(t, y):
            return -x[0] * y + x[1] * np.cos(x[2] * t)

        t, y, h = 0.0, first, 0.1
        while t < end:
            h = min(h, end - t)
            k1 = slope(t, y)
            k2 = slope(t + h, y + h * k1)
            off = abs(h * (k2 - k1)) / 2
            if off <= tolerance:
                t, y = t + h, y + h * (k1 + k2) / 2
            h *= min(2.0, max(0.3, 0.9 * (tolerance / max(off, 1e-15)) ** 0.5))
        return float(y)

    def exact(x):
        a, c, w = x
        D = a * a + w * w
        steady = c * (a * np.cos(w * end) + w * np.sin(w * end)) / D
        return steady + (first - c * a / D) * np.exp(-a * end)

    def gradient(x):
        h = 1e-30
        return np.array([np.imag(exact(x + h * 1j * unit)) / h for unit in np.eye(3)])

    return loss, gradient, x


def fixed_point(rng, tolerance=1e-5) -> Problem:
    """``sum c y`` at the solution of ``y = tanh(W y + x)``, iterated until it moves by less than a tolerance."""
    n = int(rng.integers(2, 7))
    W = rng.normal(size=(n, n))
    W *= 0.7 / np.linalg.norm(W, 2)
    c, x = rng.normal(size=n), rng.normal(size=n)

    def solved(x, tolerance):
        y = np.zeros(n)
        while True:
            y, before = np.tanh(W @ y + x), y
            if np.abs(y - before).max() <= tolerance:
                return y

    def gradient(x):
        slope = 1 - solved(x, 1e-15) ** 2
        return slope * np.linalg.solve((np.eye(n) - slope[:, None] * W).T, c)

    return lambda x: float(c @ solved(x, tolerance)), gradient, x


COARSE = (softplus, margin, nine_decimals, six_digits, eight_digits)
BROKEN = (short_scale, jump, kink)
ITERATED = (conjugate_gradients, differential_equation, fixed_point)
