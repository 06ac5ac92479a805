"""One directional derivative, measured until it means something.

A residual is analytic minus measured, e.v for an error e. A real error stays the same at every step; truncation falls
with the square of the step, the bias of kinks (relu, max, abs) with some power of it, and noise grows with its inverse.
So: a residual within its noise is accepted at once; one that stands out is believed only if another step repeats it,
and otherwise the step is shortened until it is either repeated or drowned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from fastcheck import thresholds
from fastcheck.arrays import FloatArray, IntArray, pieces
from fastcheck.gradients import Analytic
from fastcheck.losses.evaluator import Evaluator
from fastcheck.measure.directions import CHUNK
from fastcheck.measure.ladder import Rung, State, agree, doubtful, settled
from fastcheck.measure.noise import Noise, Sizes, scale_of_blocks, uneven
from fastcheck.measure.regions import Region
from fastcheck.measure.steps import GRAIN, is_low_precision, unit_of
from fastcheck.run import Run

if TYPE_CHECKING:
    from fastcheck.judge.coordinates import Judge

__all__ = ["Probe", "Probing", "loud_one", "measure", "probe_step"]

RATIO = 8.0  # between a step and the next shorter one
RUNGS = 9
NEAR = RATIO + 1  # residuals up to this many uncertainties would drown at the next shorter step: try a longer one
HARDLY = 32.0  # uncertainties of truncation: a quarter of the step still does
LOSES = 4.0  # times the noise of J that the rounding of theta may cost before the direction is rounded instead
FEW = 256  # coordinates of a block that are measured one by one where directions do not decide
LONGEST = 2.0**-7  # step, in units of the block's parameters
AIM = 0.01  # standard deviation of a residual aimed at, in units of tolerance * ||g||,
FAINT = 1e-6  # a block whose slope is this small beside the whole's is measured as if it were this large
COARSE = 1e-6  # or of this, where the tolerance is larger: what is tolerated should still be seen
ALIKE = 4.0  # times what one direction leaves of truncation, and the gap of its slopes, that those of another may be
SHORTENED = 2  # times that the step of that other one was shortened at most: kinks are few then
LOUD = 8.0  # uncertainties beyond which a residual is not repeated where that of another direction was


Seen = TypeVar("Seen", Rung, "Probe")


@dataclass(frozen=True)
class Probe:
    """One direction over a region: its residual and what is known of it.

    Attributes
    ----------
    number : int
        Of the direction.
    step : float
        The step t of ``theta +- t v`` that was accepted.
    slope, residual : float
        The measured directional derivative, and the analytic one minus it.
    deviation : float
        Standard deviation of the residual by the noise of the loss.
    uncertainty : float
        The residual's noise is at most this, over the whole run.
    state : State
        What it came to.
    shortened : int
        How often the step was shortened.
    truncation : float
        The residual at the step it began with, in units of its uncertainty there, where J bent smoothly between that
        step and the next; else infinite.
    gap : float
        Half the difference of the two one-sided slopes at the step.
    kink : float
        What is left of it, at most, as the step goes to zero: what kinks at theta may make of the residual.
    """

    number: int
    step: float
    slope: float
    residual: float
    deviation: float
    uncertainty: float
    state: State
    shortened: int
    truncation: float = math.inf
    gap: float = math.inf
    kink: float = math.inf

    @property
    def loud(self) -> bool:
        """Whether its residual was repeated at a step not much shorter, and is so large that others need not be."""
        settled = self.state is State.REPEATED and self.shortened <= SHORTENED
        return settled and _stands_alone(self.residual, self.slope, self.kink, self.uncertainty)

    def scaled(self, factor: float) -> Probe:
        """Return the probe in other units: along a direction that is so many times as long."""
        return replace(
            self,
            step=self.step / factor,
            slope=self.slope * factor,
            residual=self.residual * factor,
            deviation=self.deviation * factor,
            uncertainty=self.uncertainty * factor,
            gap=self.gap * factor,
            kink=self.kink * factor,
        )

    def vouches(self, rung: Seen) -> Seen | None:
        """Return one step along another direction, to be believed alone: this one's steps tell what is left there.

        None where the residual is not loud beside that, or the gap of the slopes is wider than here: it crossed a kink.
        """
        left = ALIKE * max(0.0, self.uncertainty - rung.uncertainty)  # of truncation, beyond the noise
        told = replace(rung, uncertainty=rung.uncertainty + left)
        alike = rung.step <= self.step and abs(rung.gap) <= ALIKE * abs(self.gap)
        loud = self.loud and _stands_alone(rung.residual, rung.slope, self.kink, told.uncertainty)
        return told if alike and loud else None

    def next_step(self, step: float) -> float:
        """Return the step to begin the next direction with, where this one began with a step.

        What worked, if it was loud: others like it then take one step. Nearer to what worked, if that had to be
        shortened twice. Where it was hardly too long, so far that its truncation drowns in the noise: r k^2 < u / k.
        Else two steps together are better than one so short; and what another step repeated is no truncation, and is
        seen best at long ones.
        """
        if self.loud:
            return min(step, self.step)
        if self.shortened > 1:
            return min(step, self.step * NEAR)
        hardly = self.shortened == 1 and self.state is State.CLEAN and self.truncation <= HARDLY
        return step * _drowning(self.truncation) if hardly else step


def loud_one(probes: Sequence[Probe]) -> Probe | None:
    """Return the first probe that may vouch for others, if there is one."""
    return next((probe for probe in probes if probe.loud), None)


def _drowning(ratio: float) -> float:
    """Return by how much to shorten a step, for a truncation of so many uncertainties to be half of one at most."""
    return float(2.0 ** -math.ceil(math.log2(2 * ratio) / 3))


@dataclass(frozen=True)
class Probing:
    """What a probe needs.

    Attributes
    ----------
    evaluator : Evaluator
        The loss.
    analytic : Analytic
        The user's gradient.
    base : float
        J(theta).
    noise : Noise
        The noise of J.
    judge : Judge
        What counts as an error.
    run : Run
        Budget and progress.
    seed : int
        Of the directions.
    """

    evaluator: Evaluator
    analytic: Analytic
    base: float
    noise: Noise
    judge: Judge
    run: Run
    seed: int

    @cached_property
    def uneven(self) -> dict[int, Sizes]:
        """Return the blocks whose entries differ too much for one step, with how far to move each."""
        found = {}
        for number, block in enumerate(self.evaluator.layout.blocks):
            part = self.evaluator.theta[block.slice]
            if block.size > FEW and uneven(part):
                found[number] = Sizes.of(part, self.analytic.flat[block.slice], float(self.scales[number]))
        return found

    @cached_property
    def scales(self) -> FloatArray:
        """Return a typical magnitude of each block's parameters, shape (blocks,)."""
        return scale_of_blocks(self.evaluator)

    @cached_property
    def _faint(self) -> float:
        """The slope by which a block with next to no gradient is measured: a small share of the whole's."""
        numbers = range(len(self.evaluator.layout.blocks))
        return FAINT * math.hypot(*(self.natural(number) * self.norm(number) for number in numbers))

    def norm_to_measure(self, number: int) -> float:
        """Return ||g|| of a block, in units of what `direction` moves, or what stands for next to nothing.

        Slopes are compared, and not gradients: each block has units of its own.
        """
        return max(self.norm(number), self._faint / self.natural(number))

    def natural(self, number: int) -> float:
        """Return the magnitude of a block's parameters, in units of what a direction over it alone moves."""
        return 1.0 if number in self.uneven else float(self.scales[number])

    def sizes(self, number: int, places: slice | IntArray) -> FloatArray:
        """Return how far to move some entries of an uneven block, by their places in theta."""
        return self.uneven[number](self.evaluator.theta[places], self.analytic.flat[places])

    def span(self, region: Region) -> tuple[int, int]:
        """Return the first and last plus one place in theta that a region touches."""
        low, high = region.span
        return region.block.start + low, region.block.start + high

    def write(self, region: Region, number: int, out: FloatArray) -> None:
        """Write a direction over a region, as `Region.write`; in an uneven block each entry moves by its size."""
        region.write(self.seed, number, out)
        if region.number in self.uneven:
            start = region.block.start + region.span[0]
            for part in pieces(0, len(out)):
                out[part] *= self.sizes(region.number, slice(start + part.start, start + part.stop))

    def direction(self, region: Region, number: int) -> tuple[int, FloatArray]:
        """Return the first place in theta of a region, and a direction over it."""
        start, stop = self.span(region)
        out = np.empty(stop - start)
        self.write(region, number, out)
        return start, out

    def norm(self, number: int) -> float:
        """Return ||g|| of a block, in units of what `direction` moves."""
        block = self.evaluator.layout.blocks[number]
        g = self.analytic.flat
        if number not in self.uneven:
            return math.sqrt(float(g[block.slice] @ g[block.slice]))
        parts = pieces(block.start, block.stop)
        return math.hypot(*(float(np.linalg.norm(g[part] * self.sizes(number, part))) for part in parts))

    def units(self, number: int) -> tuple[float, float]:
        """Return what makes ||g|| of the norm of a block, and how much larger a relative error may be than there.

        Along directions that move each entry by a size of its own, it is the error times those sizes that is bounded;
        the error itself is that over the smallest of them, at most.
        """
        if number not in self.uneven or not (norm := self.norm(number)):
            return 1.0, 1.0
        block = self.evaluator.layout.blocks[number]
        least = min(float(self.sizes(number, part).min()) for part in pieces(block.start, block.stop))
        unit = float(np.linalg.norm(self.analytic.flat[block.slice])) / norm
        return unit, 1 / (least * unit)

    def unit(self, region: Region) -> float:
        """Return the largest unit in the last place of theta over a region, in units of what a direction moves."""
        low, high = region.span
        theta = self.evaluator.theta[region.block.start + low : region.block.start + high]
        size = 1.0 if region.number in self.uneven else max(float(theta.max()), -float(theta.min()))
        return unit_of(self.evaluator, region.number) * size

    def lost(self, region: Region) -> float:
        """Return what a residual may lose, times the step: each coordinate of theta + t v is rounded by half a unit."""
        return self.unit(region) * self.norm(region.number)

    def argument(self, region: Region) -> float:
        """Return what any slope over a region loses where theta is all but stationary: see `Noise.argument`."""
        return self.noise.argument / self.natural(region.number)

    def deviation(self, step: float) -> float:
        """Return the standard deviation of a central difference at a step."""
        return self.noise.typical / (math.sqrt(2.0) * step)

    def uncertainty(self, step: float) -> float:
        """Return what the noise of a central difference stays below in the whole run."""
        return self.noise.random_error(self.judge.z) / (math.sqrt(2.0) * step) + self.noise.bias / step


