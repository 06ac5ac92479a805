"""The UCI handwritten digits that ship with the package, and a dense net on them; the credit is in data/README.md.

The net has softmax cross-entropy and one sample per row: ``X @ W.T + b``, b a vector.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from importlib import resources

import numpy as np

from fastcheck.arrays import FloatArray, IntArray
from fastcheck.bugs.mutation import Net, rows, with_bugs
from fastcheck.examples.dense import Activation

__all__ = ["digits_batch", "digits_net", "load_digits"]


def load_digits() -> tuple[FloatArray, IntArray]:
    """Return the test set of the UCI handwritten digits.

    Returns
    -------
    X : float64, shape (1797, 64)
        8 x 8 images, row by row, in [0, 1].
    y : int64, shape (1797,)
        The digits 0..9.

    References
    ----------
    E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998,
    CC BY 4.0.
    """
    with resources.files("fastcheck.examples").joinpath("data/digits.npz").open("rb") as file, np.load(file) as stored:
        return stored["images"] / 16.0, stored["labels"].astype(np.int64)


def digits_batch(batch: int, rng: np.random.Generator) -> tuple[FloatArray, IntArray]:
    """Return `batch` digits drawn without replacement, as `load_digits` does."""
    X, y = load_digits()
    chosen = rng.permutation(len(y))[:batch]
    return X[chosen], y[chosen]


Params = dict[str, FloatArray]


def _loss(
    params: Params, X: FloatArray, y: IntArray, activation: Activation, l2: float, masks: tuple[FloatArray, ...]
) -> float:
    """Return the mean softmax cross-entropy plus ``l2 / 2 * sum(W**2)``; X is (m, 64), a mask (m, units)."""
    depth = len(params) // 2
    A = X
    for layer in range(1, depth):
        Z = A @ params[f"W{layer}"].T + params[f"b{layer}"]
        A = np.tanh(Z) if activation == "tanh" else np.maximum(Z, 0)
        if masks:
            A = A * masks[layer - 1]
    scores = A @ params[f"W{depth}"].T + params[f"b{depth}"]
    log_norm = np.logaddexp.reduce(scores, axis=1)
    data = np.mean(log_norm - scores[np.arange(len(y)), y])
    return float(data) + 0.5 * l2 * sum(float(np.sum(params[f"W{i}"] ** 2)) for i in range(1, depth + 1))


def _gradient(
    params: Params,
    X: FloatArray,
    y: IntArray,
    activation: Activation,
    l2: float,
    masks: tuple[FloatArray, ...],
    *,
    bug: str = "",
) -> Params:
    """Return the gradient of `_loss`, a dict like params."""
    depth, m = len(params) // 2, len(y)
    slope, inputs = [], [X]
    for layer in range(1, depth):
        Z = inputs[-1] @ params[f"W{layer}"].T + params[f"b{layer}"]
        A = np.tanh(Z) if activation == "tanh" else np.where(Z > 0, Z, 0)
        keep = masks[layer - 1] if masks else np.ones_like(A)
        inputs.append(A * keep)
        derivative = 1 - A**2 if activation == "tanh" else (Z > 0).astype(Z.dtype)
        if bug == "missing_activation_derivative":
            derivative = np.ones_like(A)
        slope.append(derivative if bug == "dropout_backward" else derivative * keep)
    scores = inputs[-1] @ params[f"W{depth}"].T + params[f"b{depth}"]
    P = np.exp(scores - scores.max(axis=1, keepdims=True))
    P /= P.sum(axis=1, keepdims=True)
    target = np.eye(P.shape[1], dtype=P.dtype)[y]
    dZ = (target - P if bug == "sign" else P - target) / m
    if bug == "softmax_diagonal":
        dZ *= target
    decay = 0.0 if bug == "missing_l2" else l2
    gradient: Params = {}
    for layer in range(depth, 0, -1):
        W = params[f"W{layer}"]
        dW = (
            (inputs[layer - 1].T @ dZ).reshape(W.shape)
            if bug == "reshaped_not_transposed"
            else dZ.T @ inputs[layer - 1]
        )
        gradient[f"W{layer}"] = dW + decay * W
        gradient[f"b{layer}"] = np.full(len(W), dZ.sum()) if bug == "bias_over_all" and layer == 1 else dZ.sum(axis=0)
        if layer > 1:
            dZ = (dZ @ W) * slope[layer - 2]
    return {name: gradient[name] for name in params}


BUGS = (
    "sign",
    "missing_l2",
    "reshaped_not_transposed",
    "bias_over_all",
    "missing_activation_derivative",
    "softmax_diagonal",
)


def digits_net(
    hidden: Sequence[int] = (100,),
    *,
    activation: Activation = "relu",
    batch: int = 128,
    l2: float = 1e-3,
    keep: float = 1.0,
    seed: int = 0,
    bug: str | None = None,
) -> Net:
    """Return a dense softmax net on the handwritten digits, one sample per row.

    Parameters
    ----------
    hidden : sequence of int
        Units of the hidden layers.
    activation : {"relu", "tanh"}
        Of the hidden layers.
    batch : int
        Number of digits m, drawn without replacement.
    l2 : float
        Weight of ``l2 / 2 * sum(W**2)``, on the weights only and not averaged over the batch.
    keep : float
        Below 1: inverted dropout of the hidden units, with masks drawn once and passed in ``args``.
    seed : int
        Of the batch, the masks and the parameters.
    bug : str, optional
        A bug made in the backward pass: "sign" (of the whole data term), "missing_l2", "reshaped_not_transposed" (of
        every weight), "bias_over_all" (db1 summed over units and samples), "missing_activation_derivative",
        "softmax_diagonal" (Jacobian without its cross terms), and with ``keep < 1`` "dropout_backward" (masks applied
        forward only).

    Raises
    ------
    KeyError
        There is no such bug.
    """
    rng = np.random.default_rng(seed)
    X, y = digits_batch(batch, rng)
    sizes = (64, *hidden, 10)
    params: Params = {}
    for layer, (n_in, n_out) in enumerate(itertools.pairwise(sizes), 1):
        params[f"W{layer}"] = rng.standard_normal((n_out, n_in)) * np.sqrt(2 / n_in)
        params[f"b{layer}"] = 0.1 * rng.standard_normal(n_out)
    masks = tuple((rng.random((batch, n)) < keep) / keep for n in hidden) if keep < 1 else ()
    bugs = with_bugs(_gradient, *BUGS, *(["dropout_backward"] if masks else []))
    return Net(
        _loss,
        bugs[bug] if bug else _gradient,
        params,
        (X, y, activation, l2, masks),
        name=f"digits_net {'-'.join(map(str, sizes))} {activation}" + (f" with bug {bug}" if bug else ""),
        description=f"dense net on {batch} handwritten digits, mean softmax cross-entropy"
        + (", dropout" if masks else ""),
        batch=batch,
        classes=10,
        decay={name: l2 for name in params if name[0] == "W"} if l2 else {},
        biases=tuple(name for name in params if name[0] == "b"),
        take=rows,
        bugs=bugs,
    )
