"""A softmax whose scores are shifted in one place: adding c to all of them changes the gradient, not the loss."""

from __future__ import annotations

import math

import numpy as np

from fastcheck.diagnosis.evidence import Evidence
from fastcheck.diagnosis.functions import UserFunctions
from fastcheck.diagnosis.wording import about_wrong
from fastcheck.findings import Finding, Kind

__all__ = ["softmax_shift"]

SAME = 1e-9  # relative change of a loss that does not see the shift
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
        loss = float(functions.evaluator.along(0, steps[1], np.ones(1))[0])
        if not abs(loss - functions.base) <= SAME * abs(functions.base):
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
