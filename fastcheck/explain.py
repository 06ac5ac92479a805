"""Why a gradient was refuted: the measurements of a run, as evidence for the diagnosis."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from fastcheck.context import Context, Outcome
from fastcheck.diagnosis import UserFunctions, diagnose
from fastcheck.diagnosis.evidence import BlockEvidence, Evidence
from fastcheck.findings import Finding, Kind
from fastcheck.judge.directions import BlockProbes
from fastcheck.judge.judge import Judged, Verdicts, is_diffuse
from fastcheck.losses import own_loss
from fastcheck.losses.python import PythonLoss
from fastcheck.replay import Replay
from fastcheck.strategies.evidence import facts_about, of_directions, of_estimates
from fastcheck.strategies.locate import Located
from fastcheck.strategies.screen import probing_of

__all__ = ["explained", "superseded"]

ONLY_WHERE = (Kind.FIRST_WRONG_LAYER, Kind.UNKNOWN)
PATIENCE = 2.0  # seconds, or as long as the run took before, that experiments may take
IN_A_SCREEN = 60  # evaluations that an experiment may ask for after a screen


def explained(outcome: Outcome, verdicts: Verdicts) -> tuple[Finding, ...]:
    """Return the findings that say why blocks were refuted, the most telling first; empty where none was."""
    groups: dict[int, tuple[Outcome, dict[str, Judged]]] = {}
    for name, one in verdicts.blocks.items():
        at = one.at or outcome
        groups.setdefault(id(at), (at, {}))[1][name] = one
    findings: list[Finding] = []
    for at, blocks in groups.values():
        if any(one.verdict.refuted for one in blocks.values()):
            before = at.context.evaluator.evaluations
            with np.errstate(all="ignore"):  # an experiment may go where the loss has no value, and takes note of it
                findings += _along(at, blocks) if at.directions else _one_by_one(at, blocks)
            if at is not outcome:
                outcome.context.evaluator.evaluations += at.context.evaluator.evaluations - before
    refuted = [one for one in verdicts.blocks.values() if one.verdict.refuted]
    if all(is_diffuse(one) for one in refuted) and all(finding.kind in ONLY_WHERE for finding in findings):
        return ()  # there is no place to look for
    if any(finding.kind in ONLY_WHERE for finding in findings):
        findings[:0] = _of_draws(outcome.context.replay)
    return tuple(findings)


def _of_draws(replay: Replay | None) -> list[Finding]:
    """Return what a random loss and its gradient draw says of an error that nothing else explains."""
    if replay is None or not replay.anew:
        return []
    said = (
        f"The gradient draws other numbers from {replay.sources} than the loss does: does the way back draw its masks "
        "anew, where it should use those of the way forward?"
    )
    return [Finding(Kind.DRAWN_ANEW, None, said, {"sources": replay.sources})]


def superseded(outcome: Outcome) -> list[Finding]:
    """Return the findings of a search for places that the diagnosis says better."""
    return [f for one in outcome.located.values() for f in one.findings if f.kind is not Kind.NOT_LOCATED]


def _one_by_one(outcome: Outcome, blocks: Mapping[str, Judged]) -> tuple[Finding, ...]:
    """Explain the errors of coordinates measured one by one."""
    context = outcome.context
    found = [one for one in outcome.estimates if one.block.name in blocks]
    rows = [of_estimates(context, one, blocks[one.block.name].verdict) for one in found]
    known = tuple(one for one in rows if len(one.n))
    evidence = Evidence(known, facts_about(context), integers=frozenset(context.analytic.integers))
    return diagnose(evidence, _functions(context))


def _along(outcome: Outcome, blocks: Mapping[str, Judged]) -> tuple[Finding, ...]:
    """Explain the errors along the directions of a screen, and of the coordinates located by them."""
    context = outcome.context
    located = {n: one for n, one in outcome.located.items() if n in blocks and blocks[n].verdict.refuted}
    screened = [one.screened for one in blocks.values() if one.screened is not None and one.block.size]
    sure = [one for one in screened if not one.failed or blocks[one.block.name].verdict.refuted]
    rows = tuple(_evidence(context, one, located.get(one.block.name)) for one in sure)
    evidence = Evidence(rows, facts_about(context), integers=frozenset(context.analytic.integers))
    candidates = {name: one.candidates for name, one in located.items()}
    places = {name: one.places for name, one in located.items() if one.places}
    return diagnose(evidence, _functions(context, IN_A_SCREEN), candidates=candidates, places=places)


def _evidence(context: Context, one: BlockProbes, located: Located | None) -> BlockEvidence:
    """Return what is known of a block: of coordinates where its error was diagnosed from them, else of directions."""
    if located is not None and located.candidates:
        return dataclasses.replace(located.candidates[0].block, wrong=True)
    return of_directions(probing_of(context), one)


def _functions(context: Context, affordable: float = np.inf) -> UserFunctions | None:
    """Return what experiments may ask; None where the loss is no Python function, or the run was stopped."""
    evaluator = context.evaluator
    if not isinstance(evaluator, PythonLoss) or context.run.stopped is not None:
        return None
    own, run = own_loss(context.loss, context.args), context.run
    until = min(run.budget or math.inf, run.seconds + max(PATIENCE, run.seconds))
    claimed, over = context.analytic.flat, lambda: run.stopped is not None or run.seconds > until
    return UserFunctions(*own, context.gradient, context.args, evaluator, context.base, claimed, affordable, over)
