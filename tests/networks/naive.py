"""The slow, obvious twin of every layer and loss, in mpmath numbers: object arrays, samples last, loops."""

from __future__ import annotations

import mpmath as mp
import numpy as np

from fastcheck.networks import (
    AvgPool2D,
    BatchNorm,
    Conv2D,
    Dense,
    Embedding,
    Flatten,
    LayerNorm,
    MaxPool2D,
    Residual,
)

DIGITS = 60
STEP = mp.mpf(10) ** -20


def exact(array):
    return np.vectorize(mp.mpf, otypes=[object])(np.asarray(array, float))


def each(function, x):
    return np.vectorize(function, otypes=[object])(x)


SCALARS = {
    "relu": lambda z: max(z, mp.mpf(0)),
    "leaky_relu": lambda z: z if z > 0 else z * mp.mpf(0.01),
    "elu": lambda z: z if z > 0 else mp.expm1(z),
    "tanh": mp.tanh,
    "sigmoid": lambda z: 1 / (1 + mp.exp(-z)),
    "softplus": lambda z: mp.log1p(mp.exp(z)),
    "gelu": lambda z: z * mp.ncdf(z),
    "gelu_tanh": lambda z: z / 2 * (1 + mp.tanh(mp.mpf(np.sqrt(2 / np.pi)) * (z + mp.mpf(0.044715) * z**3))),
    "silu": lambda z: z / (1 + mp.exp(-z)),
}


def activate(z, name):
    if name in (None, "identity"):
        return z
    if name == "softmax":
        e = each(mp.exp, z)
        return e / e.sum(axis=0)
    return each(SCALARS[name], z)


def conv(layer, w, x):
    p, s = layer.padding, layer.stride
    padded = np.full((x.shape[0], x.shape[1] + 2 * p, x.shape[2] + 2 * p, x.shape[3]), mp.mpf(0), object)
    padded[:, p : p + x.shape[1], p : p + x.shape[2]] = x
    oh, ow = (padded.shape[1] - w.shape[2]) // s + 1, (padded.shape[2] - w.shape[3]) // s + 1
    out = np.empty((len(w), oh, ow, x.shape[3]), object)
    for o in range(len(w)):
        for i in range(oh):
            for j in range(ow):
                patch = padded[:, i * s : i * s + w.shape[2], j * s : j * s + w.shape[3]]
                out[o, i, j] = (w[o][..., None] * patch).sum(axis=(0, 1, 2))
    return out


def pool(layer, x):
    k, p = layer.size, layer.padding
    s = layer.stride or k
    oh, ow = (x.shape[1] + 2 * p - k) // s + 1, (x.shape[2] + 2 * p - k) // s + 1
    out = np.empty((x.shape[0], oh, ow, x.shape[3]), object)
    for c, i, j, b in np.ndindex(out.shape):
        cell = [
            x[c, y, z, b]
            for y in range(i * s - p, i * s - p + k)
            for z in range(j * s - p, j * s - p + k)
            if 0 <= y < x.shape[1] and 0 <= z < x.shape[2]
        ]
        out[c, i, j, b] = max(cell) if isinstance(layer, MaxPool2D) else sum(cell, mp.mpf(0)) / k**2
    return out


def normalise(layer, params, x):
    over_samples = isinstance(layer, BatchNorm)
    axes = (*range(1, x.ndim - 1), x.ndim - 1) if over_samples else tuple(range(x.ndim - 1))
    n = int(np.prod([x.shape[a] for a in axes]))
    centred = x - x.sum(axis=axes, keepdims=True) / n
    variance = (centred * centred).sum(axis=axes, keepdims=True) / n + mp.mpf(layer.eps)
    out = centred / each(mp.sqrt, variance)
    shape = (len(x), *(1 for _ in x.shape[1:])) if over_samples else (*x.shape[:-1], 1)
    if layer.gain:
        out = out * params[layer.gain].reshape(shape)
    if layer.shift:
        out = out + params[layer.shift].reshape(shape)
    return activate(out, layer.activation)


