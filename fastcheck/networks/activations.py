"""Activations: value, slope, and the exact difference f(z + d) - f(z) for a d of any size.

The exact differences are addition theorems (tanh, the exponential family), or exact pieces (the relu family): two
nearly equal values are never subtracted. The unit engine uses slopes only; the coordinate engine uses the exact
differences only; so each is a check of the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import special

from fastcheck.arrays import FloatArray
from fastcheck.errors import InputError

__all__ = ["ACTIVATIONS", "Activation", "elu", "leaky_relu", "resolve"]


@dataclass(frozen=True)
class Activation:
    """An elementwise function of one real number.

    Attributes
    ----------
    name : str
        The user's word for it.
    value : callable
        z -> f(z); all callables here map float64 arrays of any shape to the same shape.
    slope : callable
        z -> f'(z), the right-hand one at a kink.
    difference : callable
        (z, d) -> f(z + d) - f(z), to rounding relative to the difference itself; z and d broadcast.
    curvature : float
        The largest |f''(z)| / 2, rounded up; 0 for a function that is linear but for its kinks.
    kinked : bool
        Whether f has a kink at z = 0.
    """

    name: str
    value: Callable[[FloatArray], FloatArray]
    slope: Callable[[FloatArray], FloatArray]
    difference: Callable[[FloatArray, FloatArray], FloatArray]
    curvature: float
    kinked: bool = False


def leaky_relu(slope: float = 0.01, name: str = "") -> Activation:
    """Return max(z, 0) + slope * min(z, 0); slope 0 is relu, slope -1 is the absolute value."""

    def difference(z: FloatArray, d: FloatArray) -> FloatArray:
        up = np.where(d >= -z, d, slope * (z + d) - z)
        down = np.where(d <= -z, slope * d, (z + d) - slope * z)
        at_zero = np.where(d > 0, d, slope * d)
        return np.where(z > 0, up, np.where(z < 0, down, at_zero))

    return Activation(
        name or f"leaky_relu({slope:g})",
        value=lambda z: np.where(z > 0, z, slope * z),
        slope=lambda z: np.where(z > 0, 1.0, slope),
        difference=difference,
        curvature=0.0,
        kinked=True,
    )


def elu(alpha: float = 1.0, name: str = "") -> Activation:
    """Return z for z > 0, alpha * expm1(z) below (Clevert et al. 2016); a kink in the slope unless alpha = 1."""

    def difference(z: FloatArray, d: FloatArray) -> FloatArray:
        low, end = np.minimum(z, 0.0), np.minimum(z + d, 0.0)
        up = np.where(d >= -z, d, alpha * np.expm1(end) - z)
        down = np.where(d <= -z, alpha * np.exp(low) * np.expm1(np.minimum(d, -low)), (z + d) - alpha * np.expm1(low))
        return np.where(z > 0, up, down)

    return Activation(
        name or f"elu({alpha:g})",
        value=lambda z: np.where(z > 0, z, alpha * np.expm1(np.minimum(z, 0.0))),
        slope=lambda z: np.where(z > 0, 1.0, alpha * np.exp(np.minimum(z, 0.0))),
        difference=difference,
        curvature=abs(alpha) / 2,
        kinked=True,
    )


def _sech2(z: FloatArray) -> FloatArray:
    """1 - tanh(z)^2 without its cancellation where tanh saturates."""
    return np.asarray(1.0 / np.cosh(np.clip(z, -350.0, 350.0)) ** 2)


def _tanh_difference(z: FloatArray, d: FloatArray) -> FloatArray:
    u = np.tanh(d)
    return np.asarray(_sech2(z) * u / (1.0 + np.tanh(z) * u))


def _sigmoid_difference(z: FloatArray, d: FloatArray) -> FloatArray:
    s, c = special.expit(z), special.expit(-z)
    return np.asarray(s * c * np.expm1(d) / (c + s * np.exp(d)))


def _softplus_difference(z: FloatArray, d: FloatArray) -> FloatArray:
    return np.asarray(np.log1p(special.expit(z) * np.expm1(d)))


def _silu_difference(z: FloatArray, d: FloatArray) -> FloatArray:
    change = _sigmoid_difference(z, d)
    return np.asarray(z * change + d * (special.expit(z) + change))


def _density(z: FloatArray) -> FloatArray:
    return np.asarray(np.exp(-z * z / 2) / np.sqrt(2 * np.pi))


_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(8)


def _gelu_difference(z: FloatArray, d: FloatArray) -> FloatArray:
    """Write Phi(z + d) - Phi(z) as the integral of the density: 8 Gauss points are exact to rounding for |d| < 0.5."""
    z, d = np.broadcast_arrays(z, d)
    change = sum(w / 2 * _density(z + d * (t + 1) / 2) for t, w in zip(_NODES, _WEIGHTS, strict=True)) * d
    return np.asarray(z * change + d * (special.ndtr(z) + change))


# (1 + tanh u) / 2 is the sigmoid of 2u, which does not cancel where tanh is near -1: the function is z * sigmoid(w).
_GELU_SCALE, _GELU_CUBE = 2 * np.sqrt(2 / np.pi), 0.044715


def _gelu_tanh_inner(z: FloatArray) -> FloatArray:
    return np.asarray(_GELU_SCALE * (z + _GELU_CUBE * z**3))


def _gelu_tanh_difference(z: FloatArray, d: FloatArray) -> FloatArray:
    inner = _gelu_tanh_inner(z)
    change = _sigmoid_difference(inner, _GELU_SCALE * d * (1.0 + _GELU_CUBE * (3 * z * z + 3 * z * d + d * d)))
    return np.asarray(z * change + d * (special.expit(inner) + change))


def _gelu_tanh(z: FloatArray) -> FloatArray:
    return np.asarray(z * special.expit(_gelu_tanh_inner(z)))


def _gelu_tanh_slope(z: FloatArray) -> FloatArray:
    inner = _gelu_tanh_inner(z)
    s, c = special.expit(inner), special.expit(-inner)
    return np.asarray(s + z * s * c * _GELU_SCALE * (1.0 + 3 * _GELU_CUBE * z * z))


def _sigmoid_slope(z: FloatArray) -> FloatArray:
    return np.asarray(special.expit(z) * special.expit(-z))


def _silu_slope(z: FloatArray) -> FloatArray:
    return np.asarray(special.expit(z) * (1.0 + z * special.expit(-z)))


def _gelu_slope(z: FloatArray) -> FloatArray:
    return np.asarray(special.ndtr(z) + z * _density(z))


_LIBRARY = (
    Activation("identity", lambda z: z, np.ones_like, lambda z, d: d + 0.0 * z, 0.0),
    leaky_relu(0.0, "relu"),
    leaky_relu(0.01, "leaky_relu"),
    elu(1.0, "elu"),
    Activation("tanh", np.tanh, _sech2, _tanh_difference, 0.4),
    Activation("sigmoid", special.expit, _sigmoid_slope, _sigmoid_difference, 0.05),
    Activation("softplus", lambda z: np.logaddexp(0.0, z), special.expit, _softplus_difference, 0.13),
    Activation("gelu", lambda z: z * special.ndtr(z), _gelu_slope, _gelu_difference, 0.4),
    Activation("gelu_tanh", _gelu_tanh, _gelu_tanh_slope, _gelu_tanh_difference, 0.4),
    Activation("silu", lambda z: z * special.expit(z), _silu_slope, _silu_difference, 0.26),
)

ACTIVATIONS: dict[str, Activation] = {activation.name: activation for activation in _LIBRARY}
"""The elementwise activations by name. ``"softmax"`` is a layer activation too; it acts on all units of a sample."""


def resolve(activation: str | Activation | None, layer: str) -> Activation | None:
    """Return the activation of a layer; None for the identity.

    Raises
    ------
    InputError
        The name is not one of `ACTIVATIONS`.
    """
    if isinstance(activation, Activation):
        return activation
    if activation is None or activation in ("identity", "linear", ""):
        return None
    if activation not in ACTIVATIONS:
        names = ", ".join([*ACTIVATIONS, "softmax"])
        raise InputError(f"{layer}: activation={activation!r} is not known; it must be one of: {names}.")
    return ACTIVATIONS[activation]
