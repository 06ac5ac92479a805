"""How autograd of torch may call a backward pass: upstream gradients of any layout, or none; some inputs alone.

The product is the same number each time, so no differences are needed: it is compared with itself.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from fastcheck.adapters.precision import flat, weights_like
from fastcheck.adapters.tensor_function import TensorFunction
from fastcheck.adapters.tensors import as_numpy
from fastcheck.errors import text_of
from fastcheck.findings import Finding, Kind
from fastcheck.judge.verdict import Verdict, worst
from fastcheck.report import Report

__all__ = ["called_otherwise", "under_vmap"]

STACKED = 3  # vectors that go through vmap together


class Stacked(Protocol):
    """A function with a product that can be had for many vectors at once."""

    pushes: bool

    @property
    def eps(self) -> float:
        """Of its own precision."""

    def params(self) -> dict[str, Any]:
        """Return its inputs."""

    def vectors_like(self) -> dict[str, Any]:
        """Return arrays like those that its product multiplies."""

    def pull_back(self, tree: Mapping[str, Any], cotangent: Mapping[str, Any], own: bool = False) -> dict[str, Any]:
        """Return J^T u."""

    def push_forward(self, tree: Mapping[str, Any], tangent: Mapping[str, Any], own: bool = False) -> dict[str, Any]:
        """Return J v."""

    def stacked_product(self, tree: Mapping[str, Any], vectors: Mapping[str, Any]) -> dict[str, Any]:
        """Return either of vectors along a leading axis, all at once under vmap."""


SKIPPED = (Kind.VECTOR_CHANGED, Kind.RANDOM_LOSS, Kind.STATEFUL_LOSS, Kind.COUNTING_LOSS)
"""Findings that explain why a product may differ from itself; they are told already."""

SAME = 1e-2  # relative: what is read from the wrong place is off by its own size, whatever the precision


def called_otherwise(report: Report, function: TensorFunction) -> Report:
    """Return the report with a finding, and the verdict wrong, for each way of being called that changes the product.

    The report is of the function called in the plain way; here it is run as its owner runs it.
    """
    kinds = {finding.kind for finding in report.findings}
    if Kind.VECTOR_CHANGED in kinds:
        found = list(_shared(function))
        rest = [one for one in report.findings if not (found and one.kind is Kind.VECTOR_CHANGED)]
        return _with(replace(report, findings=tuple(rest)), found)
    return _with(report, [] if kinds & set(SKIPPED) else list(_findings(function)))


def under_vmap(report: Report, function: Stacked) -> Report:
    """Return the report with a finding, and the verdict wrong, where vectors stacked under vmap give other products.

    Parameters
    ----------
    report : Report
        Of the function, called with one vector after another.
    function : Stacked
        It is run as its owner runs it.
    """
    if any(finding.kind in SKIPPED for finding in report.findings):
        return report
    params = function.params()
    stacked = weights_like({name: np.zeros((STACKED, *x.shape)) for name, x in function.vectors_like().items()})
    try:
        base, again = (_one_by_one(function, params, stacked) for _ in range(2))
    except Exception:  # the check itself says so
        return report
    if not _alike(base, again):
        return report
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of slow fallbacks
            found = function.stacked_product(params, stacked)
    except Exception as error:  # whatever it raises there
        text = text_of(error).partition("\n")[0]
        said = f"raises {type(error).__name__}{f' ({text})' if text else ''}, so it was not compared with itself."
        finding = Finding(Kind.BATCHED, None, f"Under vmap the derivative {said} {Kind.BATCHED.remedy}")
        verdict = worst([report.verdict, Verdict.INCONCLUSIVE])
        return replace(report, verdict=verdict, findings=(finding, *report.findings))
    tolerance = math.sqrt(function.eps)
    wrong = [name for name in base if not _alike({name: base[name]}, {name: found[name]}, base, tolerance)]
    if not wrong:
        return report
    names = [name for name in wrong if name in report.blocks] or list(report.blocks)  # outputs, in forward mode
    said = (
        f"The derivative ({', '.join(wrong)}) is another one when several vectors go through it together, under vmap."
    )
    return _with(report, [Finding(Kind.BATCHED, None, f"{said} {Kind.BATCHED.remedy}", {"blocks": names})])


def _one_by_one(function: Stacked, params: Mapping[str, Any], stacked: Mapping[str, Any]) -> dict[str, Any]:
    product = function.push_forward if function.pushes else function.pull_back
    found = [product(params, {name: v[k] for name, v in stacked.items()}, own=True) for k in range(STACKED)]
    return {name: np.stack([one[name] for one in found]) for name in found[0]}


def _with(report: Report, found: Sequence[Finding]) -> Report:
    """Return the report with findings of errors in the blocks that they name."""
    if not found:
        return report
    blocks = dict(report.blocks)
    for finding in found:
        for name in finding.evidence["blocks"]:
            blocks[name] = replace(blocks[name], verdict=Verdict.WRONG)
    verdict = worst([report.verdict, Verdict.WRONG])
    return replace(report, verdict=verdict, blocks=blocks, findings=(*found, *report.findings))


def _shared(function: TensorFunction) -> Iterator[Finding]:
    """Yield a finding where the product is another one for two branches that are given the same upstream gradient."""
    params, u = function.params(), _cotangents(function)
    plain = _product(function, params, {name: v.clone() for name, v in u.items()})
    if not isinstance(plain, Exception):
        yield from _told(
            {name: 2 * g for name, g in plain.items()},
            _product(function, params, u, branches=2),
            Kind.VECTOR_CHANGED,
            "where another branch is given the same upstream gradient, as an addition does it: the backward pass "
            "writes to what it is given. Work on a copy.",
        )


def _cotangents(function: TensorFunction) -> dict[str, Any]:
    like = function.outputs_like
    weights = weights_like({name: as_numpy(y) for name, y in like.items()})
    return {name: function.like(weights[name], y) for name, y in like.items()}


def _findings(function: TensorFunction) -> Iterator[Finding]:
    params, u = function.params(), _cotangents(function)
    plain = _product(function, params, u)
    if isinstance(plain, Exception) or not _alike(plain, _product(function, params, u)):
        return  # the check itself says so
    yield from _dirty(function, params)
    for name, vector in u.items():
        for layout, given, ordinary in _layouts(vector):
            base = plain if ordinary is vector else _product(function, params, {**u, name: ordinary})
            yield from _told(
                base,
                _product(function, params, {**u, name: given}),
                Kind.COTANGENT_LAYOUT,
                f"when the upstream gradient of {_called(name)} is {layout}: backward reads its memory as if it were "
                "contiguous. Index it by its strides, or call .contiguous() first.",
            )
    if len(u) > 1:
        for name in u:
            zeros = {other: function.torch.zeros_like(v) for other, v in u.items() if other != name}
            yield from _told(
                _product(function, params, {**u, **zeros}),
                _product(function, params, {name: u[name]}),
                Kind.UNUSED_OUTPUT,
                f"when {_called(name)} alone is used, the others not at all: with set_materialize_grads(False) their "
                "gradients are None, to be taken for zero.",
            )
    for name in function.places if len(function.places) > 1 else ():
        yield from _told(
            {name: plain[name]},
            _product(function, params, u, only=name),
            Kind.NEEDS_INPUT_GRAD,
            f"when {name} alone requires a gradient. Return one entry for every input, None only where "
            "needs_input_grad says so, and save what each needs whatever the others do.",
        )


def _layouts(u: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield (layout, cotangent, the same one contiguous)."""
    if u.ndim and u.numel() > 1:
        turned = u.transpose(0, -1).contiguous().transpose(0, -1) if u.ndim > 1 else u.repeat_interleave(2)[::2]
        if not turned.is_contiguous():
            yield "transposed" if u.ndim > 1 else "strided", turned, u
        one = u.new_ones(())
        yield "expanded (of a sum or mean, stride 0)", one.expand(u.shape), one.expand(u.shape).contiguous()


