"""Verdicts and findings -> the report, built once."""

from __future__ import annotations

import functools
import inspect
import math
import os
import platform
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import numpy as np

from fastcheck import __version__
from fastcheck.arrays import FloatArray
from fastcheck.context import Outcome
from fastcheck.estimates import Estimates
from fastcheck.findings import Finding, Kind
from fastcheck.judge.coordinates import Judge, excess_of_one
from fastcheck.judge.judge import Judged, Verdicts
from fastcheck.judge.verdict import Verdict
from fastcheck.losses.batched import Batched
from fastcheck.measure.ladder import Ladder
from fastcheck.measure.noise import Noise
from fastcheck.parameters import Block, Parameters
from fastcheck.report.report import BlockReport, Coordinate, Report, Sweep, Taylor
from fastcheck.settings import Settings

__all__ = ["conclude", "record", "unmeasurable"]

LISTED = 1000  # coordinates that a report lists; the counts in its blocks are complete
FATAL = (
    Kind.RANDOM_LOSS,
    Kind.STATEFUL_LOSS,
    Kind.COUNTING_LOSS,
    Kind.GRADIENT_CHANGES_LOSS,
    Kind.LOSS_CHANGES_PARAMS,
    Kind.LOSS_CHANGES_ARGS,
)


def conclude(outcome: Outcome, verdicts: Verdicts, findings: Iterable[Finding], taylor: Taylor | None = None) -> Report:
    """Return the report of a run; the findings say why, where, and what it noticed, the most telling first."""
    context, layout = outcome.context, outcome.context.layout
    if verdicts.verdict.refuted and context.replay is not None and context.replay.mean is not None:
        found = (context.replay.mean, *context.preflight.findings)
        return unmeasurable(layout, found, context.evaluator.evaluations, context.run.seconds, context.settings)
    measured = sum(int(np.count_nonzero(np.isfinite(found.value))) for found in outcome.estimates)
    if outcome.directions:
        measured = sum(map(len, outcome.estimates))
    blocks = {block.name: _block(block, verdicts.blocks.get(block.name), context.judge) for block in layout.blocks}
    settings = _settings(context.settings, layout, context.noise) | dict(outcome.settings)
    if outcome.steps is not None:
        settings["steps"] = {b.name: float(h) for b, h in zip(layout.blocks, outcome.steps.per_block, strict=True)}
    wrong = _wrong(outcome, verdicts)
    return Report(
        verdict=verdicts.verdict,
        difference=verdicts.difference,
        uncertainty=verdicts.uncertainty,
        bound=verdicts.bound,
        blocks=blocks,
        wrong=wrong,
        findings=tuple(findings),
        coverage=measured / layout.size,
        evaluations=context.evaluator.evaluations,
        seconds=context.run.seconds,
        settings=settings,
        numerical=_numerical(outcome),
        taylor=taylor,
        sweep=_sweep(outcome, verdicts, wrong[0]) if wrong else None,
    )


def unmeasurable(
    layout: Parameters, findings: Iterable[Finding], evaluations: int, seconds: float, settings: Settings
) -> Report:
    """Return the report of a loss that is no function of theta: inconclusive, with the reason first."""
    nan = math.nan
    return Report(
        verdict=Verdict.INCONCLUSIVE,
        difference=nan,
        uncertainty=nan,
        bound=nan,
        blocks={block.name: _block(block, None, None) for block in layout.blocks},
        wrong=(),
        findings=tuple(sorted(findings, key=lambda finding: finding.kind not in FATAL)),
        coverage=0.0,
        evaluations=evaluations,
        seconds=seconds,
        settings=_settings(settings, layout, None),
    )


def _settings(settings: Settings, layout: Parameters, noise: Noise | None) -> dict[str, Any]:
    """Return all that is needed to repeat the run, and what the run measured first."""
    data = settings.as_dict() | {"version": __version__, "size": layout.size, "listed": LISTED}
    return data if noise is None else data | {"noise": noise.level}


def _numerical(outcome: Outcome) -> Any:
    """Return the measured gradient as a tree like params, if every coordinate was measured; else None."""
    layout, found = outcome.context.layout, outcome.estimates
    if outcome.directions or len(found) != len(layout.blocks) or any(one.coordinates is not None for one in found):
        return None
    vector = found[0].value.base  # the blocks were measured into one vector, where there is one
    if vector is None or vector.shape != (layout.size,):
        vector = np.empty(layout.size)
        for one in found:
            vector[one.block.slice] = one.value
    return layout.unflatten(vector)


def _block(block: Block, judged: Judged | None, judge: Judge | None) -> BlockReport:
    if judged is not None and judged.constant:
        return BlockReport(block.shape, block.size, 0, 0.0, 0.0, 0.0, math.inf, judged.verdict)
    if judged is not None and judge is not None and judged.at is not None:
        judge = judged.at.context.judge
    if judged is not None and judge is not None and judged.screened is not None and judged.screened.probes:
        return _of_directions(judged)
    if judged is not None and judge is not None and judged.compared is not None:
        return _of_coordinates(judged, judge)
    return BlockReport(block.shape, block.size, 0, math.nan, math.nan, math.nan, math.inf, Verdict.INCONCLUSIVE)


