"""An autoencoder with tied weights: one matrix, two roles, and a gradient that is the sum of both."""

from __future__ import annotations

import numpy as np

from fastcheck.arrays import FloatArray
from fastcheck.bugs.mutation import Net, rows, with_bugs
from fastcheck.examples.digits import digits_batch

__all__ = ["tied_autoencoder"]

Params = list[FloatArray]


def _loss(params: Params, X: FloatArray) -> float:
    """Return half the squared error of ``sigmoid(X W + b) W.T + c``, summed over pixels, mean over samples."""
    W, b, c = params
    code = 0.5 + 0.5 * np.tanh(0.5 * (X @ W + b))
    return float(0.5 * np.mean(np.sum((code @ W.T + c - X) ** 2, axis=1)))


def _gradient(params: Params, X: FloatArray, *, bug: str = "") -> Params:
    W, b, c = params
    code = 1 / (1 + np.exp(-(X @ W + b)))
    dout = (code @ W.T + c - X) / len(X)
    dcode = dout @ W
    slope = {"missing_activation_derivative": np.ones_like(code), "wrong_activation_derivative": 1 - code**2}
    dZ = dcode * slope.get(bug, code * (1 - code))
    as_encoder, as_decoder = X.T @ dZ, dout.T @ code
    return [as_decoder if bug == "tied_once" else as_encoder + as_decoder, dZ.sum(axis=0), dout.sum(axis=0)]


def tied_autoencoder(*, units: int = 10, batch: int = 40, seed: int = 0) -> Net:
    """Return a sigmoid autoencoder of the digits whose decoder is the encoder's transpose, in a list of arrays.

    Parameters
    ----------
    units, batch : int
        Size of the code, number of digits.
    seed : int
        Of the batch and the parameters.
    """
    rng = np.random.default_rng(seed)
    X, _ = digits_batch(batch, rng)
    params = [
        rng.standard_normal((64, units)) / 4,
        0.1 * rng.standard_normal(units),
        0.1 * rng.standard_normal(64),
    ]
    return Net(
        _loss,
        _gradient,
        params,
        (X,),
        name="tied_autoencoder",
        description="tied sigmoid autoencoder of the digits, squared error",
        batch=batch,
        biases=("1", "2"),
        take=rows,
        bugs=with_bugs(_gradient, "missing_activation_derivative", "wrong_activation_derivative", "tied_once"),
    )