def _product(
    function: TensorFunction, params: Mapping[str, Any], given: Mapping[str, Any], only: str = "", branches: int = 1
) -> Any:
    """Return J^T u by name, u of some outputs alone and by some inputs alone; or what was raised."""
    try:
        return function.partial_product(params, given, only, branches)
    except Exception as error:  # whatever the backward pass raises
        return error


def _told(base: Any, found: Any, kind: Kind, how: str) -> Iterator[Finding]:
    if isinstance(base, Exception):
        return
    if isinstance(found, Exception):
        text = text_of(found).partition("\n")[0]
        message = f"The backward pass raises {type(found).__name__}{f' ({text})' if text else ''} {how}"
        yield Finding(kind, None, message, {"blocks": list(base)})
        return
    wrong = [name for name in base if not _alike({name: base[name]}, {name: found[name]}, base)]
    if wrong:
        message = f"The gradient by {', '.join(wrong)} is another one {how}"
        yield Finding(kind, wrong[0], message, {"blocks": wrong})


def _alike(a: Mapping[str, Any], b: Any, scale: Mapping[str, Any] | None = None, tolerance: float = SAME) -> bool:
    if isinstance(b, Exception):
        return False
    mine, other, whole = (np.float64(flat(each)) for each in (a, b, scale or a))
    size = max(float(np.linalg.norm(mine)), 1e-6 * float(np.linalg.norm(whole)))
    return bool(np.linalg.norm(mine - other) <= tolerance * size)


def _dirty(function: TensorFunction, params: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield a finding of inputs that the function writes to without telling autograd."""
    _, inputs = function.traced(params, own=True)
    before = {name: (inputs[i], inputs[i].grad_fn, inputs[i].detach().clone()) for name, i in function.places.items()}
    function.call(inputs)
    equal: Callable[[Any, Any], bool] = function.torch.equal
    names = [n for n, (x, graph, kept) in before.items() if x.grad_fn is graph and not equal(x.detach(), kept)]
    if names:
        message = (
            f"The function writes to {', '.join(names)} without ctx.mark_dirty: autograd does not know, and gradients "
            "that use what was there are wrong. Mark it, or work on a copy."
        )
        yield Finding(Kind.NOT_MARKED_DIRTY, names[0], message, {"blocks": names})


def _called(name: str) -> str:
    return "the output" if name == "theta" else f"output {name}"
