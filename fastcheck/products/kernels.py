"""A kernel of low precision beside a reference: forward and backward, in units of what the reference itself loses.

The unit of an entry is measured: the reference is run in the kernel's precision at inputs moved by a rounding, and the
root mean square distance from its float64 value is what rounding can do to that entry, whatever its own size. A right
kernel is some units off. An entry far outside, a factor fitted over the block or over one row or column of it, and a
loss of digits all over the block are each told.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np

from fastcheck import thresholds
from fastcheck.arrays import FloatArray
from fastcheck.errors import InputError, LossError
from fastcheck.findings import Finding, Kind
from fastcheck.judge.verdict import Verdict, worst
from fastcheck.measure.directions import COTANGENT, bounded
from fastcheck.parameters import Parameters
from fastcheck.report import Coordinate, Report

__all__ = ["Runnable", "compared"]

DRAWS = 12  # runs of the reference in low precision
COTANGENTS = 2
SLACK = {True: 4.0, False: 64.0}
"""Units that the root mean square error of a right kernel may reach, by whether its precision has 16 bits. Those sum
in float32 and round once, as the reference does; a kernel of float32 may sum one by one, which loses sqrt(n) more."""

MOVED = {True: 0.25, False: 1.0}
"""How much of what moving the inputs by a rounding does to the reference is granted to a kernel, besides what rounding
does to it in place."""

SCATTER = 6.0
"""Standard errors by which a factor must differ from 1, and typical deviations by which that of one row must."""

ENTRY = 1.5
"""Times that for a single entry, and for a factor, beside what the number of entries makes of the largest."""

NARROW = 1e-5  # eps of a precision of 16 bits is above
HALF = np.finfo(np.float16)
BFLOAT16_BITS = 8
NORMAL = 1.4826  # standard deviation over median absolute deviation, of normal numbers
NEARLY = 1e-3  # of the threshold of a wrong error: a factor of 1.01 is meant to reach it, however it is rounded
LISTED = 10  # wrong coordinates of a block
FEWEST = 8  # entries that a factor is fitted to


class Runnable(Protocol):
    """A function whose outputs and J^T u can be had in double precision or as its owner runs it."""

    @property
    def eps(self) -> float:
        """Of its own precision."""

    def params(self) -> dict[str, Any]:
        """Return its inputs."""

    def forward(self, tree: Mapping[str, Any], own: bool) -> dict[str, Any]:
        """Return its outputs."""

    def pull_back(self, tree: Mapping[str, Any], cotangent: Mapping[str, Any], own: bool = False) -> dict[str, Any]:
        """Return J^T u."""


@dataclass(frozen=True, eq=False)
class Compared:
    """One array of the kernel's beside the reference's.

    Attributes
    ----------
    what, name : str
        ``"output"`` or ``"gradient by"``, and of which.
    kernel, exact, unit : float64 array
        The kernel's values, the reference's in float64, and what rounding can do to each.
    low : float64 array, shape (DRAWS, *shape)
        The reference's in the kernel's precision, at moved inputs, as if at these.
    narrow : bool
        Whether that has 16 bits.
    """

    what: str
    name: str
    kernel: FloatArray
    exact: FloatArray
    low: FloatArray
    unit: FloatArray
    narrow: bool

    @property
    def label(self) -> str:
        """How it is called in a sentence."""
        return f"{self.what} {self.name}"

    @property
    def difference(self) -> float:
        """||k - r|| / (||k|| + ||r||)."""
        whole = float(np.linalg.norm(self.kernel)) + float(np.linalg.norm(self.exact))
        return float(np.linalg.norm(self.kernel - self.exact)) / whole if whole else 0.0


def compared(report: Report, kernel: Runnable, reference: Runnable, seed: int) -> Report:
    """Return the report of a reference as one of the kernel; as it is, where the reference did not pass.

    The report is of the reference's own backward pass against differences in float64; the seed is of the cotangents,
    and of the moves of the inputs.

    Raises
    ------
    InputError
        Their outputs are not alike.
    LossError
        The kernel raises.
    """
    if not report.passed:
        message = (
            "The reference's own backward pass does not pass, so the kernel was not compared with it. Check the "
            "reference alone first."
        )
        return replace(report, findings=(Finding(Kind.REFERENCE, None, message), *report.findings))
    told: list[tuple[Compared, Finding, Verdict, list[int]]] = []
    arrays = list(_arrays(kernel, reference, seed))
    for array in arrays:
        told += [(array, *one) for one in _judged(array)]
    blocks, wrong = dict(report.blocks), list[Coordinate]()
    for name, block in blocks.items():
        mine = [array for array in arrays if array.what != "output" and array.name == name]
        difference = max((array.difference for array in mine), default=0.0)
        verdict = worst([Verdict.CORRECT, *(v for a, _, v, _ in told if a in mine)])
        count = max((len(places) for a, _, _, places in told if a in mine), default=0)
        blocks[name] = replace(
            block, checked=block.size, verdict=verdict, difference=difference, wrong=count, bound=math.nan
        )
    for array, _, _, places in told:
        if array.what != "output":
            wrong += [_coordinate(array, place) for place in places[:LISTED]]
    unique = {c.name: c for c in reversed(wrong)}
    once = {(array.label, finding.kind): finding for array, finding, _, _ in reversed(told)}  # of all cotangents
    once = dict(reversed(once.items()))
    verdict = worst([Verdict.CORRECT, *(v for _, _, v, _ in told)])
    errors = {array.label: array.difference for array in arrays}
    said = Finding(
        Kind.REFERENCE,
        None,
        "Compared with a reference at the same inputs, whose own derivative agrees with differences in float64: "
        f"the kernel's rounding is {max(_rms(a) for a in arrays):.2g} times the reference's own in this precision, "
        "at most.",
        {"differences": errors, "units": {array.label: _rms(array) for array in arrays}},
    )
    return replace(
        report,
        verdict=verdict,
        blocks=blocks,
        bound=math.nan,
        difference=max(errors.values()),
        wrong=tuple(unique.values())[::-1],
        sweep=None,
        findings=(*once.values(), *report.findings, said),
    )


def _arrays(kernel: Runnable, reference: Runnable, seed: int) -> Iterator[Compared]:
    """Yield outputs and gradients, each with its unit."""
    params = {name: array.astype(np.float64) for name, array in kernel.params().items()}
    eps, narrow = kernel.eps, kernel.eps > NARROW
    rng = np.random.default_rng(seed)
    near = [{name: x * (1 + eps * rng.uniform(-1, 1, x.shape)) for name, x in params.items()} for _ in range(DRAWS)]
    exact = reference.forward(params, own=False)
    found = _of_kernel(partial(kernel.forward, params, own=True))
    if [y.shape for y in found.values()] != [y.shape for y in exact.values()]:
        raise InputError(
            f"reference returns arrays of shapes {[y.shape for y in exact.values()]}, the kernel "
            f"{[y.shape for y in found.values()]}: they must be the same function."
        )
    names = dict(zip(found, exact, strict=True))
    low = [_rounded(partial(reference.forward, x)) for x in near]
    for name, other in names.items():
        shown = "" if len(names) == 1 else name
        yield _measured("output", shown, found[name], exact[other], [(a[other], b[other]) for a, b in low], eps, narrow)
    layout = Parameters.of(exact)
    for k in range(COTANGENTS):
        u = layout.unflatten(_short(bounded(seed, COTANGENT, k, layout.size)))
        for_kernel = {name: u[other] for name, other in names.items()}
        grads = _of_kernel(partial(kernel.pull_back, params, for_kernel, own=True))
        truth = reference.pull_back(params, u)
        low = [_rounded(partial(reference.pull_back, x, u)) for x in near]
        for name, g in grads.items():
            yield _measured("gradient by", name, g, truth[name], [(a[name], b[name]) for a, b in low], eps, narrow)


def _of_kernel(call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return call()
    except Exception as error:
        raise LossError(f"the kernel raised {type(error).__name__} at its inputs: {error}.") from error


def _short(u: FloatArray) -> FloatArray:
    """Return numbers rounded to the 8 bits of bfloat16, so that every precision is given the same ones."""
    mantissa, exponent = np.frexp(u)
    return np.ldexp(np.round(mantissa * 2.0**BFLOAT16_BITS) / 2.0**BFLOAT16_BITS, exponent)


def _rounded(call: Callable[..., dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what the reference gives in the kernel's precision, in double if it refuses that; and in double."""
    exact = call(own=False)
    try:
        return call(own=True), exact
    except Exception:
        return exact, exact


