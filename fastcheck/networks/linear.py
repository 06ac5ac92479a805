"""Operators that are products with a parameter: dense layer and convolution."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fastcheck.networks.operators import Bits, Change, Far, FloatArray, IntArray, Labels, Transform, Weighted, single

__all__ = ["Convolve", "Multiply", "amount", "apply", "fold", "keys", "mix", "patches", "touched"]

Window = tuple[int, int, int, int]


def amount(transform: Transform | None) -> float:
    """Return the transformed derivative of the output by a bias, which is 1."""
    return 1.0 if transform is None else float(transform(np.ones(1))[0])


def apply(transform: Transform | None, x: FloatArray) -> FloatArray:
    """Return the transformed derivative of the output by a weight, which is the weight's input."""
    return x if transform is None else transform(x)


class Multiply(Weighted):
    """W @ x + b for W of shape (out, in); maps are flattened in (C, H, W) order."""

    def __init__(self, x: FloatArray, weight: tuple[str, FloatArray], bias: tuple[str, FloatArray] | None) -> None:
        self.inputs = x.shape[:-1]
        self.x = x.reshape(-1, x.shape[-1])
        self.name, w = weight
        self.w = np.ascontiguousarray(w)
        self.bias = bias[0] if bias else None
        self.out = self.w @ self.x
        if bias:
            self.out += bias[1][:, None]
        self.blocks = {self.name: self.w.shape} | ({self.bias: (len(self.w),)} if self.bias else {})

    def exact(self, d: FloatArray, bits: Bits) -> FloatArray:
        """See `Operator.exact`."""
        flat = d.reshape(self.w.shape[1], -1)
        return (self.w @ flat).reshape(len(self.w), *d.shape[-2:])

    def fast(self, change: Change, far: Far) -> Change:
        """See `Operator.fast`."""
        w = self.w
        if change.window is not None:
            y0, y1, x0, x1 = change.window
            w = w.reshape(-1, *self.inputs)[:, :, y0:y1, x0:x1].reshape(len(w), -1)
        m, s, b = change.many
        return Change((w @ change.d.reshape(w.shape[1], m * s * b)).reshape(len(w), m, s, b))

    def columns(self, change: Change) -> tuple[FloatArray, tuple[int, ...], None] | None:
        """See `Operator.columns`."""
        if change.rows is None or not single(change.window):
            return None
        if change.window is None:
            w = self.w[:, change.rows]
        else:
            w = self.w.reshape(-1, *self.inputs)[:, change.rows, change.window[0], change.window[2]]
        return np.ascontiguousarray(w), (len(w),), None

    def contract(self, slopes: FloatArray, transform: Transform | None = None) -> dict[str, FloatArray]:
        """See `Weighted.contract`."""
        found = {self.name: slopes @ apply(transform, self.x).T}
        if self.bias:
            found[self.bias] = slopes.sum(axis=1) * amount(transform)
        return found

    def impulse(self, name: str, flat: IntArray, h: float) -> FloatArray:
        """See `Weighted.impulse`."""
        d = np.zeros((len(self.w), len(flat), self.x.shape[1]))
        if name == self.bias:
            d[flat, np.arange(len(flat))] = h
        else:
            i, j = np.divmod(flat, self.w.shape[1])
            d[i, np.arange(len(flat))] = h * self.x[j]
        return d

    def rows_of(self, name: str, flat: IntArray) -> IntArray:
        """See `Weighted.rows_of`."""
        return flat if name == self.bias else flat // self.w.shape[1]


_Any = TypeVar("_Any", bound=np.generic)


def patches(x: NDArray[_Any], size: tuple[int, int], stride: int, padding: int, fill: float = 0.0) -> NDArray[_Any]:
    """Return the windows of a map: x (C, H, W, ...) -> (C, kh, kw, H', W', ...), padded with ``fill``."""
    if padding:
        pad = [(0, 0), (padding, padding), (padding, padding)] + [(0, 0)] * (x.ndim - 3)
        x = np.pad(x, pad, constant_values=fill)
    (kh, kw), (_, height, width) = size, x.shape[:3]
    oh, ow = (height - kh) // stride + 1, (width - kw) // stride + 1
    out = np.empty((x.shape[0], kh, kw, oh, ow, *x.shape[3:]), x.dtype)
    for u in range(kh):
        for v in range(kw):
            out[:, u, v] = x[:, u : u + stride * oh : stride, v : v + stride * ow : stride][:, :oh, :ow]
    return out


