"""A hypothesis, and how much of an error it explains for how few words.

Hypotheses are ranked by description length (Rissanen 1978, "Modeling by shortest data description", Automatica 14): a
row whose residual r exceeds its tolerance t takes about log10(r / t) digits to write down, a fitted number
takes the digits it is known to, and a choice among k alternatives log10(k). What a hypothesis saves against writing
down the error itself is its *score*: an error that is not of its kind fits it by accident with a probability
of about 10^-score.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastcheck.arrays import FloatArray
from fastcheck.diagnosis.evidence import BlockEvidence, Evidence
from fastcheck.findings import Finding, Kind

__all__ = ["EXCEPTIONS", "LEFT", "SCORE", "Explained", "Hypothesis", "Number", "Rule", "explain", "number_cost"]

SCORE = 3.0
"""Digits that a hypothesis must save before it is told."""
LEFT = 1e-8
"""Share of the squared error, clear of the tolerance, that it may leave."""
EXCEPTIONS = 0.05  # share of the rows that a hypothesis may leave unexplained
TRIED = 2048  # rows of a large block on which a rule is tried first
MEMBER = 0.3  # digits to say of one row whether it is wrong


@dataclass(frozen=True)
class Number:
    """A fitted number and the half width of its interval."""

    value: float
    half: float

    def agrees(self, other: Number) -> bool:
        """Whether both can be the same number."""
        return abs(self.value - other.value) <= self.half + other.half + 1e-9 * abs(self.value)

    def near(self, value: float) -> bool:
        """Whether `value` lies in the interval, or within a few roundings."""
        return abs(self.value - value) <= self.half + 1e-10 * abs(value)

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper end."""
        return self.value - self.half, self.value + self.half


@dataclass(frozen=True)
class Rule:
    """A kind of bug: what it predicts for a block, and how it is told.

    Attributes
    ----------
    propose : callable
        ``propose(block, evidence)`` yields the hypotheses worth a trial, each with its residual; pure.
    tell : callable
        ``tell(group, evidence)`` puts hypotheses of one kind and number, of one block or more, in words.
    every_row : bool
        It can say nothing of some rows of a block; other rules are tried on a few rows of a large block first.
    """

    propose: Callable[[BlockEvidence, Evidence], Iterator[Hypothesis]]
    tell: Callable[[Sequence[Explained], Evidence], Finding]
    every_row: bool = True


@dataclass(frozen=True)
class Hypothesis:
    """One explanation of one block's error.

    Attributes
    ----------
    kind : Kind
        The finding kind it would become, or a family of kinds that `Rule.tell` refines.
    residual : float64, shape (m,)
        What it leaves of the rows.
    cost : float
        Digits its own choices and numbers take.
    number : Number or None
        The number it shares with the same bug in other blocks.
    paid : float
        Digits of `cost` that went for that number; paid once for all blocks that share it.
    tolerance : float64, shape (m,), or None
        Of the residual, where it is not that of the rows.
    pattern : bool
        It only says where the error is, not what it is: taken when nothing explains the error.
    cause : bool
        A pattern that also says what is wrong.
    alone : bool
        Told block by block, never of several at once.
    facts : mapping
        Numbers and words for `Rule.tell`.
    """

    kind: Kind
    residual: FloatArray = field(repr=False)
    cost: float = 0.0
    number: Number | None = None
    paid: float = 0.0
    tolerance: FloatArray | None = field(default=None, repr=False)
    pattern: bool = False
    cause: bool = False
    alone: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Explained:
    """A hypothesis that stands for a block, the digits it saves, and the share of the squared error that it explains.

    Exceptions are rows that it does not explain: measured across a kink, or wrong for a reason of their own.
    """

    block: BlockEvidence
    hypothesis: Hypothesis
    rule: Rule
    score: float
    share: float
    exceptions: int = 0

    @property
    def name(self) -> str:
        """Name of the block."""
        return self.block.name

    def with_facts(self, **facts: Any) -> Explained:
        """Return the same with more facts for its words."""
        hypothesis = dataclasses.replace(self.hypothesis, facts={**self.hypothesis.facts, **facts})
        return dataclasses.replace(self, hypothesis=hypothesis)

    @property
    def stands(self) -> bool:
        """Whether it is told: it saves enough, or it only says where the error is."""
        return self.hypothesis.pattern or self.score >= SCORE

    @property
    def rank(self) -> tuple[bool, bool, float]:
        """Better is larger: an explanation that stands before a pattern, more digits saved before fewer."""
        return not self.hypothesis.pattern and self.stands, self.hypothesis.pattern, self.score


def number_cost(number: Number, neutral: float, readings: Iterable[float] = ()) -> float:
    """Return the digits a fitted number takes: those it is known to, or the choice among likely readings."""
    digits = float(np.log10(1 + abs(number.value - neutral) / max(number.half, 1e-300)))
    readings = tuple(readings)
    for reading in readings:
        if number.near(reading):
            return min(digits, float(np.log10(2 + len(readings))))
    return digits


def explain(block: BlockEvidence, evidence: Evidence, rules: Sequence[Rule]) -> list[Explained]:
    """Return the hypotheses about one block that leave nothing of its error, best first; not all may stand."""
    if block.rows is not None and len(block.n) > 2 * TRIED:
        few = block.some(TRIED)
        rules = [rule for rule in rules if rule.every_row or _fitting(few, evidence, [rule])]
    return sorted(_fitting(block, evidence, rules), key=lambda one: one.rank, reverse=True)


def _fitting(block: BlockEvidence, evidence: Evidence, rules: Sequence[Rule]) -> list[Explained]:
    # An arbitrary error is written down as it is, or as the true derivative, whichever is shorter.
    smaller = np.where(np.abs(block.error) <= np.abs(block.n), block.error, block.n)
    wrong = np.abs(block.error) > block.tolerance
    written = _digits(smaller[wrong], block.tolerance[wrong]) + MEMBER * int(np.count_nonzero(wrong))
    squared = _clear(block.error, block.tolerance)
    allowed = LEFT * min(squared, max(_clear(block.n, block.tolerance), LEFT * squared))
    found = []
    for rule in rules:
        for hypothesis in rule.propose(block, evidence):
            tolerance = block.tolerance if hypothesis.tolerance is None else hypothesis.tolerance
            over = np.flatnonzero(np.abs(hypothesis.residual) > tolerance)
            excepted = np.zeros(0, dtype=np.int64)
            if 0 < len(over) <= EXCEPTIONS * len(block.n) and not hypothesis.pattern:
                excepted = over
            left = _clear(np.delete(hypothesis.residual, excepted), np.delete(tolerance, excepted))
            if left <= allowed:
                said = MEMBER * len(over) + math.log10(1 + len(block.n)) * len(excepted)
                score = written - _digits(hypothesis.residual, tolerance) - said - hypothesis.cost
                share = 1 - _clear(hypothesis.residual, tolerance) / squared if squared else 1.0
                found.append(Explained(block, hypothesis, rule, score, share, len(excepted)))
    return found


def _digits(residual: FloatArray, tolerance: FloatArray) -> float:
    ratio = np.abs(residual) / tolerance
    return float(np.log10(ratio[ratio > 1]).sum())


def _clear(residual: FloatArray, tolerance: FloatArray) -> float:
    clear = np.maximum(np.abs(residual) - tolerance, 0.0)
    return float(clear @ clear)
