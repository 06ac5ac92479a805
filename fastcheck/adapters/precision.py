"""A gradient checked in double precision, and what is left of it in the precision it is used in.

Differences of a float32 loss keep some four digits, too few to tell right from wrong at most coordinates. So where the
loss takes float64, both it and the gradient are evaluated in that, and the gradient in the user's own precision is
then compared with the one that was checked: exactly, coordinate by coordinate, without any differences.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from fastcheck import thresholds
from fastcheck.arrays import FloatArray
from fastcheck.findings import Finding, Kind
from fastcheck.judge.verdict import Verdict, worst
from fastcheck.measure.directions import COTANGENT, bounded, gaussian
from fastcheck.parameters import Parameters
from fastcheck.report import Report

__all__ = [
    "Subject",
    "flat",
    "in_double",
    "is_double",
    "refuse_another",
    "remark",
    "weights_like",
    "with_own_precision",
    "without_rounding",
]

SMALL = 1e-3
"""Of the norm of the whole gradient: a block that is smaller is compared with that. In front of a batch normalisation
the gradient of a bias is zero, and what rounding leaves there is no error of the formulas."""

NEARBY = 20
"""Points at which a derivative in low precision is compared with itself in double, where it is off,"""

FLIPS = 20_000
"""and choices of signs of its errors there, none of which may make a longer sum than the errors have themselves, for
these to have something in common: by chance one block in 20,000 has."""

ALIKE = 3.0
"""Square roots of the unit roundoff by which a function in low precision may differ from itself in double."""

ROUNDING = 64
"""Unit roundoffs, of the largest entry of a block, by which an entry of a gradient may be off for rounding."""

CANCELLED = 1e-10
"""Of the largest entry of the gradient: a block below that in double precision is zero but for rounding, which is
relative to what cancels in it and not to what is left."""


class Subject(Protocol):
    """A loss or a function of a framework, as functions of numpy arrays.

    Attributes
    ----------
    own : set of str
        The dtypes of its parameters.
    narrowed : set of str
        Those that it casts double ones to inside, which was prevented.
    eps : float
        Of the lowest of them.
    """

    own: set[str]
    narrowed: set[str]

    @property
    def eps(self) -> float:
        """See above."""

    def params(self) -> dict[str, Any]:
        """Return where it is looked at, as arrays by name; of a precision NumPy lacks, in one that holds it."""

    def derivative(self, tree: Mapping[str, Any], own: bool = False) -> dict[str, Any]:
        """Return what two precisions are to agree on, by name of the parameters: in a tree's, or as the owner runs it.

        The two points are the same but for rounding.
        """


def is_double(tree: Mapping[str, Any]) -> bool:
    """Say whether a dict of arrays has float64 throughout."""
    return all(array.dtype == np.float64 for array in tree.values())


def flat(arrays: Mapping[str, Any]) -> Any:
    """Return a dict of arrays as one vector."""
    return np.concatenate([np.ravel(array) for array in arrays.values()])


def weights_like(arrays: Mapping[str, Any]) -> dict[str, FloatArray]:
    """Return a dict of arrays of these shapes, at random and away from zero, always the same ones."""
    layout = Parameters.of(arrays)
    return layout.unflatten(bounded(0, COTANGENT, 0, layout.size))  # type: ignore[no-any-return]


def in_double(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters in float64."""
    return {name: array.astype(np.float64) for name, array in params.items()}


def refuse_another(own: Any, double: Any, eps: float) -> None:
    """Compare what a function returns in its own precision, of roundoff `eps`, with what it returns in double.

    Raises
    ------
    TypeError
        They differ by more than rounding: where it draws random numbers, it may draw others in float64.
    """
    own, double = (np.asarray(value, dtype=np.result_type(value, np.float64)) for value in (own, double))
    size = max(float(np.linalg.norm(own)), float(np.linalg.norm(double)))
    if float(np.linalg.norm(own - double)) > ALIKE * eps**0.5 * size:
        raise TypeError(
            f"in float64 it is another function: {own.flat[0]:.6g} becomes {double.flat[0]:.6g}; random draws?"
        )


def remark(dtype: Any, own: set[str]) -> list[Finding]:
    """Return what to say where a dtype was asked for that is not that of the parameters."""
    others = sorted(own - {str(dtype)})
    if dtype is None or not others:
        return []
    message = f"Checked in {dtype}, on a copy of the parameters, which are {', '.join(others)}."
    return [Finding(Kind.CONVERTED, None, message, {"dtype": str(dtype), "own": others})]


