"""Nets with a switch for each of the bugs that a function makes, not an array: five nets a kind."""

from __future__ import annotations

import itertools

import numpy as np

ACTIVATIONS = {
    "tanh": (np.tanh, lambda z: 1 / np.cosh(z) ** 2),
    "softplus": (lambda z: np.logaddexp(0, z), lambda z: 1 / (1 + np.exp(-z))),
    "sin": (np.sin, np.cos),
}


def softmax(z):
    p = np.exp(z - z.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def dense(seed, sizes, activation="tanh", *, m=12, output="softmax", one_hot=False, l2=0.0, keep=None, masked=True):
    """Return loss, gradient and params, args of a dense net; ``gradient(..., bug=...)`` has the bug.

    The samples are rows. With `keep` the second layer's input is dropped out by a mask in the arguments, whose scale is
    in the mask, or the rate in the arguments.
    """
    rng = np.random.default_rng(seed)
    act, slope = ACTIVATIONS[activation]
    params = {}
    for k, (n_in, n_out) in enumerate(itertools.pairwise(sizes), 1):
        params[f"W{k}"] = rng.standard_normal((n_in, n_out)) / np.sqrt(n_in)
        params[f"b{k}"] = 0.3 * rng.standard_normal(n_out)
    depth = len(sizes) - 1
    X = rng.standard_normal((m, sizes[0]))
    labels = np.concatenate([np.arange(sizes[-1]), rng.integers(0, sizes[-1], m - sizes[-1])])
    y = labels if output == "softmax" else rng.standard_normal((m, sizes[-1]))
    if one_hot:
        y = np.eye(sizes[-1])[labels]
    mask = (rng.random((m, sizes[1])) < (keep or 1.0)).astype(float) / (keep if keep and masked else 1.0)
    args = (X, y) if keep is None else (X, y, mask) if masked else (X, y, mask, keep)

    def forward(p, X, mask=None, rate=None):
        A, Z = [X], []
        for k in range(1, depth + 1):
            Z.append(A[-1] @ p[f"W{k}"] + p[f"b{k}"])
            a = Z[-1] if k == depth else act(Z[-1])
            A.append(a * mask / (rate or 1.0) if mask is not None and k == 1 else a)
        return A, Z

    def hot(y):
        return y if y.ndim > 1 else np.eye(sizes[-1])[y]

    def loss(p, X, y, mask=None, rate=None):
        z = forward(p, X, mask, rate)[0][-1]
        decay = 0.5 * l2 * sum(np.sum(p[f"W{k}"] ** 2) for k in range(1, depth + 1))
        if output != "softmax":
            return 0.5 * float(np.sum((z - y) ** 2)) / len(X) + decay
        top = z.max(axis=1, keepdims=True)
        logs = z - top - np.log(np.exp(z - top).sum(axis=1, keepdims=True))
        return -float(np.sum(hot(y) * logs)) / len(X) + decay

    def output_delta(z, y, bug):
        if output != "softmax":
            return (z - (np.roll(y, -1, axis=0) if bug == "labels" else y)) / len(z)
        p, target = softmax(z), hot(y)
        if bug == "shift":
            p = np.exp(z - z.max(axis=1, keepdims=True)) / np.exp(z).sum(axis=1, keepdims=True)
        if bug == "labels":
            target = np.roll(target, 1, axis=1)
        return (p - (0 if bug == "target" else target)) / len(z)

    def gradient(p, X, y, mask=None, rate=None, *, bug=None, at=2):
        A, Z = forward(p, X, mask, rate)
        d, g = output_delta(A[-1], y, bug), {}
        for k in range(depth, 0, -1):
            if k < depth:
                W = p[f"W{k + 1}"]
                d = d @ (W if bug == "transpose" and k + 1 == at else W.T)
                if mask is not None and k == 1:
                    d = d * _backward_mask(mask, rate, bug)
                d = d * slope(Z[k - 1])
            g[f"W{k}"] = A[k - 1].T @ d + l2 * p[f"W{k}"]
            g[f"b{k}"] = d.sum(axis=0)
            if bug == "bias" and k == at:
                g[f"b{k}"] = np.resize(d.sum(axis=1), d.shape[1])
        return {name: g[name] for name in p}

    return loss, gradient, params, args


def _backward_mask(mask, rate, bug):
    if bug == "mask":
        return np.full_like(mask, mask.max()) / (rate or 1.0)
    if bug == "scale":
        return (mask > 0).astype(float)
    return mask / (rate or 1.0)


def convolution(seed, shape, size=8, m=3):
    """Return loss, gradient and params, args of one layer of kernels; the right gradient."""
    rng = np.random.default_rng(seed)
    K, X = rng.standard_normal(shape), rng.standard_normal((m, *shape[1:-2], size, size))
    targets = rng.standard_normal((m, shape[0] if len(shape) > 2 else 1, size - shape[-2] + 1, size - shape[-1] + 1))

    def scores(K, X):
        windows = np.lib.stride_tricks.sliding_window_view(X, K.shape[-2:], axis=(-2, -1))
        kernel = K if K.ndim > 2 else K[None, :, :]
        if K.ndim == 4:
            return np.einsum("mcijkl,fckl->mfij", windows, kernel), windows
        return np.einsum("mijkl,fkl->mfij", windows.reshape(m, *windows.shape[-4:]), kernel), windows

    def loss(p, X, targets):
        return 0.5 * float(np.mean((np.tanh(scores(p["K"], X)[0]) - targets) ** 2))

    def gradient(p, X, targets):
        z, windows = scores(p["K"], X)
        d = (np.tanh(z) - targets) / np.cosh(z) ** 2 / targets.size
        if p["K"].ndim == 4:
            return {"K": np.einsum("mcijkl,mfij->fckl", windows, d)}
        found = np.einsum("mijkl,mfij->fkl", windows.reshape(m, *windows.shape[-4:]), d)
        return {"K": found if p["K"].ndim > 2 else found[0]}

    return loss, gradient, {"K": K}, (X, targets)
