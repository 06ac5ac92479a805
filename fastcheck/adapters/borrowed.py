"""A torch module borrowed from its owner: evaluated at other parameters, and given back as it was, bit for bit.

While it is borrowed, the ``data`` of its parameters are views into fastcheck's own theta, so that an evaluation copies
nothing and the owner's memory is never written to. The Parameter objects stay the same ones: a loss that has got hold
of them by other ways than the module (a closure, a list for weight decay) sees the same perturbation.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Self

import numpy as np

from fastcheck.adapters import framework, mapped
from fastcheck.adapters.precision import is_double, refuse_another, without_rounding
from fastcheck.adapters.tensors import Start, as_argument, as_number, as_numpy, named_tensors, widened
from fastcheck.errors import InputError
from fastcheck.parameters import ROOT, leaves

__all__ = ["Borrowed"]


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

    Raises
    ------
    InputError
        The loss can't be called, or nothing requires a gradient.
    """

    def __init__(
        self, loss: Callable[..., Any], model: Any, gradient: Any, args: tuple[Any, ...], dtype: Any, start: Start
    ) -> None:
        self.torch = framework("torch")
        self.loss, self.model, self.claimed, self.dtype = loss, model, gradient, dtype
        self.takes_model = _takes_model(loss, args)
        self.modules = list(model.modules()) if isinstance(model, self.torch.nn.Module) else []
        every = dict(model.named_parameters()) if self.modules else named_tensors(self.torch, model)
        self.parameters = {name: p for name, p in every.items() if p.requires_grad}
        self.frozen = {name: p for name, p in every.items() if not p.requires_grad}
        if not self.parameters:
            raise InputError(
                f"model (type={type(model).__name__}) has no parameter with requires_grad=True, so there is no "
                "gradient to check. Set it on those to be checked."
            )
        # As arrays, tensors can be seen to change, and be taken apart sample by sample to explain an error.
        self._has_arrays = any(isinstance(leaf, np.ndarray) for _, leaf in leaves(args))
        self.args = tuple(args if self._has_arrays else mapped(lambda x: as_argument(self.torch, x), args))
        self._wide_args: tuple[Any, ...] | None = None
        self._own = {name: p.data for name, p in every.items()}
        self._start = start
        self._bound: Any = None
        self._needs_graph = False
        self._alike = False  # whether it is known to be the same function in double precision

    def params(self) -> dict[str, Any]:
        """Return the parameters as a dict of arrays; those that the loss may be given as they are, copied."""
        own = {name: self._own[name] for name in self.parameters}
        moved = {name: data.to(self.dtype or data.dtype) for name, data in own.items()}
        low = any(data.dtype is not self.torch.float64 for data in moved.values())
        return {name: as_numpy(data.clone() if low else data, name) for name, data in moved.items()}

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
        value = self._value(tree, args)
        if not self._alike and isinstance(value, float) and is_double(tree):
            own = self.params()
            if not is_double(own):
                refuse_another(self._value(own, self.args), value, own)
            self._alike = True
        return value

    def _value(self, tree: Mapping[str, Any], args: tuple[Any, ...]) -> Any:
        try:
            with self.torch.set_grad_enabled(self._needs_graph):
                return as_number(self.torch, self._call(tree, args))
        except RuntimeError:
            if self._needs_graph:
                raise
        # A loss that differentiates inside (a gradient penalty, a differential equation) can't do without the graph.
        with self.torch.enable_grad():
            value = as_number(self.torch, self._call(tree, args))
        self._needs_graph = True
        return value

    def gradient(self, tree: Mapping[str, Any], *args: Any) -> dict[str, Any]:
        """Return the claimed gradient at a dict of arrays."""
        if self.claimed is None:
            return self._autograd(tree, args)
        if callable(self.claimed):
            with self.torch.enable_grad():
                return self._by_name(self.claimed(self.model, *self._at(tree, args)))
        found = self._by_name(self.claimed)
        with suppress(Exception):  # where autograd has nothing to say, the claim stands as it is
            return without_rounding(found, self._autograd(tree, args))
        return found

    def _autograd(self, tree: Mapping[str, Any], args: tuple[Any, ...]) -> dict[str, Any]:
        with self.torch.enable_grad():
            loss, wanted = self._call(tree, args), list(self.parameters.values())
            grads = self.torch.autograd.grad(loss, wanted, allow_unused=True)
        return self._by_name(dict(zip(self.parameters, grads, strict=True)))

    def _call(self, tree: Mapping[str, Any], args: tuple[Any, ...]) -> Any:
        tensors = self._at(tree, args)
        return self.loss(self.model, *tensors) if self.takes_model else self.loss()

    def _at(self, tree: Mapping[str, Any], args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Move to a tree of parameters, everything else being what it was at first; return the arguments as tensors."""
        if tree is not self._bound:
            wide = self._bind(tree)
            self._bound, self._wide = tree, wide
        self._reset_buffers(self._wide)
        self._start()
        return self._tensors(args, self._wide)

    def _bind(self, tree: Mapping[str, Any]) -> Any:
        """Let the parameters be views of the arrays; return the dtype they were widened to, None for their own."""
        wide = None
        for name, parameter in self.parameters.items():
            own, tensor = self._own[name], self.torch.from_numpy(tree[name])
            if tensor.dtype != own.dtype:
                wide = tensor.dtype
            if wide is not None and self.dtype not in (None, wide):
                raise TypeError(f"dtype={self.dtype} was asked for")
            parameter.data = tensor.to(own.device)
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
        if self._wide_args is None:  # the batch is converted once
            self._wide_args = tuple(mapped(one, args))
        return self._wide_args

    def _by_name(self, found: Any) -> dict[str, Any]:
        named = {".".join(path) or ROOT: leaf for path, leaf in leaves(found)}
        for name, parameter in self.parameters.items():
            if name in named and named[name] is None:  # a grad that backward() never reached
                named[name] = self.torch.zeros_like(parameter)
        return {name: as_numpy(leaf, name) for name, leaf in named.items() if name not in self.frozen}


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
