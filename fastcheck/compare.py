"""Analytic against measured: what stands clear of the uncertainty, block by block and over the whole.

With g the analytic and n the measured derivative, u its uncertainty, the *error in excess* of one coordinate is
max(0, |g - n| - u) / (|g| + |n|); of a block or the whole the same with Euclidean norms, which is the textbook's ratio
less what the measurement can't tell. At a kink n is an interval, and |g - n| the distance to it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from fastcheck.arrays import FloatArray, IntArray
from fastcheck.differences import BlockDerivatives, Status
from fastcheck.noise import SAFETY
from fastcheck.verdict import RESOLUTION, Verdict, grade, worst

__all__ = ["BlockComparison", "Judge", "Norms"]

CHUNK = 1 << 15  # rows compared at a time, so that comparing needs no vector like theta
GRADIENT_ROUNDING = 32.0  # unit roundoffs of the block's largest entry that backpropagation may lose itself
EXCUSED = (Status.CROSSED, Status.KINK)


@dataclass(frozen=True)
class Norms:
    """Squared norms of one block or more, to be added up.

    ``error`` is of g - n, ``analytic`` of g, ``measured`` of n, ``noise`` of one standard deviation of n (with safety),
    ``truncation`` of the systematic part of the uncertainty; ``count`` coordinates went in, and the largest standard
    deviation of one is ``noisiest``, not squared.
    """

    error: float = 0.0
    analytic: float = 0.0
    measured: float = 0.0
    noise: float = 0.0
    truncation: float = 0.0
    count: int = 0
    noisiest: float = 0.0

    def __add__(self, other: Norms) -> Norms:
        sums = {name: getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__}
        return Norms(**sums | {"noisiest": max(self.noisiest, other.noisiest)})

    @property
    def scale(self) -> float:
        """||g|| + ||n||."""
        return math.sqrt(self.analytic) + math.sqrt(self.measured)

    @property
    def difference(self) -> float:
        """The textbook's ratio; NaN where both norms are zero."""
        return math.sqrt(self.error) / self.scale if self.scale else math.nan

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
class BlockComparison:
    """What the comparison of one block found.

    Attributes
    ----------
    norms : Norms
        Of the coordinates measured in it.
    excess : float
        Relative error of the block clear of its uncertainty.
    worst_excess : float
        Largest error of a single coordinate clear of its uncertainty.
    kinks, jumps, unresolved, missing : int
        Coordinates at a kink (or whose first step crossed one), at a jump, without an answer, not measured.
    verdict : Verdict
        The worst grade of the block and its coordinates; INCONCLUSIVE where nothing could be resolved.
    wrong : int64, shape (w,)
        Coordinates of theta that are suspicious or wrong, worst first.
    silent : bool
        Analytic and measured are both zero, or below the noise: the block is unchecked.
    doubt : float
        The norm of an error that is no proof, for the gradient's own arithmetic of few digits may explain it.
    doubtful : bool
        There is such an error, and no larger one.
    open : float
        The norm of the widest error that the kinks at theta hide: of the intervals between their slopes.
    """

    norms: Norms
    excess: float
    worst_excess: float
    kinks: int
    jumps: int
    unresolved: int
    missing: int
    verdict: Verdict
    wrong: IntArray
    silent: bool
    doubt: float = 0.0
    doubtful: bool = False
    open: float = 0.0


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

    @property
    def z(self) -> float:
        """Standard deviations that noise exceeds nowhere in the run, at its confidence (Bonferroni)."""
        return float(stats.norm.isf((1 - self.confidence) / (2 * max(1, self.count))))

    def loss_error(self, noise: float) -> float:
        """Return the largest error of a loss value in the whole run, given its standard deviation."""
        return SAFETY * self.z * noise

    @property
    def limit(self) -> float:
        """Relative uncertainty above which nothing can be passed."""
        return max(RESOLUTION, self.tolerance)

    def excess(self, found: BlockDerivatives, analytic: FloatArray, eps: float) -> NDArray[np.float32]:
        """Return every measured coordinate's relative error in excess; NaN where it was not measured.

        Parameters
        ----------
        found : BlockDerivatives
            The measurements of the block.
        analytic : float64, shape (n,)
            The block's analytic gradient, all of it.
        eps : float
            Unit roundoff of the arithmetic the gradient came in.
        """
        own = _own_rounding(analytic, eps)
        each = np.empty(len(found), np.float32)  # a share needs no more digits
        for row, rows in enumerate(_chunks(found, analytic)):
            each[row * CHUNK : (row + 1) * CHUNK] = self._excess(*rows, own)
        return each

    def _excess(self, g: FloatArray, n: FloatArray, distance: FloatArray, u: FloatArray, own: float) -> FloatArray:
        clear = np.maximum(distance - u - own, 0.0)
        out: FloatArray = np.divide(clear, np.abs(g) + np.abs(n), out=np.zeros_like(clear), where=clear > 0)
        return out

    def compare(self, found: BlockDerivatives, analytic: FloatArray, eps: float, doubt: float = 0.0) -> BlockComparison:
        """Compare one block; parameters as in `excess`, and the norm of the error that is no proof."""
        own = _own_rounding(analytic, eps)
        norms, missing, largest = Norms(), 0, 0.0
        suspects: dict[int, float] = {}  # only those that stand out are kept, so that comparing needs no vector
        for row, (g, n, distance, u) in enumerate(_chunks(found, analytic)):
            part = slice(row * CHUNK, row * CHUNK + len(g))
            here = np.isfinite(n)
            missing += int(np.count_nonzero(~here))
            norms = norms + _norms(g, n, distance, found.rounding[part], found.truncation[part], here, self.z)
            each = np.where(here, self._excess(g, n, distance, u, own), 0.0)
            largest = max(largest, float(each.max(initial=0.0)))
            suspects |= {part.start + int(k): float(each[k]) for k in np.flatnonzero(each > self.tolerance)}
        lost = GRADIENT_ROUNDING / 8 * eps * math.sqrt(norms.analytic)  # of many coordinates, in their norm
        norms = norms + Norms(truncation=found.slack**2 + lost**2)
        status = [resolved.status for resolved in found.looked.values()]
        kinks = sum(s in EXCUSED for s in status)
        compared = replace(self._verdict(found, norms, suspects, kinks, status, missing, largest), doubt=doubt)
        if compared.verdict.refuted and math.sqrt(norms.error) <= doubt:
            return replace(compared, verdict=Verdict.INCONCLUSIVE, wrong=compared.wrong[:0], doubtful=True)
        return compared

    def _verdict(
        self,
        found: BlockDerivatives,
        norms: Norms,
        suspects: Mapping[int, float],
        kinks: int,
        status: Sequence[Status],
        missing: int,
        largest: float,
    ) -> BlockComparison:
        excess = max(self.norm_excess(norms), found.least / norms.scale if norms.scale else 0.0)
        excused = {found.row(p) for p, r in found.looked.items() if r.status in EXCUSED}
        grades = {row: grade(excess, self.tolerance, row in excused) for row, excess in suspects.items()}
        bad = sorted((row for row, g in grades.items() if not g.passed), key=lambda row: -suspects[row])
        verdict = worst([grade(excess, self.tolerance, kinks > 0), *set(grades.values())])
        silent = not self.resolved(norms)
        if verdict.passed and silent:
            verdict = Verdict.INCONCLUSIVE
        return BlockComparison(
            norms=norms,
            excess=excess,
            worst_excess=largest,
            kinks=kinks,
            jumps=sum(s is Status.JUMP for s in status),
            unresolved=sum(s is Status.UNRESOLVED for s in status),
            missing=missing,
            verdict=verdict,
            wrong=found.places(np.array(bad, dtype=np.int64)),
            silent=silent,
            open=math.hypot(*(r.interval[1] - r.interval[0] for r in found.looked.values() if r.status is Status.KINK)),
        )

    def norm_excess(self, norms: Norms) -> float:
        """Return the relative error of a block, or of the whole, in excess of its uncertainty."""
        if not norms.count or not norms.scale:
            return 0.0
        return max(0.0, math.sqrt(norms.error) - norms.uncertainty(self.z)) / norms.scale

    def resolved(self, norms: Norms) -> bool:
        """Say whether the uncertainty is small enough beside the gradient for a pass to mean something."""
        return norms.count > 0 and norms.scale > 0 and norms.uncertainty(self.z) <= self.limit * norms.scale

    def whole(self, blocks: Iterable[BlockComparison]) -> tuple[Norms, Verdict]:
        """Return the norms over all blocks and the verdict of the run: the worst grade of all that was resolved.

        A block that could not be resolved is unchecked. It does not spoil the verdict of the others as long as its
        uncertainty is small beside the whole gradient; it is named in the report, and never passed.
        """
        blocks = list(blocks)
        norms = sum((block.norms for block in blocks), Norms())
        verdict = worst(
            block.verdict for block in blocks if not (block.silent and block.verdict is Verdict.INCONCLUSIVE)
        )
        if not any(block.doubtful for block in blocks):
            verdict = worst([verdict, grade(self.norm_excess(norms), self.tolerance, any(b.kinks for b in blocks))])
        if verdict.passed and not self.resolved(norms):
            verdict = Verdict.INCONCLUSIVE
        if verdict.passed and any(block.missing or block.jumps or block.unresolved for block in blocks):
            verdict = Verdict.INCONCLUSIVE
        return norms, verdict


