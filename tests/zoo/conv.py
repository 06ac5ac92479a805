"""A convolutional net on the digits: convolution, relu, max pooling, dense softmax."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from fastcheck.arrays import FloatArray, IntArray
from fastcheck.bugs.mutation import Net, rows, with_bugs
from fastcheck.examples.digits import digits_batch

__all__ = ["ConvParams", "conv_net"]


@dataclass(frozen=True)
class ConvParams:
    """Parameters of `conv_net`.

    Attributes
    ----------
    kernel : float64, shape (channels, 3, 3)
    kernel_bias : float64, shape (channels,)
    weight : float64, shape (channels * 9, 10)
    bias : float64, shape (10,)
    """

    kernel: FloatArray
    kernel_bias: FloatArray
    weight: FloatArray
    bias: FloatArray


def _loss(params: ConvParams, images: FloatArray, y: IntArray, l2: float) -> float:
    """Return the mean softmax cross-entropy plus L2 of kernel and weight; images are (m, 8, 8)."""
    m, channels = len(images), len(params.kernel)
    Z = np.zeros((m, channels, 6, 6)) + params.kernel_bias[:, None, None]
    for i in range(3):
        for j in range(3):
            Z += params.kernel[:, i, j, None, None] * images[:, None, i : i + 6, j : j + 6]
    pooled = np.maximum(Z, 0).reshape(m, channels, 3, 2, 3, 2).max(axis=(3, 5))
    scores = pooled.reshape(m, -1) @ params.weight + params.bias
    data = np.mean(np.logaddexp.reduce(scores, axis=1) - scores[np.arange(m), y])
    return float(data + 0.5 * l2 * (np.sum(params.kernel**2) + np.sum(params.weight**2)))


def _gradient(params: ConvParams, images: FloatArray, y: IntArray, l2: float, *, bug: str = "") -> ConvParams:
    m, channels = len(images), len(params.kernel)
    patches = sliding_window_view(images, (3, 3), axis=(1, 2))  # (m, 6, 6, 3, 3)
    Z = np.einsum("mrsij,cij->mcrs", patches, params.kernel) + params.kernel_bias[:, None, None]
    A = np.where(Z > 0, Z, 0)
    windows = A.reshape(m, channels, 3, 2, 3, 2).transpose(0, 1, 2, 4, 3, 5).reshape(m, channels, 3, 3, 4)
    winner = windows.argmax(axis=-1)
    features = windows.max(axis=-1).reshape(m, -1)
    scores = features @ params.weight + params.bias
    P = np.exp(scores - scores.max(axis=1, keepdims=True))
    P /= P.sum(axis=1, keepdims=True)
    dS = (P - np.eye(10, dtype=P.dtype)[y]) / m
    if bug == "softmax_diagonal":
        dS = np.where(dS < 0, dS, 0)
    dpool = (dS @ params.weight.T).reshape(m, channels, 3, 3)
    # only the winner of each window passes the gradient on
    share = np.ones(4, A.dtype) if bug == "pool_everywhere" else np.eye(4, dtype=A.dtype)[winner]
    dwindows = share * dpool[..., None]
    dA = dwindows.reshape(m, channels, 3, 3, 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(m, channels, 6, 6)
    dZ = dA if bug == "missing_activation_derivative" else dA * (Z > 0)
    return ConvParams(
        np.einsum("mcrs,mrsij->cij", dZ, patches) + l2 * params.kernel,
        dZ.sum(axis=(0, 2, 3)),
        features.T @ dS + l2 * params.weight,
        dS.sum(axis=0),
    )


def conv_net(*, channels: int = 6, batch: int = 40, l2: float = 1e-2, seed: int = 0) -> Net:
    """Return conv 3x3, relu, max pool 2x2, dense softmax on the 8 x 8 digits, its parameters in a dataclass.

    Parameters
    ----------
    channels, batch : int
        Channels of the convolution, number of digits.
    l2 : float
        Weight of ``l2 / 2 * sum(W**2)`` over kernel and weight, not averaged over the batch.
    seed : int
        Of the batch and the parameters.
    """
    rng = np.random.default_rng(seed)
    X, y = digits_batch(batch, rng)
    params = ConvParams(
        rng.standard_normal((channels, 3, 3)) / 3,
        0.1 + 0.1 * rng.standard_normal(channels),
        rng.standard_normal((channels * 9, 10)) / np.sqrt(channels * 9),
        0.1 * rng.standard_normal(10),
    )
    # Handwritten digits have exact zeros in their margins: there all four of a pool's candidates tie at the bias,
    # a kink that no step avoids. A little noise on the pixels removes the ties.
    images = X.reshape(-1, 8, 8) + 0.01 * rng.standard_normal((batch, 8, 8))
    return Net(
        _loss,
        _gradient,
        params,
        (images, y, l2),
        name="conv_net",
        description="convolution, relu, max pooling and softmax on the digits",
        batch=batch,
        classes=10,
        decay={"kernel": l2, "weight": l2} if l2 else {},
        biases=("kernel_bias", "bias"),
        take=rows,
        bugs=with_bugs(_gradient, "missing_activation_derivative", "softmax_diagonal", "pool_everywhere"),
    )