def with_own_precision(report: Report, subject: Subject) -> Report:
    """Return the report with a finding of how far the derivative in its own precision is from the one checked.

    Where a block of its own derivative is off by more than `thresholds.WRONG`, or the roundoff of its precision
    explains, a derivative that passed becomes suspicious; unless it is off by chance.
    """
    params = in_double(subject.params())
    own, double = subject.derivative(params, own=True), subject.derivative(params)
    errors = _errors(own, double, [name for name in double if name in report.blocks])
    name = max(errors, key=lambda each: np.nan_to_num(errors[each], nan=np.inf))
    dtypes = ", ".join(sorted((subject.own - {"float64"}) | subject.narrowed))
    limit = max(thresholds.WRONG, ROUNDING / 2 * subject.eps)
    off = not errors[name] <= limit
    names = [each for each, error in errors.items() if not error <= limit]
    chance = off and all(error <= limit for error in _systematic(subject, params, names).values())
    far = off and not chance
    tail = ": more than rounding does, unless it is another function in float64." if far else "."
    if chance:
        tail = (
            f": at {NEARBY} points a rounding away from here it is off otherwise each time, so it is cancellation in "
            "low precision and no error of the formulas. Compute that part in float64, or give it better data (more "
            "samples in a batch that is normalised)."
        )
    low = ", ".join(sorted(subject.own - {"float64"}))
    copy = f"on a copy of the {low} parameters" if low else "as they are"
    copy += f", without the casts to {', '.join(sorted(subject.narrowed))} inside" if subject.narrowed else ""
    finding = Finding(
        Kind.OWN_PRECISION,
        name if off else None,
        f"Checked in float64, {copy}. The {dtypes} gradient itself differs from the one checked by a relative "
        f"{errors[name]:.1e} at most, in {name}{tail}",
        {"dtype": dtypes, "errors": errors, "by_chance": chance},
    )
    verdict = worst([report.verdict, Verdict.SUSPICIOUS]) if far and report.passed else report.verdict
    place = 0 if far else 1
    return replace(report, verdict=verdict, findings=(*report.findings[:place], finding, *report.findings[place:]))


def _errors(own: Mapping[str, Any], double: Mapping[str, Any], names: Iterable[str]) -> dict[str, float]:
    """Return relative errors by block; one that is small beside the whole is compared with that."""
    return _relative({name: _norm(np.asarray(own[name], dtype=np.float64) - double[name]) for name in names}, double)


def _relative(errors: Mapping[str, float], double: Mapping[str, Any]) -> dict[str, float]:
    whole = _norm(flat(double))
    return {name: e / max(_norm(double[name]), SMALL * whole) if e else 0.0 for name, e in errors.items()}


def _systematic(subject: Subject, params: Mapping[str, Any], names: Sequence[str]) -> dict[str, float]:
    """Return the relative error by block that stays the same at points a few roundings apart; inf where unknown.

    Errors that are rounding have any sign: their sum is as long as it is with other signs. Of k errors that are
    independent the mean has the expected square norm r^2/k, r^2 being their mean square norm; so (|mean|^2 - r^2/k)
    k/(k-1) estimates the square of the part they have in common.
    """
    errors: dict[str, list[FloatArray]] = {name: [] for name in names}
    double: dict[str, Any] = {}
    try:
        for k in range(NEARBY):
            near = {
                name: x * (1 + 4 * subject.eps * gaussian(0, k, number, 0, x.size).reshape(x.shape))
                for number, (name, x) in enumerate(params.items())
            }
            own, double = subject.derivative(near, own=True), subject.derivative(near)
            for name in names:
                errors[name].append(np.asarray(own[name], dtype=np.float64) - double[name])
    except Exception:  # what can't be evaluated nearby is not excused
        return dict.fromkeys(names, np.inf)
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(FLIPS, NEARBY))
    common = {}
    for name, seen in errors.items():
        rows = np.array([np.ravel(e) for e in seen])
        products = rows @ rows.T
        square, summed = float(np.trace(products)) / NEARBY, float(products.sum())
        chance = float(np.max(np.sum((signs @ products) * signs, axis=1)))
        part = summed / NEARBY**2 - square / NEARBY if summed >= chance else 0.0
        common[name] = max(0.0, part * NEARBY / (NEARBY - 1)) ** 0.5
    return _relative(common, double)


def _norm(array: Any) -> float:
    return float(np.linalg.norm(np.ravel(array)))


def without_rounding(claimed: Mapping[str, Any], double: Mapping[str, Any]) -> dict[str, Any]:
    """Return a claimed gradient of low precision, its entries in double precision where they differ by rounding alone.

    The framework's own in double is no authority: where the two agree it is what the finite differences judge, only
    without the rounding of the claimed one.
    """
    largest = max(float(np.abs(g).max(initial=0.0)) for g in double.values())
    found = dict(claimed)
    for name, array in claimed.items():
        array = np.asarray(array)
        if name in double and array.dtype in (np.float32, np.float16) and array.shape == double[name].shape:
            scale = float(np.abs(double[name]).max(initial=0.0))
            scale = largest if scale <= CANCELLED * largest else scale
            near = np.abs(array - double[name]) <= ROUNDING * float(np.finfo(array.dtype).eps) * scale
            found[name] = np.where(near, double[name], array.astype(np.float64))
    return found
