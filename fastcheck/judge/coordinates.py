"""How errors are judged: what of analytic minus measured stands clear of the uncertainty, and how it is graded.

With g the analytic and n the measured derivative, u its uncertainty, the *error in excess* of one coordinate is
max(0, |g - n| - u) / (|g| + |n|); of a block or the whole the same with Euclidean norms, which is the textbook's ratio
less what the measurement can't tell. At a kink n is an interval, and |g - n| the distance to it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastcheck import thresholds
from fastcheck.arrays import FloatArray, IntArray
from fastcheck.estimates import Estimate, Estimates, Status
from fastcheck.judge.bounds import normal_above
from fastcheck.judge.verdict import Verdict, grade, worst

__all__ = ["Comparison", "Judge", "Lost", "Norms", "excess", "excess_of_one"]

SOME = 1 << 12  # rows that tell a typical error
CHUNK = 1 << 15  # rows compared at a time, so that comparing needs no vector like theta
EXCUSED = (Status.CROSSED, Status.KINK)


@dataclass(frozen=True)
class Norms:
    """Squared norms of one block or more, to be added up.

    ``error`` is of g - n, ``analytic`` of g, ``measured`` of n, ``noise`` of one standard deviation of n (with safety),
    ``truncation`` of the systematic part of the uncertainty, ``excused`` of the part of the error that is at kinks;
    ``count`` coordinates went in, and the largest standard deviation of one is ``noisiest``, not squared.
    """

    error: float = 0.0
    analytic: float = 0.0
    measured: float = 0.0
    noise: float = 0.0
    truncation: float = 0.0
    count: int = 0
    noisiest: float = 0.0
    excused: float = 0.0

    def __add__(self, other: Norms) -> Norms:
        return Norms(
            self.error + other.error,
            self.analytic + other.analytic,
            self.measured + other.measured,
            self.noise + other.noise,
            self.truncation + other.truncation,
            self.count + other.count,
            max(self.noisiest, other.noisiest),
            self.excused + other.excused,
        )

    @cached_property
    def scale(self) -> float:
        """||g|| + ||n||."""
        return math.sqrt(self.analytic) + math.sqrt(self.measured)

    @property
    def difference(self) -> float:
        """The textbook's ratio; NaN where both norms are zero."""
        return math.sqrt(self.error) / self.scale if self.scale else math.nan

    def bound(self, z: float) -> float:
        """Return the largest relative error that the measurements leave possible: (||g - n|| + ||u||) / ||g||."""
        if not self.count or not self.analytic:
            return math.nan
        return (math.sqrt(self.error) + self.uncertainty(z)) / math.sqrt(self.analytic)

    def uncertainty(self, z: float) -> float:
        """Return an upper bound on the norm of the measurement's error, in units of the derivative.

        The norm of independent errors of standard deviations s_i is at most sqrt(sum s_i^2) + z max s_i: it is a
        Lipschitz function of them (Boucheron, Lugosi, Massart 2013, "Concentration Inequalities", theorem 5.6).
        Systematic parts add without such help.
        """
        if not self.count:
            return math.nan
        return math.sqrt(self.noise) + z * self.noisiest + math.sqrt(self.truncation)


@dataclass(frozen=True)
class Comparison:
    """What the comparison of one block, coordinate by coordinate, found.

    Attributes
    ----------
    norms : Norms
        Of the coordinates measured in it.
    excess : float
        Relative error of the block clear of its uncertainty.
    kinks, jumps, unresolved, missing : int
        Coordinates at a kink (or whose first step crossed one), at a jump, without an answer, not measured.
    verdict : Verdict
        The worst grade of the block and its coordinates; INCONCLUSIVE where nothing could be resolved.
    wrong : int64, shape (w,)
        Coordinates of theta that are suspicious or wrong, worst first.
    resolved : bool
        The uncertainty is small enough beside the gradient for a pass to mean something.
    unconfirmed : float
        Relative error that the first measurements showed, clear of their uncertainty, and longer looks neither bore
        out nor refuted.
    doubt : float
        The norm of an error that is no proof, for the gradient's own arithmetic of few digits may explain it.
    doubtful : bool
        There is such an error, and no larger one.
    kink_width : float
        The norm of the widest error that the kinks at theta hide: of the intervals between their slopes.
    diffuse : bool
        Nearly every coordinate differs a little, none by much more than the others: two functions that are not quite
        the same, rather than a mistake in one place.
    clear : int
        Coordinates that differ by more than their uncertainty, however little.
    """

    norms: Norms
    excess: float
    kinks: int
    jumps: int
    unresolved: int
    missing: int
    verdict: Verdict
    wrong: IntArray
    resolved: bool
    unconfirmed: float = 0.0
    doubt: float = 0.0
    doubtful: bool = False
    kink_width: float = 0.0
    diffuse: bool = False
    clear: int = 0

    @property
    def checked(self) -> bool:
        """Whether the block passed or was refuted: it says something."""
        return self.verdict is not Verdict.INCONCLUSIVE


