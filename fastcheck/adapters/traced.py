"""A function of jax as one of numpy arrays: traced, compiled, and evaluated at many parameter sets at once.

Small nets spend their time between operations, so many parameter sets go through them side by side (``vmap``). Large
ones are evaluated one by one: their weights, once for each set, would no longer fit into the cache.
"""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fastcheck.adapters import Sealed, framework
from fastcheck.adapters.precision import flat, in_double, is_double, refuse_another, weights_like
from fastcheck.adapters.programs import Program, Trace
from fastcheck.adapters.pytrees import Leaves, as_argument, as_array, by_name, double_precision
from fastcheck.errors import InputError
from fastcheck.losses.batched import batched

__all__ = ["Traced", "TracedFunction", "TracedLoss"]

CACHE = 1 << 20  # bytes of parameters, of all sets together, that go through a loss side by side
WIDEST = 512
FEWEST = 4  # sets side by side that are worth another compilation
SAME = 1e-9  # relative difference of a loss from itself under vmap

OWN, AS_GIVEN, DOUBLE = "own", "as given", "double"


class Traced:
    """A function of a pytree and arguments, to be called with a dict of arrays by name.

    Given arrays of float64 it runs in double precision: the program that it is in the leaves' own, with every float
    widened; where that is impossible (a callback, a branch on a value), traced or run anew with 64 bits enabled.

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
        self.own, self.narrowed = leaves.own, set[str]()
        self._alike = False  # whether it is known to be the same function in double precision
        self.retraced = False  # whether it ran with 64 bits enabled, of which caches of jax may tell later
        self.args = self.jax.tree_util.tree_map(lambda x: as_argument(self.jax, x), args)
        self._template, self._argdef = self.jax.tree_util.tree_flatten(self.args)
        self._converted: dict[bool, list[Any]] = {}
        self._traces: dict[Any, Trace] = {}
        self._programs: dict[Any, Any] = {}

    @property
    def eps(self) -> float:
        """See `Subject`."""
        return max(
            float(self.jax.numpy.finfo(np.dtype(d) if d in np.sctypeDict else d).eps) for d in self.own | self.narrowed
        )

    @property
    def seconds(self) -> float:
        """Seconds that tracing and compiling took."""
        made = (*self._traces.values(), *self._programs.values())
        return sum(one.seconds for one in made if isinstance(one, (Trace, Program)))

    def params(self) -> dict[str, Any]:
        """Return the leaves by name."""
        return self.leaves.arrays

    def close(self) -> None:
        """Let jax forget what it traced with 64 bits enabled: some of its caches would mistake it for the user's."""
        if self.retraced and not self.jax.config.jax_enable_x64:
            self.jax.clear_caches()

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

    def run(
        self,
        function: Callable[..., Any],
        tree: Mapping[str, Any],
        args: tuple[Any, ...] = (),
        *vectors: Any,
        own: bool = False,
        stacked: bool = False,
    ) -> Any:
        """Call ``function(values, arrays, *vectors)`` in the precision of the tree, or in the leaves' own.

        Parameters
        ----------
        function : callable
            A method of this class: what it is called with is compiled once.
        tree : mapping of str to array
            The leaves.
        args : tuple
            Of the function.
        *vectors : list of array
            Further inputs to be traced: a cotangent, a tangent.
        own : bool
            Run it as the user does.
        stacked : bool
            The leaves have a leading axis of many sets.
        """
        if self._dtype is not None and not own and any(tree[n].dtype != self._dtype for n in self.leaves.arrays):
            raise TypeError(f"dtype={self._dtype} was asked for")
        how = OWN if own else DOUBLE if any(x.dtype == np.float64 for x in tree.values()) else AS_GIVEN
        arrays, count = self._arrays(args, how is DOUBLE), len(self.leaves.arrays)
        shapes = tuple((x.shape, x.dtype) for x in arrays)
        key = (function.__name__, how, stacked, shapes)
        if key not in self._programs:
            as_run = self._arrays(args, False) if how is DOUBLE else arrays
            self._programs[key] = self._program(function, tree, as_run, vectors, how, count if stacked else 0)
        program = self._programs[key]
        values = [tree[name] for name in self.leaves.arrays]
        if how is OWN:
            values = [tree[name].astype(self.leaves.own_dtype(name)) for name in self.leaves.arrays]
        return program(*values, *arrays, *(x for vector in vectors for x in vector))

    def _program(
        self,
        function: Callable[..., Any],
        tree: Mapping[str, Any],
        arrays: Sequence[Any],
        vectors: Sequence[Any],
        how: str,
        stacked: int,
    ) -> Callable[..., Any]:
        count, lengths = len(self.leaves.arrays), [len(vector) for vector in vectors]

        def flat_function(*given: Any) -> Any:
            parts, rest = [], list(given)
            for length in (count, len(arrays), *lengths):
                parts.append(rest[:length])
                rest = rest[length:]
            return function(*parts)

        leaves = [(tree[name], self.leaves.own_dtype(name)) for name in self.leaves.arrays]
        rest = (*arrays, *(x for vector in vectors for x in vector))
        shapes = [
            *((x.shape[1:] if stacked else x.shape, x.dtype if how is AS_GIVEN else own) for x, own in leaves),
            *((x.shape, self.jax.dtypes.canonicalize_dtype(x.dtype)) for x in rest),
        ]
        key = (function.__name__, *shapes)
        try:
            if key not in self._traces:
                self._traces[key] = Trace(flat_function, [self.jax.ShapeDtypeStruct(*each) for each in shapes])
            program = Program(self._traces[key], how is DOUBLE, stacked)
        except Exception:  # a branch on a value, a callback, or an error of the user's own, which is then raised again
            return self._retracing(flat_function, how is DOUBLE, stacked)
        self.narrowed |= program.narrowed
        return program

    def _retracing(self, function: Callable[..., Any], double: bool, stacked: int) -> Callable[..., Any]:
        """Return the function as it is, compiled where it can be traced, with 64 bits enabled for double precision."""
        jax = self.jax
        compiled: list[Callable[..., Any]] = []

        def called(*given: Any) -> Any:
            self.retraced |= double
            moved = [jax.numpy.asarray(x) for x in given]
            if not compiled:
                one = jax.vmap(function, in_axes=[0 if k < stacked else None for k in range(len(given))])
                each = one if stacked else function
                try:
                    jax.eval_shape(each, *moved)
                    compiled.append(jax.jit(each))
                except Exception:  # it may still run step by step
                    compiled.append(each)
            return jax.tree_util.tree_map(as_array, compiled[0](*moved))

        if not double:
            return called

        def wide(*given: Any) -> Any:
            with double_precision():
                return called(*given)

        return wide

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
        if not wide:
            return [self.jax.numpy.array(array) for array in arrays]
        wider = {"f": np.float64, "c": np.complex128}
        with double_precision():  # integers stay what they are here without it
            return [
                self.jax.numpy.array(x, dtype=wider.get(x.dtype.kind, self.jax.dtypes.canonicalize_dtype(x.dtype)))
                for x in arrays
            ]