def _measured(
    what: str, name: str, kernel: Any, exact: Any, low: list[tuple[Any, Any]], eps: float, narrow: bool
) -> Compared:
    exact = np.asarray(exact, dtype=np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        runs = np.stack([exact + (a - b) + MOVED[narrow] * (b - exact) for a, b in (map(np.float64, x) for x in low)])
        unit = np.sqrt(np.mean((runs - exact) ** 2, axis=0))
    size = float(np.sqrt(np.mean(exact**2))) if exact.size else 0.0
    floor = np.maximum(eps / 4 * np.abs(exact), eps / 8 * size)
    if eps == HALF.eps:
        floor = floor + float(HALF.smallest_subnormal)
    unit = np.where(np.isfinite(unit), np.maximum(unit, floor), np.inf)
    return Compared(what, name, np.asarray(kernel, dtype=np.float64), exact, runs, unit, narrow)


def _rms(array: Compared) -> float:
    known = np.isfinite(array.unit) & np.isfinite(array.kernel)
    if not known.any():
        return 0.0
    return float(np.sqrt(np.mean(((array.kernel - array.exact)[known] / array.unit[known]) ** 2)))


def _judged(array: Compared) -> Iterator[tuple[Finding, Verdict, list[int]]]:
    """Yield what is wrong with an array: entries, else factors, else digits all over it."""
    if not array.exact.size:
        return
    slack, off = SLACK[array.narrow], _factor(array)
    places = _outside(array)
    if off is not None and (not places or not _outside(replace(array, kernel=array.kernel / off.spread))):
        message = f"The kernel's {array.label}{off.where} is {off.factor:.6g} times the reference's."
        finding = _finding(Kind.KERNEL_FACTOR, array, message, factor=off.factor, place=off.where.strip(", "))
        yield finding, _grade(abs(off.factor - 1)), places
    elif places:
        error = np.where(np.isfinite(array.kernel), np.abs(array.kernel - array.exact), np.inf).ravel()[places[0]]
        size = float(np.sqrt(np.mean(array.exact**2)))
        relative = error / max(size, abs(array.exact.ravel()[places[0]]), 1e-300)
        yield _entries(array, places, float(error / array.unit.ravel()[places[0]])), _grade(relative), places
    elif _rms(array) > slack:
        message = (
            f"The kernel's {array.label} loses {_rms(array):.2g} times what the reference loses in the same precision, "
            "all over it: sums accumulated in low precision? Accumulate in float32 and round once."
        )
        yield _finding(Kind.KERNEL_ROUNDING, array, message, units=_rms(array)), Verdict.SUSPICIOUS, []


def _outside(array: Compared) -> list[int]:
    """Return the places that rounding does not explain, worst first."""
    error = np.where(np.isfinite(array.kernel), np.abs(array.kernel - array.exact), np.inf)
    ratio = np.where(np.isfinite(array.unit), error / array.unit, 0.0).ravel()
    bad = np.flatnonzero(ratio > ENTRY * SLACK[array.narrow] * math.sqrt(2 * math.log(2 * ratio.size) + 4))
    return [int(place) for place in bad[np.argsort(-ratio[bad], kind="stable")]]


@dataclass(frozen=True, eq=False)
class _Factor:
    """A factor, where it is, and it for every entry: 1 elsewhere."""

    where: str
    factor: float
    spread: FloatArray


def _factor(array: Compared) -> _Factor | None:
    """Return the factor of the block, or of a single row or column, that is not 1 by more than rounding makes it."""
    shape, size = array.exact.shape, array.exact.size
    if size < FEWEST:
        return None
    axes = [axis for axis in range(len(shape)) if len(shape) > 1 and size // shape[axis] >= FEWEST]
    fits = {axis: _fitted(array, axis) for axis in axes}
    for axis, (fitted, limit) in fits.items():
        places = np.flatnonzero(np.abs(fitted - 1) > limit + SCATTER * float(np.median(np.abs(fitted - 1))))
        if 0 < 2 * places.size <= shape[axis]:
            j = int(max(places, key=lambda place: abs(fitted[place] - 1)))
            spread = np.ones(shape[axis])
            spread[places] = fitted[places]
            spread = np.broadcast_to(spread.reshape([-1 if k == axis else 1 for k in range(len(shape))]), shape)
            return _Factor(f", index {j} of axis {axis},", float(fitted[j]), spread)
    fitted, limit = _fitted(array, None)
    if abs(fitted[0] - 1) > limit[0] + SCATTER * _scatter([factors for factors, _ in fits.values()]):
        return _Factor("", float(fitted[0]), np.full(shape, fitted[0]))
    return None


def _fitted(array: Compared, axis: int | None) -> tuple[FloatArray, FloatArray]:
    """Return the factors fitted by least squares, over all or by index of an axis, and how far from 1 each may be."""
    over = None if axis is None else tuple(k for k in range(array.exact.ndim) if k != axis)
    weight = np.where(np.isfinite(array.unit), array.exact / array.unit**2, 0.0)

    def product(values: FloatArray) -> FloatArray:
        return np.atleast_1d(np.sum(np.where(weight == 0, 0.0, weight * values), axis=over))

    norm = np.maximum(product(array.exact), 1e-300)
    with np.errstate(invalid="ignore"):
        fitted = product(array.kernel) / norm
        runs = np.stack([product(one) / norm for one in array.low])
        spread = np.sqrt(np.mean((runs - 1) ** 2, axis=0))
    known = spread[np.isfinite(spread)]
    spread = np.maximum(spread, np.median(known) if known.size else np.inf)
    # Rows and columns are many, and what rounds once in each moves all of it.
    many = ENTRY if axis is None else 2 * ENTRY
    return fitted, many * SLACK[array.narrow] * (spread + 1 / np.sqrt(norm))


def _scatter(fitted: Iterable[FloatArray]) -> float:
    """Return the standard error of the block's factor from how those of its rows and columns scatter.

    What is rounded once in a row and used all along it (a sum of a softmax) moves the whole row together.
    """
    found = [0.0]
    for factors in fitted:
        if len(factors) > 1:
            middle = float(np.median(factors))
            found.append(NORMAL * float(np.median(np.abs(factors - middle))) / math.sqrt(len(factors)))
    return max(found)


def _entries(array: Compared, places: list[int], units: float) -> Finding:
    def index(place: int) -> tuple[int, ...]:
        return tuple(int(i) for i in np.unravel_index(place, array.exact.shape))

    first = index(places[0])
    kernel, exact = array.kernel[first], array.exact[first]
    at = f"[{', '.join(map(str, first))}]" if first else ""
    message = (
        f"The kernel's {array.label} is off in {len(places):,} of {array.exact.size:,} entries, most at {at or 'it'}: "
        f"{kernel:.6g}, the reference {exact:.6g}, {units:.3g} times what rounding does there."
    )
    moved = _moved(array, places, index)
    message += f" {moved}" if moved else (" Never written?" if kernel == 0 and exact != 0 else "")
    return _finding(Kind.KERNEL_ENTRIES, array, message, indices=[index(place) for place in places[:LISTED]])


def _moved(array: Compared, places: list[int], index: Callable[[int], tuple[int, ...]]) -> str:
    """Say so where a wrong row of the kernel is another row of the reference."""
    rows = sorted({index(place)[0] for place in places}) if array.exact.ndim > 1 else []
    if not rows or len(rows) > LISTED:
        return ""
    table, units = (x.reshape(len(x), -1) for x in (array.exact, array.unit))
    for row in rows:
        mine = array.kernel[row].ravel()
        with np.errstate(invalid="ignore"):
            distance = np.sqrt(np.mean(((table - mine) / units) ** 2, axis=1))
        other = int(np.nanargmin(distance)) if np.isfinite(distance).any() else row
        if other != row and distance[other] < SLACK[array.narrow] * 2:
            return f"Its row {row} is the reference's row {other}."
    return ""


def _finding(kind: Kind, array: Compared, message: str, **evidence: Any) -> Finding:
    block = array.name if array.what != "output" else None
    return Finding(kind, block, message, {"what": array.what, "name": array.name, **evidence})


def _grade(relative: float) -> Verdict:
    return Verdict.WRONG if not relative < thresholds.WRONG * (1 - NEARLY) else Verdict.SUSPICIOUS


def _coordinate(array: Compared, place: int) -> Coordinate:
    index = tuple(int(i) for i in np.unravel_index(place, array.exact.shape))
    uncertainty = SLACK[array.narrow] * float(array.unit[index])
    return Coordinate(array.name, index, float(array.kernel[index]), float(array.exact[index]), uncertainty)
