"""check_vjp(): a vector-Jacobian product, as backward passes compute it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from fastcheck.conclude import record
from fastcheck.findings import Finding, Kind
from fastcheck.judge.verdict import Verdict
from fastcheck.measure.directions import COTANGENT, bounded
from fastcheck.plain import plain_products
from fastcheck.products.checks import Checks, merged, positive
from fastcheck.products.claims import TransposedClaim
from fastcheck.products.cotangents import check_all, cotangents_for
from fastcheck.products.kernels import compared
from fastcheck.products.linearity import Linear, changes_vector, nonlinear
from fastcheck.products.point import LinearizationPoint, Product, ProductFinding
from fastcheck.products.reference import Kernel, Reference
from fastcheck.report import Report
from fastcheck.settings import as_args

__all__ = ["check_vjp", "report_of_claim"]

SAME, NOTHING = 1e-5, 1e-12  # relative to an entry, to the largest: by how much two products may differ
KEY = 1 << 16  # key of the vectors that linearity is tried with


def check_vjp(
    function: Callable[..., Any],
    vjp: Callable[..., Any],
    inputs: Any,
    *,
    args: tuple[Any, ...] = (),
    cotangents: int | None = None,
    reference: Any = None,
    throw: bool = False,
    **options: Any,
) -> Report:
    """Check a vector-Jacobian product J^T u of a function with any number of outputs, as a backward pass computes it.

    Parameters
    ----------
    function : callable
        ``function(inputs, *args)`` returns an array, or a tree of arrays, of floats.
    vjp : callable
        ``vjp(inputs, cotangent, *args)`` returns J^T u, a tree like inputs; the cotangent u is a tree like the outputs.
    inputs : tree of float arrays
        Where to check; as `fastcheck.check` takes its params. The arrays are read, never written.
    args : tuple
        Further positional arguments of both.
    cotangents : int, optional
        How many random cotangents weigh all outputs at once. By default 3, and up to 8 output entries, or blocks of
        outputs, are also looked at one by one; at least as many as there are output entries: each of them is.
    reference : callable or (callable, callable), optional
        The same function in plain NumPy, for a kernel that runs in float32 or float16, or that pair of function and
        vjp. Its derivative is checked, or measured if there is no vjp, in float64; outputs and products of the kernel,
        in the precision of the inputs, are then compared with it, in units of what the reference itself loses in that
        precision.
    throw : bool
        Raise `GradientError` unless the verdict is a pass.
    **options
        As for `fastcheck.check`: mode, blocks, tolerance, confidence, seed, step, scheme, budget, workers, ...

    Returns
    -------
    Report
        Of the loss <u, function(inputs)>, whose gradient is the product: the worst of all cotangents. Its findings say
        which outputs are wrong; ``numerical`` is None, and ``settings["visible"]`` the share of an error in any entry
        of J that at least one random cotangent shows, at the run's confidence.

    Raises
    ------
    InputError
        An argument breaks a rule, or the product does not fit the inputs.
    LossError
        The function or the product raises, or returns a value that is not finite.
    GradientError
        With ``throw=True``, when the product did not pass.
    """
    checks, args = Checks("check_vjp", options), as_args(args)
    cotangents = positive("cotangents", cotangents)
    if reference is not None:
        kernel, plain = Kernel.of(function, vjp, inputs, args), Reference.of(reference, inputs, args)
        options = {"mode": "screen", **options}
        report = check_vjp(plain.function, plain.vjp, plain.inputs, args=args, cotangents=cotangents, **options)
        report = compared(report, kernel, plain, checks.settings.seed)
        settings = record(function, args, "check_vjp(function, vjp, inputs, reference=reference")
        report = replace(report, seconds=checks.seconds, settings={**report.settings, **settings})
        return report.raise_if_wrong() if throw else report
    with plain_products(function, vjp, inputs, "vjp", like=(False, False, True)) as (function, vjp, inputs):
        claim = TransposedClaim(LinearizationPoint.of(function, inputs, args), Product(vjp, "vjp", "cotangent"))
        report = report_of_claim(claim, checks, cotangents)
    return report.raise_if_wrong() if throw else report


def report_of_claim(claim: TransposedClaim, checks: Checks, cotangents: int | None) -> Report:
    """Return the report of a product at a point."""
    checks.evaluations += 1
    chosen = cotangents_for(claim.point, cotangents, checks.settings.seed)
    checks.count = len(chosen)
    found = list(_not_linear(claim, checks))
    done, blamed = check_all(claim, checks, chosen)
    if any(one.failed for one in done) and not any(one.explains for one in found):
        found += _summed(claim, checks)
    settings = record(claim.point.function, claim.point.args, "check_vjp(function, vjp, inputs")
    settings["cotangents"] = [one.name for one in chosen]
    return merged(checks, done, [*found, *blamed], settings)


def _not_linear(claim: TransposedClaim, checks: Checks) -> Iterator[ProductFinding]:
    point, product, settings = claim.point, claim.product, checks.settings
    u, w = (point.representable(bounded(settings.seed, COTANGENT + KEY, k, point.outputs.size)) for k in range(2))
    yield from nonlinear(Linear(partial(point.pulled, product), product, point.inputs.blocks, settings.tolerance), u, w)
    if point.changes(product, point.cotangent(u)):
        yield ProductFinding(changes_vector(product))


def _summed(claim: TransposedClaim, checks: Checks) -> Iterator[ProductFinding]:
    """Yield a finding where only the sum of the cotangent matters: a wrong product that is linear all the same."""
    point = claim.point
    size = point.outputs.size
    if size < 2:
        return
    u = point.representable(bounded(checks.settings.seed, COTANGENT, 0, size))
    before, after = (point.pulled(claim.product, vector).flat for vector in (u, np.roll(u, 1)))
    if not np.allclose(before, after, rtol=SAME, atol=NOTHING * float(np.abs(before).max())) or not before.any():
        return
    names = [block.name for block in point.inputs.blocks]
    finding = Finding(
        Kind.VECTOR_SUMMED,
        None,
        "vjp is the same when the entries of the cotangent change places: only their sum or mean is used, as if the "
        "upstream gradient were one number. Multiply entry by entry before summing.",
        {"blocks": names, "short": "uses only the sum of the cotangent", "where": "vjp"},
    )
    yield ProductFinding(finding, Verdict.WRONG, explains=True)
