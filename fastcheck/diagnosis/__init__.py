"""Why a gradient is wrong: evidence in, ranked findings out; one short pure rule for each kind of bug."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastcheck.context import Context
from fastcheck.diagnosis.diagnose import diagnose
from fastcheck.diagnosis.evidence import BlockEvidence, Coordinates, Directions, Evidence
from fastcheck.diagnosis.facts import Facts, facts_of
from fastcheck.diagnosis.lab import Lab
from fastcheck.diagnosis.measured import evidence_of
from fastcheck.diagnosis.screened import diagnosed_screen
from fastcheck.differences import BlockDerivatives
from fastcheck.losses import own_loss
from fastcheck.losses.python import PythonLoss
from fastcheck.report.report import Report

__all__ = [
    "BlockEvidence",
    "Coordinates",
    "Directions",
    "Evidence",
    "Facts",
    "Lab",
    "diagnose",
    "diagnosed",
    "diagnosed_screen",
    "evidence_of",
    "facts_of",
]


def diagnosed(
    report: Report,
    plan: Context,
    found: Sequence[BlockDerivatives],
    loss: Callable[..., Any],
    gradient: Any,
    args: tuple[Any, ...],
) -> Report:
    """Return the report with the findings that say why, before those about the measurement.

    Parameters
    ----------
    report : Report
        Of a run whose blocks have their verdicts.
    plan : Context
        What the run worked with.
    found : sequence of BlockDerivatives
        The measurements, by block.
    loss, gradient, args
        As given to `fastcheck.check`.
    """
    if not report.verdict.refuted:
        return report
    evaluator, layout = plan.evaluator, plan.evaluator.layout
    verdicts = {name: block.verdict for name, block in report.blocks.items()}
    facts = facts_of(loss, args, [block.shape for block in layout.blocks])
    evidence = evidence_of(layout, evaluator.theta, plan.analytic, found, verdicts, facts)
    lab = None
    if isinstance(evaluator, PythonLoss) and plan.run.stopped is None:
        lab = Lab(*own_loss(loss, args), gradient, args, evaluator, plan.base, plan.analytic.flat)
    with np.errstate(all="ignore"):  # an experiment may go where the loss has no value, and takes note of it
        findings = (*diagnose(evidence, lab), *report.findings)
    return dataclasses.replace(report, findings=findings, evaluations=evaluator.evaluations, seconds=plan.run.seconds)
