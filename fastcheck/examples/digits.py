"""The UCI handwritten digits that ship with the package; the credit is in data/README.md."""

from __future__ import annotations

from importlib import resources

import numpy as np

from fastcheck.arrays import FloatArray, IntArray

__all__ = ["digits_batch", "load_digits"]


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
