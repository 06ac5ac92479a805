"""Errors that are combinations of three vectors: the gradient itself, theta (L2) and its sign (L1).

The true gradient is fitted as ``n = a g + b theta + c sign(theta)``: a factor 1/a, an L2 term, an L1 term, or a factor
on the data term alone, of which lambda = b / (1 - a).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fastcheck.arrays import FloatArray
from fastcheck.diagnosis.evidence import BlockEvidence, Evidence
from fastcheck.diagnosis.facts import Facts
from fastcheck.diagnosis.hypothesis import EXCEPTIONS, Explained, Hypothesis, Number, Rule, number_cost
from fastcheck.diagnosis.readings import likely_factors, read_factor, shown
from fastcheck.diagnosis.told import listed, numbers, only
from fastcheck.finding import Finding

__all__ = ["FACTOR", "LASSO", "LINEAR", "RIDGE"]

STEPS = 4  # in which a fit drops the rows that fit worst
ENOUGH = 20  # rows of which a few may be dropped
MORE = 1.0  # digits for the choice to fit one more number
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


def _scaled(block: BlockEvidence, fit: _Fit, extra: dict[str, Number], cost: float, facts: Facts) -> Hypothesis:
    factor = _inverse(fit.numbers[0])
    known = Number(factor.value, fit.known[0] / fit.numbers[0].value / fit.numbers[0].value)
    paid = min(number_cost(factor, 1.0, likely_factors(facts)), number_cost(known, 1.0))
    if not any(factor.near(value) for value in likely_factors(facts)):
        paid = number_cost(known, 1.0)
    return Hypothesis("factor", block.n - fit.prediction, cost + paid, factor, paid, facts=extra)


def _inverse(a: Number) -> Number:
    return Number(1 / a.value, a.half / a.value / a.value)  # a square of it may be zero


def _data_factors(block: BlockEvidence, evidence: Evidence) -> Iterator[Hypothesis]:
    """Yield n = a g + (b theta, c sign theta): the data term is scaled, the regulariser is not."""
    theta, sign = block.view.of(block.theta), block.view.of(np.sign(block.theta))
    for columns, names in (((theta,), ("l2",)), ((sign,), ("l1",)), ((theta, sign), ("l2", "l1"))):
        fit = _fit([block.claimed, *columns], block.n, block.tolerance)
        if fit is None or not fit.numbers[0].value or fit.numbers[0].near(1.0):
            continue
        off = 1 - fit.numbers[0].value
        rest = range(1, len(fit.numbers))
        rates = {
            name: Number(fit.numbers[k].value / off, fit.numbers[k].half / abs(off))
            for k, name in zip(rest, names, strict=True)
        }
        yield _scaled(block, fit, rates, sum(MORE + fit.cost(k, 0.0) for k in rest), evidence.facts)


def _penalties(kind: str) -> Rule:
    """Return the rule for e = rate * theta, or rate * sign(theta), with one rate for all blocks."""

    def propose(block: BlockEvidence, evidence: Evidence) -> Iterator[Hypothesis]:
        column = block.view.of(block.theta if kind == "l2" else np.sign(block.theta))
        fit = _fit([column], block.error, block.tolerance)
        if fit and fit.numbers[0].value:
            likely = [s * t for s in evidence.facts.scalars for t in (1.0, -1.0, 2.0, -2.0)]
            cost = fit.cost(0, 0.0, likely)
            yield Hypothesis(kind, block.error - fit.prediction, cost, fit.numbers[0], cost)

    return Rule(propose, _tell_l2 if kind == "l2" else _tell_l1, every_row=False)


def _both_penalties(block: BlockEvidence, evidence: Evidence) -> Iterator[Hypothesis]:
    """Yield e = rate * theta + other * sign(theta): L2 and L1 wrong at once."""
    columns = block.view.of(block.theta), block.view.of(np.sign(block.theta))
    fit = _fit(columns, block.error, block.tolerance)
    if fit:
        l2, l1 = fit.numbers
        cost = MORE + fit.cost(0, 0.0), MORE + fit.cost(1, 0.0)
        yield Hypothesis("l2", block.error - fit.prediction, sum(cost), l2, cost[0], facts={"l1": l1})


def _tell_factor(group: Sequence[Explained], evidence: Evidence) -> Finding:
    factor = _sharpest(group)
    everywhere = len(evidence.wrong) == len(group) and not evidence.right
    rates = {k: v for explained in group for k, v in explained.hypothesis.facts.items() if isinstance(v, Number)}
    reading, kind = read_factor(factor, evidence.facts), "factor"
    alone = sum(block.checked for block in evidence.blocks) == 1
    if factor.near(-1.0):
        kind = "sign"
    elif everywhere and not alone and factor.near(2.0) and not rates and evidence.facts.batch != 2:
        kind, reading = "accumulated", "added twice to a buffer that was not zeroed? Or a 1/2 forgotten"
    elif everywhere and not alone and factor.near(float(evidence.facts.batch)):
        kind, reading = "sum_over_batch", f"summed over the batch where the loss takes the mean? m = {factor.value:.0f}"
    elif everywhere and "last batch" in reading:
        kind = "last_batch"
    who = (
        "the whole gradient"
        if everywhere and not alone
        else f"gradient of {listed([explained.name for explained in group])}"
    )
    what = f"{shown(factor)} × the measured one"
    if rates:
        spared = ", ".join(f"{name.upper()} with lambda = {shown(rate)}" for name, rate in rates.items())
        what += f", but for its regulariser ({spared})"
    short = f"×{_short(factor)} of the measured gradient" + (
        f" ({reading.replace('(batch ', '').rstrip(')')})" if reading else ""
    )
    return Finding(
        kind,
        only(group),
        f"{who} is {what}" + (f": {reading}" if reading else ". A constant is missing, or counted twice."),
        numbers(
            group,
            factor=factor.value,
            interval=factor.interval,
            reading=reading,
            short=short,
            shorter=f"×{_short(factor)}",
            **{f"lambda_{name}": rate.value for name, rate in rates.items()},
        ),
    )


def _short(factor: Number) -> str:
    return f"{factor.value:#.4g}".rstrip(".")


def _sharpest(group: Sequence[Explained]) -> Number:
    fitted = [explained.hypothesis.number for explained in group if explained.hypothesis.number is not None]
    return min(fitted, key=lambda number: number.half)


def _tell_l2(group: Sequence[Explained], evidence: Evidence) -> Finding:
    return _tell_penalty(group, evidence, "l2", "L2", "the parameters", "lambda * W")


def _tell_l1(group: Sequence[Explained], evidence: Evidence) -> Finding:
    return _tell_penalty(group, evidence, "l1", "L1", "the parameters' signs", "lambda * sign(W)")


def _tell_penalty(
    group: Sequence[Explained], evidence: Evidence, kind: str, term: str, of: str, formula: str
) -> Finding:
    rate = _sharpest(group)
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
        f"error of {listed([explained.name for explained in group])} is {shown(rate)} × {of}: {reading}.",
        numbers(group, rate=rate.value, interval=rate.interval, reading=reading, short=short),
    )


def _read_rate(rate: Number, facts: Facts, term: str) -> tuple[str, str]:
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
RIDGE = _penalties("l2")
LASSO = _penalties("l1")
LINEAR = (
    FACTOR,
    RIDGE,
    LASSO,
    Rule(_data_factors, _tell_factor, every_row=False),
    Rule(_both_penalties, _tell_l2, every_row=False),
)
