"""A softmax taken for independent outputs, without its labels, or shifted in one place.

Scores shifted alike change nothing, so their gradients sum to zero; adding c to all of them where one part of the
gradient does not shift changes the gradient, not the loss.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from fastcheck.diagnosis.evidence import BlockEvidence, Evidence
from fastcheck.diagnosis.functions import UserFunctions
from fastcheck.diagnosis.hypothesis import Explained, Hypothesis, Rule
from fastcheck.diagnosis.wording import about_wrong, named, numbers, only
from fastcheck.findings import Finding, Kind

__all__ = ["SOFTMAX", "softmax_shift"]

CLASSES = 4  # entries, at least, whose signs tell
SUM = 1e-6  # relative distance of a sum of probabilities from 1


def _softmax(block: BlockEvidence, evidence: Evidence) -> Iterator[Hypothesis]:
    """Yield a bias of scores whose measured gradient sums to zero, while the analytic one is nowhere positive.

    Of a Jacobian's diagonal p (1 - p) alone, the true class is left with its p - 1 < 0, the others with nothing.
    """
    if not block.whole or len(block.n) < CLASSES or max(block.block.shape, default=0) != block.block.size:
        return
    if not np.isfinite(block.n).all() or block.name != evidence.blocks[-1].name:
        return
    g, n = block.g, block.n
    sums_to_zero = abs(n.sum()) <= block.tolerance.sum() and n.max() > 0 > n.min()
    if sums_to_zero and np.all(g <= 0) and abs(g.sum()) > 1e-3 * np.linalg.norm(g):
        yield Hypothesis(Kind.SOFTMAX, np.zeros(len(n)), pattern=True, cause=True)


def _tell(group: Sequence[Explained], evidence: Evidence) -> Finding:
    return Finding(
        Kind.SOFTMAX,
        only(group),
        f"measured gradient of {group[0].name} sums to zero over its entries, as it does behind a softmax; the "
        "analytic one is nowhere positive. The cross terms -p_i p_j of the softmax's Jacobian are missing? With "
        "cross-entropy the step back is p - y.",
        numbers(group, total=float(group[0].block.g.sum()), short="softmax without cross terms?"),
    )


def _target(block: BlockEvidence, evidence: Evidence) -> Iterator[Hypothesis]:
    """Yield an error that is the share of each class: p stands where p - y belongs.

    Without the labels the sums tell: the measured gradient's is zero, that of the probabilities 1, or m.
    """
    size, counts = block.block.size, np.array(evidence.facts.counts)
    if size < 2 or max(block.block.shape, default=0) != size:
        return
    m = evidence.facts.batch
    if len(counts) == size:
        for share in (1 / m, 1.0):
            yield Hypothesis(Kind.TARGET_MISSING, block.error - block.view.of(share * counts), 1.0)
    if not block.whole or not np.isfinite(block.n).all() or not np.all(block.g > 0):
        return
    balanced = abs(block.n.sum()) <= block.tolerance.sum()
    if balanced and any(abs(block.g.sum() - total) <= SUM * total for total in (1.0, float(m)) if total):
        yield Hypothesis(Kind.TARGET_MISSING, np.zeros(size), pattern=True, cause=True)


def _tell_target(group: Sequence[Explained], evidence: Evidence) -> Finding:
    return Finding(
        Kind.TARGET_MISSING,
        only(group),
        f"gradient of {named(group)} is that of the probabilities alone: "
        f"{SUMS if group[0].hypothesis.pattern else EXACT}. {Kind.TARGET_MISSING.remedy}",
        numbers(group, short="the labels are not subtracted"),
    )


EXACT = "it differs from the measured one by the share of each class among the labels"
SUMS = "its entries are positive and sum to 1 for each sample, the measured ones to zero"
SOFTMAX = (Rule(_target, _tell_target), Rule(_softmax, _tell))


# -- an experiment: all scores are shifted ----------------------------------------------------------------------------


SAME_LOSS = 1e-9  # relative change of a loss that does not see the shift
NEAR = 1e-6  # relative to the change of the gradient that the shift makes
TRIED = 4  # biases, the last ones first


def softmax_shift(functions: UserFunctions, evidence: Evidence) -> Finding | None:
    """Ask whether the gradient changes by e^c or e^-c with a constant c that is added to all scores.

    With p = exp(z - max z) / sum exp(z), or with the shift in the denominator alone, it is affine in that; the loss,
    and with it the true gradient, does not change.
    """
    if not callable(functions.gradient):
        return None
    vectors = [b for b in functions.evaluator.layout.blocks if 1 < b.size == max(b.shape, default=0)]
    for block in reversed(vectors[-TRIED:]):
        steps = []
        for c in (math.log(2), math.log(4)):
            step = np.zeros(len(functions.theta))
            step[block.slice] = c
            steps.append(step)
        loss = functions.value(functions.evaluator, steps[1])
        if not abs(loss - functions.base) <= SAME_LOSS * abs(functions.base):
            continue
        at = [functions.gradient_at(functions.theta + step) for step in steps]
        if at[0] is None or at[1] is None:
            continue
        first, second = at[0] - functions.claimed, at[1] - at[0]
        size = float(np.linalg.norm(first))
        if not size > NEAR * float(np.linalg.norm(functions.claimed)):
            continue
        for ratio, where in ((0.5, "numerator"), (2.0, "denominator")):
            if float(np.linalg.norm(second - ratio * first)) <= NEAR * size:
                return about_wrong(
                    Kind.SOFTMAX_SHIFT,
                    evidence,
                    f"A constant c added to all of {block.name} leaves the loss as it is, but a part of the gradient "
                    f"changes by a factor of exp({'-' if ratio < 1 else ''}c): the largest score is subtracted in the "
                    f"{where} of the softmax only?",
                    scores=block.name,
                    short="softmax shifted in one place",
                )
    return None
