"""Whose arithmetic it is: what the user set with `numpy.seterr` is for the user's functions, not for fastcheck's.

An overflow on the way to "infinitely uncertain" is nothing that fastcheck should warn of or fail at. In a loss it may
be what the user wants to hear of. So a check computes inside `own`, and calls what is the user's inside `theirs`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

__all__ = ["own", "settings", "theirs"]

_THEIRS: ContextVar[Mapping[str, Any] | None] = ContextVar("fastcheck_errors_of_the_user", default=None)


def settings() -> Mapping[str, Any]:
    """Return what the user set, to be taken to another thread or process."""
    kept = _THEIRS.get()
    return np.geterr() if kept is None else kept


@contextmanager
def own(users: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Let floating point signal nothing, and remember what the user set: what holds now, unless it is given."""
    token = _THEIRS.set(np.geterr() if users is None else users)
    try:
        with np.errstate(all="ignore"):
            yield
    finally:
        _THEIRS.reset(token)


def theirs() -> Any:
    """Return a context in which floating point signals what the user set."""
    return np.errstate(**settings())
