"""The screen: a few random directions over each block bound the error of all of its coordinates at once.

With e the error of a block's gradient, the residual along a Gaussian direction is N(0, ||e||^2) whatever e looks like,
so a handful of them gives an exact bound on ||e|| (`fastcheck.bounds`). The number of evaluations depends on how sure
one wants to be, not on how many coordinates there are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from fastcheck.arrays import FloatArray
from fastcheck.bounds import detectable_norm, error_norm, error_norm_bound, error_norm_floor, split
from fastcheck.noise import scale_of_blocks
from fastcheck.parameters import Block
from fastcheck.plans.probing import NEAR, Probe, Probing, State, measure, probe_step
from fastcheck.plans.regions import Region
from fastcheck.verdict import Verdict, grade

__all__ = ["LOOKS", "PROBES", "Screened", "screen"]

PROBES = 100  # residuals of a block that may be judged in one run, at any step, in any part of it
LOOKS = (3, 6, 12)  # directions after which a block is judged; each look has its share of the confidence
GOOD = 10.0  # a bound of so many tolerances ends the measuring
FAINT = 1e-6  # a block whose gradient is this small beside the whole's is measured as if it were this large


@dataclass
class Screened:
    """What the directions over one block found.

    Attributes
    ----------
    number : int
        Of the block in the layout.
    block : Block
        The block.
    norm : float
        ||g||, the analytic gradient's.
    tolerance, limit : float
        Of the run.
    confidence, each : float
        Of the run, and of one look at one block.
    doubt : float
        The norm of an error that is no proof; see `Analytic`.
    probes : list of Probe
        The directions.
    bound_of_error : float
        Smallest upper bound on ||e|| that a look gave, in units of the derivative; inf before the first.
    """

    number: int
    block: Block
    norm: float
    tolerance: float
    limit: float
    confidence: float
    each: float
    doubt: float
    probes: list[Probe] = field(default_factory=list)
    bound_of_error: float = math.inf

    @property
    def residuals(self) -> FloatArray:
        """Analytic minus measured, shape (k,)."""
        return np.array([probe.residual for probe in self.probes])

    @property
    def error(self) -> float:
        """Estimate of ||e||, noise included."""
        return error_norm(self.residuals)

    @property
    def repeated(self) -> list[Probe]:
        """Probes that stand out and whose residual another step repeated."""
        return [probe for probe in self.probes if probe.state is State.REPEATED]

    @property
    def scale(self) -> float:
        """Estimate of ||g|| + ||n||, n the true gradient."""
        if not self.probes or not math.isfinite(self.error):
            return 2 * self.norm
        slopes = np.array([probe.slope for probe in self.probes])
        # ||n||^2 = ||g||^2 - 2 g.e + ||e||^2, and the mean of (g.v)(e.v) is g.e: little scatter where e is small
        square = self.norm**2 + float(np.mean(slopes**2 - (slopes + self.residuals) ** 2))
        return self.norm + math.sqrt(max(square, 0.0))

    @property
    def difference(self) -> float:
        """Estimate of the textbook's ratio ||g - n|| / (||g|| + ||n||)."""
        return self.error / self.scale if self.scale else math.nan

    @property
    def excess(self) -> float:
        """The same clear of the noise; 0 unless some direction stands out and was repeated."""
        if not self.repeated or not self.scale:
            return 0.0
        return error_norm(self._clear()) / self.scale

    @property
    def uncertainty(self) -> float:
        """What the noise alone may make of `error`, in units of the derivative."""
        return error_norm(np.array([probe.uncertainty for probe in self.probes]))

    @property
    def bound(self) -> float:
        """Upper bound on ||e|| / ||g||."""
        return self.bound_of_error / self.norm if self.norm else math.nan

    @property
    def detectable(self) -> float:
        """Smallest ||e|| / ||g|| that these directions make fail."""
        if not self.norm or not self.probes:
            return math.inf
        seen = detectable_norm(np.array([_threshold(probe) for probe in self.probes]), self.confidence)
        # An error that is seen is measured along all the directions; it must then exceed the tolerance
        quantile = error_norm_bound(np.ones(LOOKS[-1]), self.confidence)
        return max(seen, 2 * self.norm * self.tolerance * quantile, self.doubt * quantile) / self.norm

    @property
    def rounded(self) -> bool:
        """Whether its error, if any, may be the rounding of the gradient's own arithmetic."""
        return self.error <= self.doubt

    @property
    def failed(self) -> bool:
        """Whether the block is suspicious or wrong."""
        return self.excess > self.tolerance

    @property
    def silent(self) -> bool:
        """Whether the bound is too large beside the gradient, or the gradient is zero: the block is unchecked."""
        return not self.failed and not (self.norm > 0 and self.bound <= self.limit)

    @property
    def kinks(self) -> int:
        """How many probes agreed only at a shorter step, or are at a kink."""
        shortened = sum(probe.shortened > 0 for probe in self.probes if probe.state is State.CLEAN)
        return shortened + sum(probe.state in (State.KINK, State.UNSETTLED) for probe in self.probes)

    @property
    def verdict(self) -> Verdict:
        """The grade of the block."""
        if self.failed:
            return grade(self.excess, self.tolerance, kinks=False)
        return Verdict.INCONCLUSIVE if self.silent else Verdict.CORRECT

    def _clear(self) -> FloatArray:
        """Return what of each residual is clear of the noise, shape (k,); 0 where no other step repeated it."""
        return np.array(
            [max(0.0, abs(p.residual) - p.uncertainty) if p.state is State.REPEATED else 0.0 for p in self.probes]
        )

    def look(self) -> None:
        """Take the bound of all directions so far."""
        bound = error_norm_bound(self.residuals, self.each)
        if math.isfinite(bound):
            self.bound_of_error = min(self.bound_of_error, bound)

    @property
    def settled(self) -> bool:
        """Whether more directions would change nothing that matters."""
        if self.repeated:
            floor = error_norm_floor(self._clear(), self.each)
            return floor > self.tolerance * self.scale or self.bound_of_error <= self.tolerance * self.norm
        if not self.norm:
            return True
        good = min(GOOD * self.tolerance, self.limit)
        if self.bound <= good:
            return True
        last = error_norm_bound(np.ones(LOOKS[-1]), self.each) * self.error / self.norm
        return len(self.probes) >= LOOKS[1] and (last > self.limit or (last > good and self.bound <= self.limit))


