"""Why a gradient is wrong: evidence in, ranked findings out; one short pure rule for each kind of bug."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from fastcheck.diagnosis.diagnose import diagnose
from fastcheck.diagnosis.evidence import BlockEvidence, Coordinates, Directions, Evidence
from fastcheck.diagnosis.facts import Facts, facts_of
from fastcheck.diagnosis.measured import BAD, evidence_of
from fastcheck.differences import BlockDerivatives
from fastcheck.plans.full import Full
from fastcheck.report.report import Report

__all__ = [
    "BlockEvidence",
    "Coordinates",
    "Directions",
    "Evidence",
    "Facts",
    "diagnose",
    "diagnosed",
    "evidence_of",
    "facts_of",
]


def diagnosed(report: Report, plan: Full, found: Sequence[BlockDerivatives], facts: Facts) -> Report:
    """Return the report with the findings that say why, before those about the measurement.

    Parameters
    ----------
    report : Report
        Of a run whose blocks have their verdicts.
    plan : Full
        What the run worked with.
    found : sequence of BlockDerivatives
        The measurements, by block.
    facts : Facts
        What is known about the data.
    """
    if report.verdict not in BAD:
        return report
    verdicts = {name: block.verdict for name, block in report.blocks.items()}
    evaluator = plan.evaluator
    evidence = evidence_of(evaluator.layout, evaluator.theta, plan.analytic, found, verdicts, facts)
    findings = diagnose(evidence)
    return dataclasses.replace(report, findings=(*findings, *report.findings), seconds=plan.run.seconds)
