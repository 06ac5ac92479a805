"""Errors that are combinations of three vectors: the gradient itself, theta (L2) and its sign (L1).

The true gradient is fitted as ``n = a g + b theta + c sign(theta)``: a factor 1/a, an L2 term, an L1 term, or a factor
on the data term alone, of which lambda = b / (1 - a).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastcheck.arrays import FloatArray
from fastcheck.diagnosis.data_facts import DataFacts
from fastcheck.diagnosis.evidence import BlockEvidence, Evidence
from fastcheck.diagnosis.hypothesis import EXCEPTIONS, Explained, Hypothesis, Number, Rule, number_cost
from fastcheck.diagnosis.wording import (
    advice,
    interpret_factor,
    likely_factors,
    named,
    numbers,
    only,
    shown,
    shown_factor,
)
from fastcheck.findings import Finding, Kind

__all__ = ["LINEAR"]

STEPS = 4  # in which a fit drops the rows that fit worst
ENOUGH = 20  # rows of which a few may be dropped
ORTHOGONAL = 1e-9  # cosine of two vectors that are orthogonal but for rounding
MORE = 1.0  # digits for the choice to fit one more number
IMAGINARY = re.compile(r"im(ag(?:inary)?)?(?![a-z])")  # in a name; its real counterpart has re or real there
CONDITION = 1e8  # of the normal equations, above which the columns can't be told apart


@dataclass(frozen=True)
class _Fit:
    """Weighted least squares coefficients, and how well each is known once those after it are given."""

    numbers: tuple[Number, ...]
    known: tuple[float, ...]
    prediction: FloatArray

    def cost(self, k: int, neutral: float, readings: Iterable[float] = ()) -> float:
        """Return the digits of one coefficient; correlated ones are not paid twice."""
        whole = number_cost(self.numbers[k], neutral, readings)
        free = math.log10(1 + abs(self.numbers[k].value - neutral) / self.known[k])
        return whole if whole < number_cost(self.numbers[k], neutral) else free


def _fit(columns: Sequence[FloatArray], target: FloatArray, tolerance: FloatArray) -> _Fit | None:
    """Fit the target by the columns, but for a few rows that may be off; None where that is not possible.

    Rows are dropped by concentration steps (Rousseeuw, van Driessen 2006, "Computing LTS regression for large data
    sets", Data Mining and Knowledge Discovery 12, section 2).
    """
    X, fit = np.stack(columns, axis=1), _least_squares(columns, target, tolerance)
    for _ in range(STEPS if len(target) >= ENOUGH else 0):
        if fit is None:
            return None
        ratio = np.abs(target - fit.prediction) / tolerance
        if ratio.max() <= 1:
            return fit
        keep = ratio <= np.quantile(ratio, 1 - EXCEPTIONS)
        kept = _least_squares(list(X[keep].T), target[keep], tolerance[keep])
        if kept is None:
            return fit
        prediction = X @ np.array([number.value for number in kept.numbers])
        fit = _Fit(kept.numbers, kept.known, prediction)
    return fit


def _least_squares(columns: Sequence[FloatArray], target: FloatArray, tolerance: FloatArray) -> _Fit | None:
    """Fit all rows; None where the columns can't be told apart, or no row is left to test the fit.

    The half widths hold even if the rows' errors are all one systematic error, as a truncation is.
    """
    X = np.stack(columns, axis=1) / tolerance[:, None]
    norms = np.linalg.norm(X, axis=0)
    rows = len(target)
    if rows < len(columns) + (len(columns) > 1) or not np.all(norms > 0):
        return None
    X = X / norms
    if not np.isfinite(X).all():  # units at the end of float64's range
        return None
    R = np.linalg.qr(X, mode="r")
    if not np.linalg.cond(R) < CONDITION:
        return None
    inverse = np.linalg.inv(R)
    coefficients = inverse @ (inverse.T @ (X.T @ (target / tolerance))) / norms
    half = np.sqrt(np.sum(inverse**2, axis=1) * rows) / norms
    numbers = tuple(Number(float(v), float(h)) for v, h in zip(coefficients, half, strict=True))
    known = tuple((math.sqrt(rows) / np.abs(np.diag(R)) / norms).tolist())
    prediction = np.stack(columns, axis=1) @ coefficients
    return _Fit(numbers, known, prediction)


def _factors(block: BlockEvidence, evidence: Evidence) -> Iterator[Hypothesis]:
    """Yield n = a g."""
    fit = _fit([block.claimed], block.n, block.tolerance)
    if fit and fit.numbers[0].value:
        yield _scaled(block, fit, {}, 0.0, evidence.facts)


def _scaled(block: BlockEvidence, fit: _Fit, extra: dict[str, Number], cost: float, facts: DataFacts) -> Hypothesis:
    factor = _inverse(fit.numbers[0])
    known = Number(factor.value, fit.known[0] / fit.numbers[0].value / fit.numbers[0].value)
    likely, paid = likely_factors(facts), number_cost(known, 1.0)
    if any(factor.near(value) for value in likely):
        paid = min(number_cost(factor, 1.0, likely), paid)
    return Hypothesis(Kind.FACTOR, block.n - fit.prediction, cost + paid, factor, paid, facts=extra)


def _inverse(a: Number) -> Number:
    return Number(1 / a.value, a.half / a.value / a.value)  # a square of it may be zero


def _data_factors(block: BlockEvidence, evidence: Evidence) -> Iterator[Hypothesis]:
    """Yield n = a g + (b theta, c sign theta): the data term is scaled, the regulariser is not."""
    theta, sign = block.view.of(block.theta), block.view.of(np.sign(block.theta))
    for columns, names in (((theta,), ("l2",)), ((sign,), ("l1",)), ((theta, sign), ("l2", "l1"))):
        fit = _fit([block.claimed, *columns], block.n, block.tolerance)
        if fit is None or fit.numbers[0].near(0.0) or fit.numbers[0].near(1.0):
            continue
        off = 1 - fit.numbers[0].value
        rest = range(1, len(fit.numbers))
        rates = {
            name: Number(fit.numbers[k].value / off, fit.numbers[k].half / abs(off))
            for k, name in zip(rest, names, strict=True)
        }
        yield _scaled(block, fit, rates, sum(MORE + fit.cost(k, 0.0) for k in rest), evidence.facts)


def _penalties(kind: Kind) -> Rule:
    """Return the rule for e = rate * theta, or rate * sign(theta), with one rate for all blocks."""

    def propose(block: BlockEvidence, evidence: Evidence) -> Iterator[Hypothesis]:
        column = block.view.of(block.theta if kind is Kind.L2 else np.sign(block.theta))
        fit = _fit([column], block.error, block.tolerance)
        if fit and fit.numbers[0].value:
            likely = [s * t for s in evidence.facts.scalars for t in (1.0, -1.0, 2.0, -2.0)]
            cost = fit.cost(0, 0.0, likely)
            yield Hypothesis(kind, block.error - fit.prediction, cost, fit.numbers[0], cost)

    return Rule(propose, _tell_penalty, every_row=False)


def _both_penalties(block: BlockEvidence, evidence: Evidence) -> Iterator[Hypothesis]:
    """Yield e = rate * theta + other * sign(theta): L2 and L1 wrong at once."""
    columns = block.view.of(block.theta), block.view.of(np.sign(block.theta))
    fit = _fit(columns, block.error, block.tolerance)
    if fit:
        l2, l1 = fit.numbers
        cost = MORE + fit.cost(0, 0.0), MORE + fit.cost(1, 0.0)
        yield Hypothesis(Kind.L2, block.error - fit.prediction, sum(cost), l2, cost[0], facts={"l1": l1})


def _projected(block: BlockEvidence, evidence: Evidence) -> Iterator[Hypothesis]:
    """Yield errors along theta where one of the two gradients has no part along theta: in the block, or each slice.

    A loss that does not see the length of theta has none; a gradient that was projected has none.
    """
    if block.block.size < 2:
        return
    g, theta = block.array(block.g), block.array(block.theta)
    for axis in (None, *range(g.ndim)):
        if axis is not None and (g.ndim < 2 or g.shape[axis] < 2):
            continue
        others = None if axis is None else tuple(other for other in range(g.ndim) if other != axis)
        along = np.sum(g * theta, axis=others, keepdims=True)
        squared = np.sum(theta * theta, axis=others, keepdims=True)
        if not np.all(squared > 0):
            continue
        facts = {"axis": axis, "projected": "loss"}
        part = block.view.of(block.vector(np.broadcast_to(along / squared * theta, g.shape)))
        yield Hypothesis(Kind.PROJECTED, block.error - part, 1.0, facts=facts)
        size = np.sqrt(squared * np.sum(g * g, axis=others, keepdims=True))
        if np.any(size > 0) and np.all(np.abs(along) <= ORTHOGONAL * size):
            yield from _lengthened(block, theta, axis, squared)


def _lengthened(block: BlockEvidence, theta: FloatArray, axis: int | None, squared: Any) -> Iterator[Hypothesis]:
    """Yield that the measured gradient has a part along theta, of any size, that the analytic one lacks."""
    facts = {"axis": axis, "projected": "gradient"}
    if axis is None:
        fit = _fit([block.view.of(block.theta)], block.error, block.tolerance)
        if fit:
            yield Hypothesis(Kind.PROJECTED, block.error - fit.prediction, 1.0, facts=facts)
    elif block.whole:
        others = tuple(other for other in range(theta.ndim) if other != axis)
        rates = np.sum(block.array(block.error) * theta, axis=others, keepdims=True) / squared
        residual = block.error - block.vector(np.broadcast_to(rates * theta, theta.shape))
        yield Hypothesis(Kind.PROJECTED, residual, 1.0, facts=facts)
    else:  # no error has to be along theta, but no accident makes every slice orthogonal to it
        yield Hypothesis(Kind.PROJECTED, np.zeros(len(block.n)), pattern=True, cause=True, facts=facts)


def _tell_projected(group: Sequence[Explained], evidence: Evidence) -> Finding:
    names, facts = named(group), group[0].hypothesis.facts
    of = "" if facts["axis"] is None else f" for each index of axis {facts['axis']}"
    if facts["projected"] == "loss":
        said = "does not change with their length, the gradient does: the loss normalises them, project the gradient"
    else:
        said = "changes with their length, the gradient does not: it is projected, or of a normalised copy"
    seen = not group[0].hypothesis.pattern
    who, how = ("error", "along") if seen else ("gradient", "orthogonal to")
    return Finding(
        Kind.PROJECTED,
        only(group),
        f"{who} of {names} is {how} the parameters{of}: the loss {said}.",
        numbers(group, axis=facts["axis"], projected=facts["projected"], short="the error is along the parameters"),
    )


def _tell_factor(group: Sequence[Explained], evidence: Evidence) -> Finding:
    factor = _sharpest(group)
    everywhere = len(evidence.wrong) == len(group) and not evidence.right
    rates = {k: v for explained in group for k, v in explained.hypothesis.facts.items() if isinstance(v, Number)}
    reading, kind = interpret_factor(factor, evidence.facts), Kind.FACTOR
    alone = sum(block.checked for block in evidence.blocks) == 1
    if factor.near(-1.0):
        kind = Kind.CONJUGATE if _imaginary(group, evidence) else Kind.SIGN
        reading = advice(kind) if kind is Kind.CONJUGATE else reading
    elif any(factor.near(scale) or factor.near(1 / scale) for scale in evidence.facts.scales):
        kind, reading = Kind.DROPOUT_BACKWARD, "the scale of the dropout forgotten on the way back, or applied twice?"
    elif everywhere and not alone and factor.near(2.0) and not rates and evidence.facts.batch != 2:
        kind, reading = Kind.ACCUMULATED, "added twice to a buffer that was not zeroed? Or a 1/2 forgotten"
    elif everywhere and not alone and factor.near(float(evidence.facts.batch)):
        kind, reading = (
            Kind.SUM_OVER_BATCH,
            f"summed over the batch where the loss takes the mean? m = {factor.value:.0f}",
        )
    elif everywhere and "last batch" in reading:
        kind = Kind.LAST_BATCH
    who = "the whole gradient" if everywhere and not alone else f"gradient of {named(group)}"
    what = f"{shown_factor(factor)} × the measured one"
    if rates:
        spared = ", ".join(f"{name.upper()} with lambda = {shown(rate)}" for name, rate in rates.items())
        what += f", but for its regulariser ({spared})"
    short = f"×{shown_factor(factor, 4)} of the measured gradient" + (
        f" ({reading.replace('(batch ', '').rstrip(')')})" if reading else ""
    )
    return Finding(
        kind,
        only(group),
        f"{who} is {what}" + (f": {reading}" if reading else f": {advice(Kind.FACTOR)}"),
        numbers(
            group,
            factor=factor.value,
            interval=factor.interval,
            reading=reading,
            short=short,
            shorter=f"×{shown_factor(factor, 4)}",
            **{f"lambda_{name}": rate.value for name, rate in rates.items()},
        ),
    )


def _imaginary(group: Sequence[Explained], evidence: Evidence) -> bool:
    """Say whether the blocks are imaginary parts, by name, whose real parts of the same shape are right."""
    right = {block.name: block.block.shape for block in evidence.right}
    real = {
        explained.name: IMAGINARY.sub(lambda m: "real" if m.group(1) else "re", explained.name) for explained in group
    }
    return all(real[e.name] != e.name and right.get(real[e.name]) == e.block.block.shape for e in group)


def _sharpest(group: Sequence[Explained]) -> Number:
    fitted = [explained.hypothesis.number for explained in group if explained.hypothesis.number is not None]
    return min(fitted, key=lambda number: number.half)


PENALTIES = {
    Kind.L2: ("L2", "the parameters", "lambda * W"),
    Kind.L1: ("L1", "the parameters' signs", "lambda * sign(W)"),
}


def _tell_penalty(group: Sequence[Explained], evidence: Evidence) -> Finding:
    rate, kind = _sharpest(group), group[0].hypothesis.kind
    term, of, formula = PENALTIES[kind]
    size = shown(Number(abs(rate.value), rate.half))
    short, reading = _read_rate(rate, evidence.facts, term)
    if not reading and rate.value < 0:
        reading = (
            f"the loss has {term} with lambda = {size} that the gradient lacks? Add {formula} (or the sign of the term "
            f"is wrong, with lambda = {rate.value / -2:.4g}; or it is divided by m)"
        )
    elif not reading:
        reading = (
            f"the gradient has {term} with lambda = {size} that the loss lacks? Counted twice, or of biases that the "
            "loss does not regularise"
        )
    return Finding(
        kind,
        only(group),
        f"error of {named(group)} is {shown(rate)} × {of}: {reading}.",
        numbers(group, rate=rate.value, interval=rate.interval, reading=reading, short=short),
    )


def _read_rate(rate: Number, facts: DataFacts, term: str) -> tuple[str, str]:
    """Return what an error of rate * theta means, briefly and in full, where lambda stands among the arguments."""
    for scalar in facts.scalars:
        if not scalar > 0:
            continue
        times = Number(1 + rate.value / scalar, rate.half / scalar)
        if times.near(0.0):
            return f"{term} missing", f"{term} is in the loss (lambda = {scalar:g}), not in the gradient"
        if times.near(2.0):
            of = "counts twice in the gradient, or of blocks that the loss spares"
            return f"{term} too much", f"{term} (lambda = {scalar:g}) {of}"
        if times.near(-1.0):
            return f"{term} subtracted", f"{term} (lambda = {scalar:g}) is subtracted in the gradient"
        if facts.batch > 1 and times.near(1 / facts.batch):
            of = f"is divided by m = {facts.batch} in the gradient only"
            return f"{term} divided by m", f"{term} (lambda = {scalar:g}) {of}"
        if times.near(0.5):
            of = "is halved in the gradient: the 2 of the square's derivative?"
            return f"{term} halved", f"{term} (lambda = {scalar:g}) {of}"
    return f"{term} {'missing' if rate.value < 0 else 'too much'}?", ""


FACTOR = Rule(_factors, _tell_factor, every_row=False)
RIDGE = _penalties(Kind.L2)
LASSO = _penalties(Kind.L1)
PROJECTED = Rule(_projected, _tell_projected, every_row=False)
LINEAR = (
    FACTOR,
    PROJECTED,
    RIDGE,
    LASSO,
    Rule(_data_factors, _tell_factor, every_row=False),
    Rule(_both_penalties, _tell_penalty, every_row=False),
)