class TracedLoss(Traced):
    """A scalar loss, its gradient by reverse mode, and the product with its Hessian by forward mode of that.

    Parameters
    ----------
    hvp : callable, optional
        ``hvp(tree, vector, *args)``, the claimed product with the Hessian.
    """

    hvp: Callable[..., Any] | None = None

    def __call__(self, tree: Mapping[str, Any], *args: Any) -> Any:
        """Return the loss at a dict of arrays."""
        value = _as_number(self.run(self.call, tree, args))
        if np.ndim(value) == 0 and is_double(tree):
            self._verify(value)
        return value

    def gradient(self, tree: Mapping[str, Any], *args: Any, own: bool = False) -> dict[str, Any]:
        """Return the gradient of jax at a dict of arrays."""
        return self._value_and_gradient(tree, args, own)[1]

    def derivative(self, tree: Mapping[str, Any], own: bool = False) -> dict[str, Any]:
        """See `Subject`."""
        return self.gradient(tree, *self.args, own=own)

    def both(self, values: Sequence[Any], arrays: Sequence[Any]) -> Any:
        """Return the loss and its gradient; to be traced."""
        return self.jax.value_and_grad(self.call)(values, arrays)

    def _value_and_gradient(
        self, tree: Mapping[str, Any], args: tuple[Any, ...], own: bool = False
    ) -> tuple[Any, dict[str, Any]]:
        value, grads = self.run(self.both, tree, args, own=own)
        return value[()], dict(zip(self.leaves.arrays, grads, strict=True))

    def multiply(self, tree: Mapping[str, Any], vector: Mapping[str, Any], own: bool = False) -> dict[str, Any]:
        """Return the claimed product of the Hessian with a dict like the tree."""
        given = [vector[name] for name in self.leaves.arrays]
        if self.hvp is not None:
            return self.leaves.named(self.run(self._claimed_product, tree, self.args, given, own=own))
        return dict(zip(self.leaves.arrays, self.run(self._hessian, tree, self.args, given, own=own), strict=True))

    def _hessian(self, values: Sequence[Any], arrays: Sequence[Any], vector: Sequence[Any]) -> Any:
        along = [v.astype(x.dtype) for v, x in zip(vector, values, strict=True)]
        return self.jax.jvp(lambda x: self.jax.grad(self.call)(x, arrays), (list(values),), (along,))[1]

    def _claimed_product(self, values: Sequence[Any], arrays: Sequence[Any], vector: Sequence[Any]) -> Any:
        tree, *args = self.inputs(values, arrays)
        along = {name: v.astype(x.dtype) for name, v, x in zip(self.leaves.arrays, vector, values, strict=True)}
        assert self.hvp is not None
        return self.hvp(tree, self.leaves.tree(along), *args)

    def _verify(self, double: Any) -> None:
        """See `refuse_another`; a program that was only widened is the same one."""
        if self.retraced and not self._alike and not is_double(self.leaves.arrays):
            refuse_another(self._alone(self.leaves.arrays, own=True), double, self.eps)
        self._alike = True

    def _alone(self, tree: Mapping[str, Any], own: bool = False) -> Any:
        """Return the loss by what its gradient compiles anyway, where it has one."""
        try:
            return self._value_and_gradient(tree, self.args, own)[0]
        except Exception:
            return _as_number(self.run(self.call, tree, self.args, own=own))

    def side_by_side(self, widest: int = WIDEST) -> Any:
        """Return the loss as a `fastcheck.batched` one; as it is where that is impossible or does not pay."""
        tree = in_double(self.leaves.arrays)
        size = sum(array.size for array in tree.values())
        fits = min(widest, CACHE // (8 * size), 2 * size)
        if fits < FEWEST:
            return self
        count = 1 << (fits.bit_length() - 1)
        stack = {name: np.repeat(array[None], count, axis=0) for name, array in tree.items()}
        try:
            alone, found = self._alone(tree), self.run(self.call, stack, self.args, stacked=True)
            self._verify(alone)
            real = found.shape == (count,) and found.dtype.kind == "f"
        except Exception:  # whatever it is, the check says it of the loss as it is
            return self
        if not real or not abs(found[0] - alone) <= SAME * abs(alone):
            return self
        return batched(Sealed(lambda trees, *args: self.run(self.call, trees, args, stacked=True)), size=count)


def _as_number(returned: Any) -> Any:
    """Return an array of no axes as a number, anything else as it is: the check says what is wrong with it."""
    return returned[()] if isinstance(returned, np.ndarray) else returned


class TracedFunction(Traced):
    """A function of any outputs, by name, and its products with the Jacobian and its transpose.

    Parameters
    ----------
    pushes : bool
        Whether its derivative is to be J v, in the place of J^T u.
    jvp : callable, optional
        ``jvp(tree, tangent)``, the claimed J v; by default that of forward mode.
    """

    pushes = False
    jvp: Callable[..., Any] | None = None

    def outputs(self, tree: Mapping[str, Any]) -> dict[str, Any]:
        """Return the floating outputs at a dict of arrays, complex ones with their two parts on a last axis.

        Raises
        ------
        InputError
            There is none.
        """
        found = dict(self.run(self._floating, tree))
        if not sum(y.size for y in found.values()):
            raise InputError("function returns no floating array; there is nothing to check.")
        if self.retraced and not self._alike and is_double(tree):
            own = self.leaves.arrays
            if not is_double(own):
                refuse_another(flat(dict(self.run(self._floating, own, own=True))), flat(found), self.eps)
            self._alike = True
        return found

    def forward(self, tree: Mapping[str, Any], own: bool) -> dict[str, Any]:
        """Return the outputs at a dict of arrays, in the inputs' own precision if asked."""
        return dict(self.run(self._floating, tree, own=True)) if own else self.outputs(tree)

    def pull_back(self, tree: Mapping[str, Any], cotangent: Mapping[str, Any], own: bool = False) -> dict[str, Any]:
        """Return the product of the transposed Jacobian with a dict like the outputs: reverse mode."""
        found = self.run(self.reverse, tree, (), list(cotangent.values()), own=own)
        return dict(zip(self.leaves.arrays, found, strict=True))

    def push_forward(self, tree: Mapping[str, Any], tangent: Mapping[str, Any], own: bool = False) -> dict[str, Any]:
        """Return the product of the Jacobian with a dict like the tree: forward mode."""
        return dict(self.run(self._forward, tree, (), [tangent[name] for name in self.leaves.arrays], own=own))

    def derivative(self, tree: Mapping[str, Any], own: bool = False) -> dict[str, Any]:
        """See `Subject`: J^T u for a random u, or J v for v in each input alone."""
        if not self.pushes:
            return self.pull_back(tree, weights_like(self.outputs(tree)), own)
        still = {name: np.zeros_like(array) for name, array in tree.items()}
        return {name: flat(self.push_forward(tree, still | {name: v}, own)) for name, v in weights_like(tree).items()}

    def vectors_like(self) -> dict[str, Any]:
        """Return arrays like the tangents, or the cotangents, that its derivative multiplies."""
        return self.params() if self.pushes else self.forward(self.params(), own=True)

    def stacked_product(self, tree: Mapping[str, Any], vectors: Mapping[str, Any]) -> dict[str, Any]:
        """Return the products of vectors along a leading axis, all at once under vmap, as the user runs it."""
        if self.pushes:
            return dict(self.run(self._stacked_forward, tree, (), [vectors[n] for n in self.leaves.arrays], own=True))
        found = self.run(self._stacked_reverse, tree, (), list(vectors.values()), own=True)
        return dict(zip(self.leaves.arrays, found, strict=True))

    def _stacked_reverse(self, values: Sequence[Any], arrays: Sequence[Any], cotangents: Sequence[Any]) -> Any:
        return self.jax.vmap(lambda u: self.reverse(values, arrays, u))(cotangents)

    def _stacked_forward(self, values: Sequence[Any], arrays: Sequence[Any], tangents: Sequence[Any]) -> Any:
        return self.jax.vmap(lambda v: self._forward(values, arrays, v))(tangents)

    def _floating(self, values: Sequence[Any], arrays: Sequence[Any]) -> OrderedDict[str, Any]:
        return self._parts(self.call(values, arrays))

    def _parts(self, returned: Any) -> OrderedDict[str, Any]:  # jax keeps its order
        jnp, found = self.jax.numpy, OrderedDict[str, Any]()
        for name, y in by_name(self.jax, returned).items():
            y = jnp.asarray(y)
            if jnp.issubdtype(y.dtype, np.complexfloating):
                found[name] = jnp.stack([y.real, y.imag], axis=-1)
            elif jnp.issubdtype(y.dtype, np.floating):
                found[name] = y
        return found

    def reverse(self, values: Sequence[Any], arrays: Sequence[Any], cotangent: Sequence[Any]) -> Any:
        """Return the leaves of J^T u; to be traced."""
        found, pull_back = self.jax.vjp(lambda x: self._floating(x, arrays), list(values))
        given = OrderedDict((k, u.astype(y.dtype)) for (k, y), u in zip(found.items(), cotangent, strict=True))
        return pull_back(given)[0]

    def _forward(self, values: Sequence[Any], arrays: Sequence[Any], along: Sequence[Any]) -> Any:
        tangents = [v.astype(x.dtype) for v, x in zip(along, values, strict=True)]
        if self.jvp is not None:
            tangent = self.leaves.tree(dict(zip(self.leaves.arrays, tangents, strict=True)))
            return self._parts(self.jvp(self.inputs(values, arrays)[0], tangent))
        return self.jax.jvp(lambda x: self._floating(x, arrays), (list(values),), (tangents,))[1]
