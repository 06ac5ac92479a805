"""Operators with parameters: dense layer, convolution, embedding, scale and shift."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastcheck.arrays import FloatArray, IntArray
from fastcheck.kernels import network as kernels
from fastcheck.networks.fused import through_pool
from fastcheck.networks.operators import Bend, Bits, Change, Far, Operator, Transform, Weighted
from fastcheck.networks.windows import Labels, Window, fold, overlaid, patches, touched

__all__ = ["Convolve", "Embed", "Multiply", "Scale", "amount", "apply"]


def amount(transform: Transform | None) -> float:
    """Return the transformed derivative of the output by a bias, which is 1."""
    return 1.0 if transform is None else float(transform(np.ones(1))[0])


def apply(transform: Transform | None, x: FloatArray) -> FloatArray:
    """Return the transformed derivative of the output by a weight, which is the weight's input."""
    return x if transform is None else transform(x)


def _outer(
    matrix: FloatArray, change: Change, following: tuple[Operator, ...], window: Window | None, far: Far
) -> tuple[FloatArray, int]:
    """Return the outer products (n, m, S, B) of a matrix (n, m) and changes (m, S, B), bent if a `Bend` follows."""
    out = np.empty((len(matrix), *change.many))
    matrix, d = np.ascontiguousarray(matrix), np.ascontiguousarray(change.d)
    if following and isinstance(following[0], Bend):
        kernels.outer_bend(matrix, d, *following[0].tables_of(window), out, far)
        return out, 1
    kernels.outer(matrix, d, out)
    return out, 0


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

    def fused(self, following: tuple[Operator, ...], change: Change, far: Far) -> tuple[Change, int]:
        """See `Operator.fused`."""
        if change.rows is None or not change.lone:
            return self.fast(change, far), 0
        w = self.w
        if change.window is not None:
            w = w.reshape(-1, *self.inputs)[:, :, change.window[0], change.window[2]]
        out, taken = _outer(w[:, change.rows], change, following, None, far)
        return Change(out), taken

    def squares_below(self, squares: FloatArray) -> FloatArray:
        """See `Operator.squares_below`."""
        return np.asarray((self.w**2).T @ squares).reshape(*self.inputs, -1)

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
        self.map_shape = self.x.shape[3:5]
        fan_in = int(np.prod(self.w.shape[1:]))
        out = (self.w.reshape(-1, fan_in) @ self.x.reshape(fan_in, -1)).reshape(-1, *self.map_shape, x.shape[-1])
        self.out = out + bias[1][:, None, None, None] if bias else out
        self.blocks = {self.name: self.w.shape} | ({self.bias: (len(self.w),)} if self.bias else {})

    def _patches(self, x: FloatArray) -> FloatArray:
        return patches(x, (self.w.shape[2], self.w.shape[3]), self.stride, self.padding)

    def exact(self, d: FloatArray, bits: Bits) -> FloatArray:
        """See `Operator.exact`."""
        fan_in = int(np.prod(self.w.shape[1:]))
        flat = self._patches(d).reshape(fan_in, -1)
        return (self.w.reshape(-1, fan_in) @ flat).reshape(-1, *self.map_shape, *d.shape[-2:])

    def identify(self, labels: Labels) -> Labels:
        """See `Operator.identify`."""
        return fold(labels, (self.w.shape[2], self.w.shape[3]), self.stride, self.padding)

    def touched(self, window: Window) -> Window:
        """Return the outputs that a window of the input reaches."""
        kh, kw = self.w.shape[2:]
        ys = touched(window[0], window[1], kh, self.stride, self.padding, self.map_shape[0])
        xs = touched(window[2], window[3], kw, self.stride, self.padding, self.map_shape[1])
        return *ys, *xs

    def fused(self, following: tuple[Operator, ...], change: Change, far: Far) -> tuple[Change, int]:
        """See `Operator.fused`."""
        if change.rows is None or change.window is None or not change.lone:
            return self.fast(change, far), 0
        if (carried := through_pool(self, following, change)) is not None:
            return carried
        y, _, x, _ = change.window
        y0, y1, x0, x1 = reach = self.touched(change.window)
        u = y + self.padding - np.arange(y0, y1) * self.stride
        v = x + self.padding - np.arange(x0, x1) * self.stride
        w = self.w[:, change.rows][:, :, u[:, None], v].transpose(0, 2, 3, 1)
        out, taken = _outer(w.reshape(-1, w.shape[3]), change, following, reach, far)
        return Change(out.reshape(*w.shape[:3], *change.many), None, reach), taken

    def fast(self, change: Change, far: Far) -> Change:
        """See `Operator.fast`."""
        window = change.window or (0, self.inputs[1], 0, self.inputs[2])
        many = change.many
        cols = int(np.prod(many))
        d = change.d.reshape(*change.d.shape[:3], cols)
        y0, y1, x0, x1 = reach = self.touched(window)
        out = np.zeros((len(self.w), y1 - y0, x1 - x0, cols))
        for u in range(self.w.shape[2]):
            ys, to_y = self._aligned(window[0], window[1], u, y0, y1)
            for v in range(self.w.shape[3]):
                xs, to_x = self._aligned(window[2], window[3], v, x0, x1)
                part = d[:, ys, xs]
                moved = self.w[:, :, u, v] @ part.reshape(len(d), part[0].size)
                out[:, to_y, to_x] += moved.reshape(len(self.w), *part.shape[1:])
        return Change(out.reshape(*out.shape[:3], *many), None, reach)

    def squares_below(self, squares: FloatArray) -> FloatArray:
        """See `Operator.squares_below`."""
        size, flat = self.w.shape[2:], squares.reshape(len(self.w), -1)
        shape = (-1, *self.map_shape, squares.shape[-1])
        parts = (((self.w[:, :, u, v] ** 2).T @ flat).reshape(shape) for u, v in np.ndindex(size))
        return overlaid(parts, (*self.inputs, squares.shape[-1]), size, self.stride, self.padding)

    def _aligned(self, lo: int, hi: int, u: int, first: int, last: int) -> tuple[slice, slice]:
        """Return the positions of the window that kernel row u meets, relative to it, and the outputs they go to."""
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