def forward(layers, params, x):
    for layer in layers:
        if isinstance(layer, Dense):
            w = params[layer.weight] if layer.weights == "out_in" else params[layer.weight].T
            z = w.dot(x.reshape(-1, x.shape[-1]))
            x = activate(z + params[layer.bias].reshape(-1, 1) if layer.bias else z, layer.activation)
        elif isinstance(layer, Conv2D):
            w = params[layer.weight]
            z = conv(layer, w if layer.weights == "out_in" else w.transpose(3, 2, 0, 1), x)
            x = activate(z + params[layer.bias].reshape(-1, 1, 1, 1) if layer.bias else z, layer.activation)
        elif isinstance(layer, MaxPool2D | AvgPool2D):
            x = pool(layer, x)
        elif isinstance(layer, Flatten):
            x = x.reshape(-1, x.shape[-1])
        elif isinstance(layer, BatchNorm | LayerNorm):
            x = normalise(layer, params, x)
        elif isinstance(layer, Residual):
            x = x + forward(layer.inner, params, x)
        elif isinstance(layer, Embedding):
            ids = np.asarray(x, int)
            x = np.stack([np.concatenate([params[layer.weight][t] for t in column]) for column in ids.T], axis=-1)
        else:
            raise TypeError(layer)
    return x


def sample_losses(name, z, y):
    """z (K, B), y (B,) or (K, B) -> (B,)."""
    if name == "softmax_cross_entropy":
        return [mp.log(sum(mp.exp(v) for v in z[:, b])) - z[int(y[b]), b] for b in range(z.shape[1])]
    if name == "hinge" and len(z) > 1:
        return [
            sum(max(mp.mpf(0), 1 + z[k, b] - z[int(y[b]), b]) for k in range(len(z)) if k != y[b])
            for b in range(z.shape[1])
        ]
    y = exact(y).reshape(z.shape)
    terms = {
        "hinge": lambda z, y: max(mp.mpf(0), 1 - y * z),
        "squared_error": lambda z, y: (z - y) ** 2 / 2,
        "binary_cross_entropy": lambda z, y: mp.log1p(mp.exp(z)) - y * z,
        "binary_cross_entropy_sigmoid": lambda z, y: -y * mp.log(z) - (1 - y) * mp.log(1 - z),
    }[name]
    return list(np.vectorize(terms, otypes=[object])(z, y).sum(axis=0))


def loss(net, params, x, y):
    """The loss of a Network in mpmath numbers; params: dict of object arrays; x, y as given to bind."""
    if net.samples == "rows":
        x, y = np.moveaxis(x, 0, -1), np.moveaxis(np.asarray(y), 0, -1)
    if x.ndim == 1:
        x = x[None]
    z = forward(net.layers, params, x)
    losses = sample_losses(net.loss, z.reshape(-1, z.shape[-1]), np.asarray(y))
    total = sum(losses, mp.mpf(0)) / (len(losses) if net.reduction == "mean" else 1) * mp.mpf(net.scale)
    for block, strength in net.penalties(net.l2, "l2").items():
        total += mp.mpf(strength) / 2 * sum(w * w for w in params[block].ravel())
    for block, strength in net.penalties(net.l1, "l1").items():
        total += mp.mpf(strength) * sum(abs(w) for w in params[block].ravel())
    return total


def gradient(net, params, x, y, step=STEP, digits=DIGITS):
    """Central difference J(theta + h) - J(theta - h) of every coordinate in many digits, a dict of float arrays."""
    with mp.workdps(digits):
        held = {name: exact(value) for name, value in params.items()}
        data = x if np.asarray(x).dtype.kind == "i" else exact(x)
        found = {name: np.empty(np.shape(value)) for name, value in params.items()}
        for name, block in held.items():
            for index in np.ndindex(block.shape):
                kept = block[index]
                block[index] = kept + step
                up = loss(net, held, data, y)
                block[index] = kept - step
                down = loss(net, held, data, y)
                block[index] = kept
                found[name][index] = float((up - down) / (2 * step))
        return found
