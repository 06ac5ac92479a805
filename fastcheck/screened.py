"""Screened blocks and located coordinates -> the report."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

from fastcheck.assemble import coordinates_of, settings_of
from fastcheck.compare import BlockComparison
from fastcheck.finding import Finding
from fastcheck.noise import IMPRECISE
from fastcheck.observations import below_tolerance, precision, rounding
from fastcheck.parameters import Block
from fastcheck.plans.locate import Located
from fastcheck.plans.probing import Probing, State
from fastcheck.plans.screen import Screened
from fastcheck.preflight import Preflight
from fastcheck.report.report import BlockReport, Report
from fastcheck.settings import Settings
from fastcheck.verdict import Verdict, worst

__all__ = ["assemble_screen"]


def assemble_screen(
    plan: Probing,
    seen: Preflight,
    screened: Sequence[Screened],
    located: Mapping[str, Located],
    settings: Settings,
) -> Report:
    """Write down what the directions over each block, and the coordinates located in some, mean."""
    layout = plan.evaluator.layout
    found = [one.derivatives() for one in located.values()]
    compared = {
        block.block.name: plan.judge.compare(
            block, seen.analytic.flat[block.block.slice], float(seen.analytic.eps[layout.blocks.index(block.block)])
        )
        for block in found
    }
    by_name = {one.block.name: one for one in screened}
    doubtful = {one.block.name for one in screened if _is_doubtful(plan, one, screened, located, compared)}
    blocks = {
        b.name: _block_report(b, by_name.get(b.name), compared.get(b.name), b.name in doubtful) for b in layout.blocks
    }
    whole = _Whole.of(screened)
    return Report(
        verdict=_verdict(plan, screened, blocks, whole),
        difference=whole.error / whole.scale if whole.scale else math.nan,
        uncertainty=whole.uncertainty / whole.scale if whole.scale else math.nan,
        bound=whole.bound / whole.norm if whole.norm else math.nan,
        blocks=blocks,
        wrong=coordinates_of(compared, [block for block in found if block.block.name not in doubtful], seen),
        findings=(*seen.findings, *_findings(plan, screened, located, doubtful)),
        coverage=sum(len(block) for block in found) / layout.size,
        evaluations=plan.evaluator.evaluations,
        seconds=plan.run.seconds,
        settings=settings_of(settings, layout, plan.noise, None) | {"directions": _directions(screened)},
    )


@dataclass(frozen=True)
class _Whole:
    """Norms over all screened blocks: of the error, of g, of g and n together, of the noise, and the error's bound."""

    error: float = math.nan
    norm: float = 0.0
    scale: float = 0.0
    uncertainty: float = math.nan
    bound: float = math.nan

    @classmethod
    def of(cls, screened: Sequence[Screened]) -> _Whole:
        probed = [one for one in screened if one.block.size]
        if not probed or not all(one.probes for one in probed):
            return cls()
        norm = math.hypot(*(one.norm for one in probed))
        return cls(
            math.hypot(*(one.error for one in probed)),
            norm,
            norm + math.hypot(*(one.scale - one.norm for one in probed)),
            math.hypot(*(one.uncertainty for one in probed)),
            math.hypot(*(one.bound_of_error for one in probed)),
        )


def _verdict(plan: Probing, screened: Sequence[Screened], blocks: Mapping[str, BlockReport], whole: _Whole) -> Verdict:
    """Return the worst verdict of what was resolved; an unchecked block spoils a pass only if it may weigh."""
    verdict = worst(blocks[one.block.name].verdict for one in screened if one.block.size and not one.silent)
    if not verdict.passed:
        return verdict
    silent = math.hypot(*(one.bound_of_error for one in screened if one.silent and one.block.size), 0.0)
    nothing = all(one.silent for one in screened)
    if plan.run.stopped or nothing or not silent <= plan.judge.limit * whole.norm:
        return Verdict.INCONCLUSIVE
    return verdict


def _is_doubtful(
    plan: Probing,
    one: Screened,
    screened: Sequence[Screened],
    located: Mapping[str, Located],
    compared: Mapping[str, BlockComparison],
) -> bool:
    """Say whether a block stands out along directions only, in a loss that could fool them.

    Many kinks can bias all steps of a direction alike. There a block is called wrong only if a coordinate of it was
    confirmed, or a pattern explains its error. In an arithmetic of few digits not even that is proof.
    """
    name = one.block.name
    if not one.failed:
        return False
    if one.rounded:
        return True
    if name in compared and len(compared[name].wrong):
        return False
    if plan.noise.relative > IMPRECISE:
        return True
    if name not in located:
        return False
    if not any(finding.kind == "not_located" for finding in located[name].findings):
        return False
    return any(probe.shortened for other in screened for probe in other.probes)