@dataclass
class _Drawn:
    """A direction over a region: a short one is kept, a long one is drawn again wherever it is written.

    `analytic` is g.v, as of the last writing; `rounded` the step at which theta plus and minus it are to be vectors of
    floats.
    """

    plan: Probing
    region: Region
    number: int
    rounded: float | None = None
    analytic: float = math.nan
    kept: FloatArray | None = None
    start: int = field(init=False)
    stop: int = field(init=False)

    def __post_init__(self) -> None:
        self.start, self.stop = self.plan.span(self.region)
        if len(self) <= CHUNK:
            kept = np.empty(len(self))
            self.write(kept)
            self.kept = kept

    def __len__(self) -> int:
        return self.stop - self.start

    def write(self, out: FloatArray) -> None:
        """See `fastcheck.losses.evaluator.Direction`."""
        self.plan.write(self.region, self.number, out)
        theta = self.plan.evaluator.theta[self.start : self.stop]
        if self.rounded is not None:
            for part in pieces(0, len(out)):
                out[part] = _representable(theta[part], out[part], self.rounded)
        self.analytic = float(self.plan.analytic.flat[self.start : self.stop] @ out)

    def exact(self, step: float) -> bool:
        """See `fastcheck.losses.evaluator.Direction`."""
        return abs(step) == self.rounded

    @cached_property
    def argument(self) -> float:
        """See `Probing.argument`."""
        return self.plan.argument(self.region)

    def along(self, steps: FloatArray) -> FloatArray:
        """Return the losses at theta plus each step along it."""
        direction = self if self.kept is None else self.kept
        return self.plan.run.along(self.plan.evaluator, self.start, direction, steps)


