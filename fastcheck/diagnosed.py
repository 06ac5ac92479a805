"""Reports with the findings that say why, before those about the measurement."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fastcheck.diagnosis import DataFacts, Evidence, UserFunctions, diagnose, evidence_of, facts_of
from fastcheck.diagnosis.evidence import BlockEvidence
from fastcheck.diagnosis.functions import integer_blocks
from fastcheck.differences import BlockDerivatives
from fastcheck.findings import Finding, Kind
from fastcheck.losses import Evaluator, own_loss
from fastcheck.losses.python import PythonLoss
from fastcheck.plans.evidence import of_directions
from fastcheck.plans.full import Full
from fastcheck.plans.locate import Located
from fastcheck.plans.probing import Probing
from fastcheck.plans.screen import Screened
from fastcheck.report.report import Report

__all__ = ["diagnosed", "diagnosed_screen"]

IN_A_SCREEN = 60  # evaluations that an experiment may ask for after a screen


def diagnosed(
    report: Report,
    plan: Full,
    found: Sequence[BlockDerivatives],
    loss: Callable[..., Any],
    gradient: Any,
    args: tuple[Any, ...],
) -> Report:
    """Return the report of coordinates measured one by one with the findings that say why.

    Parameters
    ----------
    report : Report
        Of a run whose blocks have their verdicts.
    plan : Full
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
    functions = _functions(plan, loss, gradient, args)
    with np.errstate(all="ignore"):  # an experiment may go where the loss has no value, and takes note of it
        evidence = dataclasses.replace(evidence, integers=integer_blocks(gradient, args, evaluator, evidence.wrong))
        findings = (*diagnose(evidence, functions), *report.findings)
    return dataclasses.replace(report, findings=findings, evaluations=evaluator.evaluations, seconds=plan.run.seconds)


def diagnosed_screen(
    report: Report,
    plan: Probing,
    screened: Sequence[Screened],
    located: Mapping[str, Located],
    facts: DataFacts,
    user: tuple[Callable[..., Any], Any, tuple[Any, ...]] | None = None,
) -> Report:
    """Return the report of a screen with the findings that say why, in place of those about single blocks.

    Parameters
    ----------
    report : Report
        Of the screen.
    plan : Probing
        What the screen worked with.
    screened : sequence of Screened
        The blocks and their directions.
    located : mapping of str to Located
        What was found out about those that failed.
    facts : DataFacts
        What is known about the data.
    user : tuple of loss, gradient and args, optional
        As given to `fastcheck.check`, for experiments.
    """
    blocks = tuple(_evidence(plan, one, located.get(one.block.name)) for one in screened if one.block.size)
    evidence = Evidence(blocks, facts)
    functions = _functions(plan, *user, affordable=IN_A_SCREEN) if user is not None else None
    candidates = {name: one.candidates for name, one in located.items()}
    places = {name: one.places for name, one in located.items() if one.places}
    with np.errstate(all="ignore"):
        findings = diagnose(evidence, functions, candidates=candidates, places=places)
    replaced = [f for one in located.values() for f in one.findings if f.kind is not Kind.NOT_LOCATED]
    kept = [f for f in report.findings if not _among(f, replaced)]
    evaluations = plan.evaluator.evaluations
    return dataclasses.replace(report, findings=(*findings, *kept), evaluations=evaluations, seconds=plan.run.seconds)


def _among(finding: Finding, findings: Sequence[Finding]) -> bool:
    return any(finding is one for one in findings)


def _evidence(plan: Probing, one: Screened, located: Located | None) -> BlockEvidence:
    """Return what is known of a block: of coordinates where its error was diagnosed from them, else of directions."""
    if located is not None and located.candidates:
        return dataclasses.replace(located.candidates[0].block, wrong=True)
    return of_directions(plan, one)


def _functions(
    plan: Full | Probing,
    loss: Callable[..., Any],
    gradient: Any,
    args: tuple[Any, ...],
    affordable: float = np.inf,
) -> UserFunctions | None:
    """Return what experiments may ask; None where the loss is no Python function, or the run was stopped."""
    evaluator: Evaluator = plan.evaluator
    if not isinstance(evaluator, PythonLoss) or plan.run.stopped is not None:
        return None
    own = own_loss(loss, args)
    return UserFunctions(*own, gradient, args, evaluator, plan.base, plan.analytic.flat, affordable)