def mix(words: Labels) -> Labels:
    """Scatter 64-bit words so that near ones have nothing in common (Steele et al. 2014, splitmix64)."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(words ^ (words >> np.uint64(31)))


def keys(shape: tuple[int, ...]) -> Labels:
    """Return the same odd multipliers each time."""
    return np.random.default_rng(0).integers(1, 2**63, shape, np.uint64) * np.uint64(2) + np.uint64(1)


def fold(labels: Labels, size: tuple[int, int], stride: int, padding: int) -> Labels:
    """Return one label for each window of labels (H, W, B): equal windows, equal labels (but for 1 in 2^64)."""
    windows = patches(labels[None], size, stride, padding)[0]
    return mix((windows * keys(size)[..., None, None, None]).sum(axis=(0, 1), dtype=np.uint64))


def touched(lo: int, hi: int, size: int, stride: int, padding: int, limit: int) -> tuple[int, int]:
    """Return the range of windows that overlap the places [lo, hi) of one axis, of ``limit`` windows."""
    first = max(0, -((size - 1 - lo - padding) // stride))
    last = min(limit, (hi - 1 + padding) // stride + 1)
    return first, max(first, last)


class Convolve(Weighted):
    """2-D convolution (cross-correlation) with a kernel of shape (O, C, kh, kw), stride and zero padding."""

    single = False

    def __init__(
        self,
        x: FloatArray,
        weight: tuple[str, FloatArray],
        bias: tuple[str, FloatArray] | None,
        stride: int,
        padding: int,
    ) -> None:
        self.inputs = x.shape[:-1]
        self.name, w = weight
        self.w = np.ascontiguousarray(w)
        self.bias = bias[0] if bias else None
        self.stride, self.padding = stride, padding
        self.x = self._patches(x)
        self.place = self.x.shape[3:5]
        fan_in = int(np.prod(self.w.shape[1:]))
        out = (self.w.reshape(-1, fan_in) @ self.x.reshape(fan_in, -1)).reshape(-1, *self.place, x.shape[-1])
        self.out = out + bias[1][:, None, None, None] if bias else out
        self.blocks = {self.name: self.w.shape} | ({self.bias: (len(self.w),)} if self.bias else {})

    def _patches(self, x: FloatArray) -> FloatArray:
        return patches(x, (self.w.shape[2], self.w.shape[3]), self.stride, self.padding)

    def exact(self, d: FloatArray, bits: Bits) -> FloatArray:
        """See `Operator.exact`."""
        fan_in = int(np.prod(self.w.shape[1:]))
        flat = self._patches(d).reshape(fan_in, -1)
        return (self.w.reshape(-1, fan_in) @ flat).reshape(-1, *self.place, *d.shape[-2:])

    def identify(self, labels: Labels) -> Labels:
        """See `Operator.identify`."""
        return fold(labels, (self.w.shape[2], self.w.shape[3]), self.stride, self.padding)

    def _touched(self, window: Window) -> Window:
        kh, kw = self.w.shape[2:]
        ys = touched(window[0], window[1], kh, self.stride, self.padding, self.place[0])
        xs = touched(window[2], window[3], kw, self.stride, self.padding, self.place[1])
        return *ys, *xs

    def columns(self, change: Change) -> tuple[FloatArray, tuple[int, ...], Window] | None:
        """See `Operator.columns`."""
        if change.rows is None or change.window is None or not single(change.window):
            return None
        y, _, x, _ = change.window
        y0, y1, x0, x1 = window = self._touched(change.window)
        u = y + self.padding - np.arange(y0, y1) * self.stride
        v = x + self.padding - np.arange(x0, x1) * self.stride
        w = self.w[:, change.rows][:, :, u[:, None], v].transpose(0, 2, 3, 1)
        matrix = np.ascontiguousarray(w).reshape(int(np.prod(w.shape[:3])), w.shape[3])
        return matrix, w.shape[:3], window

    def fast(self, change: Change, far: Far) -> Change:
        """See `Operator.fast`."""
        window = change.window or (0, self.inputs[1], 0, self.inputs[2])
        many = change.many
        cols = int(np.prod(many))
        d = change.d.reshape(*change.d.shape[:3], cols)
        y0, y1, x0, x1 = reach = self._touched(window)
        out = np.zeros((len(self.w), y1 - y0, x1 - x0, cols))
        for u in range(self.w.shape[2]):
            ys, to_y = self._aligned(window[0], window[1], u, y0, y1)
            for v in range(self.w.shape[3]):
                xs, to_x = self._aligned(window[2], window[3], v, x0, x1)
                part = d[:, ys, xs]
                moved = self.w[:, :, u, v] @ part.reshape(len(d), part[0].size)
                out[:, to_y, to_x] += moved.reshape(len(self.w), *part.shape[1:])
        return Change(out.reshape(*out.shape[:3], *many), None, reach)

    def _aligned(self, lo: int, hi: int, u: int, first: int, last: int) -> tuple[slice, slice]:
        """Return the places of the window that kernel row u meets, relative to it, and the outputs they go to."""
        p, s = self.padding, self.stride
        start = max(first, -((u - p - lo) // s))
        stop = max(start, min(last, (hi - 1 + p - u) // s + 1))
        begin = start * s + u - p - lo
        return slice(begin, begin + (stop - start - 1) * s + 1 if stop > start else begin, s), slice(
            start - first, stop - first
        )

    def contract(self, slopes: FloatArray, transform: Transform | None = None) -> dict[str, FloatArray]:
        """See `Weighted.contract`."""
        flat = slopes.reshape(len(slopes), -1)
        x = apply(transform, self.x.reshape(-1, flat.shape[1]))
        found = {self.name: (flat @ x.T).reshape(self.w.shape)}
        if self.bias:
            found[self.bias] = flat.sum(axis=1) * amount(transform)
        return found

    def impulse(self, name: str, flat: IntArray, h: float) -> FloatArray:
        """See `Weighted.impulse`."""
        d = np.zeros((*self.out.shape[:-1], len(flat), self.out.shape[-1]))
        for k, index in enumerate(flat):
            if name == self.bias:
                d[index, :, :, k] = h
            else:
                o, c, u, v = np.unravel_index(index, self.w.shape)
                d[o, :, :, k] = h * self.x[c, u, v]
        return d

    def rows_of(self, name: str, flat: IntArray) -> IntArray:
        """See `Weighted.rows_of`."""
        return flat if name == self.bias else flat // int(np.prod(self.w.shape[1:]))