def _own_rounding(analytic: FloatArray, eps: float) -> float:
    """Return what the analytic gradient may have lost to its own rounding, in units of the derivative."""
    return GRADIENT_ROUNDING * eps * max(float(analytic.max(initial=0.0)), -float(analytic.min(initial=0.0)))


def _norms(
    g: FloatArray,
    n: FloatArray,
    distance: FloatArray,
    rounding: NDArray[np.float32],
    truncation: NDArray[np.float32],
    here: NDArray[np.bool_],
    z: float,
) -> Norms:
    g, n, distance = g[here], n[here], distance[here]
    # A rounding piece bounds the worst of the run; the standard deviation of one is z times smaller. The sum of two
    # loss errors is divided by two steps, hence the root.
    noise = rounding[here].astype(np.float64) / (z * math.sqrt(2.0))
    systematic = truncation[here].astype(np.float64)
    return Norms(
        float(distance @ distance),
        float(g @ g),
        float(n @ n),
        float(noise @ noise),
        float(systematic @ systematic),
        len(g),
        float(noise.max(initial=0.0)),
    )


def _chunks(
    found: BlockDerivatives, analytic: FloatArray
) -> Iterator[tuple[FloatArray, FloatArray, FloatArray, FloatArray]]:
    """Yield analytic, measured, their distance and the uncertainty, some rows at a time."""
    looked = {found.row(place): r for place, r in found.looked.items() if r.status is Status.KINK}
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
