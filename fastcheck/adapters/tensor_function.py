"""A function of tensors and its backward pass, as functions of numpy arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fastcheck.adapters import framework, input_names
from fastcheck.adapters.precision import flat, is_double, refuse_another
from fastcheck.adapters.tensors import Start, as_numpy, widened
from fastcheck.errors import InputError
from fastcheck.parameters import ROOT

__all__ = ["TensorFunction"]


class TensorFunction:
    """``function(*inputs)``, differentiable by the inputs that require a gradient, or by all if none does.

    Given arrays of float64 it evaluates in double precision, given others in the inputs' own.

    Parameters
    ----------
    function : callable
        Returns a tensor, or a tuple or list of them; what is no floating tensor that depends on the inputs is ignored.
    inputs : tensor, or sequence of tensors and other things
        Where to check.
    dtype : torch.dtype or None
        The only one to evaluate in; None for the inputs' own and double.
    start : callable
        Called before each evaluation.

    Raises
    ------
    InputError
        No input, or no output, is a real floating tensor.
    """

    def __init__(self, function: Callable[..., Any], inputs: Any, dtype: Any, start: Start) -> None:
        self.torch = framework("torch")
        given = list(inputs) if isinstance(inputs, (tuple, list)) else [inputs]
        floating = {i: x for i, x in enumerate(given) if isinstance(x, self.torch.Tensor) and x.is_floating_point()}
        chosen = {i: x for i, x in floating.items() if x.requires_grad} or floating
        if not chosen:
            raise InputError("inputs has no floating tensor to differentiate by. Pass at least one.")
        self.function, self.dtype = function, dtype
        self.inputs = [widened(x.detach(), dtype) if isinstance(x, self.torch.Tensor) else x for x in given]
        names = input_names(function, len(given))
        self.places = {names[i]: i for i in chosen}
        self._start = start
        self._alike = False  # whether it is known to be the same function in double precision
        self._differentiable = self._find_differentiable()

    def params(self) -> dict[str, Any]:
        """Return the inputs to differentiate by, as a dict of arrays."""
        return {name: as_numpy(self.inputs[i], name) for name, i in self.places.items()}

    def outputs(self, tree: Mapping[str, Any]) -> dict[str, Any]:
        """Return the outputs by name at a dict of arrays, forward only."""
        with self.torch.no_grad():
            found = self._call(self._at(tree))
        outputs = {name: as_numpy(found[k]) for name, k in self._differentiable.items()}
        if not self._alike and is_double(tree):
            own = self.params()
            if not is_double(own):
                refuse_another(flat(self.outputs(own)), flat(outputs), own)
            self._alike = True
        return outputs

    def pull_back(self, tree: Mapping[str, Any], cotangent: Mapping[str, Any]) -> dict[str, Any]:
        """Return what autograd gives for a cotangent like the outputs."""
        with self.torch.enable_grad():
            inputs = self._at(tree)
            wanted = [inputs[i].requires_grad_() for i in self.places.values()]
            outputs = self._call(inputs)
            found = [outputs[k] for k in self._differentiable.values()]
            given = [self.torch.as_tensor(cotangent[name]).to(outputs[k]) for name, k in self._differentiable.items()]
            grads = self.torch.autograd.grad(found, wanted, given, allow_unused=True)
        filled = [self.torch.zeros_like(x) if g is None else g for x, g in zip(wanted, grads, strict=True)]
        return {name: as_numpy(g, name) for name, g in zip(self.places, filled, strict=True)}

    def _find_differentiable(self) -> dict[str, int]:
        """Return the places of the outputs that can be differentiated, by name."""
        with self.torch.enable_grad():
            inputs = list(self.inputs)
            for i in self.places.values():
                inputs[i] = inputs[i].clone().requires_grad_()
            found = self._call(inputs)
        tensors = {k: y for k, y in enumerate(found) if isinstance(y, self.torch.Tensor) and y.requires_grad}
        places = [k for k, y in tensors.items() if y.numel()]
        if not places or any(tensors[k].is_complex() for k in places):
            raise InputError(
                "function returns no tensor that depends on the inputs, or a complex one. Return real floating "
                "tensors; of a complex one its real and its imaginary part."
            )
        return {str(k) if len(found) > 1 else ROOT: k for k in places}

    def _call(self, inputs: list[Any]) -> list[Any]:
        self._start()
        found = self.function(*inputs)
        return list(found) if isinstance(found, (tuple, list)) else [found]

    def _at(self, tree: Mapping[str, Any]) -> list[Any]:
        moved, wide = list(self.inputs), None
        for name, i in self.places.items():
            tensor, own = self.torch.from_numpy(tree[name]), self.inputs[i]
            if tensor.dtype != own.dtype:
                wide = tensor.dtype
            moved[i] = tensor.to(own.device)
        if wide is not None and self.dtype not in (None, wide):
            raise TypeError(f"dtype={self.dtype} was asked for")
        return [widened(x, wide) if isinstance(x, self.torch.Tensor) else x for x in moved]
