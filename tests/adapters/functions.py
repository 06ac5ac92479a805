"""Functions of two arrays, for torch and jax: smooth, with one or several outputs, and curved in both."""

from __future__ import annotations

from types import SimpleNamespace

import pytest


def functions(np):
    """Return functions by name, of ``x`` of shape (3, 2) and ``w`` of shape (2,), written with a module like NumPy."""
    return {
        "product": lambda x, w: np.sin(x) * w,
        "power": lambda x, w: x**3 * w**2,
        "dense": lambda x, w: np.tanh(x @ w),
        "quotient": lambda x, w: x / (1 + w**2),
        "softmax": lambda x, w: np.exp(x * w) / np.exp(x * w).sum(-1)[:, None],
        "logsumexp": lambda x, w: np.log(np.exp(x + w).sum(-1)),
        "norm": lambda x, w: np.sqrt((x**2).sum(-1) + 1) * w.sum(),
        "normalised": lambda x, w: (x - x.mean(0)) / np.sqrt(((x - x.mean(0)) ** 2).mean(0) + 0.1) * w,
        "sums": lambda x, w: np.cumsum(np.exp(0.3 * x), 0) * w,
        "gram": lambda x, w: (x * w) @ x.T,
        "two outputs": lambda x, w: (x * w, np.exp(x).sum() + (w**3).sum()),
        "scalar": lambda x, w: (np.cos(x) * w).mean() ** 2,
        "outer": lambda x, w: x[:, :, None] * np.tanh(w),
        "indexed": lambda x, w: x[1:] * x[:-1] + np.sin(w[0]) * w[1],
    }


NAMES = list(functions(SimpleNamespace()))
FEW = ("power", "dense", "two outputs")
EACH = [name if name in FEW else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]


def square_by(way_back):
    """Return a square for torch with a backward pass of one's own, which finds x among the saved tensors."""
    torch = pytest.importorskip("torch")

    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**2

        backward = staticmethod(way_back)

    return Square.apply


def square_off_in(dtype, factor):
    """Return a square for torch whose backward pass is off by a factor, in one precision alone."""

    def way_back(ctx, g):
        (x,) = ctx.saved_tensors
        return (2 * factor if x.dtype is dtype else 2.0) * x * g

    return square_by(way_back)
