"""A function of jax as one of numpy arrays: traced, compiled, and evaluated at many parameter sets at once.

Small nets spend their time between operations, so many parameter sets go through them side by side (``vmap``). Large
ones are evaluated one by one: their weights, once for each set, would no longer fit into the cache.
"""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import cached_property
from typing import Any

import numpy as np

from fastcheck.adapters import Sealed, framework
from fastcheck.adapters.precision import flat, is_double, refuse_another
from fastcheck.adapters.pytrees import Leaves, as_argument, by_name, double_precision
from fastcheck.errors import InputError
from fastcheck.losses.batched import batched

__all__ = ["Traced", "TracedFunction", "TracedLoss"]

CACHE = 1 << 20  # bytes of parameters, of all sets together, that go through a loss side by side
WIDEST = 512
FEWEST = 4  # sets side by side that are worth another compilation
SAME = 1e-9  # relative difference of a loss from itself under vmap


class Traced:
    """A function of a pytree and arguments, to be called with a dict of arrays by name.

    Given arrays of float64 it runs in double precision, given others in the leaves' own.

    Parameters
    ----------
    function : callable
        ``function(tree, *args)``.
    leaves : Leaves
        Of the tree.
    args : tuple of pytree
        Arrays in them are traced; all else is taken as it is.
    dtype : numpy.dtype or None
        The only one to run in; None for the leaves' own and double.
    """

    def __init__(
        self, function: Callable[..., Any], leaves: Leaves, args: tuple[Any, ...] = (), dtype: Any = None
    ) -> None:
        self.jax = framework("jax")
        self.function, self.leaves, self._dtype = function, leaves, dtype
        self._alike = False  # whether it is known to be the same function in double precision
        self.args = self.jax.tree_util.tree_map(lambda x: as_argument(self.jax, x), args)
        self._template, self._argdef = self.jax.tree_util.tree_flatten(self.args)
        self._converted: dict[bool, list[Any]] = {}
        try:
            self.run(lambda *inputs: self.jax.eval_shape(self.call, *inputs), leaves.arrays, self.args)
            self.compiled = self.jax.jit
        except Exception:  # a branch on a value, a callback: it may still run step by step
            self.compiled = lambda one: one

    def call(self, values: Sequence[Any], arrays: Sequence[Any]) -> Any:
        """Return the function of the leaves and of the arrays among the arguments; to be traced."""
        tree, *args = self.inputs(values, arrays)
        return self.function(tree, *args)

    def inputs(self, values: Sequence[Any], arrays: Sequence[Any]) -> list[Any]:
        """Return the tree and the arguments, made of the leaves and of the arrays among the arguments."""
        moved = map(self.jax.numpy.asarray, values)
        given = iter(arrays)
        args = [next(given) if isinstance(leaf, np.ndarray) else leaf for leaf in self._template]
        tree = self.leaves.tree(dict(zip(self.leaves.arrays, moved, strict=True)))
        return [tree, *self.jax.tree_util.tree_unflatten(self._argdef, args)]

    def run(self, traced: Callable[..., Any], tree: Mapping[str, Any], args: tuple[Any, ...]) -> Any:
        """Call ``traced(values, arrays)`` in the precision of the tree."""
        values = [tree[name] for name in self.leaves.arrays]
        if self._dtype is not None and any(value.dtype != self._dtype for value in values):
            raise TypeError(f"dtype={self._dtype} was asked for")
        wide = any(value.dtype == np.float64 for value in values)
        with double_precision() if wide else nullcontext():
            return traced(values, self._arrays(args, wide))

    def _arrays(self, args: tuple[Any, ...], wide: bool) -> list[Any]:
        """Return the arrays among the arguments, on the device; those of the adapter's own call are put there once."""
        found = self.jax.tree_util.tree_leaves(args)
        if len(found) != len(self._template) or not all(map(operator.is_, found, self._template)):
            return self._put(found, wide)
        if wide not in self._converted:
            self._converted[wide] = self._put(found, wide)
        return self._converted[wide]

    def _put(self, found: Sequence[Any], wide: bool) -> list[Any]:
        arrays = [leaf for leaf in found if isinstance(leaf, np.ndarray)]
        floats = (wide and np.issubdtype(array.dtype, np.floating) for array in arrays)
        return [
            self.jax.numpy.array(array, dtype=np.float64 if widen else None)
            for array, widen in zip(arrays, floats, strict=True)
        ]


