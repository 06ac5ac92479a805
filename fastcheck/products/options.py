"""The options that only products have."""

from __future__ import annotations

import numpy as np

from fastcheck.errors import InputError

__all__ = ["positive"]


def positive(name: str, value: int | None) -> int | None:
    """Return a number of vectors, validated.

    Raises
    ------
    InputError
        It is neither None nor a positive integer.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise InputError(f"{name}={value!r} must be a positive integer, or None for as many as the sizes ask for.")
    return int(value)
