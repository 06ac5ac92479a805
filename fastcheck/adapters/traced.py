"""A loss of jax as a loss of numpy arrays: traced, compiled, and evaluated at many parameter sets at once.

Small nets spend their time between operations, so many parameter sets go through them side by side (``vmap``). Large
ones are kept whole: their weights, once for each set, would no longer fit into the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from fastcheck.adapters import framework
from fastcheck.losses.batched import batched

__all__ = ["Leaves", "Traced", "double_precision"]

CACHE = 1 << 20  # bytes of parameters, over all sets, that go through the loss side by side
WIDEST = 512
SAME = 1e-9  # relative difference of the loss from itself under vmap


class Leaves:
    """The leaves of a pytree by name, in jax's order.

    Parameters
    ----------
    tree : pytree
        Any that jax knows, nodes registered by the user included; None is an empty node.
    """

    def __init__(self, tree: Any) -> None:
        self._jax = framework("jax")
        found, self.treedef = self._jax.tree_util.tree_flatten_with_path(tree)
        self.values = {_name(path): leaf for path, leaf in found}

    def tree(self, values: Mapping[str, Any]) -> Any:
        """Return a pytree like the first one, of other leaves."""
        return self._jax.tree_util.tree_unflatten(self.treedef, list(values.values()))


class Traced:
    """``loss(params, *args)`` and its gradient, of dicts of arrays by name.

    Parameters
    ----------
    loss : callable
        Returns a scalar.
    leaves : Leaves
        The parameters.
    args : tuple of pytree
        Their arrays are traced, all else in them is taken as it is.
    """

    def __init__(self, loss: Callable[..., Any], leaves: Leaves, args: tuple[Any, ...]) -> None:
        self.jax = framework("jax")
        self.loss, self.leaves, self.args = loss, leaves, args
        self.compiles = self._traces()
        self._value = self.jax.jit(self._of) if self.compiles else self._of

    def __call__(self, tree: Mapping[str, Any], *args: Any) -> Any:
        """Return the loss at a dict of arrays."""
        arrays, others = split(self.jax, args)