@dataclass(frozen=True)
class Lost:
    """What the analytic gradient of a block may have lost to rounding, in units of the derivative.

    Attributes
    ----------
    eps : float
        Unit roundoff of the arithmetic it came in.
    argument : float
        What rounding of the parameters makes of it, however small it is itself: see `Noise.argument`.
    """

    eps: float
    argument: float = 0.0

    def in_one(self, analytic: FloatArray) -> float:
        """Return that in one coordinate, given all of the block's gradient."""
        largest = max(float(analytic.max(initial=0.0)), -float(analytic.min(initial=0.0)))
        return thresholds.GRADIENT_ROUNDING * self.eps * largest + self.argument

    def in_norm(self, norm: float) -> float:
        """Return that in the norm of many coordinates, given the norm of their gradient."""
        return thresholds.GRADIENT_ROUNDING_NORM * self.eps * norm + self.argument


@dataclass(frozen=True)
class Judge:
    """How errors are judged: thresholds corrected for the number of things measured in one run.

    Attributes
    ----------
    tolerance : float
        Relative error that still counts as correct.
    confidence : float
        That no noise alone makes an error, over the whole run.
    count : int
        Coordinates measured in the run.
    """

    tolerance: float
    confidence: float
    count: int

    @cached_property
    def z(self) -> float:
        """Standard deviations that noise exceeds nowhere in the run, at its confidence (Bonferroni)."""
        return normal_above((1 - self.confidence) / (2 * max(1, self.count)))

    @property
    def limit(self) -> float:
        """Relative uncertainty above which nothing can be passed."""
        return max(thresholds.RESOLUTION, self.tolerance)

    def excess(self, found: Estimates, analytic: FloatArray, lost: Lost) -> NDArray[np.float32]:
        """Return every measured coordinate's relative error in excess, shape (m,); NaN where it was not measured.

        `analytic` is all of the block's gradient, `lost` what it may have lost to rounding.
        """
        own = lost.in_one(analytic)
        each = np.empty(len(found), np.float32)  # a share needs no more digits
        for row, (g, n, distance, u) in enumerate(_chunks(found, analytic)):
            each[row * CHUNK : (row + 1) * CHUNK] = excess(distance, u + own, np.abs(g) + np.abs(n))
        return each

    def compare(self, found: Estimates, analytic: FloatArray, lost: Lost, doubt: float = 0.0) -> Comparison:
        """Compare one block; parameters as in `excess`, and the norm of the error that is no proof."""
        own = lost.in_one(analytic)
        norms, missing, clear = Norms(), 0, 0
        suspects: dict[int, float] = {}  # only those that stand out are kept, so that comparing needs no vector
        for row, (g, n, distance, u) in enumerate(_chunks(found, analytic)):
            part = slice(row * CHUNK, row * CHUNK + len(g))
            here = np.isfinite(n)
            missing += len(g) - int(np.count_nonzero(here))
            norms = norms + _norms(g, n, distance, found.rounding[part], found.truncation[part], here, self.z)
            out = np.flatnonzero(here & (distance > u + own))
            if len(out):
                clear += len(out)
                each = excess(distance[out], u[out] + own, np.abs(g[out]) + np.abs(n[out]))
                errors = zip(out.tolist(), each.tolist(), strict=True)
                suspects |= {part.start + k: error for k, error in errors if error > self.tolerance}
        at_kinks = [found.row(place) for place, estimate in found.looks.items() if estimate.status in EXCUSED]
        off = [found.value[row] - _claimed(found, analytic, row) for row in at_kinks]
        excused = min(norms.error, float(np.nansum(np.square(off)))) if off else 0.0
        norms = first = norms + Norms(truncation=lost.in_norm(math.sqrt(norms.analytic)) ** 2, excused=excused)
        if found.forgiven or found.systematic:
            first = norms + Norms(truncation=-min(found.forgiven, norms.truncation))
            norms = norms + Norms(truncation=found.systematic**2)
        compared = self._verdict(found, analytic, norms, suspects, clear, missing, doubt, frozenset(at_kinks))
        unconfirmed = 0.0 if found.cleared else self.norm_excess(first)
        if compared.verdict.passed and unconfirmed and not self.norm_grade(first, unconfirmed).passed:
            compared = replace(compared, verdict=Verdict.INCONCLUSIVE, unconfirmed=unconfirmed)
        if compared.verdict.passed and (missing or compared.jumps or compared.unresolved):
            compared = replace(compared, verdict=Verdict.INCONCLUSIVE)
        if compared.verdict.refuted and math.sqrt(norms.error) <= doubt:
            return replace(compared, verdict=Verdict.INCONCLUSIVE, wrong=compared.wrong[:0], doubtful=True)
        return compared

    def _verdict(
        self,
        found: Estimates,
        analytic: FloatArray,
        norms: Norms,
        suspects: Mapping[int, float],
        clear: int,
        missing: int,
        doubt: float,
        at_kinks: frozenset[int],
    ) -> Comparison:
        status = [estimate.status for estimate in found.looks.values()]
        relative = max(self.norm_excess(norms), found.error_floor / norms.scale if norms.scale else 0.0)
        grades = {row: grade(value, self.tolerance, row in at_kinks) for row, value in suspects.items()}
        everywhere = norms.count >= thresholds.SEVERAL and clear >= thresholds.EVERYWHERE * norms.count
        diffuse = everywhere and relative < thresholds.SUSPICIOUS
        typical = _typical_error(found, analytic) if everywhere else 0.0
        slight = everywhere and typical * math.sqrt(norms.count) <= thresholds.CANCELLED * norms.scale
        if diffuse or slight:  # what all coordinates have is the block's matter: none is wrong for its own small size
            alike = {
                row
                for row in grades
                if abs(_claimed(found, analytic, row) - float(found.value[row])) <= thresholds.ALIKE * typical
            }
            allowed = slight or self.tolerance >= thresholds.ALLOWED
            grades = {row: _milder(one, allowed) if row in alike else one for row, one in grades.items()}
        bad = sorted((row for row, g in grades.items() if not g.passed), key=lambda row: -suspects[row])
        verdict = worst([self.norm_grade(norms, relative), *set(grades.values())])
        resolved = self.resolved(norms)
        if verdict.passed and not resolved:
            verdict = Verdict.INCONCLUSIVE
        return Comparison(
            norms=norms,
            excess=relative,
            kinks=len(at_kinks),
            jumps=sum(s is Status.JUMP for s in status),
            unresolved=sum(s is Status.UNRESOLVED for s in status),
            missing=missing,
            verdict=verdict,
            wrong=found.places(np.array(bad, dtype=np.int64)),
            resolved=resolved,
            kink_width=math.hypot(*(e.width for e in found.looks.values() if e.status is Status.KINK)),
            doubt=doubt,
            diffuse=diffuse,
            clear=clear,
        )

    def norm_excess(self, norms: Norms, excused: float = 0.0) -> float:
        """Return the relative error of a block, or of the whole, in excess of its uncertainty, less what is excused."""
        if not norms.count:
            return 0.0
        return excess_of_one(math.sqrt(norms.error - excused), norms.uncertainty(self.z), norms.scale)

    def norm_grade(self, norms: Norms, relative: float) -> Verdict:
        """Grade the relative error of a block, or of the whole; kinks excuse what is at them, and nothing else."""
        elsewhere = grade(self.norm_excess(norms, norms.excused), self.tolerance, kinks=False)
        return worst([elsewhere, grade(relative, self.tolerance, kinks=norms.excused > 0)])

    def refutes(self, estimate: Estimate, claimed: float) -> bool:
        """Say whether a measured coordinate shows a claimed derivative to be suspicious or wrong, by itself."""
        low, high = estimate.interval
        distance = max(low - claimed, claimed - high, 0.0)
        clear = excess_of_one(distance, estimate.uncertainty, abs(claimed) + abs(estimate.value))
        return not grade(clear, self.tolerance, kinks=False).passed

    def resolved(self, norms: Norms) -> bool:
        """Say whether the uncertainty is small enough beside the gradient for a pass to mean something."""
        return norms.count > 0 and norms.scale > 0 and norms.uncertainty(self.z) <= self.limit * norms.scale

    def detectable(self, compared: Comparison) -> float:
        """Return the smallest relative error of a block that would have stood out."""
        size = math.sqrt(compared.norms.analytic)
        if not size or not compared.resolved:
            return math.inf
        hidden = 2 * compared.norms.uncertainty(self.z) + compared.doubt + compared.kink_width
        return 2 * self.tolerance + hidden / size

    def whole(self, blocks: Iterable[Comparison], allow: bool) -> tuple[Norms, Verdict]:
        """Return the norms over all blocks and the verdict of the run: the worst of all blocks and of the whole.

        Allowed, a block that could not be resolved does not spoil the verdict of the others, as long as its uncertainty
        is small beside the whole gradient; it is named in the report, and never passed.
        """
        blocks = [block for block in blocks if block.norms.count or block.missing]
        norms = sum((block.norms for block in blocks), Norms())
        verdict = worst(block.verdict for block in blocks if not (allow and not block.resolved and not block.checked))
        if not any(block.doubtful for block in blocks):
            verdict = worst([verdict, self.norm_grade(norms, self.norm_excess(norms))])
        if verdict.passed and not self.resolved(norms):
            verdict = Verdict.INCONCLUSIVE
        return norms, verdict


