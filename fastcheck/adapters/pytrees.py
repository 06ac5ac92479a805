"""The floating leaves of a pytree of jax by name, and the precision they are traced in."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from fastcheck.adapters import framework
from fastcheck.errors import InputError
from fastcheck.parameters import ROOT

__all__ = ["Leaves", "as_argument", "as_array", "by_name", "double_precision"]


class Leaves:
    """The floating and complex leaves of a pytree, named by their paths, in jax's order; all else in it is held fixed.

    Parameters
    ----------
    tree : pytree
        Any that jax knows, nodes that the user has registered included; None is an empty node.
    dtype : numpy.dtype or None
        Of the leaves; None for what jax makes of them: float32 where 64 bits are not enabled.
    first : sequence of str, optional
        Names for the top level, in the place of numbers.

    Raises
    ------
    InputError
        No leaf is floating or complex, or two have one name.
    """

    def __init__(self, tree: Any, dtype: Any = None, first: tuple[str, ...] = ()) -> None:
        self._jax = framework("jax")
        self._treedef = self._jax.tree_util.tree_structure(tree)
        self._all = list(by_name(self._jax, tree, first).items())
        own = {name: self._dtype(leaf) for name, leaf in self._all}
        self.dtypes = {name: each for name, each in own.items() if each is not None}
        self.own = {str(each) for each in self.dtypes.values()}
        self.arrays = {
            name: _carried(leaf, dtype or self.dtypes[name]) for name, leaf in self._all if name in self.dtypes
        }
        if not self.arrays:
            raise InputError(
                f"the pytree has no floating leaf to differentiate by (leaves: {[name for name, _ in self._all]})."
            )

    def tree(self, values: Mapping[str, Any]) -> Any:
        """Return the pytree with other floating leaves; a complex one from its two parts on a last axis."""
        complex_ = self._jax.lax.complex
        made = {name: complex_(x[..., 0], x[..., 1]) if self.is_complex(name) else x for name, x in values.items()}
        return self._jax.tree_util.tree_unflatten(self._treedef, [made.get(name, leaf) for name, leaf in self._all])

    def own_dtype(self, name: str) -> Any:
        """Return the dtype of a leaf's array in the leaf's own precision: of the two parts of a complex one."""
        real = {"complex64": "float32", "complex128": "float64"}
        return np.dtype(real.get(str(self.dtypes[name]), self.dtypes[name]))

    def real(self, name: str) -> Any:
        """Return a leaf as it is, a complex one as its two parts on a last axis."""
        return self.arrays[name] if self.is_complex(name) else dict(self._all)[name]

    def is_complex(self, name: str) -> bool:
        """Say whether a leaf is complex."""
        return "complex" in str(self.dtypes[name])

    def named(self, tree: Any) -> dict[str, Any]:
        """Return the array leaves of another pytree, a gradient, by name.

        The gradient of jax by x + iy is d/dx - i d/dy.
        """
        found = {}
        for name, leaf in by_name(self._jax, tree).items():
            if hasattr(leaf, "shape"):
                split = name in self.dtypes and self.is_complex(name)
                found[name] = _carried(leaf.conj(), leaf.dtype) if split else as_array(leaf)
        return found

    def _dtype(self, leaf: Any) -> Any:
        """Return the dtype that jax gives a leaf here; None where it is not floating."""
        if not isinstance(leaf, (float, complex, np.ndarray, np.inexact, self._jax.Array)):
            return None
        dtype = getattr(leaf, "dtype", np.dtype(type(leaf)))
        if not self._jax.numpy.issubdtype(dtype, np.inexact):
            return None
        return self._jax.dtypes.canonicalize_dtype(dtype)


def as_array(value: Any) -> Any:
    """Return an array of jax as one of numpy: of bfloat16 and the like as float32, which holds them."""
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype.kind == "V" or "float8" in str(array.dtype) else array


def _carried(leaf: Any, dtype: Any) -> Any:
    """Return a leaf as a real array of numpy: a complex one with its two parts on a last axis."""
    array = np.asarray(leaf)
    if array.dtype.kind == "c":
        real = np.float64 if str(np.dtype(dtype)) in ("complex128", "float64") else np.float32
        return np.stack([array.real, array.imag], axis=-1).astype(real)
    wanted = dtype if np.issubdtype(dtype, np.floating) else np.float32  # bfloat16: numpy lacks it
    return np.asarray(array.astype(wanted))


def by_name(jax: Any, tree: Any, first: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the leaves of a pytree by the names of their paths, in jax's order; `first` as of `Leaves`.

    Raises
    ------
    InputError
        Two have one name.
    """
    named: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        name = _name(path, first)
        if name in named:
            raise InputError(
                f"the pytree has two leaves called {name!r}: keys and positions joined with dots. Rename one."
            )
        named[name] = leaf
    return named


def double_precision() -> AbstractContextManager[Any]:
    """Enable 64 bits inside, in this thread."""
    jax = framework("jax")
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)  # type: ignore[no-any-return]
    return importlib.import_module("jax.experimental").enable_x64()  # type: ignore[no-any-return]


def as_argument(jax: Any, value: Any) -> Any:
    """Return an array of jax as one of numpy that shares its memory; anything else as it is."""
    plain = isinstance(value, jax.Array) and isinstance(value.dtype, np.dtype)
    return np.asarray(value) if plain and np.issubdtype(value.dtype, np.number) else value


def _name(path: tuple[Any, ...], first: tuple[str, ...]) -> str:
    """Return ``"layers.0.weight"``: the keys, positions and attributes of a path, joined with dots."""
    words = []
    for key in path:
        found = (getattr(key, name) for name in ("key", "name", "idx") if hasattr(key, name))
        words.append(str(next(found, key)))
    if words and first:
        words[0] = first[path[0].idx]
    return ".".join(words) or ROOT