def probe_step(plan: Probing, norm: float, scale: float) -> float:
    """Return the first step: the shortest that answers the question, because kinks and truncation grow with it.

    `norm` is ||g|| of the region, `scale` the typical magnitude of its parameters.
    """
    wanted = plan.noise.typical / (math.sqrt(2.0) * AIM * min(plan.judge.tolerance, COARSE) * max(norm, 1e-300))
    return float(2.0 ** np.round(np.log2(min(wanted, LONGEST * scale))))


def measure(
    plan: Probing, region: Region, number: int, step: float, expected: float = 0.0, like: Probe | None = None
) -> Probe | None:
    """Measure one direction over a region, by its number; 2 evaluations where all is well, None when stopped.

    A residual of up to the expected size is no surprise, and is not repeated at another step. Nor is a loud one like
    that of another direction over the region, which was: `like`.
    """
    drawn = _Drawn(plan, region, number)
    unit, lost = plan.unit(region), plan.lost(region)
    if lost > LOSES * plan.noise.error(plan.judge.z) and not is_low_precision(plan.evaluator):
        # so long that the direction can be rounded, here and at the two steps below
        step = max(step, float(RATIO**2 * 2.0 ** np.ceil(np.log2(unit / GRAIN))))
    rungs: list[Rung] = []
    for shortened in range(RUNGS):
        rung = _rung(plan, drawn, step, lost, unit)
        if rung is None:
            return None
        rungs.append(rung)
        found = settled(rungs)
        if found is None and shortened == 0 and abs(rung.residual) <= expected:
            found = rung, State.REPEATED
        if found is None and shortened == 0 and like is not None and (told := like.vouches(rung)) is not None:
            found = told, State.REPEATED
        if found is None and shortened == 0 and rung.uncertainty < abs(rung.residual) < NEAR * rung.uncertainty:
            longer = _rung(plan, drawn, 2 * step, lost, unit)
            if longer is None:
                return None
            if agree(rung, longer) and abs(longer.gap - 2 * rung.gap) <= 3 * rung.uncertainty:
                found = doubtful(rung, longer), State.REPEATED
        if found is not None and not _meaningless(plan, *found):
            return _probe(plan, number, shortened, rungs, *found)
        step /= RATIO
    return _probe(plan, number, RUNGS, rungs, rungs[-1], State.UNSETTLED)


