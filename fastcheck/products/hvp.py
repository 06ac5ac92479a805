"""check_hvp(): a Hessian-vector product, against differences of the gradient, and against its own transpose."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from fastcheck.errors import InputError
from fastcheck.findings import Finding, Kind
from fastcheck.gradients import match_gradient
from fastcheck.judge.verdict import Verdict, grade
from fastcheck.measure.directions import TANGENT, bounded
from fastcheck.parameters import Parameters
from fastcheck.plain import plain_products
from fastcheck.products.checks import Checks, positive
from fastcheck.products.jvp import report_of
from fastcheck.products.linearity import own_rounding
from fastcheck.products.point import LinearizationPoint, Product, ProductFinding
from fastcheck.report import Report
from fastcheck.settings import as_args

__all__ = ["check_hvp"]

PAIRS = 3  # of vectors that the symmetry is tried with
KEY = 1 << 17  # key of those vectors
ROUNDINGS = 32.0


def check_hvp(
    gradient: Callable[..., Any],
    hvp: Callable[..., Any],
    params: Any,
    *,
    args: tuple[Any, ...] = (),
    tangents: int | None = None,
    cotangents: int | None = None,
    throw: bool = False,
    **options: Any,
) -> Report:
    """Check a Hessian-vector product H v against finite differences of a trusted gradient, and its symmetry.

    Parameters
    ----------
    gradient : callable
        ``gradient(params, *args)`` returns a tree like params, as for `fastcheck.check`; check it first.
    hvp : callable
        ``hvp(params, vector, *args)`` returns H v, a tree like params; so is the vector v.
    params : tree of float arrays
        Where to check. The arrays are read, never written.
    args : tuple
        Further positional arguments of both.
    tangents, cotangents : int, optional
        How many random vectors H is multiplied by from the right and from the left; as for `check_jvp`.
    throw : bool
        Raise `GradientError` unless the verdict is a pass.
    **options
        As for `fastcheck.check`: mode, blocks, tolerance, confidence, seed, step, scheme, budget, workers, ...

    Returns
    -------
    Report
        As of `check_jvp`. A product that is not symmetric has the finding ``"asymmetric"``.

    Raises
    ------
    InputError
        An argument breaks a rule, or gradient or product do not fit the parameters.
    LossError
        The gradient or the product raises, or returns a value that is not finite.
    GradientError
        With ``throw=True``, when the product did not pass.
    """
    checks, args = Checks("check_hvp", options), as_args(args)
    if not callable(gradient):
        raise InputError(f"gradient={gradient!r} (type={type(gradient).__name__}) is not callable: pass the function.")
    counts = positive("tangents", tangents), positive("cotangents", cotangents)
    with plain_products(gradient, hvp, params, "hvp", like=(True, True, True)) as (gradient, hvp, params):
        layout = Parameters.of(params)
        point = LinearizationPoint.of(_Matched(gradient, layout), params, args, ("gradient", "params", "gradient"))
        product = Product(hvp, "hvp", "vector")
        report = report_of(
            point,
            product,
            checks,
            "check_hvp(gradient, hvp, params",
            *counts,
            lambda: _asymmetric(point, product, checks),
        )
    return report.raise_if_wrong() if throw else report


class _Matched:
    """The gradient as a tree like params, whatever names it uses and whatever else it returns."""

    def __init__(self, gradient: Callable[..., Any], layout: Parameters) -> None:
        self.gradient, self.layout = gradient, layout

    def __call__(self, params: Any, *args: Any) -> Any:
        return self.layout.unflatten(match_gradient(self.gradient(params, *args), self.layout).flat)


def _asymmetric(point: LinearizationPoint, product: Product, checks: Checks) -> Iterator[ProductFinding]:
    """Yield a finding where <w, H v> is not <v, H w>: the relative norm of the antisymmetric part is estimated.

    For v and w with independent entries of variance s^2, <w, A v> has the variance s^4 |A|^2 (Frobenius) and |H v|^2
    the mean s^2 |H|^2.
    """
    size, seen, rounding = point.theta.size, list[float](), 0.0
    for k in range(PAIRS):
        v, w = (bounded(checks.settings.seed, TANGENT + KEY, 2 * k + side, size) for side in range(2))
        at_v, at_w = point.pushed(product, v), point.pushed(product, w)
        scale = max(float(np.linalg.norm(at_v.flat)), float(np.linalg.norm(at_w.flat)))
        rounding = max(rounding, ROUNDINGS * float(at_v.eps.max()) * size**0.5)
        if scale:
            seen.append(abs(float(w @ at_v.flat) - float(v @ at_w.flat)) / scale)
            lost = own_rounding(partial(point.pushed, product), v, at_v.flat)
            rounding = max(rounding, ROUNDINGS * float(np.linalg.norm(lost)) * size**0.5 / scale)
    relative = max(seen, default=0.0)
    excess = relative - rounding
    verdict = grade(excess, checks.settings.tolerance, kinks=False)
    if verdict is not Verdict.CORRECT:
        names = [block.name for block in point.inputs.select(checks.settings.blocks)]
        message = (
            f"hvp is not symmetric: <w, H v> and <v, H w> differ by a relative {relative:.2g}. A Hessian is. If it "
            "agrees with the differences of the gradient, the gradient is not that of any loss: check it first."
        )
        evidence = {"asymmetry": relative, "blocks": names, "short": "is not symmetric", "where": "hvp"}
        yield ProductFinding(Finding(Kind.ASYMMETRIC, None, message, evidence), verdict)