def excess(distance: ArrayLike, uncertainty: ArrayLike, scale: ArrayLike) -> FloatArray:
    """Return what of an error is clear of its uncertainty, relative to a scale; 0 where nothing is.

    Parameters
    ----------
    distance, uncertainty, scale : float or float64 array
        |g - n|, or its distance to the subgradients at a kink; the largest error of the measurement; |g| + |n|.
    """
    clear = np.maximum(np.subtract(distance, uncertainty), 0.0)
    out: FloatArray = np.divide(clear, scale, out=np.zeros_like(clear), where=clear > 0)
    return out


def excess_of_one(distance: float, uncertainty: float, scale: float) -> float:
    """Return what `excess` does, of one error: a check of a small net asks for dozens, each without an array."""
    clear = distance - uncertainty
    if not clear > 0:
        return 0.0
    return clear / scale if scale else math.inf


def _claimed(found: Estimates, analytic: FloatArray, row: int) -> float:
    """Return the analytic derivative of a row."""
    return float(analytic[found.place(row) - found.block.start])


def _milder(verdict: Verdict, allowed: bool) -> Verdict:
    """Return the verdict of a coordinate that differs as all do: never wrong, and correct if that is allowed for."""
    if allowed:
        return Verdict.CORRECT
    return Verdict.SUSPICIOUS if verdict is Verdict.WRONG else verdict


