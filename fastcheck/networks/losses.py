"""Losses of a batch: the value of each sample, and its exact difference when the outputs move."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import special

from fastcheck.arrays import FloatArray, IntArray
from fastcheck.errors import InputError
from fastcheck.kernels import network as kernels
from fastcheck.networks.activations import ACTIVATIONS
from fastcheck.networks.operators import AT_KINK, CROSSED, Bits, Far, selected

__all__ = ["LOSSES", "LossAt"]

Labels = NDArray[np.int64]


class LossAt:
    """A loss at the outputs z (K, B) of a network: ``values``, shape (B,), are the losses of the samples."""

    values: FloatArray
    kinked = False
    by_sample: tuple[str, ...] = ()
    """Attributes that `exact` uses, of shape (..., B)."""

    def select(self, samples: IntArray) -> Self:
        """Return the loss of these samples only; of use for `exact` alone."""
        return selected(self, self.by_sample, samples)

    def exact(self, d: FloatArray, bits: Bits) -> FloatArray:
        """Return the exact change of each sample's loss, shape (m, B), for differences d (K, m, B) of any size."""
        raise NotImplementedError

    def fast(self, d: FloatArray, far: Far) -> FloatArray:
        """Return half of [change of +d] - [change of -d] for small d (K, M, B), which may be used up.

        See `Operator.fast`; ``far`` is of shape (M, B).
        """
        kernels.bend(d, self.slopes(), self.reach(), far)
        return np.asarray(d.sum(axis=0))

    def reach(self) -> FloatArray:
        """Return how far each output, (K, B), may move for that."""
        raise NotImplementedError

    def slopes(self) -> FloatArray:
        """Return the slope of each sample's loss by each output, (K, B)."""
        raise NotImplementedError


def _less_label(slopes: FloatArray, label: Labels) -> FloatArray:
    """Return the slopes (K, B) by outputs from those by outputs less the label's, where its own is zero."""
    slopes = slopes.copy()
    np.put_along_axis(slopes, label[None], -slopes.sum(axis=0, keepdims=True), axis=0)
    return slopes


def _relu_bits(margin: FloatArray, d: FloatArray, bits: Bits) -> None:
    bits |= CROSSED * (((margin > 0) & (d < -margin)) | ((margin < 0) & (d > -margin))).any(axis=0)
    bits |= AT_KINK * ((margin == 0) & (d != 0)).any(axis=0)


class _SoftmaxCrossEntropy(LossAt):
    """log sum_k exp(z_k - z_label), the textbook's -log softmax."""

    by_sample = ("label", "others")

    def __init__(self, z: FloatArray, y: NDArray[np.generic]) -> None:
        self.label = _labels(y, len(z))
        v = z - np.take_along_axis(z, self.label[None], axis=0)
        top = np.maximum(v.max(axis=0), 0.0)
        # The label's own term is 1: log1p of the others keeps every digit of the loss of a sure sample.
        others = np.exp(v - top)
        np.put_along_axis(others, self.label[None], 0.0, axis=0)
        self.values = np.where(top > 0, top + np.log(np.exp(-top) + others.sum(0)), np.log1p(others.sum(0)))
        self.others = np.ascontiguousarray(others / (np.exp(-top) + others.sum(axis=0)))

    def exact(self, d: FloatArray, bits: Bits) -> FloatArray:
        # log(1 + sum_{k != y} e^{v_k}) moves by log1p(sum_{k != y} p_k expm1(dv_k)): nothing cancels when p_y = 1.
        v = d - np.take_along_axis(d, np.broadcast_to(self.label, (1, *d.shape[1:])), axis=0)
        return np.asarray(np.log1p((self.others[:, None] * np.expm1(v)).sum(axis=0)))

    def fast(self, d: FloatArray, far: Far) -> FloatArray:
        rho = np.full_like(self.others, kernels.REACH)
        return np.asarray(kernels.label_loss(d, self.label, self.others, rho, far))

    def slopes(self) -> FloatArray:
        return _less_label(self.others, self.label)


