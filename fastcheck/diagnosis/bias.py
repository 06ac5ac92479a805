"""A bias gradient summed over the units of each sample where it should be over the samples, and resized to fit."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fastcheck.arrays import FloatArray
from fastcheck.diagnosis.evidence import BlockEvidence, Evidence
from fastcheck.diagnosis.functions import UserFunctions
from fastcheck.diagnosis.samples import MOST, take
from fastcheck.findings import Finding, Kind

__all__ = ["resized_bias"]

NEAR = 1e-5  # of the gradient that may be left
ENTRIES = 3  # of a bias, at least, that must agree


def resized_bias(functions: UserFunctions, evidence: Evidence) -> Finding | None:
    """Ask what each sample alone does to all units of a bias together: entry i of the wrong gradient, for sample i."""
    m, wrong = evidence.facts.batch, evidence.wrong
    if not 2 <= m <= MOST or not functions.data or functions.affordable < 2 * m:
        return None
    for block in wrong:
        if not ENTRIES <= block.block.size == max(block.block.shape, default=0):
            continue
        v = np.zeros(len(functions.theta))
        v[block.block.slice] = 1.0
        count = min(m, block.block.size)
        sums = np.array([functions.slope(functions.on(take(functions.data, i, m)), v) for i in range(count)])
        functions.evaluator.evaluations += 2 * count
        if np.isfinite(sums).all() and any(_equal(block, predicted) for predicted in _resized(sums, block, m)):
            return Finding(
                Kind.BIAS_RESIZED,
                block.name,
                f"gradient of {block.name} holds, entry by entry, the sums over all its units for one sample after the "
                "other, resized to fit: summed over the wrong axis. Sum over the samples instead.",
                {"blocks": [block.name], "short": "summed over the wrong axis and resized"},
            )
    return None


def _resized(sums: FloatArray, block: BlockEvidence, m: int) -> Iterator[FloatArray]:
    """Yield the sums repeated, or filled up with zeros, of a mean over samples or of their sum."""
    size = block.block.size
    for share in (1 / m, 1.0):
        yield share * np.resize(sums, size)
        yield share * np.concatenate([sums, np.zeros(size - len(sums))])


def _equal(block: BlockEvidence, predicted: FloatArray) -> bool:
    size = float(np.linalg.norm(predicted))
    return size > 0 and float(np.linalg.norm(block.g - predicted)) <= NEAR * size
