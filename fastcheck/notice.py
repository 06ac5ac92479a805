"""What a run noticed about its own measurements: one short rule each, in the order of importance."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from fastcheck import thresholds
from fastcheck.context import Context, Outcome
from fastcheck.estimates import Status
from fastcheck.findings import Finding, Kind
from fastcheck.judge.coordinates import Judge
from fastcheck.judge.directions import BlockProbes
from fastcheck.judge.judge import Judged, Verdicts, is_diffuse
from fastcheck.judge.verdict import Verdict
from fastcheck.measure.ladder import State
from fastcheck.measure.noise import FLOAT64_EPS
from fastcheck.parameters import Parameters
from fastcheck.replay import said_of_draws
from fastcheck.strategies import sample

__all__ = ["noticed"]

NOISY = 1e4 * FLOAT64_EPS  # relative noise of J that is worth a word
NAMED = 4
EVERYWHERE = 0.5  # share of the blocks that must differ where the loss and the gradient are two functions


def noticed(outcome: Outcome, verdicts: Verdicts, stopped: str | None) -> Iterator[Finding]:
    """Yield the findings about a run, and why its measurement was stopped, if it was."""
    context = outcome.context
    judged = [one for one in verdicts.blocks.values() if one.at is None and not one.constant]
    here = {one.block.name for one in judged}  # what was decided elsewhere has its own finding
    outcome = replace(outcome, estimates=[found for found in outcome.estimates if found.block.name in here])
    if stopped is not None:
        yield _stopped(outcome, stopped)
    yield from _replayed(context)
    yield from _disagreements(context.judge, judged)
    yield from _located(outcome, verdicts)
    yield from _failed(outcome)
    yield from _jumps(outcome)
    yield from _precision(context)
    yield from _coinciding(outcome)
    yield from (found for one in judged for found in _unchecked(context, one))
    yield from _kinks(outcome, judged)
    yield from (found for one in judged for found in _differs(context.judge, one))
    if outcome.drawn is not None:
        yield from sample.said(outcome, {one.block.name: one.compared for one in judged if one.compared})


def _stopped(outcome: Outcome, stopped: str) -> Finding:
    why = {
        "budget": f"after its budget of {outcome.context.run.budget or 0:g} s",
        "interrupted": "when it was interrupted",
        "workers": "because its worker processes died again and again",
    }[stopped]
    if outcome.directions:
        total = len(outcome.directions)
        done = sum(one.bound_of_error < float("inf") for one in outcome.directions)
        what, remedy = f"{done} of {total} blocks were screened", "Give it a larger budget."
    else:
        total = sum(len(found) for found in outcome.estimates)
        done = sum(int(np.count_nonzero(np.isfinite(found.value))) for found in outcome.estimates)
        what = f"{done:,} of {total:,} coordinates were measured"
        remedy = "Give it a larger budget, or screen with mode='screen'."
    return Finding(
        Kind.STOPPED,
        None,
        f"The run stopped {why}: {what}. The verdict is about those. {remedy}",
        {"done": done, "total": total},
    )


def _replayed(context: Context) -> Iterator[Finding]:
    """Yield what of a random loss was checked."""
    if context.replay is not None:
        yield said_of_draws(context.replay.sources)


def _located(outcome: Outcome, verdicts: Verdicts) -> Iterator[Finding]:
    """Yield what a search found in blocks that failed a screen, or why it proves nothing."""
    for name, located in outcome.located.items():
        judged = verdicts.blocks[name]
        if judged.verdict.refuted:
            nowhere = is_diffuse(judged)  # there is no place to look for
            yield from (finding for finding in located.findings if not (nowhere and finding.kind is Kind.UNKNOWN))
        elif judged.doubtful and judged.screened is not None:
            yield _rounding(name, judged.screened.difference) if judged.screened.rounded else _doubtful(name)


def _failed(outcome: Outcome) -> Iterator[Finding]:
    failure = outcome.context.evaluator.failure
    if failure is None:
        return
    found = outcome.estimates
    places = [p for block in found for p, r in block.looks.items() if r.status is Status.UNRESOLVED]
    where = f" No derivative could be measured at {_shown(outcome.context.layout, places)}." if places else ""
    if not places and not outcome.directions:
        where = " Shorter steps went well."
    evidence = {} if outcome.directions else {"coordinates": places}
    yield Finding(Kind.LOSS_FAILED, None, f"Away from theta {failure}.{where}", evidence)


def _jumps(outcome: Outcome) -> Iterator[Finding]:
    for block in outcome.estimates:
        places = [place for place, estimate in block.looks.items() if estimate.status is Status.JUMP]
        if places:
            yield Finding(
                Kind.JUMP,
                block.block.name,
                f"The loss jumps at {_shown(outcome.context.layout, places)}: it changes by the same amount however "
                "small the step, so it has no derivative there. An argmax, a rounding or a comparison in the loss?",
                {"coordinates": places},
            )


def _precision(context: Context) -> Iterator[Finding]:
    """Yield a finding where the loss has few digits."""
    noise = context.noise
    if noise.still:
        jump = max(noise.level, noise.grain)
        yield Finding(
            Kind.PIECEWISE_CONSTANT,
            None,
            f"The loss is exactly the same at {noise.still} points around theta, and jumps by about {jump:.2g} "
            "further away: it is piecewise constant, as a rounding, a quantisation, an argmax or low precision inside "
            "makes it, and its derivative is zero where it has one. A gradient that is passed straight through that "
            "can't be checked by differences: take it out for the check.",
            {"points": noise.still, "jump": jump},
        )
    elif noise.stationary:
        yield Finding(
            Kind.STATIONARY,
            None,
            "The loss is all but stationary at theta, as a fit without residuals is: what is left of the gradient is "
            "the rounding of far larger numbers, and says little about the code. Check it a little way off "
            "(params moved by a tenth of their size); a gradient that is given as a function is checked there as well.",
            {"rounding": noise.argument},
        )
    elif noise.relative > NOISY:
        yield Finding(
            Kind.NOISY_LOSS,
            None,
            f"The loss has about {noise.digits} digits (noise {noise.typical:.2g} at J = {context.base:.6g}): "
            f"{noise.kind}{'' if noise.kind.endswith('?') else '.'} Evaluate it in float64, or solve more tightly, "
            "to see smaller errors.",
            {"noise": noise.typical, "digits": noise.digits, "grain": noise.grain},
        )


def _coinciding(outcome: Outcome) -> Iterator[Finding]:
    g = outcome.context.analytic.flat
    for block in outcome.estimates:
        places = [place for place, estimate in block.looks.items() if estimate.excuses(float(g[place]))]
        if places:
            yield Finding(
                Kind.COINCIDING_KINKS,
                block.block.name,
                "The parameters are exactly on kinks (relu, max, abs) at "
                f"{_shown(outcome.context.layout, places)}, and the gradient there is neither of the slopes to the two "
                "sides. Where kinks coincide, as with weights and biases of zero, that may be so without a mistake. "
                "Initialise them non-zero.",
                {"coordinates": places},
            )


def _unchecked(context: Context, one: Judged) -> Iterator[Finding]:
    if one.screened is not None:
        if one.screened.probes and one.screened.inconclusive:
            yield _unchecked_by_directions(context, one.screened)
        return
    compared = one.compared
    if compared is None or not compared.norms.count or one.verdict is not Verdict.INCONCLUSIVE:
        return
    name, norms, judge = one.block.name, compared.norms, context.judge
    if compared.unconfirmed and compared.resolved:
        why = (
            f"its coordinates show a relative error of {compared.unconfirmed:.1g}, which a longer look at them neither "
            "bore out nor refuted"
        )
    elif compared.resolved:
        return
    elif norms.scale == 0:
        why = "its gradient and its measured derivative are both zero: the loss does not depend on it here"
    else:
        relative = norms.uncertainty(judge.z) / norms.scale
        why = f"its derivative is known only to a relative {relative:.2g}, more than the {judge.limit:g} a pass needs"
    yield Finding(
        Kind.UNCHECKED,
        name,
        f"{name} is unchecked: {why}. {_remedy(context)}",
        {"gradient": norms.analytic**0.5, "uncertainty": norms.uncertainty(judge.z)},
    )


def _remedy(context: Context) -> str:
    """Say what would check a block whose gradient is below the noise here."""
    if callable(context.gradient):
        return "Check it where its gradient is larger, or with a more precise loss."
    return (
        "Give the gradient as a function, gradient(params, *args), and it is checked at a point nearby; or check it "
        "where its gradient is larger, or with a more precise loss."
    )


def _unchecked_by_directions(context: Context, one: BlockProbes) -> Finding:
    name, limit = one.block.name, context.judge.limit
    bounded = f"its error is bounded only by a relative {one.bound:.2g}; a pass needs {limit:g}"
    if any(probe.state is State.KINK for probe in one.probes):
        why = "theta is at a kink of the loss (relu, max, abs of exactly zero?), where it has no derivative"
        remedy = "Move the parameters a little off it."
    elif not one.norm:
        why = "its gradient is zero, and so is the measured derivative, as far as the noise tells"
        remedy = _remedy(context)
    elif one.kinks:
        why = f"the loss has kinks so close by that {bounded}"
        remedy = "Measure it coordinate by coordinate: mode='full' or mode='sample' crosses far fewer of them."
    else:
        why = bounded
        remedy = _remedy(context)
    evidence = {"gradient": one.norm, "bound": one.bound_of_error, "kinks": one.kinks}
    return Finding(Kind.UNCHECKED, name, f"{name} is unchecked: {why}. {remedy}", evidence)


def _kinks(outcome: Outcome, judged: Sequence[Judged]) -> Iterator[Finding]:
    if outcome.directions:
        yield from _kinks_along(outcome.directions)
        return
    compared = [one.compared for one in judged if one.compared is not None]
    total, measured = sum(b.kinks for b in compared), sum(b.norms.count for b in compared)
    if not total:
        return
    at = [p for block in outcome.estimates for p, r in block.looks.items() if r.status is Status.KINK]
    crossed = total - len(at)
    parts = []
    if crossed:
        parts.append(
            f"{crossed:,} of {measured:,} coordinates had a kink (relu, max, abs) within the step and were "
            "measured again with a shorter one"
        )
    if at:
        parts.append(
            f"{_shown(outcome.context.layout, at)} {'is' if len(at) == 1 else 'are'} at a kink, where any value "
            "between the one-sided slopes is a subgradient"
        )
    yield Finding(Kind.KINKS, None, f"Kinks: {'; '.join(parts)}.", {"share": total / max(1, measured), "at": at})


def _kinks_along(screened: Sequence[BlockProbes]) -> Iterator[Finding]:
    probed = {(one.joint or tuple(one.probes)): one for one in screened}.values()  # joint directions count once
    shortened = sum(one.kinks for one in probed)
    total = sum(len(one.probes) for one in probed)
    if shortened:
        yield Finding(
            Kind.KINKS,
            None,
            f"Along {shortened} of {total} directions a kink (relu, max, abs) or curvature showed within the step, and "
            "they were measured again with a shorter one.",
            {"share": shortened / total},
        )


def _differs(judge: Judge, one: Judged) -> Iterator[Finding]:
    """Yield what is to be said of a difference that is no proof, or no more than is tolerated."""
    name, compared = one.block.name, one.compared
    if one.screened is None and compared is not None and compared.doubtful:
        yield _rounding(name, compared.norms.difference)
    source = one.screened if one.screened is not None else compared
    if source is None or not thresholds.NEGLIGIBLE < source.excess <= judge.tolerance:
        return
    yield Finding(
        Kind.BELOW_TOLERANCE,
        name,
        f"{name} differs by a relative {_difference(one):.2g}, more than its uncertainty explains; clear of that are "
        f"{source.excess:.2g}, no more than the tolerance {judge.tolerance:g}.",
        {"excess": source.excess},
    )


def _disagreements(judge: Judge, judged: Sequence[Judged]) -> Iterator[Finding]:
    """Yield what two functions that are not quite the same look like: a little everywhere, and nothing else."""
    refuted = [one for one in judged if one.verdict.refuted]
    if not refuted or not all(is_diffuse(one) for one in refuted) or len(refuted) < EVERYWHERE * len(judged):
        return
    difference = max(_difference(one) for one in refuted)
    passing = 10.0 ** math.ceil(math.log10(2 * difference))
    yield Finding(
        Kind.DISAGREEMENT,
        refuted[0].block.name if len(refuted) == 1 else None,
        f"The loss and the gradient differ smoothly, by a relative {difference:.1g} at most nearly everywhere, as a "
        "solver's tolerance, a truncated series or a lower precision in one of them leaves it. Solve more tightly, or "
        f"pass tolerance={passing:g} if that is what you expect.",
        {"difference": difference, "tolerance": passing, "blocks": [one.block.name for one in refuted]},
    )


def _difference(one: Judged) -> float:
    if one.screened is not None:
        return one.screened.difference
    return one.compared.norms.difference if one.compared is not None else math.nan


def _rounding(name: str, difference: float) -> Finding:
    """Return the finding about a block that differs by no more than the rounding of its own arithmetic may."""
    return Finding(
        Kind.ROUNDING,
        name,
        f"{name} differs by a relative {difference:.2g}, which may be the rounding of its own float32 or float16 "
        "arithmetic. Compute it in float64; a gradient that is given as a function is called with float64 parameters.",
        {"difference": difference},
    )


def _doubtful(name: str) -> Finding:
    return Finding(
        Kind.DOUBTFUL,
        name,
        f"{name} stands out along directions, but this loss has kinks or noise that could do it, so that is no proof: "
        f"{name} is unchecked. Measure its coordinates with mode='full', blocks={name!r}.",
    )


def _shown(layout: Parameters, places: Sequence[int]) -> str:
    names = [layout.breadcrumb(place) for place in list(places)[:NAMED]]
    more = len(places) - len(names)
    return ", ".join(names) + (f" and {more:,} more" if more > 0 else "")