def _typical_error(found: Estimates, analytic: FloatArray) -> float:
    """Return the median of |g - n| over a block, or over some of a large one."""
    rows = slice(0, len(found), max(1, len(found) // SOME))
    errors = np.abs(analytic[found.places(rows) - found.block.start] - found.value[rows])
    return float(np.nanmedian(errors))


def _norms(
    g: FloatArray,
    n: FloatArray,
    distance: FloatArray,
    rounding: NDArray[np.float32],
    truncation: NDArray[np.float32],
    here: NDArray[np.bool_],
    z: float,
) -> Norms:
    if not here.all():
        g, n, distance, rounding, truncation = g[here], n[here], distance[here], rounding[here], truncation[here]
    # A rounding piece bounds the worst of the run; the standard deviation of one is z times smaller. The sum of two
    # loss errors is divided by two steps, hence the root.
    noise = rounding.astype(np.float64) / (z * math.sqrt(2.0))
    systematic = truncation.astype(np.float64)
    return Norms(
        float(distance @ distance),
        float(g @ g),
        float(n @ n),
        float(noise @ noise),
        float(systematic @ systematic),
        len(g),
        float(noise.max(initial=0.0)),
    )


def _chunks(found: Estimates, analytic: FloatArray) -> Iterator[tuple[FloatArray, FloatArray, FloatArray, FloatArray]]:
    """Yield analytic, measured, their distance and the uncertainty, some rows at a time."""
    looked = {found.row(place): r for place, r in found.looks.items() if r.status is Status.KINK}
    for start in range(0, len(found), CHUNK):
        rows = slice(start, min(start + CHUNK, len(found)))
        g = analytic[rows] if found.coordinates is None else analytic[found.coordinates[rows] - found.block.start]
        n = found.value[rows]
        distance = np.abs(g - n)
        here = {row - rows.start: resolved for row, resolved in looked.items() if rows.start <= row < rows.stop}
        excused = [k for k, resolved in here.items() if resolved.excuses(float(g[k]))]
        if excused:  # not measured: there is no derivative to be compared with
            n = n.copy()
            n[excused] = np.nan
        for k, resolved in here.items():
            low, high = resolved.interval
            distance[k] = max(low - g[k], g[k] - high, 0.0)
        u = found.rounding[rows].astype(np.float64) + found.truncation[rows]
        yield g, n, distance, u
