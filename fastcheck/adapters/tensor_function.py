"""A function of tensors and its derivatives by autograd, as functions of numpy arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fastcheck.adapters import framework, input_names
from fastcheck.adapters.precision import flat, is_double, refuse_another, weights_like
from fastcheck.adapters.tensors import Start, as_numpy, as_tensor, differs, eps_of, forward_mode, refuse_meta, widened
from fastcheck.adapters.widening import Way, Ways, pulled_back, under
from fastcheck.errors import InputError
from fastcheck.parameters import ROOT, leaves

__all__ = ["TensorFunction"]


class TensorFunction:
    """``function(*inputs)``, differentiable by the inputs that require a gradient, or by all if none does.

    Given arrays of float64 it evaluates in double precision, given others in the inputs' own.

    Parameters
    ----------
    function : callable
        Returns a tensor, or a nest of dicts, tuples and lists of them; what is no floating or complex tensor that
        depends on the inputs is ignored.
    inputs : tensor, or sequence of tensors and other things
        Where to check.
    dtype : torch.dtype or None
        The only one to evaluate in; None for the inputs' own and double.
    start : callable
        Called before each evaluation.
    names : sequence of str, optional
        Of the inputs; by default those of the function's parameters.
    every : bool
        Whether outputs that depend on no input, for autograd, are outputs all the same.
    pushes : bool
        Whether its derivative is to be J v, in the place of J^T u.
    jvp : callable, optional
        ``jvp(inputs, tangents)``, the claimed J v; by default that of forward mode.

    Raises
    ------
    InputError
        No input, or no output, is a floating or complex tensor.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        inputs: Any,
        dtype: Any,
        start: Start,
        names: Sequence[str] = (),
        *,
        every: bool = False,
        pushes: bool = False,
        jvp: Callable[..., Any] | None = None,
    ) -> None:
        self.torch = framework("torch")
        given = list(inputs) if isinstance(inputs, (tuple, list)) else [inputs]
        names = list(names) or input_names(function, len(given))
        tensors = {i: x for i, x in enumerate(given) if isinstance(x, self.torch.Tensor)}
        refuse_meta(self.torch, {names[i]: x for i, x in tensors.items()})
        self._refuse_nests({name: x for i, (name, x) in enumerate(zip(names, given, strict=False)) if i not in tensors})
        floating = {i: x for i, x in tensors.items() if _real(x)}
        chosen = {i: x for i, x in floating.items() if x.requires_grad} or floating
        if not chosen:
            kinds = ", ".join(dict.fromkeys(type(x).__name__ for x in given)) or "nothing"
            raise InputError(
                f"inputs has no floating tensor to differentiate by, only {kinds}. Pass tensors, each as an input of "
                "its own."
            )
        self.function, self.dtype, self.jvp = function, dtype, jvp
        self.inputs = [widened(x.detach(), dtype) if i in tensors else x for i, x in enumerate(given)]
        self.names, self.every, self.pushes = names, every, pushes
        self.places = {names[i]: i for i in chosen}
        self.left_out = [names[i] for i in floating if i not in chosen]
        self._start = start
        self._ways = Ways(self.torch)
        self._tried: Any = None
        self.own = {str(self.inputs[i].dtype).removeprefix("torch.") for i in chosen}
        self.narrowed = self._ways.narrowed
        self.outputs_like = self._find_differentiable()

    def _refuse_nests(self, others: Mapping[str, Any]) -> None:
        """Raise where an input that is no tensor holds some that require a gradient, which would not be looked at.

        Raises
        ------
        InputError
            It does.
        """
        for name, value in others.items():
            if isinstance(value, (Mapping, list, tuple)) and any(
                isinstance(leaf, self.torch.Tensor) and leaf.requires_grad for _, leaf in leaves(value)
            ):
                raise InputError(
                    f"inputs: {name} (type={type(value).__name__}) holds tensors that require a gradient. Pass each as "
                    "an input of its own: check_function(lambda *xs: function(xs), xs)."
                )

    @property
    def eps(self) -> float:
        """See `Subject`."""
        return eps_of(self.torch, self.own | self.narrowed)

    def params(self) -> dict[str, Any]:
        """Return the inputs to differentiate by, as a dict of arrays."""
        return {name: as_numpy(self.inputs[i]) for name, i in self.places.items()}

    def outputs(self, tree: Mapping[str, Any]) -> dict[str, Any]:
        """Return the outputs by name at a dict of arrays, forward only."""
        return self._ways.first(is_double(tree), lambda way: self._attempt(way, tree))  # type: ignore[no-any-return]

    def _attempt(self, way: Way, tree: Mapping[str, Any]) -> dict[str, Any]:
        """Evaluate in one way; the first time, see whether it is the same function, and has a backward pass so."""
        mode, graph = way
        with self.torch.set_grad_enabled(graph):
            outputs = self._forward(tree, mode, graph=graph)
            if (mode, graph) == self._tried or not is_double(tree):
                return outputs
            if (mode is not None and mode.acted) or not is_double(self.params()):
                eps = max(self.eps, eps_of(self.torch, getattr(mode, "narrowed", ())))
                own = self._forward(self.params(), None, graph=graph)
                refuse_another(flat(own), flat(outputs), eps)
        if mode is not None and mode.acted:
            if self.pushes:
                self.push_forward(tree, weights_like(tree), mode=mode)
            else:
                self.pull_back(tree, weights_like(outputs), mode=mode)
        self._tried = (mode if mode is not None and mode.acted else None, graph)
        return outputs

    def forward(self, tree: Mapping[str, Any], own: bool) -> dict[str, Any]:
        """Return the outputs at a dict of arrays, in the inputs' own precision if asked."""
        with self.torch.no_grad():
            return self._forward(tree, None, own=True) if own else self.outputs(tree)

    def _forward(self, tree: Mapping[str, Any], mode: Any, own: bool = False, graph: bool = False) -> dict[str, Any]:
        inputs = self.traced(tree, own)[1] if graph else self._at(tree, own)  # a graph: it differentiates inside
        found = self.call(inputs, mode)
        return {name: as_numpy(found[name]) for name in self.outputs_like}

    def pull_back(
        self, tree: Mapping[str, Any], cotangent: Mapping[str, Any], own: bool = False, mode: Any = None
    ) -> dict[str, Any]:
        """Return what autograd gives for a cotangent like the outputs; in the inputs' own precision, if asked."""
        leaves_, inputs = self.traced(tree, own)
        mode = None if own else mode or self._ways.mode(is_double(tree))
        with self.torch.enable_grad():
            outputs = self.call(inputs, mode)
            names = [name for name in self.outputs_like if outputs[name].requires_grad or not self.every]
            found = [outputs[name] for name in names]
            given = [self.like(cotangent[name], y) for name, y in zip(names, found, strict=True)]
            grads = pulled_back(found, leaves_, given, mode) if found else [None] * len(leaves_)
        return self.by_name(self.places, leaves_, grads)

    def push_forward(
        self, tree: Mapping[str, Any], tangent: Mapping[str, Any], own: bool = False, mode: Any = None
    ) -> dict[str, Any]:
        """Return the claimed product with a tangent like the inputs; in the inputs' own precision, if asked."""
        inputs, forward_ad = self._at(tree, own), forward_mode(self.torch)
        mode = None if own else mode or self._ways.mode(is_double(tree))
        along = {i: self.like(tangent[name], inputs[i]) for name, i in self.places.items()}
        if self.jvp is not None:
            self._start()
            with self.torch.enable_grad(), under(mode):
                return _named(self.jvp(tuple(inputs), tuple(along.values())))
        with self.torch.enable_grad(), forward_ad.dual_level():
            for i, v in along.items():
                inputs[i] = forward_ad.make_dual(inputs[i], v)
            outputs = self.call(inputs, mode)
            pairs = {name: forward_ad.unpack_dual(outputs[name]) for name in self.outputs_like}
            return {
                name: as_numpy(self.torch.zeros_like(pair.primal) if pair.tangent is None else pair.tangent)
                for name, pair in pairs.items()
            }

    def derivative(self, tree: Mapping[str, Any], own: bool = False) -> dict[str, Any]:
        """See `Subject`: J^T u for one random u, or J v for v in each input alone."""
        if self.pushes:
            still = {name: np.zeros_like(array) for name, array in tree.items()}
            along = weights_like(tree).items()
            return {name: flat(self.push_forward(tree, still | {name: v}, own)) for name, v in along}
        return self.pull_back(tree, weights_like(self.vectors_like()), own)

    def traced(self, tree: Mapping[str, Any], own: bool = False) -> tuple[list[Any], list[Any]]:
        """Return leaves of a graph, and inputs that depend on them: they may be written to."""
        with self.torch.enable_grad():
            inputs = self._at(tree, own)
            found = []
            for i in self.places.values():
                found.append(inputs[i].requires_grad_())
                inputs[i] = inputs[i].clone()
        return found, inputs

    def partial_product(
        self, tree: Mapping[str, Any], given: Mapping[str, Any], only: str = "", branches: int = 1
    ) -> dict[str, Any]:
        """Return J^T u for cotangents (tensors) of some outputs, by all inputs, or by one that alone requires it.

        With several branches the function is called as often, and the sum over the calls returned: they share u.
        """
        found, inputs = self.traced(tree, own=True)
        names = list(self.places)
        if only:
            found, names = [found[names.index(only)]], [only]
            for name, i in self.places.items():
                inputs[i] = inputs[i] if name == only else inputs[i].detach()
        with self.torch.enable_grad():
            calls = [self.call(inputs) for _ in range(branches)]
            chosen = {name: u for name, u in given.items() if calls[0][name].requires_grad}
            if self.every and not chosen:
                return self.by_name(names, found, [None] * len(found))
            outputs = [outputs[name] for outputs in calls for name in chosen]
            grads = pulled_back(outputs, found, list(chosen.values()) * branches)
        return self.by_name(names, found, grads)

    def vectors_like(self) -> dict[str, Any]:
        """Return arrays like the tangents, or the cotangents, that its derivative multiplies."""
        return self.params() if self.pushes else {name: as_numpy(y) for name, y in self.outputs_like.items()}

    def stacked_product(self, tree: Mapping[str, Any], vectors: Mapping[str, Any]) -> dict[str, Any]:
        """Return the products of vectors along a leading axis, all at once under vmap, as the owner runs it."""
        if self.pushes:
            return self._stacked_forward(tree, vectors)
        found, inputs = self.traced(tree, own=True)
        with self.torch.enable_grad():
            outputs = self.call(inputs)
            chosen = {name: y for name in self.outputs_like if (y := outputs[name]).requires_grad}
            given = [self.like(vectors[name], y) for name, y in chosen.items()]
            grads = self.torch.autograd.grad(
                list(chosen.values()), found, given, is_grads_batched=True, allow_unused=True
            )
        count = len(next(iter(vectors.values())))
        zeros = [x.new_zeros((count, *x.shape)) for x in found]
        return self.by_name(self.places, zeros, grads)

    def _stacked_forward(self, tree: Mapping[str, Any], vectors: Mapping[str, Any]) -> dict[str, Any]:
        inputs, forward_ad = self._at(tree, own=True), forward_mode(self.torch)
        names, places, torch = list(self.outputs_like), list(self.places.values()), self.torch

        def outputs(*chosen: Any) -> tuple[Any, ...]:
            moved = list(inputs)
            for i, x in zip(places, chosen, strict=True):
                moved[i] = x.clone()
            found = self.call(moved)
            return tuple(found[name] for name in names)

        def by_torch_func(*tangents: Any) -> Any:
            return torch.func.jvp(outputs, tuple(inputs[i] for i in places), tangents)[1]

        def by_duals(*tangents: Any) -> tuple[Any, ...]:
            with forward_ad.dual_level():
                found = outputs(*(forward_ad.make_dual(inputs[i], v) for i, v in zip(places, tangents, strict=True)))
                pairs = map(forward_ad.unpack_dual, found)
                return tuple(torch.zeros_like(p.primal) if p.tangent is None else p.tangent for p in pairs)

        given = [self.like(vectors[name], inputs[i]) for name, i in self.places.items()]
        try:
            found = torch.func.vmap(by_torch_func)(*given)
        except Exception:  # a custom function without setup_context; it may do with dual numbers
            found = torch._vmap_internals._vmap(by_duals)(*given)  # for which torch.func.vmap has no rule
        return {name: as_numpy(y) for name, y in zip(names, found, strict=True)}

    def by_name(self, names: Iterable[str], wanted: Sequence[Any], grads: Sequence[Any]) -> dict[str, Any]:
        """Return gradients by the names of inputs, zero where there is none."""
        filled = [self.torch.zeros_like(x) if g is None else g for x, g in zip(wanted, grads, strict=True)]
        return {name: as_numpy(g) for name, g in zip(names, filled, strict=True)}

    def _find_differentiable(self) -> dict[str, Any]:
        """Return the outputs that can be differentiated, by name."""
        _, inputs = self.traced(self.params(), own=True)
        with self.torch.enable_grad():
            found = self.call(inputs)
        kept = {
            name: y.detach()
            for name, y in found.items()
            if isinstance(y, self.torch.Tensor) and (y.requires_grad or (self.every and _real(y))) and y.numel()
        }
        if not kept:
            raise InputError(
                "function returns no tensor that depends on the inputs. Return floating or complex tensors."
            )
        return kept

    def call(self, inputs: list[Any], mode: Any = None) -> dict[str, Any]:
        """Return the outputs by name, of one call under a mode, where there is one."""
        self._start()
        with under(mode):
            found = self.function(*inputs)
        return {".".join(path) or ROOT: leaf for path, leaf in leaves(found)}

    def like(self, array: Any, tensor: Any) -> Any:
        """Return an array as a tensor of the precision, kind and place of another."""
        return as_tensor(self.torch, array, tensor).to(tensor.dtype)

    def _at(self, tree: Mapping[str, Any], own: bool = False) -> list[Any]:
        """Return fresh inputs at a dict of arrays, others widened with them."""
        moved, wide = list(self.inputs), None
        for name, i in self.places.items():
            kept = self.inputs[i]
            tensor = as_tensor(self.torch, tree[name], kept)
            wide = None if own else wide or differs(tensor, kept)
            moved[i] = tensor.to(kept.dtype, copy=True) if own else tensor.clone()
        if wide is not None and self.dtype not in (None, wide):
            raise TypeError(f"dtype={self.dtype} was asked for")
        return [widened(x, wide) if isinstance(x, self.torch.Tensor) else x for x in moved]


def _named(found: Any) -> dict[str, Any]:
    """Return a nest of tensors as arrays by name."""
    return {".".join(path) or ROOT: as_numpy(leaf) for path, leaf in leaves(found)}


def _real(tensor: Any) -> bool:
    """Say whether a tensor has derivatives at all."""
    return bool(tensor.is_floating_point() or tensor.is_complex())
