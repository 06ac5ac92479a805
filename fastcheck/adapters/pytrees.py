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

__all__ = ["Leaves", "as_argument", "by_name", "double_precision"]


class Leaves:
    """The floating leaves of a pytree, named by their paths, in jax's order; everything else in it is held fixed.

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
        No leaf is floating, or two have one name.
    """

    def __init__(self, tree: Any, dtype: Any = None, first: tuple[str, ...] = ()) -> None:
        self._jax = framework("jax")
        self._treedef = self._jax.tree_util.tree_structure(tree)
        self._all = list(by_name(self._jax, tree, first).items())
        found_dtypes = {name: self._own_dtype(leaf) for name, leaf in self._all}
        dtypes = {name: each for name, each in found_dtypes.items() if each is not None}
        self.own = {str(each) for each in dtypes.values()}
        self.arrays = {name: np.asarray(leaf, dtype or dtypes[name]) for name, leaf in self._all if name in dtypes}
        if not self.arrays:
            raise InputError(
                f"the pytree has no floating leaf to differentiate by (leaves: {[name for name, _ in self._all]})."
            )

    def tree(self, values: Mapping[str, Any]) -> Any:
        """Return the pytree with other floating leaves."""
        return self._jax.tree_util.tree_unflatten(self._treedef, [values.get(name, leaf) for name, leaf in self._all])

    def named(self, tree: Any) -> dict[str, Any]:
        """Return the array leaves of another pytree, a gradient, by name."""
        return {k: np.asarray(leaf) for k, leaf in by_name(self._jax, tree).items() if hasattr(leaf, "shape")}

    def _own_dtype(self, leaf: Any) -> Any:
        """Return the dtype that jax gives a leaf here, as numpy has it; None where it is not floating."""
        if not isinstance(leaf, (float, np.ndarray, np.floating, self._jax.Array)):
            return None
        dtype = getattr(leaf, "dtype", np.dtype(np.float64))
        if not self._jax.numpy.issubdtype(dtype, self._jax.numpy.floating):
            return None
        dtype = np.dtype(self._jax.dtypes.canonicalize_dtype(dtype))
        return dtype if np.issubdtype(dtype, np.floating) else np.dtype(np.float32)  # bfloat16: numpy lacks it


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
