"""The verdict of every block and of the run, from whatever a strategy measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fastcheck import thresholds
from fastcheck.judge.coordinates import Comparison
from fastcheck.judge.directions import BlockProbes
from fastcheck.judge.verdict import Verdict, worst
from fastcheck.measure.ladder import State
from fastcheck.parameters import Block

if TYPE_CHECKING:
    from fastcheck.context import Context, Outcome

__all__ = ["Judged", "Verdicts", "is_diffuse", "judge"]


@dataclass(frozen=True)
class Judged:
    """One block with its verdict, and what it rests on.

    Attributes
    ----------
    block : Block
        The block.
    verdict : Verdict
        INCONCLUSIVE marks an unchecked block.
    compared : Comparison or None
        Of the coordinates measured one by one.
    screened : BlockProbes or None
        The directions over it, where they decide.
    doubtful : bool
        An error stands out along directions, in a loss or a gradient of few digits that could do it.
    at : Outcome or None
        What was measured at a generic point nearby, where the block was decided there.
    constant : bool
        The loss does not depend on the block anywhere, and its gradient is zero.
    """

    block: Block
    verdict: Verdict
    compared: Comparison | None = None
    screened: BlockProbes | None = None
    doubtful: bool = False
    at: Outcome | None = None
    constant: bool = False

    @property
    def inconclusive(self) -> bool:
        """Whether its derivative could not be told from zero, or from anything else."""
        if self.screened is not None:
            return self.screened.inconclusive
        return self.compared is not None and not self.compared.resolved and self.verdict is Verdict.INCONCLUSIVE


@dataclass(frozen=True)
class Verdicts:
    """The verdict of a run.

    Attributes
    ----------
    verdict : Verdict
        The worst of all blocks and of the whole.
    blocks : mapping of str to Judged
        Of the blocks to check.
    difference, uncertainty, bound : float
        Of the whole gradient, as in `Report`.
    """

    verdict: Verdict
    blocks: Mapping[str, Judged]
    difference: float
    uncertainty: float
    bound: float


def judge(outcome: Outcome, decided: Mapping[str, Judged] | None = None) -> Verdicts:
    """Judge what was measured, block by block and as a whole.

    Some blocks could not be decided at theta, and were otherwise: those are taken as they were `decided`.
    """
    context, decided = outcome.context, decided or {}
    compared, screened = {}, {one.block.name: one for one in outcome.directions}
    for found in outcome.estimates:
        name = found.block.name
        analytic, lost, doubt = context.of_block(context.layout.number(found.block))
        doubt = 0.0 if name in screened else doubt
        by, kept = found.compared or (None, None)
        fresh = by is not context.judge or doubt
        compared[name] = context.judge.compare(found, analytic, lost, doubt) if fresh else kept
    blocks = {
        block.name: _judged(outcome, block, compared.get(block.name), screened.get(block.name))
        for _, block in context.blocks
    }
    rest = {name: one for name, one in blocks.items() if name not in decided}
    verdicts = (_of_directions if outcome.directions else _of_coordinates)(context, rest)
    elsewhere = [one.verdict for one in decided.values()]
    if not all(one.constant for one in decided.values()) and not any(one.block.size for one in rest.values()):
        verdict = worst(elsewhere)
    else:
        verdict = worst([verdicts.verdict, *elsewhere])
    return replace(verdicts, verdict=verdict, blocks=blocks | dict(decided))


def _judged(outcome: Outcome, block: Block, compared: Comparison | None, one: BlockProbes | None) -> Judged:
    if not block.size:
        return Judged(block, Verdict.INCONCLUSIVE, compared, one)
    whole = compared is not None and compared.norms.count == block.size and compared.checked
    doubtful = one is not None and _is_doubtful(outcome, one, compared)
    if whole and compared is not None and compared.verdict.refuted and not len(compared.wrong):
        # What may fool directions may fool the norm of all coordinates as well.
        whole = not doubtful and outcome.context.noise.relative <= thresholds.IMPRECISE
    if one is None or not one.probes or ((one.inconclusive or doubtful) and whole):
        verdict = compared.verdict if compared else Verdict.INCONCLUSIVE
        if verdict.passed and one is not None and not _as_sharp(outcome, one, compared):
            verdict = Verdict.INCONCLUSIVE
        return Judged(block, verdict, compared)
    verdict = Verdict.INCONCLUSIVE if doubtful else one.verdict
    if compared is not None and len(compared.wrong) and not doubtful:
        verdict = worst([verdict, compared.verdict])
    return Judged(block, verdict, compared, one, doubtful)


def _as_sharp(outcome: Outcome, one: BlockProbes, compared: Comparison | None) -> bool:
    """Say whether coordinates are known as well as the residual of their block that they are to acquit."""
    if compared is None or one.singled_out is None or one.acquitted:
        return True
    return compared.norms.uncertainty(outcome.context.judge.z) <= one.singled_out.uncertainty


def is_diffuse(one: Judged) -> bool:
    """Say whether a refuted block differs by little and everywhere, so that no mistake in one place is to be sought."""
    if one.screened is not None:
        every = all(probe.state is State.REPEATED for probe in one.screened.probes)
        return every and one.screened.factor is None and one.screened.excess < thresholds.SUSPICIOUS
    return one.compared is not None and one.compared.diffuse


def _is_doubtful(outcome: Outcome, one: BlockProbes, compared: Comparison | None) -> bool:
    """Say whether a block stands out along directions only, in a loss that could fool them.

    Many kinks can bias all steps of a direction alike, and so can the rounding of parameters in low precision. There a
    block is called wrong only if a coordinate of it was confirmed, a pattern explains its error, or the error is larger
    than any such bias.
    """
    if not one.failed:
        return False
    if one.rounded:
        return True
    if compared is not None and len(compared.wrong):
        return False
    noise = outcome.context.noise.relative
    if noise > thresholds.IMPRECISE:
        unmistakable = one.excess > thresholds.UNMISTAKABLE and len(one.repeated) >= thresholds.LOOKS[0]
        return noise > thresholds.NO_DIGITS or not unmistakable
    located = outcome.located.get(one.block.name)
    if located is None or not located.nowhere:
        return False
    return located.contradicted or any(probe.shortened for other in outcome.directions for probe in other.probes)


def _of_coordinates(context: Context, blocks: Mapping[str, Judged]) -> Verdicts:
    judge, compared = context.judge, [one.compared for one in blocks.values() if one.compared is not None]
    norms, verdict = judge.whole(compared, context.settings.unchecked == "allow")
    if context.run.stopped and verdict.passed:
        verdict = Verdict.INCONCLUSIVE
    uncertainty = norms.uncertainty(judge.z)
    relative = uncertainty / norms.scale if norms.scale else math.nan
    return Verdicts(verdict, blocks, norms.difference, relative, norms.bound(judge.z))


def _of_directions(context: Context, blocks: Mapping[str, Judged]) -> Verdicts:
    judged = [one for one in blocks.values() if one.block.size]
    norms = [_norms(context, one) for one in judged]
    columns = [math.hypot(*column) for column in zip(*norms, strict=True)] or [0.0] * 5
    error, norm, measured, uncertainty, bound = columns
    scale, difference, spread, relative = norm + measured, math.nan, math.nan, math.nan
    if scale:
        difference, spread = min(1.0, error / scale), uncertainty / scale
    if norm:
        relative = bound / norm
    return Verdicts(_worst(context, judged, norm), blocks, difference, spread, relative)


def _norms(context: Context, one: Judged) -> tuple[float, float, float, float, float]:
    """Return the norms of a block's error, of g, of the true gradient, of the noise, and the error's bound."""
    if one.screened is not None:
        s, unit = one.screened, one.screened.unit
        bound = unit * s.stretch * s.bound_of_error
        return unit * s.error, unit * s.norm, unit * (s.scale - s.norm), unit * s.uncertainty, bound
    if one.compared is None:
        return (math.nan,) * 5
    norms, z = one.compared.norms, context.judge.z
    bound = math.sqrt(norms.error) + norms.uncertainty(z)
    return math.sqrt(norms.error), math.sqrt(norms.analytic), math.sqrt(norms.measured), norms.uncertainty(z), bound


def _worst(context: Context, judged: Sequence[Judged], norm: float) -> Verdict:
    """Return the worst verdict; where they are allowed, an unchecked block spoils a pass only if it may weigh."""
    allow = context.settings.unchecked == "allow"
    verdict = worst(one.verdict for one in judged if not (allow and one.inconclusive))
    if not verdict.passed:
        return verdict
    silent = math.hypot(*(_norms(context, one)[4] for one in judged if one.inconclusive), 0.0)
    nothing = all(one.inconclusive for one in judged)
    if context.run.stopped or nothing or not silent <= context.judge.limit * norm:
        return Verdict.INCONCLUSIVE
    return verdict
