"""From a run's measurements to evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fastcheck.arrays import FloatArray
from fastcheck.diagnosis.data_facts import DataFacts
from fastcheck.diagnosis.evidence import BlockEvidence, Coordinates, Evidence
from fastcheck.estimates import Estimates, Status
from fastcheck.gradients import Analytic
from fastcheck.judge.verdict import Verdict
from fastcheck.parameters import Parameters
from fastcheck.thresholds import GRADIENT_ROUNDING

__all__ = ["evidence_of"]

UNUSABLE = (Status.KINK, Status.JUMP, Status.UNRESOLVED)


def evidence_of(
    layout: Parameters,
    theta: FloatArray,
    analytic: Analytic,
    found: Sequence[Estimates],
    verdicts: Mapping[str, Verdict],
    facts: DataFacts,
) -> Evidence:
    """Return the evidence of coordinates measured one by one; those at a kink or a jump are left out.

    Parameters
    ----------
    layout : Parameters
        The blocks.
    theta : float64, shape (P,)
        The parameters.
    analytic : Analytic
        The user's gradient.
    found : sequence of Estimates
        What was measured, by block.
    verdicts : mapping of str to Verdict
        What the comparison said of each block.
    facts : DataFacts
        What is known about the data.
    """
    blocks = [
        _block(block, theta, analytic, float(analytic.eps[layout.number(block.block)]), verdicts) for block in found
    ]
    return Evidence(tuple(block for block in blocks if len(block.n)), facts, integers=frozenset(analytic.integers))


def _block(
    found: Estimates, theta: FloatArray, analytic: Analytic, eps: float, verdicts: Mapping[str, Verdict]
) -> BlockEvidence:
    block = found.block
    usable = np.isfinite(found.value)
    for place, resolved in found.looks.items():
        if resolved.status in UNUSABLE:
            usable[found.row(place)] = False
    rows = None
    if found.coordinates is not None or not usable.all():
        rows = found.places(np.flatnonzero(usable)) - block.start
    g = analytic.flat[block.slice]
    own = GRADIENT_ROUNDING * eps * float(np.abs(g).max(initial=0.0))
    tolerance = found.rounding[usable].astype(np.float64) + found.truncation[usable] + own
    verdict = verdicts[block.name]
    return BlockEvidence(
        block,
        g,
        theta[block.slice],
        Coordinates(rows),
        found.value[usable],
        np.maximum(tolerance, np.finfo(np.float64).tiny),
        wrong=verdict.refuted,
        checked=verdict is not Verdict.INCONCLUSIVE,
    )
