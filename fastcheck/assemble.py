"""Comparisons and findings -> the report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastcheck import __version__
from fastcheck.arrays import FloatArray
from fastcheck.compare import BlockComparison, Judge, Norms
from fastcheck.differences import BlockDerivatives
from fastcheck.findings import Kind
from fastcheck.noise import Noise
from fastcheck.observations import observations
from fastcheck.parameters import Block, Parameters
from fastcheck.plans.full import Full
from fastcheck.preflight import Preflight
from fastcheck.report.report import BlockReport, Coordinate, Report
from fastcheck.settings import Settings
from fastcheck.steps import Steps
from fastcheck.verdict import Verdict

__all__ = ["assemble", "coordinates_of", "settings_of", "unmeasurable"]

LISTED = 1000  # coordinates that a report lists; the counts in its blocks are complete


def assemble(
    layout: Parameters,
    chosen: Sequence[Block],
    seen: Preflight,
    plan: Full,
    found: Sequence[BlockDerivatives],
    settings: Settings,
) -> Report:
    """Compare what was measured with the analytic gradient, and write down what it means."""
    judge, run = plan.judge, plan.run
    analytic = seen.analytic
    compared = {
        block.block.name: judge.compare(
            block, analytic.flat[block.block.slice], float(analytic.eps[number]), float(analytic.doubt[number])
        )
        for block in found
        for number in [layout.blocks.index(block.block)]
    }
    norms, verdict = judge.whole(compared.values())
    measured = sum(len(block) - compared[block.block.name].missing for block in found)
    if run.stopped and verdict.passed:
        verdict = Verdict.INCONCLUSIVE
    blocks = {block.name: _block_report(block, compared.get(block.name), judge) for block in layout.blocks}
    complete = all(block.coordinates is None for block in found) and len(chosen) == len(layout.blocks)
    return Report(
        verdict=verdict,
        difference=norms.difference,
        uncertainty=_relative(norms.uncertainty(judge.z), norms.scale),
        bound=_bound(norms, judge),
        blocks=blocks,
        wrong=coordinates_of(compared, found, seen),
        findings=(*seen.findings, *observations(compared, found, plan)),
        coverage=measured / layout.size,
        evaluations=plan.evaluator.evaluations,
        seconds=run.seconds,
        settings=settings_of(settings, layout, plan.noise, plan.steps),
        numerical=layout.unflatten(_numerical(layout, found)) if complete else None,
    )


def unmeasurable(
    layout: Parameters,
    chosen: Sequence[Block],
    seen: Preflight,
    evaluations: int,
    seconds: float,
    settings: Settings,
) -> Report:
    """Return the report of a loss that is no function of theta: inconclusive, with the reason first."""
    fatal = sorted(seen.findings, key=lambda finding: finding.kind not in _FATAL)
    return Report(
        verdict=Verdict.INCONCLUSIVE,
        difference=math.nan,
        uncertainty=math.nan,
        bound=math.nan,
        blocks={block.name: _block_report(block, None, None) for block in layout.blocks},
        wrong=(),
        findings=tuple(fatal),
        coverage=0.0,
        evaluations=evaluations,
        seconds=seconds,
        settings=settings_of(settings, layout, None, None),
    )


def _numerical(layout: Parameters, found: Sequence[BlockDerivatives]) -> FloatArray:
    """Return the measured gradient, shape (P,): the vector that the blocks were measured into, where there is one."""
    vector = found[0].value.base
    if vector is None or vector.shape != (layout.size,):
        vector = np.empty(layout.size)
        for block in found:
            vector[block.block.slice] = block.value
    return vector


_FATAL = (
    Kind.RANDOM_LOSS,
    Kind.STATEFUL_LOSS,
    Kind.COUNTING_LOSS,
    Kind.GRADIENT_CHANGES_LOSS,
    Kind.LOSS_CHANGES_PARAMS,
    Kind.LOSS_CHANGES_ARGS,
)


def _block_report(block: Block, compared: BlockComparison | None, judge: Judge | None) -> BlockReport:
    if compared is None or judge is None:
        return BlockReport(block.shape, block.size, 0, math.nan, math.nan, math.nan, math.inf, Verdict.INCONCLUSIVE)
    norms = compared.norms
    uncertainty = norms.uncertainty(judge.z)
    return BlockReport(
        shape=block.shape,
        size=block.size,
        checked=norms.count,
        difference=norms.difference,
        bound=_bound(norms, judge) if norms.count == block.size else math.nan,
        uncertainty=_relative(uncertainty, norms.scale),
        detectable=_detectable(compared, judge),
        verdict=compared.verdict,
        wrong=len(compared.wrong),
        kinks=compared.kinks,
    )


def _bound(norms: Norms, judge: Judge) -> float:
    """Return the largest relative error that the measurements leave possible: (||g - n|| + ||u||) / ||g||."""
    if not norms.count or not norms.analytic:
        return math.nan
    return (math.sqrt(norms.error) + norms.uncertainty(judge.z)) / math.sqrt(norms.analytic)


def _relative(value: float, scale: float) -> float:
    return value / scale if scale else math.nan


def _detectable(compared: BlockComparison, judge: Judge) -> float:
    """Return the smallest relative error that would have been called one."""
    size = math.sqrt(compared.norms.analytic)
    if not size or compared.silent:
        return math.inf
    return 2 * judge.tolerance + (2 * compared.norms.uncertainty(judge.z) + compared.doubt + compared.open) / size


def coordinates_of(
    compared: dict[str, BlockComparison], found: Sequence[BlockDerivatives], seen: Preflight
) -> tuple[Coordinate, ...]:
    """Return the wrong coordinates, worst first; where they are too many, each block keeps its share of the list."""
    bad = [block for block in found if len(compared[block.block.name].wrong)]
    share = LISTED // max(1, len(bad))
    total = sum(len(compared[block.block.name].wrong) for block in bad)
    listed: list[tuple[float, Coordinate]] = []
    for block in bad:
        for place in compared[block.block.name].wrong[: share if total > LISTED else None].tolist():
            row = block.row(place)
            g, n = float(seen.analytic.flat[place]), float(block.value[row])
            u = float(block.rounding[row]) + float(block.truncation[row])
            excess = max(0.0, abs(g - n) - u) / (abs(g) + abs(n))
            listed.append((excess, Coordinate(block.block.name, block.block.multi_index(place), g, n, u)))
    listed.sort(key=lambda item: -item[0])
    return tuple(coordinate for _, coordinate in listed)


def settings_of(settings: Settings, layout: Parameters, noise: Noise | None, steps: Steps | None) -> dict[str, Any]:
    """Return all that is needed to repeat the run, and what the run chose itself."""
    data = settings.as_dict() | {"version": __version__, "size": layout.size, "listed": LISTED}
    if noise is not None:
        data["noise"] = noise.level
    if steps is not None:
        data["steps"] = {b.name: float(h) for b, h in zip(layout.blocks, steps.per_block, strict=True)}
    return data
