"""Kinds of leaf that are no plain array of floats: how each becomes real float arrays, and is made again from them.

A *part* is one real float array; most leaves have one, a complex array has two.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcheck.errors import InputError

__all__ = ["COMPLEX", "PLAIN", "Kind", "kind_of"]


class Kind(ABC):
    """How a leaf of the user's becomes real arrays and back.

    Attributes
    ----------
    suffixes : tuple of str
        What the name of the leaf is followed by in the name of each of its parts.
    """

    suffixes: tuple[str, ...] = ("",)

    def split(self, leaf: Any) -> Sequence[Any]:
        """Return the parts of a leaf of this kind, or of its gradient."""
        return (leaf,)

    @abstractmethod
    def join(self, parts: Sequence[NDArray[Any]]) -> Any:
        """Return the leaf with these parts, as the loss takes it; as views of them where that is possible."""


class _Plain(Kind):
    def join(self, parts: Sequence[NDArray[Any]]) -> Any:
        return parts[0]


class _Matrix(Kind):
    """A `numpy.matrix`: ``*`` is its product, which the loss relies on."""

    def split(self, leaf: Any) -> Sequence[Any]:
        return (np.asarray(leaf),)

    def join(self, parts: Sequence[NDArray[Any]]) -> Any:
        return parts[0].view(np.matrix)


class _Complex(Kind):
    """Complex numbers: their real and their imaginary parts.

    The gradient of a real loss J is dJ/dRe + i dJ/dIm: the direction in which J rises fastest.
    """

    suffixes = (".real", ".imag")

    def split(self, leaf: Any) -> Sequence[Any]:
        array = np.asarray(leaf)
        if array.dtype.kind not in "fiuc":  # no number: the message is the one of all leaves
            return (leaf, leaf)
        return (array.real, array.imag)

    def join(self, parts: Sequence[NDArray[Any]]) -> Any:
        real, imag = parts
        if real.dtype.kind == "c":
            raise InputError("scheme='complex' is for real parameters; these are complex. Use scheme='central'.")
        array = np.empty(real.shape, np.result_type(real.dtype, np.complex64))
        array.real, array.imag = real, imag
        return array


@dataclass(frozen=True)
class _Pandas(Kind):
    """A Series or a DataFrame: the loss gets one with the same labels, and gradients are aligned to them."""

    make: Any
    labels: dict[str, Any]
    name: Any

    @classmethod
    def of(cls, leaf: Any) -> _Pandas:
        labels = {"index": leaf.index} | ({"columns": leaf.columns} if leaf.ndim == 2 else {})
        return cls(type(leaf), labels, getattr(leaf, "name", None) if leaf.ndim == 1 else None)

    def split(self, leaf: Any) -> Sequence[Any]:
        if _is_pandas(leaf) and leaf.ndim == len(self.labels):
            for axis, labels in self.labels.items():
                own = getattr(leaf, axis)
                same = own.is_unique and labels.is_unique and len(own) == len(labels) and labels.isin(own).all()
                leaf = leaf.reindex(**{axis: labels}) if same and not own.equals(labels) else leaf
        return (leaf.to_numpy() if _is_pandas(leaf) else leaf,)

    def join(self, parts: Sequence[NDArray[Any]]) -> Any:
        named = {"name": self.name} if len(self.labels) == 1 else {}
        return self.make(parts[0], copy=False, **self.labels, **named)


PLAIN, MATRIX, COMPLEX = _Plain(), _Matrix(), _Complex()


def kind_of(leaf: Any) -> Kind:
    """Return the kind of a leaf of params."""
    if _is_pandas(leaf):
        return _Pandas.of(leaf)
    if isinstance(leaf, np.matrix) and leaf.dtype.kind == "f":
        return MATRIX
    if isinstance(leaf, (np.ndarray, np.generic, complex)) and np.iscomplexobj(leaf):
        return COMPLEX
    return PLAIN


def _is_pandas(leaf: Any) -> bool:
    pandas = sys.modules.get("pandas")  # a Series can't exist where this is not loaded
    return pandas is not None and isinstance(leaf, (pandas.Series, pandas.DataFrame))