class Embed(Weighted):
    """Rows of a table of shape (V, E) by token: ids (T, B) -> (T * E, B)."""

    single = False

    def __init__(self, ids: IntArray, name: str, w: FloatArray) -> None:
        self.inputs = ids.shape[:-1]
        self.ids = ids
        self.name = name
        self.shape = w.shape
        self.out = np.ascontiguousarray(w[ids].transpose(0, 2, 1)).reshape(-1, ids.shape[-1])
        self.blocks = {name: w.shape}

    def contract(self, slopes: FloatArray, transform: Transform | None = None) -> dict[str, FloatArray]:
        """See `Weighted.contract`."""
        total = np.zeros(self.shape)
        per_token = slopes.reshape(len(self.ids), self.shape[1], -1).transpose(0, 2, 1)
        np.add.at(total, self.ids, per_token * amount(transform))
        return {self.name: total}

    def impulse(self, name: str, flat: IntArray, h: float) -> FloatArray:
        """See `Weighted.impulse`."""
        tokens, entry = np.divmod(flat, self.shape[1])
        d = np.zeros((len(self.ids), self.shape[1], len(flat), self.ids.shape[-1]))
        for k in range(len(flat)):
            d[:, entry[k], k] = h * (self.ids == tokens[k])
        return d.reshape(-1, *d.shape[2:])

    def rows_of(self, name: str, flat: IntArray) -> IntArray:
        """See `Weighted.rows_of`."""
        steps = np.arange(len(self.ids)) * self.shape[1]
        return np.asarray((steps[:, None] + np.unique(flat % self.shape[1])).ravel())


class Scale(Weighted):
    """gamma * x + beta, elementwise or per channel of a map."""

    def __init__(
        self, x: FloatArray, gamma: tuple[str, FloatArray] | None, beta: tuple[str, FloatArray] | None, channels: bool
    ) -> None:
        self.inputs = x.shape[:-1]
        self.x = x
        self.shape = self.inputs[:1] + (1,) * (len(self.inputs) - 1) if channels else self.inputs
        self.single = self.shape == self.inputs
        self.gamma = gamma[1].reshape(*self.shape, 1) if gamma else None
        self.names = (gamma[0] if gamma else None, beta[0] if beta else None)
        self.out = x if self.gamma is None else self.gamma * x
        if beta:
            self.out = self.out + beta[1].reshape(*self.shape, 1)
        self.blocks = {name: (int(np.prod(self.shape)),) for name in self.names if name}

    def identify(self, labels: Labels) -> Labels | None:
        """See `Operator.identify`."""
        return None if self.single else labels

    def exact(self, d: FloatArray, bits: Bits) -> FloatArray:
        """See `Operator.exact`."""
        return d if self.gamma is None else self.gamma[..., None] * d

    def fast(self, change: Change, far: Far) -> Change:
        """See `Operator.fast`."""
        if change.rows is None or len(self.inputs) > 1:
            return super().fast(change, far)
        return change if self.gamma is None else Change(self.gamma[change.rows, None] * change.d, change.rows)

    def squares_below(self, squares: FloatArray) -> FloatArray:
        """See `Operator.squares_below`."""
        return squares if self.gamma is None else self.gamma**2 * squares

    def contract(self, slopes: FloatArray, transform: Transform | None = None) -> dict[str, FloatArray]:
        """See `Weighted.contract`."""
        axes = (*(i for i, n in enumerate(self.shape) if n != self.inputs[i]), self.x.ndim - 1)
        found: dict[str, FloatArray] = {}
        if self.names[0]:
            found[self.names[0]] = (slopes * apply(transform, self.x)).sum(axis=axes).ravel()
        if self.names[1]:
            found[self.names[1]] = slopes.sum(axis=axes).ravel() * amount(transform)
        return found

    def impulse(self, name: str, flat: IntArray, h: float) -> FloatArray:
        """See `Weighted.impulse`."""
        d = np.zeros((*self.inputs, len(flat), self.x.shape[-1]))
        for k, index in enumerate(flat):
            where = np.unravel_index(index, self.shape)
            at = tuple(i if n > 1 else slice(None) for i, n in zip(where, self.shape, strict=True))
            d[(*at, k)] = h * self.x[at] if name == self.names[0] else h
        return d

    def rows_of(self, name: str, flat: IntArray) -> NDArray[np.int64]:
        """See `Weighted.rows_of`."""
        return flat // int(np.prod(self.shape[1:]))