def _block_report(block: Block, one: Screened | None, compared: BlockComparison | None, doubtful: bool) -> BlockReport:
    if one is None or not one.probes:
        nan = math.nan
        return BlockReport(block.shape, block.size, 0, nan, nan, nan, math.inf, Verdict.INCONCLUSIVE)
    verdict = Verdict.INCONCLUSIVE if doubtful else one.verdict
    if compared is not None and len(compared.wrong) and not doubtful:
        verdict = worst([verdict, compared.verdict])
    return BlockReport(
        shape=block.shape,
        size=block.size,
        checked=compared.norms.count if compared else 0,
        difference=one.difference,
        bound=one.bound if math.isfinite(one.bound_of_error) else math.nan,
        uncertainty=one.uncertainty / one.scale if one.scale else math.nan,
        detectable=one.detectable if not (one.silent or doubtful) else math.inf,
        verdict=verdict,
        wrong=len(compared.wrong) if compared and not doubtful else 0,
        kinks=one.kinks,
    )


def _directions(screened: Sequence[Screened]) -> dict[str, dict[str, list[float]]]:
    """Return the step, the measured derivative and the residual of every direction, by block."""
    return {
        one.block.name: {
            "steps": [probe.step for probe in one.probes],
            "slopes": [probe.slope for probe in one.probes],
            "residuals": [probe.residual for probe in one.probes],
        }
        for one in screened
    }


def _findings(
    plan: Probing, screened: Sequence[Screened], located: Mapping[str, Located], doubtful: Set[str]
) -> Iterator[Finding]:
    yield from _stopped(plan, screened)
    for name, place in located.items():
        if name in doubtful:
            one = place.screened
            yield rounding(name, one.difference) if one.rounded else _doubt(name)
        else:
            yield from place.findings
    if plan.evaluator.failure is not None:
        yield Finding("loss_failed", None, f"Away from theta {plan.evaluator.failure}.")
    yield from precision(plan.noise, plan.base)
    for one in screened:
        if one.probes and one.silent:
            yield _unchecked(plan, one)
        yield from below_tolerance(one.block.name, one.excess, one.difference, plan.judge)
    yield from _kinks(screened)


def _stopped(plan: Probing, screened: Sequence[Screened]) -> Iterator[Finding]:
    run = plan.run
    if run.stopped is None:
        return
    done = sum(math.isfinite(one.bound_of_error) for one in screened)
    why = f"after its budget of {run.budget:g} s" if run.stopped == "budget" else "when it was interrupted"
    yield Finding(
        "stopped",
        None,
        f"The run stopped {why}: {done} of {len(screened)} blocks were screened. The verdict is about those. "
        "Give it a larger budget.",
        {"done": done, "total": len(screened)},
    )


def _doubt(name: str) -> Finding:
    return Finding(
        "doubtful",
        name,
        f"{name} stands out along directions, but this loss has kinks or noise that could do it, so that is no proof: "
        f"{name} is unchecked. Measure its coordinates with mode='full', blocks={name!r}.",
    )


def _unchecked(plan: Probing, one: Screened) -> Finding:
    name = one.block.name
    if any(probe.state is State.KINK for probe in one.probes):
        why = "theta is at a kink of the loss (relu, max, abs of exactly zero?), where it has no derivative"
        remedy = "Move the parameters a little off it."
    elif not one.norm:
        why = "its gradient is zero, and so is the measured derivative, as far as the noise tells"
        remedy = "Check it where its gradient is larger."
    elif one.kinks:
        why = (
            f"the loss has kinks so close by that its error is bounded only by a relative {one.bound:.1g}; a pass "
            f"needs {plan.judge.limit:g}"
        )
        remedy = "Measure it coordinate by coordinate: mode='full' or mode='sample' crosses far fewer of them."
    else:
        why = f"its error is bounded only by a relative {one.bound:.1g}; a pass needs {plan.judge.limit:g}"
        remedy = "Check it where its gradient is larger, or with a more precise loss."
    evidence = {"gradient": one.norm, "bound": one.bound_of_error, "kinks": one.kinks}
    return Finding("unchecked", name, f"{name} is unchecked: {why}. {remedy}", evidence)


def _kinks(screened: Sequence[Screened]) -> Iterator[Finding]:
    shortened = sum(one.kinks for one in screened)
    total = sum(len(one.probes) for one in screened)
    if shortened:
        yield Finding(
            "kinks",
            None,
            f"Along {shortened} of {total} directions a kink (relu, max, abs) or curvature showed within the step, and "
            "they were measured again with a shorter one.",
            {"share": shortened / total},
        )
