"""A torch module borrowed from its owner: evaluated at other parameters, and given back as it was, bit for bit.

While it is borrowed, the ``data`` of its parameters are views into fastcheck's own theta, so that an evaluation copies
nothing and the owner's memory is never written to. The Parameter objects stay the same ones: a loss that has got hold
of them by other ways than the module (a closure, a list for weight decay) sees the same perturbation.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Self

import numpy as np

from fastcheck.adapters import framework, mapped
from fastcheck.adapters.precision import is_double, refuse_another, without_rounding
from fastcheck.adapters.tensors import (
    Start,
    as_argument,
    as_number,
    as_numpy,
    as_tensor,
    differs,
    eps_of,
    named_tensors,
    refuse_meta,
    widened,
)
from fastcheck.adapters.widening import Way, Ways, pulled_back, under
from fastcheck.errors import InputError, LossError
from fastcheck.parameters import ROOT, leaves

__all__ = ["Borrowed"]

OTHER = 0.1  # by which a buffer is changed, relative to it and to 1, to see whether the loss depends on it


class Borrowed:
    """A module, or a tree of tensors, as a loss and a gradient of numpy arrays; a context manager.

    Given arrays of float64 it evaluates in double precision, given others in the parameters' own.

    Parameters
    ----------
    loss : callable
        ``loss(model, *args)``, or ``loss()``; returns a scalar tensor.
    model : torch.nn.Module, or nested dict, list, tuple of tensors
        Its parameters that require a gradient are those to be checked.
    gradient : None, mapping or callable
        None for autograd; else the claimed gradient, by name, or a function of ``(model, *args)`` that returns it.
    args : tuple
        Of the loss.
    dtype : torch.dtype or None
        The only one to evaluate in; None for the parameters' own and double.
    start : callable
        Called before each evaluation.
    hvp : callable, optional
        ``hvp(model, vector, *args)``, the claimed product with the Hessian; by default autograd's.

    Raises
    ------
    InputError
        The loss can't be called, or nothing requires a gradient.
    """

    def __init__(
        self,
        loss: Callable[..., Any],
        model: Any,
        gradient: Any,
        args: tuple[Any, ...],
        dtype: Any,
        start: Start,
        hvp: Callable[..., Any] | None = None,
    ) -> None:
        self.torch = framework("torch")
        self.loss, self.model, self.claimed, self.dtype, self.hvp = loss, model, gradient, dtype, hvp
        self.takes_model = _takes_model(loss, args)
        self.modules = list(model.modules()) if isinstance(model, self.torch.nn.Module) else []
        every = dict(model.named_parameters()) if self.modules else named_tensors(self.torch, model)
        self.parameters = {name: p for name, p in every.items() if p.requires_grad}
        self.frozen = {name: p for name, p in every.items() if not p.requires_grad}
        refuse_meta(self.torch, every)
        if not self.parameters:
            raise InputError(
                f"model (type={type(model).__name__}) has no parameter with requires_grad=True, so there is no "
                "gradient to check. Set it on those to be checked."
            )
        # As arrays, tensors can be seen to change, and be taken apart sample by sample to explain an error.
        self._has_arrays = any(isinstance(leaf, np.ndarray) for _, leaf in leaves(args))
        self.args = tuple(args if self._has_arrays else mapped(lambda x: as_argument(self.torch, x), args))
        self._wide_args: dict[Any, tuple[Any, ...]] = {}
        self._own = {name: p.data for name, p in every.items()}
        self._start = start
        self._bound: Any = None
        self._ways = Ways(self.torch)
        self._tried: Any = None
        self.own = {str(self._own[name].dtype).removeprefix("torch.") for name in self.parameters}
        self.narrowed = self._ways.narrowed

    @property
    def eps(self) -> float:
        """See `Subject`."""
        return eps_of(self.torch, self.own | self.narrowed)

    def params(self) -> dict[str, Any]:
        """Return the parameters as a dict of arrays; those that the loss may be given as they are, copied."""
        moved = {name: widened(self._own[name], self.dtype) for name in self.parameters}
        low = any(data.dtype not in (self.torch.float64, self.torch.complex128) for data in moved.values())
        return {name: as_numpy(data.clone() if low else data) for name, data in moved.items()}

    def __enter__(self) -> Self:
        self._modes = [(module, module.training) for module in self.modules]
        self._buffers = [
            (module._buffers, name, buffer)
            for module in self.modules
            for name, buffer in module._buffers.items()
            if buffer is not None
        ]
        places = {id(buffer): place for place, (_, _, buffer) in enumerate(self._buffers)}
        self._shared = [places[id(buffer)] for _, _, buffer in self._buffers]  # a buffer of several names stays one
        self._kept = [buffer.detach().clone() for _, _, buffer in self._buffers]
        self._work: dict[Any, list[Any]] = {}
        return self

    def __exit__(self, *raised: object) -> None:
        for name, parameter in (self.parameters | self.frozen).items():
            parameter.data = self._own[name]
        for owner, name, buffer in self._buffers:
            owner[name] = buffer
        for module, training in self._modes:
            module.training = training

    def value(self, tree: Mapping[str, Any], *args: Any) -> Any:
        """Return the loss at a dict of arrays, forward only."""
        return self._ways.first(is_double(tree), lambda way: self._attempt(way, tree, args))

    def _attempt(self, way: Way, tree: Mapping[str, Any], args: tuple[Any, ...]) -> Any:
        """Evaluate in one way; the first time, see whether it is the same function, and has a backward pass so."""
        mode, graph = way
        with self.torch.set_grad_enabled(graph):
            value = as_number(self.torch, self._call(tree, args, mode))
        if (mode, graph) == self._tried or not isinstance(value, float) or not is_double(tree):
            return value
        if (mode is not None and mode.acted) or not is_double(self.params()):
            own = self.params()
            with self.torch.set_grad_enabled(graph):
                plain = as_number(self.torch, self._call(own, self.args, None))
            eps = max(
                eps_of(self.torch, getattr(mode, "narrowed", ())), max(np.finfo(x.dtype).eps for x in own.values())
            )
            refuse_another(plain, value, float(eps))
        if mode is not None and mode.acted and self.claimed is None:
            self._autograd(tree, args, mode)  # a backward pass of the user's own may mix what it should not
        self._tried = (mode if mode is not None and mode.acted else None, graph)
        return value

    def gradient(self, tree: Mapping[str, Any], *args: Any) -> dict[str, Any]:
        """Return the claimed gradient at a dict of arrays."""
        if self.claimed is None:
            return self._autograd(tree, args, self._ways.mode(is_double(tree)))
        if callable(self.claimed):
            with self.torch.enable_grad():
                return self._by_name(self.claimed(self.model, *self._at(tree, args)))
        found = self._by_name(self.claimed)
        with suppress(Exception):  # where autograd has nothing to say, the claim stands as it is
            return without_rounding(found, self._autograd(tree, args, self._ways.mode(is_double(tree))))
        return found

    def multiply(self, tree: Mapping[str, Any], vector: Mapping[str, Any], own: bool = False) -> dict[str, Any]:
        """Return the claimed product of the Hessian with a dict like the tree."""
        mode, wanted = None if own else self._ways.mode(is_double(tree)), list(self.parameters.values())
        with self.torch.enable_grad():
            if self.hvp is not None:
                tensors = self._at(tree, self.args, own)
                with under(mode):
                    return self._by_name(self.hvp(self.model, self._like_parameters(vector), *tensors))
            loss = self._with_graph(self._call(tree, self.args, mode, own))
            slopes = pulled_back([loss], wanted, [self.torch.ones_like(loss)], mode, graph=True)
            given = self._like_parameters(vector).values()
            pairs = [(g, v) for g, v in zip(slopes, given, strict=True) if g is not None and g.requires_grad]
            along = [v.to(g.dtype) for g, v in pairs]
            found = pulled_back([g for g, _ in pairs], wanted, along, mode) if pairs else [None] * len(wanted)
        return self._by_name(dict(zip(self.parameters, found, strict=True)))

    def _like_parameters(self, vector: Mapping[str, Any]) -> dict[str, Any]:
        """Return a dict of arrays as tensors like the parameters, as they are now."""
        parameters = self.parameters.items()
        return {name: as_tensor(self.torch, vector[name], p).to(p.dtype) for name, p in parameters}

    def derivative(self, tree: Mapping[str, Any], own: bool = False) -> dict[str, Any]:
        """See `Subject`."""
        return self._autograd(tree, self.args, None if own else self._ways.mode(True), own)

    def _autograd(self, tree: Mapping[str, Any], args: tuple[Any, ...], mode: Any, own: bool = False) -> dict[str, Any]:
        with self.torch.enable_grad():
            loss, wanted = self._with_graph(self._call(tree, args, mode, own)), list(self.parameters.values())
            grads = pulled_back([loss], wanted, [self.torch.ones_like(loss)], mode)
        return self._by_name(dict(zip(self.parameters, grads, strict=True)))

    def _with_graph(self, loss: Any) -> Any:
        """Return what the loss returned, which autograd is to differentiate.

        Raises
        ------
        LossError
            It can't: it is no tensor, or one that depends on no parameter for autograd.
        """
        if getattr(loss, "requires_grad", False):
            return loss
        raise LossError(
            f"loss returned {loss!r} (type={type(loss).__name__}), which autograd can't differentiate by the "
            "parameters. Return a scalar tensor, without item(), detach(), numpy or torch.no_grad() on the way; or "
            "pass the gradient to check: gradient=..."
        )

    def _call(self, tree: Mapping[str, Any], args: tuple[Any, ...], mode: Any, own: bool = False) -> Any:
        tensors = self._at(tree, args, own)
        with under(mode):
            return self.loss(self.model, *tensors) if self.takes_model else self.loss()

    def _at(self, tree: Mapping[str, Any], args: tuple[Any, ...], own: bool = False) -> tuple[Any, ...]:
        """Move to a tree of parameters, everything else being what it was at first; return the arguments as tensors."""
        if tree is not self._bound or own:
            wide = self._bind(tree, own)
            self._bound, self._wide = None if own else tree, wide
        self._reset_buffers(self._wide)
        self._start()
        return self._tensors(args, self._wide)

    def _bind(self, tree: Mapping[str, Any], own: bool = False) -> Any:
        """Let the parameters be views of the arrays; return the dtype they were widened to, None for their own."""
        wide = None
        for name, parameter in self.parameters.items():
            kept = self._own[name]
            tensor = as_tensor(self.torch, tree[name], kept)
            wide = None if own else wide or differs(tensor, kept)
            if wide is not None and self.dtype not in (None, wide):
                raise TypeError(f"dtype={self.dtype} was asked for")
            parameter.data = tensor.to(kept.dtype) if own else tensor
        for name, frozen in self.frozen.items():
            frozen.data = widened(self._own[name], wide)
        return wide

    def _reset_buffers(self, wide: Any) -> None:
        """Put fresh copies of the buffers in their places; the owner's own are not touched."""
        if wide not in self._work:
            self._work[wide] = [widened(kept, wide).clone() for kept in self._kept]
        work = self._work[wide]
        for copy, kept in zip(work, self._kept, strict=True):
            copy.copy_(kept)
        for (owner, name, _), place in zip(self._buffers, self._shared, strict=True):
            owner[name] = work[place]

    def moving_buffers(self) -> list[str]:
        """Return the buffers that the forward pass writes, and from whose values it starts: the loss depends on them.

        Running statistics of a batch normalisation are written too, and not read.
        """
        tree = {name: array.copy() for name, array in self.params().items()}  # a loss may write to them
        names = list(self._names_of_buffers())
        here = self.value(tree, *self.args)
        after = [owner[name] for owner, name, _ in self._buffers]
        found = []
        for k, kept in enumerate(self._kept):
            same = self.torch.equal(after[k], kept.to(after[k].dtype))
            if same or not kept.is_floating_point():
                continue
            self._kept[k] = kept + OTHER * (1 + kept.abs()) * self.torch.linspace(-1, 2, kept.numel()).view_as(kept)
            try:
                there = self.value(tree, *self.args)
            finally:
                self._kept[k] = kept
            if there != here:
                found.append(names[k])
        return found

    def _names_of_buffers(self) -> Iterator[str]:
        for prefix, module in self.model.named_modules():
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    yield f"{prefix}.{name}" if prefix else name

    def _tensors(self, args: tuple[Any, ...], wide: Any) -> tuple[Any, ...]:
        """Return the arguments of the loss as tensors, floating ones widened."""

        def one(value: Any) -> Any:
            if isinstance(value, np.ndarray) and not self._has_arrays:
                value = self.torch.from_numpy(value)
            elif not isinstance(value, self.torch.Tensor):
                return value
            return widened(value, wide)

        same = wide is not None and len(args) == len(self.args) and all(map(operator.is_, args, self.args))
        if not same:
            return tuple(mapped(one, args))
        if wide not in self._wide_args:  # the batch is converted once
            self._wide_args[wide] = tuple(mapped(one, args))
        return self._wide_args[wide]

    def _by_name(self, found: Any) -> dict[str, Any]:
        named = {".".join(path) or ROOT: leaf for path, leaf in leaves(found)}
        for name, parameter in self.parameters.items():
            if name in named and named[name] is None:  # a grad that backward() never reached
                named[name] = self.torch.zeros_like(parameter)
        return {name: as_numpy(leaf) for name, leaf in named.items() if name not in self.frozen}


def _takes_model(loss: Callable[..., Any], args: tuple[Any, ...]) -> bool:
    """Say whether a loss is called ``loss(model, *args)``, or ``loss()``.

    Raises
    ------
    InputError
        It can be called in neither way.
    """
    try:
        signature = inspect.signature(loss)
    except (TypeError, ValueError):
        return True
    for takes, given in ((True, (None, *args)), (False, ())):
        with suppress(TypeError):
            signature.bind(*given)
            if takes or not args:
                return takes
    raise InputError(
        f"loss{signature} can be called neither as loss(model, *args) with {len(args)} args nor, without args, as "
        "loss()."
    )
