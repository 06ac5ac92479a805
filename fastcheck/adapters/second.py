"""Second derivatives: the backward pass as a function of the inputs and the cotangent, and what is cut off in it.

(inputs, u) -> J^T u is a function like any other, and its derivative is checked like that of any other.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from fastcheck.adapters.precision import in_double, weights_like
from fastcheck.adapters.pytrees import Leaves
from fastcheck.adapters.tensor_function import TensorFunction
from fastcheck.adapters.tensors import Start, as_tensor, widened
from fastcheck.adapters.traced import TracedFunction
from fastcheck.adapters.widening import pulled_back
from fastcheck.errors import InputError, LossError, said
from fastcheck.findings import Finding, Kind
from fastcheck.parameters import ROOT
from fastcheck.report import Report

__all__ = [
    "FIRST",
    "backward_of",
    "cut_off_named",
    "reverse_of",
    "twice_differentiable",
    "validated_order",
]

MOVE = 1e-3  # by which an input is moved to see whether what the backward pass returns depends on it at all
MOVED = 1e4  # roundoffs by which that must change then

FIRST = Finding(
    Kind.FIRST_DERIVATIVE,
    None,
    "The second derivative was not checked, since the first does not pass; this report is of the first.",
)


class Products(Protocol):
    """The backward pass as a function."""

    pushes: bool

    def params(self) -> dict[str, Any]:
        """Return the inputs and the cotangents."""

    def outputs(self, tree: Mapping[str, Any]) -> dict[str, Any]:
        """Return J^T u."""

    def pull_back(self, tree: Mapping[str, Any], cotangent: Mapping[str, Any]) -> dict[str, Any]:
        """Return the transposed derivative of that."""

    def push_forward(self, tree: Mapping[str, Any], tangent: Mapping[str, Any]) -> dict[str, Any]:
        """Return its derivative."""


def validated_order(order: Any, reference: Any) -> int:
    """Return an order of derivatives.

    Raises
    ------
    InputError
        It is neither 1 nor 2, or does not go with a reference.
    """
    if isinstance(order, bool) or order not in (1, 2):
        raise InputError(
            f"order={order!r} must be 1 or 2: the first derivative, or that of the backward pass. Pass a function that "
            "differentiates inside for higher ones."
        )
    if order == 2 and reference is not None:
        raise InputError(
            "order=2: with a reference, outputs and first derivatives of a kernel are compared. Leave one of them out."
        )
    return int(order)


def backward_of(function: TensorFunction, start: Start, pushes: bool) -> TensorFunction:
    """Return the backward pass of a function of torch, as a function of its inputs and its cotangents.

    Outputs are called ``grad_x``, cotangents ``cotangent`` or ``cotangent.0``.
    """
    torch, count = function.torch, len(function.inputs)
    like, places = function.outputs_like, function.places

    def backward(*given: Any) -> OrderedDict[str, Any]:
        inputs, wanted = list(given[:count]), []
        graph = torch.is_grad_enabled()
        with torch.enable_grad():
            for i in places.values():
                x = given[i]
                wanted.append(x if x.requires_grad else x.clone().requires_grad_())
                inputs[i] = wanted[-1].clone()  # the function may write to it
            outputs = function.call(inputs)
            chosen = {name: u for name, u in zip(like, given[count:], strict=True) if outputs[name].requires_grad}
            found = [outputs[name] for name in chosen]
            cotangents = [u.to(y.dtype) for u, y in zip(chosen.values(), found, strict=True)]
            grads = pulled_back(found, wanted, cotangents, graph=graph)
        pairs = zip(places, wanted, grads, strict=True)
        return OrderedDict((f"grad_{name}", torch.zeros_like(x) if g is None else g) for name, x, g in pairs)

    weights = weights_like({name: np.zeros(_shape(y)) for name, y in like.items()})
    cotangents = [as_tensor(torch, weights[name], y).to(y.dtype) for name, y in like.items()]
    chosen = set(places.values())
    inputs = [x.detach().requires_grad_() if i in chosen else x for i, x in enumerate(function.inputs)]
    given = [*inputs, *(widened(u, function.dtype).requires_grad_() for u in cotangents)]
    names = [*function.names, *_cotangents(like, function.names)]
    return TensorFunction(backward, given, function.dtype, start, names, every=True, pushes=pushes)


def reverse_of(function: TracedFunction, dtype: Any, pushes: bool) -> TracedFunction:
    """Return reverse mode of a function of jax, as a function of its inputs and its cotangents; as `backward_of`."""
    leaves = function.leaves
    outputs = function.outputs(leaves.arrays)
    weights = {name: u.astype(outputs[name].dtype) for name, u in weights_like(outputs).items()}
    tree = OrderedDict((name, leaves.real(name)) for name in leaves.arrays)
    tree.update(zip(_cotangents(weights, leaves.arrays), weights.values(), strict=True))
    count = len(leaves.arrays)

    def reverse(given: Any) -> OrderedDict[str, Any]:
        values = list(given.values())
        grads = function.reverse(values[:count], [], values[count:])
        return OrderedDict((f"grad_{name}", g) for name, g in zip(leaves.arrays, grads, strict=True))

    again = TracedFunction(reverse, Leaves(tree, dtype), (), dtype)
    again.pushes = pushes
    return again


def twice_differentiable(again: Products) -> None:
    """Try the derivative of a backward pass.

    Raises
    ------
    LossError
        There is none: it is declared once_differentiable, or uses what has no derivative.
    """
    params = again.params()
    try:
        if again.pushes:
            again.push_forward(params, weights_like(params))
        else:
            again.pull_back(params, weights_like(again.outputs(params)))
    except Exception as error:
        raise LossError(
            f"order=2: the backward pass can't be differentiated again: {said(error).rstrip('.')}. Write it in "
            "operations that have a derivative themselves, or as a custom function of its own with one."
        ) from error


def cut_off_named(report: Report, again: Products) -> Report:
    """Return the report with a finding for each input that the backward pass depends on without the framework knowing.

    Parameters
    ----------
    report : Report
        Of the backward pass as a function.
    again : Products
        That function.
    """
    refuted = [name for name, block in report.blocks.items() if block.verdict.refuted]
    cut = _cut_off(again, refuted) if refuted else {}
    if not cut:
        return report
    said = "; ".join(f"{' and '.join(outputs)} by {name}" for name, outputs in cut.items())
    message = (
        f"The derivative of {said} is zero, and differences are not: the backward pass is cut off there, by a detach, "
        ".data, stop_gradient or numpy, by once_differentiable, or by using what the forward pass computed on the way. "
        "Save inputs and outputs, and compute with them in operations that have a derivative."
    )
    evidence = {"blocks": list(cut), "outputs": cut, "short": "is cut off from the backward pass"}
    others = [finding for finding in report.findings if finding.kind is not Kind.ZERO]  # which this one explains
    return replace(report, findings=(Finding(Kind.DETACHED, next(iter(cut)), message, evidence), *others))


def _cut_off(again: Products, names: list[str]) -> dict[str, list[str]]:
    """Return the outputs that change with an input while their derivative by it is zero, by the names of inputs."""
    cut = dict[str, list[str]]()
    params = in_double(again.params())
    try:
        here = again.outputs(params)
    except Exception:  # it takes its own precision alone
        params = again.params()
        here = again.outputs(params)
    weights, still = weights_like(here), {name: np.zeros_like(u) for name, u in here.items()}
    for name in names:
        move = weights_like({name: params[name]})[name]
        size = float(np.abs(params[name]).max(initial=0.0)) or 1.0
        there = again.outputs(params | {name: (params[name] + MOVE * size * move).astype(params[name].dtype)})
        for output, y in here.items():
            eps = float(np.finfo(y.dtype).eps)
            if not np.linalg.norm(there[output] - y) > MOVED * eps * np.linalg.norm(y):
                continue
            if again.pushes:
                tangents = {other: np.zeros_like(x) for other, x in params.items()} | {name: move}
                derivative = again.push_forward(params, tangents)[output]
            else:
                derivative = again.pull_back(params, still | {output: weights[output]})[name]
            if not np.any(derivative):
                cut.setdefault(name, []).append(output)
    return cut


def _cotangents(outputs: Iterable[str], inputs: Collection[str]) -> list[str]:
    """Return names for the cotangents of outputs that no input has."""
    word = "cotangent"
    while any(name.split(".")[0] == word for name in inputs):
        word += "_"
    return [word if name == ROOT else f"{word}.{name}" for name in outputs]


def _shape(tensor: Any) -> tuple[int, ...]:
    return (*tensor.shape, 2) if tensor.is_complex() else tuple(tensor.shape)