class _MulticlassHinge(LossAt):
    """sum_{k != label} max(0, 1 + z_k - z_label) (Weston & Watkins 1999)."""

    kinked = True
    by_sample = ("label", "margin")

    def __init__(self, z: FloatArray, y: NDArray[np.generic]) -> None:
        self.label = _labels(y, len(z))
        self.margin = 1.0 + z - np.take_along_axis(z, self.label[None], axis=0)
        np.put_along_axis(self.margin, self.label[None], -np.inf, axis=0)
        self.values = np.maximum(self.margin, 0.0).sum(axis=0)

    def exact(self, d: FloatArray, bits: Bits) -> FloatArray:
        v = d - np.take_along_axis(d, np.broadcast_to(self.label, (1, *d.shape[1:])), axis=0)
        margin = self.margin[:, None]
        _relu_bits(margin, v, bits)
        finite = np.where(np.isfinite(margin), margin, -1.0)
        return np.asarray(np.where(np.isfinite(margin), ACTIVATIONS["relu"].difference(finite, v), 0.0).sum(axis=0))

    def fast(self, d: FloatArray, far: Far) -> FloatArray:
        return np.asarray(kernels.label_loss(d, self.label, (self.margin > 0) * 1.0, np.abs(self.margin), far))

    def slopes(self) -> FloatArray:
        return _less_label(np.where(self.margin > 0, 1.0, 0.0), self.label)


class _BinaryHinge(LossAt):
    """max(0, 1 - y z) with y in {-1, 1}."""

    kinked = True
    by_sample = ("y", "margin")

    def __init__(self, z: FloatArray, y: NDArray[np.generic]) -> None:
        self.y = _targets(y, z)
        if not np.isin(self.y, (-1.0, 1.0)).all():
            raise InputError(f"y has the values {_some(self.y)}: loss='hinge' with one output needs labels -1 and 1.")
        self.margin = 1.0 - self.y * z
        self.values = np.maximum(self.margin, 0.0).sum(axis=0)

    def exact(self, d: FloatArray, bits: Bits) -> FloatArray:
        margin, v = self.margin[:, None], -self.y[:, None] * d
        _relu_bits(margin, v, bits)
        return np.asarray(ACTIVATIONS["relu"].difference(margin, v).sum(axis=0))

    def reach(self) -> FloatArray:
        return np.abs(self.margin)

    def slopes(self) -> FloatArray:
        return -self.y * (self.margin > 0)


class _Logistic(LossAt):
    """Binary cross-entropy of logits: y softplus(-z) + (1 - y) softplus(z), summed over outputs."""

    by_sample = ("y", "up", "down")

    def __init__(self, z: FloatArray, y: NDArray[np.generic]) -> None:
        self.y = _shares(y, z)
        self.up, self.down = special.expit(z), special.expit(-z)
        self.values = (self.y * np.logaddexp(0.0, -z) + (1.0 - self.y) * np.logaddexp(0.0, z)).sum(axis=0)

    def exact(self, d: FloatArray, bits: Bits) -> FloatArray:
        y, up, down = self.y[:, None], self.up[:, None], self.down[:, None]
        terms = y * np.log1p(down * np.expm1(-d)) + (1.0 - y) * np.log1p(up * np.expm1(d))
        return np.asarray(terms.sum(axis=0))

    def reach(self) -> FloatArray:
        return np.full_like(self.y, kernels.REACH)

    def slopes(self) -> FloatArray:
        return np.asarray((1.0 - self.y) * self.up - self.y * self.down)


