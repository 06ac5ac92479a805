"""What the directions over one block say of it: the estimate and the bounds of its error, and their grade."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from fastcheck import thresholds
from fastcheck.arrays import FloatArray
from fastcheck.judge.bounds import detectable_norm, error_norm, error_norm_bound, error_norm_floor, split
from fastcheck.judge.coordinates import excess_of_one
from fastcheck.judge.verdict import Verdict, grade
from fastcheck.measure.ladder import State
from fastcheck.measure.probes import Probe
from fastcheck.parameters import Block

__all__ = ["BlockProbes"]


@dataclass
class BlockProbes:
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
    joint : tuple of Probe
        The directions through several blocks at once that the probes are this block's share of; empty where they moved
        this block alone.
    singled_out : Probe or None
        A joint probe's share that came from this block and stood out; see `acquitted`.
    unit, stretch : float
        Where each entry was moved by a size of its own: ||g|| over `norm`, and how much larger ||e|| / ||g|| may be
        than `bound` and `detectable`, which are those of what was moved.
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
    joint: tuple[Probe, ...] = ()
    singled_out: Probe | None = None
    unit: float = 1.0
    stretch: float = 1.0

    @property
    def residuals(self) -> FloatArray:
        """Analytic minus measured, shape (k,)."""
        return np.array([probe.residual for probe in self.probes])

    @property
    def error(self) -> float:
        """Estimate of ||e||, noise included."""
        return error_norm(self.residuals)

    @property
    def shortest(self) -> float:
        """The shortest step that served a direction over the block alone; infinite where none did."""
        return math.inf if self.joint else min((probe.step for probe in self.probes), default=math.inf)

    @property
    def repeated(self) -> list[Probe]:
        """Probes that stand out and whose residual another step repeated."""
        return [probe for probe in self.probes if probe.state is State.REPEATED]

    @property
    def scale(self) -> float:
        """Estimate of ||g|| + ||n||, n the true gradient."""
        if not self.probes or self.joint or not math.isfinite(self.error):
            return 2 * self.norm
        slopes = np.array([probe.slope for probe in self.probes])
        # ||n||^2 = ||g||^2 - 2 g.e + ||e||^2, and the mean of (g.v)(e.v) is g.e: little scatter where e is small
        square = self.norm**2 + float(np.mean(slopes**2 - (slopes + self.residuals) ** 2))
        return self.norm + math.sqrt(max(square, 0.0))

    @property
    def factor(self) -> float | None:
        """The c of e = c g that explains every residual within its uncertainty; None where none does."""
        if len(self.repeated) < thresholds.FITTED:
            return None
        residuals, claimed = self.residuals, np.array([p.slope + p.residual for p in self.probes])
        weight = np.array([1 / max(p.uncertainty, abs(p.residual) * thresholds.ROUGHLY) for p in self.probes])
        c = float((weight**2 * claimed) @ residuals) / float((weight * claimed) @ (weight * claimed) or 1.0)
        return c if np.all(weight * np.abs(residuals - c * claimed) <= 1) else None

    @property
    def difference(self) -> float:
        """The textbook's ratio ||g - n|| / (||g|| + ||n||): from a factor that explains all, else an estimate."""
        if not self.scale:
            return math.nan
        c = self.factor
        return abs(c) / (1 + abs(1 - c)) if c is not None else min(1.0, self.error / self.scale)

    @property
    def spread(self) -> float:
        """Of `difference`: what the noise may make of it and, of an estimate, two standard errors."""
        if not self.scale:
            return math.nan
        noise = self.uncertainty / self.scale
        guessed = self.factor is None and bool(self.repeated)
        return noise + (2 * self.difference / math.sqrt(2 * len(self.probes)) if guessed else 0.0)

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
        # Missed where no direction shows it, or where all together show too little: each half as likely as is stated.
        sure = split(self.confidence, 2)
        seen = detectable_norm(np.array([_threshold(probe) for probe in self.probes]), sure)
        # An error that is seen is measured along all the directions; it must then exceed the tolerance
        quantile = error_norm_bound(np.ones(thresholds.LOOKS[-1]), sure)
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
    def inconclusive(self) -> bool:
        """Whether the bound is too large beside the gradient, or the gradient is zero: the block is unchecked."""
        sure = self.bound <= self.good() or self.acquitted
        return not self.failed and not (self.norm > 0 and self.bound <= self.limit and sure)

    @property
    def acquitted(self) -> bool:
        """Whether the directions over the block alone tell as much as the joint one that singled it out.

        They are as sharp, or the same direction with a shorter step gave another residual: an error's would be the
        same, so that one was of kinks.
        """
        one = self.singled_out
        if one is None or self.uncertainty <= one.uncertainty:
            return True
        return any(
            probe.number == one.number
            and probe.step < one.step
            and abs(probe.residual - one.residual) > probe.uncertainty + one.uncertainty
            for probe in self.probes
        )

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
        return Verdict.INCONCLUSIVE if self.inconclusive else Verdict.CORRECT

    def good(self, slack: float = 1.0) -> float:
        """Return a relative bound that ends the measuring; so many times as large, where that is good enough."""
        return min(slack * thresholds.GOOD * self.tolerance, self.limit)

    def _clear(self) -> FloatArray:
        """Return what of each residual is clear of the noise, shape (k,); 0 where no other step repeated it."""
        return np.array(
            [excess_of_one(abs(p.residual), p.uncertainty, 1.0) * (p.state is State.REPEATED) for p in self.probes]
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
        if self.bound <= self.good():
            return True
        last = error_norm_bound(np.ones(thresholds.LOOKS[-1]), self.each) * self.error / self.norm
        return len(self.probes) >= thresholds.LOOKS[1] and (
            last > self.limit or (last > self.good() and self.bound <= self.limit)
        )


def _threshold(probe: Probe) -> float:
    """Return the |e.v| beyond which a probe stands out and repeats itself, whatever its noise does.

    Where theta is at a kink along the direction, the slopes to its two sides may hide any error.
    """
    return math.inf if probe.state in (State.UNSETTLED, State.KINK) else thresholds.REPEATED * probe.uncertainty