def _of_coordinates(judged: Judged, judge: Judge) -> BlockReport:
    block, compared = judged.block, judged.compared
    assert compared is not None
    norms = compared.norms
    return BlockReport(
        shape=block.shape,
        size=block.size,
        checked=norms.count,
        difference=norms.difference,
        bound=norms.bound(judge.z) if norms.count == block.size else math.nan,
        uncertainty=norms.uncertainty(judge.z) / norms.scale if norms.scale else math.nan,
        detectable=judge.detectable(compared),
        verdict=judged.verdict,
        wrong=len(compared.wrong),
        kinks=compared.kinks,
    )


def _of_directions(judged: Judged) -> BlockReport:
    one, compared = judged.screened, None if judged.doubtful else judged.compared
    assert one is not None
    return BlockReport(
        shape=one.block.shape,
        size=one.block.size,
        checked=judged.compared.norms.count if judged.compared else 0,
        difference=one.difference,
        bound=one.stretch * one.bound if math.isfinite(one.bound_of_error) else math.nan,
        uncertainty=one.spread,
        detectable=one.stretch * one.detectable if not (one.inconclusive or judged.doubtful) else math.inf,
        verdict=judged.verdict,
        wrong=len(compared.wrong) if compared else 0,
        kinks=one.kinks,
    )


def _wrong(outcome: Outcome, verdicts: Verdicts) -> tuple[Coordinate, ...]:
    """Return the wrong coordinates, worst first; where they are too many, each block keeps its share of the list."""
    bad = []
    for judged in verdicts.blocks.values():
        if judged.compared is not None and len(judged.compared.wrong) and not judged.doubtful:
            at = judged.at or outcome
            found = next(found for found in at.estimates if found.block is judged.block)
            bad.append((found, judged.compared.wrong.tolist(), at.context.analytic.flat))
    share = LISTED // max(1, len(bad))
    total = sum(len(places) for _, places, _ in bad)
    listed = [
        _coordinate(found, place, analytic)
        for found, places, analytic in bad
        for place in places[: share if total > LISTED else None]
    ]
    return tuple(sorted(listed, key=lambda one: -_excess(one)))


def _sweep(outcome: Outcome, verdicts: Verdicts, worst: Coordinate) -> Sweep | None:
    """Return how the worst coordinate looked at each step; None where that was not kept."""
    judged = verdicts.blocks[worst.block]
    context = (judged.at or outcome).context
    kept = context.run.ladders.get((id(context.evaluator), judged.block.coordinate(worst.index)))
    if kept is None:
        return None
    falling = np.argsort(-(kept[0] + kept[1]), kind="stable")
    ahead, behind, plus, minus = (each[falling] for each in kept)
    ladder = Ladder(ahead, behind, plus, minus, context.base, np.full(len(ahead), context.loss_error))
    with np.errstate(all="ignore"):
        columns = (ahead + behind) / 2, ladder.central, ladder.rounding
        told = np.isfinite(ladder.central) & (ahead > 0) & (behind > 0)
    return Sweep(worst.block, worst.index, *(tuple(each[told].tolist()) for each in columns))


def _coordinate(found: Estimates, place: int, analytic: FloatArray) -> Coordinate:
    row = found.row(place)
    u = float(found.rounding[row]) + float(found.truncation[row])
    index = found.block.multi_index(place)
    return Coordinate(found.block.name, index, float(analytic[place]), float(found.value[row]), u)


def _excess(c: Coordinate) -> float:
    return excess_of_one(abs(c.analytic - c.numerical), c.uncertainty, abs(c.analytic) + abs(c.numerical))


# -- the call, the loss, the day, the versions ------------------------------------------------------------------------


LIBRARIES = ("numpy", "scipy", "numba", "torch", "jax")  # told where they are loaded


def record(
    loss: Callable[..., Any], args: tuple[Any, ...], call: str = "check(loss, gradient, params"
) -> dict[str, Any]:
    """Return the entries of a report's settings that do not come from the settings of the check.

    `loss` and `args` are the user's; `call` is the call up to the options of all checks.
    """
    name, where = _source(loss)
    return {
        "call": call + (", args=args" if args else ""),
        "loss": name,
        "where": where,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "versions": {"python": platform.python_version()}
        | {
            name: str(sys.modules[name].__version__)
            for name in LIBRARIES
            if hasattr(sys.modules.get(name), "__version__")
        },
    }


def _source(loss: Callable[..., Any]) -> tuple[str, str]:
    """Return the name of a function or of a callable's class, and its file and line; empty where there is none."""
    while isinstance(loss, (functools.partial, Batched)):
        loss = loss.func if isinstance(loss, functools.partial) else loss.loss
    loss = inspect.unwrap(loss)
    named = loss if hasattr(loss, "__qualname__") else type(loss)
    if str(getattr(named, "__module__", "")).startswith("fastcheck.") and named is not loss:
        return "", ""  # a wrapper of our own
    function = loss if named is loss else type(loss).__call__
    code = getattr(function, "__code__", None)
    if code is None or not os.path.isfile(code.co_filename):  # compiled, or typed at a prompt
        return named.__qualname__, ""
    file = code.co_filename.removeprefix(os.path.join(os.getcwd(), ""))
    return named.__qualname__, f"{file}:{code.co_firstlineno}"
