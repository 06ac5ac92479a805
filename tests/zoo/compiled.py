"""Nets whose loss is compiled by Numba and takes a flat theta; Numba is imported when one is asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from fastcheck.arrays import FloatArray, IntArray
from fastcheck.bugs.mutation import Net
from fastcheck.examples.course import course_net
from fastcheck.examples.dense import mlp
from fastcheck.parameters import Parameters

__all__ = ["compiled_course_net", "compiled_mlp"]


def compiled_course_net() -> Net:
    """Return `course_net` with a compiled loss of theta, shape (47,): W1, b1, W2, b2, W3, b3, each row by row."""
    from tests.zoo.compiled_losses import course_loss

    tree = course_net()
    layout = Parameters.of(tree.params)

    def gradient(theta: FloatArray, x: FloatArray, y: FloatArray) -> FloatArray:
        claimed = tree.gradient(layout.unflatten(theta), x, y)
        return layout.flatten({name: claimed[f"d{name}"] for name in tree.params})

    return dataclasses.replace(
        tree,
        name="compiled_course_net",
        loss=course_loss,
        gradient=gradient,
        params=layout.flatten(tree.params),
        biases=(),
        bugs={},
    )


def compiled_mlp(sizes: Sequence[int] = (64, 100, 10), *, batch: int = 128, seed: int = 0) -> Net:
    """Return `mlp` with relu and a compiled loss of theta, shape (P,): W1, b1, W2, b2, ..., each row by row.

    Parameters
    ----------
    sizes, batch, seed
        As of `mlp`.
    """
    from tests.zoo.compiled_losses import mlp_loss

    tree = mlp(sizes, batch=batch, activation="relu", seed=seed)
    layout = Parameters.of(tree.params)
    X, y = tree.args[:2]

    def gradient(theta: FloatArray, X: FloatArray, y: IntArray, sizes: IntArray) -> FloatArray:
        return layout.flatten(tree.gradient(layout.unflatten(theta), X, y, "relu", 0.0))

    return dataclasses.replace(
        tree,
        name=f"compiled_{tree.name}",
        loss=mlp_loss,
        gradient=gradient,
        params=layout.flatten(tree.params),
        args=(X, y, np.asarray(sizes, np.int64)),
        biases=(),
        take=None,
        bugs={},
    )
