"""The diagnosis of a screen: the directions that found an error also tell what it is, without another evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from fastcheck.arrays import FloatArray
from fastcheck.context import Context
from fastcheck.diagnosis.diagnose import diagnose
from fastcheck.diagnosis.evidence import BlockEvidence, Evidence
from fastcheck.diagnosis.facts import Facts
from fastcheck.directions import CHUNK, gaussian
from fastcheck.findings import Kind
from fastcheck.judge.directions import Screened
from fastcheck.plans.locate import Located
from fastcheck.plans.probing import State
from fastcheck.report.report import Report
from fastcheck.thresholds import GRADIENT_ROUNDING

__all__ = ["Drawn", "diagnosed_screen"]

THROUGHOUT = (Kind.BLOCK, Kind.NOT_LOCATED)
"""Kinds of finding about an error that fills its block; of others the place is known, and that is the finding."""


@dataclasses.dataclass(frozen=True)
class Drawn:
    """Rows that are products with the Gaussian directions of a screen, drawn again whenever they are needed.

    Attributes
    ----------
    seed, number : int
        Of the run, and of the block in the layout.
    probes : tuple of int
        Numbers of the directions.
    """

    seed: int
    number: int
    probes: tuple[int, ...]

    def of(self, vector: FloatArray) -> FloatArray:
        """See `fastcheck.diagnosis.evidence.View.of`."""
        total = np.zeros(len(self.probes))
        for start in range(0, len(vector), CHUNK):
            part = vector[start : start + CHUNK]
            for k, probe in enumerate(self.probes):
                total[k] += gaussian(self.seed, self.number, probe, start, start + len(part)) @ part
        return total


def diagnosed_screen(
    report: Report, plan: Context, screened: Sequence[Screened], located: Mapping[str, Located], facts: Facts
) -> Report:
    """Return the report of a screen with the findings that say why, in place of those that say "all of the block".

    Parameters
    ----------
    report : Report
        Of the screen.
    plan : Context
        What the screen worked with.
    screened : sequence of Screened
        The blocks and their directions.
    located : mapping of str to Located
        What was located in those that failed.
    facts : Facts
        What is known about the data.
    """
    blocks = [_evidence(plan, one, located.get(one.block.name)) for one in screened if one.block.size]
    findings = diagnose(Evidence(tuple(blocks), facts))
    told = {name for finding in findings if "short" in finding.evidence for name in finding.evidence["blocks"]}
    kept = [f for f in report.findings if f.kind not in THROUGHOUT or f.block not in told]
    return dataclasses.replace(report, findings=(*findings, *kept), seconds=plan.run.seconds)


def _evidence(plan: Context, one: Screened, located: Located | None) -> BlockEvidence:
    block = one.block
    g, theta = plan.analytic.flat[block.slice], plan.evaluator.theta[block.slice]
    probes = [probe for probe in one.probes if probe.state in (State.CLEAN, State.REPEATED)]
    own = GRADIENT_ROUNDING * float(plan.analytic.eps[one.number]) * float(np.linalg.norm(g))
    elsewhere = located is not None and any(finding.kind not in THROUGHOUT for finding in located.findings)
    return BlockEvidence(
        block,
        g,
        theta,
        Drawn(plan.seed, one.number, tuple(probe.number for probe in probes)),
        np.array([probe.slope for probe in probes], dtype=np.float64),
        np.array([probe.uncertainty for probe in probes], dtype=np.float64) + own + np.finfo(np.float64).tiny,
        wrong=one.failed and not elsewhere,
        checked=not one.silent and not elsewhere,
    )