class TracedLoss(Traced):
    """A scalar loss, and its gradient by reverse mode."""

    def __call__(self, tree: Mapping[str, Any], *args: Any) -> Any:
        """Return the loss at a dict of arrays."""
        value = np.asarray(self.run(self._value, tree, args))[()]
        if not self._alike and np.ndim(value) == 0 and is_double(tree):
            self._verify(value)
        return value

    def gradient(self, tree: Mapping[str, Any], *args: Any) -> dict[str, Any]:
        """Return the gradient of jax at a dict of arrays."""
        return self._value_and_gradient(tree, args)[1]

    def _value_and_gradient(self, tree: Mapping[str, Any], args: tuple[Any, ...]) -> tuple[Any, dict[str, Any]]:
        value, grads = self.run(self._both, tree, args)
        return np.asarray(value)[()], {
            name: np.asarray(grad) for name, grad in zip(self.leaves.arrays, grads, strict=True)
        }

    def _verify(self, double: Any) -> None:
        """See `refuse_another`."""
        own = self.leaves.arrays
        if not is_double(own):
            refuse_another(self._alone(own), double, own)
        self._alike = True

    def _alone(self, tree: Mapping[str, Any]) -> Any:
        """Return the loss by what its gradient compiles anyway, where it has one."""
        try:
            return self._value_and_gradient(tree, self.args)[0]
        except Exception:
            return np.asarray(self.run(self._value, tree, self.args))[()]

    def side_by_side(self) -> Any:
        """Return the loss as a `fastcheck.batched` one; as it is where that is impossible or does not pay."""
        tree = {name: array.astype(np.float64) for name, array in self.leaves.arrays.items()}
        size = sum(array.size for array in tree.values())
        fits = min(WIDEST, CACHE // (8 * size), 2 * size)
        if fits < FEWEST:
            return self
        count = 1 << (fits.bit_length() - 1)
        stack = {name: np.repeat(array[None], count, axis=0) for name, array in tree.items()}
        many = self.jax.jit(self.jax.vmap(self.call, in_axes=(0, None)))
        try:
            alone, found = self._alone(tree), np.asarray(self.run(many, stack, self.args))
            self._verify(alone)
        except Exception:  # whatever it is, the check says it of the loss as it is
            return self
        if found.shape != (count,) or not abs(found[0] - alone) <= SAME * abs(alone):
            return self
        return batched(Sealed(lambda trees, *args: np.asarray(self.run(many, trees, args))), size=count)

    @cached_property
    def _value(self) -> Any:
        return self.compiled(self.call)

    @cached_property
    def _both(self) -> Any:
        return self.compiled(self.jax.value_and_grad(self.call))


class TracedFunction(Traced):
    """A function of any outputs, by name, and its products with the Jacobian and its transpose."""

    def outputs(self, tree: Mapping[str, Any]) -> dict[str, Any]:
        """Return the floating outputs at a dict of arrays.

        Raises
        ------
        InputError
            There is none.
        """
        found = {name: np.asarray(y) for name, y in self.run(self._outputs, tree, ()).items()}
        if not sum(y.size for y in found.values()):
            raise InputError("function returns no floating array; there is nothing to check.")
        if not self._alike and is_double(tree):
            own = self.leaves.arrays
            if not is_double(own):
                refuse_another(flat(self.outputs(own)), flat(found), own)
            self._alike = True
        return found

    def pull_back(self, tree: Mapping[str, Any], cotangent: Mapping[str, Any]) -> dict[str, Any]:
        """Return the product of the transposed Jacobian with a dict like the outputs: reverse mode."""
        found = self.run(lambda values, _: self._reverse(values, cotangent), tree, ())
        return {name: np.asarray(g) for name, g in zip(self.leaves.arrays, found, strict=True)}

    def push_forward(self, tree: Mapping[str, Any], tangent: Mapping[str, Any]) -> dict[str, Any]:
        """Return the product of the Jacobian with a dict like the tree: forward mode."""
        along = [tangent[name] for name in self.leaves.arrays]
        found = self.run(lambda values, _: self._forward(values, along), tree, ())
        return {name: np.asarray(y) for name, y in found.items()}

    def _floating(self, values: Sequence[Any]) -> OrderedDict[str, Any]:  # which jax keeps in order, unlike a dict
        outputs = by_name(self.jax, self.call(values, ()))
        arrays = OrderedDict((name, self.jax.numpy.asarray(y)) for name, y in outputs.items())
        is_floating = self.jax.numpy.issubdtype
        return OrderedDict((k, y) for k, y in arrays.items() if is_floating(y.dtype, self.jax.numpy.floating))

    @cached_property
    def _outputs(self) -> Any:
        return self.compiled(lambda values, _: self._floating(values))

    @cached_property
    def _reverse(self) -> Any:
        def product(values: Sequence[Any], cotangent: Mapping[str, Any]) -> Any:
            found, pull_back = self.jax.vjp(self._floating, list(values))
            return pull_back(OrderedDict((name, cotangent[name].astype(y.dtype)) for name, y in found.items()))[0]

        return self.compiled(product)

    @cached_property
    def _forward(self) -> Any:
        def product(values: Sequence[Any], along: Sequence[Any]) -> Any:
            tangents = [v.astype(x.dtype) for v, x in zip(along, values, strict=True)]
            return self.jax.jvp(self._floating, (list(values),), (tangents,))[1]

        return self.compiled(product)