def _threshold(probe: Probe) -> float:
    """Return the |e.v| beyond which a probe stands out and repeats itself, whatever its noise does.

    Where theta is at a kink along the direction, the slopes to its two sides may hide any error.
    """
    return math.inf if probe.state in (State.UNSETTLED, State.KINK) else 3 * probe.uncertainty


def screen(
    plan: Probing, chosen: Iterable[tuple[int, Block]], confidence: float, looks: Sequence[int] = LOOKS
) -> list[Screened]:
    """Screen some blocks, the small ones first; about 7 evaluations each on a smooth loss.

    Parameters
    ----------
    plan : Probing
        The loss and the settings.
    chosen : iterable of (int, Block)
        Number of each block in the layout, and the block.
    confidence : float
        Of all the bounds together.
    looks : sequence of int
        Directions after which a block is judged, and may be done.

    Returns
    -------
    list of Screened
        In the order of `chosen`; a block that a stopped run did not come to has no probes.
    """
    chosen = list(chosen)
    each = split(confidence, len(looks) * len(chosen))
    scales = scale_of_blocks(plan.evaluator)
    flat = plan.analytic.flat
    whole = math.sqrt(float(flat @ flat))
    found = [
        Screened(
            n,
            b,
            plan.norm(n),
            plan.judge.tolerance,
            plan.judge.limit,
            confidence,
            each,
            float(plan.analytic.doubt[n]),
        )
        for n, b in chosen
    ]
    for one in sorted(found, key=lambda one: one.block.size):
        if one.block.size:
            if one.number in plan.uneven:
                step = probe_step(plan, one.norm, 1.0)
            else:
                step = probe_step(plan, max(one.norm, FAINT * whole), float(scales[one.number]))
            _screen_block(plan, one, step, looks)
        plan.run.advance(one.block.size)
    return found


def _screen_block(plan: Probing, one: Screened, step: float, looks: Sequence[int]) -> None:
    region = Region.whole(one.number, one.block)
    for look in looks:
        while len(one.probes) < look:
            probe = measure(plan, region, len(one.probes), step)
            if probe is None:
                return
            one.probes.append(probe)
            # A step that had to be shortened twice was too long for this block; begin nearer to what worked
            if probe.shortened > 1:
                step = min(step, probe.step * NEAR)
        one.look()
        if one.settled:
            return
