"""What the run noticed about its own measurements: one short rule each, in the order of importance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from fastcheck.compare import BlockComparison, Judge
from fastcheck.differences import BlockDerivatives, Status
from fastcheck.finding import Finding
from fastcheck.losses.evaluator import Evaluator
from fastcheck.noise import FLOAT64_EPS, Noise
from fastcheck.parameters import Parameters
from fastcheck.plans.full import Full
from fastcheck.run import Run
from fastcheck.verdict import Verdict

__all__ = ["below_tolerance", "observations", "precision", "rounding"]

NEGLIGIBLE = 1e-12  # relative error that the rounding of a right gradient itself may be, somewhere in a net
NOISY = 1e4 * FLOAT64_EPS  # relative noise of J that is worth a word


def observations(
    compared: Mapping[str, BlockComparison], found: Sequence[BlockDerivatives], plan: Full
) -> Iterator[Finding]:
    """Yield the findings about a run."""
    layout = plan.evaluator.layout
    yield from _stopped(compared, found, plan.run)
    yield from _failed(layout, plan.evaluator, found)
    yield from _jumps(layout, found)
    yield from precision(plan.noise, plan.base)
    yield from _coinciding(plan, found)
    yield from _unchecked(compared, plan.judge)
    yield from _kinks(layout, compared, found)
    yield from (rounding(name, block.norms.difference) for name, block in compared.items() if block.doubtful)
    for name, block in compared.items():
        yield from below_tolerance(name, block.excess, block.norms.difference, plan.judge)


def _stopped(compared: Mapping[str, BlockComparison], found: Sequence[BlockDerivatives], run: Run) -> Iterator[Finding]:
    if run.stopped is None:
        return
    total = sum(len(block) for block in found)
    done = total - sum(block.missing for block in compared.values())
    why = {
        "budget": f"after its budget of {run.budget or 0:g} s",
        "interrupted": "when it was interrupted",
        "workers": "because its worker processes died again and again",
    }[run.stopped]
    yield Finding(
        "stopped",
        None,
        f"The run stopped {why}: {done:,} of {total:,} coordinates were measured. The verdict is about those. "
        "Give it a larger budget, or screen with mode='screen'.",
        {"done": done, "total": total},
    )


def _failed(
    layout: Parameters,
    evaluator: Evaluator,
    found: Sequence[BlockDerivatives],
) -> Iterator[Finding]:
    if evaluator.failure is None:
        return
    places = [p for block in found for p, r in block.looked.items() if r.status is Status.UNRESOLVED]
    where = f" No derivative could be measured at {_shown(layout, places)}." if places else " Shorter steps went well."
    yield Finding("loss_failed", None, f"Away from theta {evaluator.failure}.{where}", {"coordinates": places})


def _jumps(layout: Parameters, found: Sequence[BlockDerivatives]) -> Iterator[Finding]:
    for block in found:
        places = [place for place, resolved in block.looked.items() if resolved.status is Status.JUMP]
        if places:
            yield Finding(
                "jump",
                block.block.name,
                f"The loss jumps at {_shown(layout, places)}: it changes by the same amount however small the step, so "
                "it has no derivative there. An argmax, a rounding or a comparison in the loss?",
                {"coordinates": places},
            )


def precision(noise: Noise, base: float) -> Iterator[Finding]:
    """Yield a finding where the loss has few digits."""
    if noise.relative > NOISY:
        yield Finding(
            "noisy_loss",
            None,
            f"The loss has about {noise.digits} digits (noise {noise.typical:.2g} at J = {base:.6g}): {noise.kind}"
            f"{'' if noise.kind.endswith('?') else '.'} Evaluate it in float64, or solve more tightly, to see smaller "
            "errors.",
            {"noise": noise.typical, "digits": noise.digits, "grain": noise.grain},
        )


def _unchecked(compared: Mapping[str, BlockComparison], judge: Judge) -> Iterator[Finding]:
    for name, block in compared.items():
        if not block.silent or not block.norms.count or block.verdict is not Verdict.INCONCLUSIVE:
            continue
        norms = block.norms
        if norms.scale == 0:
            why = "its gradient and its measured derivative are both zero: the loss does not depend on it here"
        else:
            relative = norms.uncertainty(judge.z) / norms.scale
            why = (
                f"its derivative is known only to a relative {relative:.1g}, more than the {judge.limit:g} a pass needs"
            )
        yield Finding(
            "unchecked",
            name,
            f"{name} is unchecked: {why}. Check it where its gradient is larger, or with a more precise loss.",
            {"gradient": norms.analytic**0.5, "uncertainty": norms.uncertainty(judge.z)},
        )


def _coinciding(plan: Full, found: Sequence[BlockDerivatives]) -> Iterator[Finding]:
    g = plan.analytic.flat
    for block in found:
        places = [place for place, resolved in block.looked.items() if resolved.excuses(float(g[place]))]
        if places:
            yield Finding(
                "coinciding_kinks",
                block.block.name,
                f"The parameters are exactly on kinks (relu, max, abs) at {_shown(plan.evaluator.layout, places)}, and "
                "the gradient there is neither of the slopes to the two sides. Where kinks coincide, as with weights "
                "and biases of zero, that may be so without a mistake. Initialise them non-zero.",
                {"coordinates": places},
            )


def _kinks(
    layout: Parameters, compared: Mapping[str, BlockComparison], found: Sequence[BlockDerivatives]
) -> Iterator[Finding]:
    total, measured = sum(b.kinks for b in compared.values()), sum(b.norms.count for b in compared.values())
    if not total:
        return
    at = [p for block in found for p, r in block.looked.items() if r.status is Status.KINK]
    crossed = total - len(at)
    parts = []
    if crossed:
        parts.append(
            f"{crossed:,} of {measured:,} coordinates had a kink (relu, max, abs) within the step and were "
            "measured again with a shorter one"
        )
    if at:
        parts.append(
            f"{_shown(layout, at)} {'is' if len(at) == 1 else 'are'} at a kink, where any value between the "
            "one-sided slopes is a subgradient"
        )
    yield Finding("kinks", None, f"Kinks: {'; '.join(parts)}.", {"share": total / max(1, measured), "at": at})


def rounding(name: str, difference: float) -> Finding:
    """Return the finding about a block that differs by no more than the rounding of its own arithmetic may."""
    return Finding(
        "rounding",
        name,
        f"{name} differs by a relative {difference:.2g}, which may be the rounding of its own float32 or float16 "
        "arithmetic. Compute it in float64; a gradient that is given as a function is called with float64 parameters.",
        {"difference": difference},
    )


def below_tolerance(name: str, excess: float, difference: float, judge: Judge) -> Iterator[Finding]:
    """Yield a finding where a block's error is clear of its uncertainty, but no larger than is tolerated."""
    if NEGLIGIBLE < excess <= judge.tolerance:
        yield Finding(
            "below_tolerance",
            name,
            f"{name} differs by a relative {difference:.2g}, more than its uncertainty explains, but "
            f"less than the tolerance {judge.tolerance:g}.",
            {"excess": excess},
        )


def _shown(layout: Parameters, places: Sequence[int]) -> str:
    names = [layout.breadcrumb(place) for place in list(places)[:4]]
    more = len(places) - len(names)
    return ", ".join(names) + (f" and {more:,} more" if more > 0 else "")