class _Bernoulli(LossAt):
    """Binary cross-entropy of probabilities: -y log a - (1 - y) log(1 - a), summed over outputs."""

    by_sample = ("y", "z")

    def __init__(self, z: FloatArray, y: NDArray[np.generic]) -> None:
        self.y = _shares(y, z)
        if ((z <= 0) & (self.y > 0)).any() or ((z >= 1) & (self.y < 1)).any() or (z < 0).any() or (z > 1).any():
            raise InputError(
                "loss='binary_cross_entropy_sigmoid' is not finite: an output of the network is outside (0, 1). End "
                "the network with the activation 'sigmoid', or use loss='binary_cross_entropy', which takes logits."
            )
        with np.errstate(divide="ignore", invalid="ignore"):
            # y / a and (1 - y) / (1 - a), a weight of zero meaning no term.
            self.on = np.where(self.y > 0, self.y / z, 0.0)
            self.off = np.where(self.y < 1, (1.0 - self.y) / (1.0 - z), 0.0)
        self.z = z
        self.values = -(special.xlogy(self.y, z) + special.xlog1py(1.0 - self.y, -z)).sum(axis=0)

    def exact(self, d: FloatArray, bits: Bits) -> FloatArray:
        y, z = self.y[:, None], self.z[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            on = np.where(y > 0, y * np.log1p(d / z), 0.0)
            off = np.where(y < 1, (1.0 - y) * np.log1p(-d / (1.0 - z)), 0.0)
        return np.asarray(-(on + off).sum(axis=0))

    def reach(self) -> FloatArray:
        near = np.minimum(np.where(self.y > 0, self.z, 1.0), np.where(self.y < 1, 1.0 - self.z, 1.0))
        return np.asarray(kernels.REACH * near)

    def slopes(self) -> FloatArray:
        return np.asarray(self.off - self.on)


class _SquaredError(LossAt):
    """|z - y|^2 / 2, summed over outputs."""

    by_sample = ("residual",)

    def __init__(self, z: FloatArray, y: NDArray[np.generic]) -> None:
        self.residual = z - _targets(y, z)
        self.values = (self.residual**2).sum(axis=0) / 2

    def exact(self, d: FloatArray, bits: Bits) -> FloatArray:
        return np.asarray((d * (self.residual[:, None] + d / 2)).sum(axis=0))

    def reach(self) -> FloatArray:
        return np.full_like(self.residual, np.inf)

    def slopes(self) -> FloatArray:
        return self.residual


def _hinge(z: FloatArray, y: NDArray[np.generic]) -> LossAt:
    return _BinaryHinge(z, y) if len(z) == 1 else _MulticlassHinge(z, y)


LOSSES: dict[str, Callable[[FloatArray, NDArray[np.generic]], LossAt]] = {
    "softmax_cross_entropy": _SoftmaxCrossEntropy,
    "binary_cross_entropy": _Logistic,
    "binary_cross_entropy_sigmoid": _Bernoulli,
    "squared_error": _SquaredError,
    "hinge": _hinge,
}
"""The losses by name: a function of the outputs (K, B) and the targets, (B,) or (K, B)."""


def _some(values: NDArray[np.generic]) -> str:
    found = np.unique(values)
    return ", ".join(map(str, found[:6].tolist())) + (" ..." if len(found) > 6 else "")


def _labels(y: NDArray[np.generic], classes: int) -> Labels:
    """Return integer labels (B,), from labels or one-hot columns (K, B)."""
    if y.ndim == 2 and len(y) == 1:
        y = y[0]
    if y.ndim == 2:
        if len(y) != classes or not (np.isin(y, (0, 1)).all() and (y.sum(axis=0) == 1).all()):
            raise InputError(f"y of shape {y.shape} (classes, samples) is not one-hot with {classes} classes.")
        return np.asarray(y.argmax(axis=0), np.int64)
    labels = y.astype(np.int64)
    if not np.array_equal(labels, y) or (labels < 0).any() or (labels >= classes).any():
        raise InputError(
            f"y has the labels {_some(y)}: the last layer has {classes} outputs, so labels are the integers 0 to "
            f"{classes - 1}. Relabel y, or widen the last layer."
        )
    return labels


def _targets(y: NDArray[np.generic], z: FloatArray) -> FloatArray:
    target = y.astype(np.float64).reshape(1, -1) if y.ndim == 1 else y.astype(np.float64)
    if target.shape != z.shape:
        raise InputError(f"y has shape {target.shape} (outputs, samples) and the network gives {z.shape}. Reshape y.")
    return target


def _shares(y: NDArray[np.generic], z: FloatArray) -> FloatArray:
    target = _targets(y, z)
    if (target < 0).any() or (target > 1).any():
        raise InputError(f"y has the values {_some(target)}: binary cross-entropy needs targets between 0 and 1.")
    return target