def _probe(plan: Probing, number: int, shortened: int, rungs: Sequence[Rung], rung: Rung, state: State) -> Probe:
    first, truncation, kink = rungs[0], math.inf, abs(rungs[-1].gap)
    if len(rungs) > 1:
        if abs(first.gap - RATIO * rungs[1].gap) <= thresholds.SMOOTHLY * abs(first.gap):
            truncation = abs(first.residual) / first.uncertainty if first.uncertainty else math.inf
        longer, shorter = rungs[-2:]  # what closes in proportion to the step is curvature
        kink = abs(shorter.gap - (longer.gap - shorter.gap) / (RATIO - 1)) + shorter.uncertainty
    deviation = plan.deviation(rung.step)
    told = rung.step, rung.slope, rung.residual, deviation, rung.uncertainty, state, shortened, truncation, rung.gap
    return Probe(number, *told, kink)


def _stands_alone(residual: float, slope: float, kink: float, uncertainty: float) -> bool:
    """Say whether a residual is far clear of its noise, and of what kinks may make of it: a step tells all of it."""
    straight = kink <= thresholds.COINCIDE * abs(slope) and thresholds.STANDS_OUT * kink < abs(residual)
    return straight and abs(residual) > LOUD * uncertainty


def _rung(plan: Probing, drawn: _Drawn, step: float, lost: float, unit: float) -> Rung | None:
    if plan.run.over():
        return None
    if lost > LOSES * plan.noise.error(plan.judge.z) and unit <= GRAIN * step and not is_low_precision(plan.evaluator):
        # what is lost stays: where theta is so long beside its steps, the loss's own arithmetic rounds it too
        drawn = _Drawn(plan, drawn.region, drawn.number, rounded=step)
    try:
        values = drawn.along(np.array([step, -step]))
    except KeyboardInterrupt:
        plan.run.stopped = "interrupted"
        return None
    slope = float(values[0] - values[1]) / (2 * step)
    gap = float(values[0] + values[1] - 2 * plan.base) / (2 * step)
    uncertainty = plan.uncertainty(step) + lost / step + drawn.argument
    return Rung(step, slope, drawn.analytic - slope, uncertainty, gap)


def _representable(theta: FloatArray, direction: FloatArray, step: float) -> FloatArray:
    """Return the direction, changed so little that theta plus and minus the step along it are vectors of floats."""
    moved = step * direction
    unit = np.spacing(np.abs(theta) + np.abs(moved))
    return np.asarray(np.round(moved / unit) * unit / step)


def _meaningless(plan: Probing, rung: Rung, state: State) -> bool:
    """Say whether an error is only that the loss does not move where it should, while it has next to no digits.

    A loss that goes up and down many times within each step looks like that; it may have the derivative all the same.
    """
    flat = abs(rung.slope) <= rung.uncertainty
    return state is State.REPEATED and flat and plan.noise.relative > thresholds.OSCILLATION
