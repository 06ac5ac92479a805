"""After a block failed its screen: which of its coordinates are wrong?

First everything that costs no evaluation (`fastcheck.plans.patterns`): one coordinate, one row, the whole block. Where
that explains nothing the block is split, using r(S) = r(S1) + r(S2): one half is measured, the other follows, and each
part is tried as a pattern again. Both halves wrong along the rows and along the columns is a sign of a dense error;
a few coordinates, measured one by one, then tell whether to stop there. Every coordinate that is listed was measured
by its own differences.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fastcheck.differences import BlockDerivatives, Resolved
from fastcheck.findings import Finding
from fastcheck.judge.directions import Screened
from fastcheck.parameters import Block
from fastcheck.plans import describe
from fastcheck.plans.known import Known
from fastcheck.plans.patterns import Clue, Residuals, candidates, scaled_block, scaled_slices, transposed
from fastcheck.plans.probing import Probe, Probing, State, measure
from fastcheck.plans.regions import Region

__all__ = ["Located", "locate"]

EVALUATIONS = 1000  # at most, for one block
FRUITLESS = 600  # evaluations after which a search that has found nothing gives up
DIRECTIONS = 3  # followed down a split
SPREAD = 6.0  # standard deviations within which a candidate fits
AFFORDABLE = 4.0  # directions that may be missing for the candidates to be few
MORE = 8  # directions added while several coordinates explain the residuals equally well
FEW = 3  # candidates that are simply measured
SAMPLED = 4  # wrong coordinates in a random row that tell a dense error from a scattered one,
RIGHT = 2  # unless so many right ones are met first
SURPRISE = 4.0  # a half whose residual is larger than the whole's by more than this is measured with more care
EXAMPLES = 4  # coordinates of a dense error that are measured and listed,
ALL_EXAMPLES = 24  # unless so many blocks are wrong that one each must do
AGREES = 0.1  # relative distance of a coordinate's factor from that of its block
CERTAIN = 0.25  # uncertainty of a derived half, beside the residual of the whole, above which it is measured too


@dataclass
class Located:
    """What was located in one block.

    Attributes
    ----------
    screened : Screened
        The block.
    looked : dict of int to Resolved
        Coordinates measured one by one, by place in theta.
    findings : list of Finding
        Patterns: ``"located"``, ``"row"``, ``"column"``, ``"slice"``, ``"stripe"``, ``"block"``, ``"not_located"``.
    """

    screened: Screened
    looked: dict[int, Resolved] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def derivatives(self) -> BlockDerivatives:
        """Return the coordinates measured one by one."""
        places = np.array(sorted(self.looked), dtype=np.int64)
        found = BlockDerivatives.empty(self.screened.block, places)
        for place, resolved in self.looked.items():
            found.put(place, resolved)
        return found


def locate(plan: Probing, failed: Sequence[Screened]) -> dict[str, Located]:
    """Find the wrong coordinates of the blocks that failed, by block."""
    examples = max(1, min(EXAMPLES, ALL_EXAMPLES // max(1, len(failed))))
    return {one.block.name: _Search(plan, one, examples).run() for one in failed}


@dataclass(frozen=True)
class _Part:
    """A region with the residuals along a few directions, and how often both halves of its parents were wrong."""

    region: Region
    seen: Residuals
    axis: int = 0


class _Search:
    """The search through one block."""

    def __init__(self, plan: Probing, screened: Screened, examples: int) -> None:
        self.plan, self.screened, self.examples = plan, screened, examples
        self.known = Known(plan, screened.number, screened.block)
        self.found = Located(screened, self.known.looked)
        self.region = Region.whole(screened.number, screened.block)
        self.began = plan.evaluator.evaluations
        self.probes = [p for p in screened.probes if p.state in (State.CLEAN, State.REPEATED)]
        self.rng = np.random.default_rng((plan.seed, screened.number, len(screened.probes)))
        self.dense: list[Region] = []
        self.lost = False

    def run(self) -> Located:
        """Search, and say what was found."""
        seen = self._residuals()
        if not (self._whole(seen) or self._slice(seen)):
            self._split(_Part(self.region, seen))
        self._conclude()
        return self.found

    @property
    def over(self) -> bool:
        """Whether the search has used up its evaluations or its time."""
        spent = self.plan.evaluator.evaluations - self.began
        most = EVALUATIONS if self.known.looked or self.dense else FRUITLESS
        return spent >= most or self.plan.run.over()

    def _residuals(self) -> Residuals:
        return Residuals(
            tuple(p.number for p in self.probes),
            np.array([p.residual for p in self.probes]),
            np.array([p.uncertainty for p in self.probes]),
        )

    # -- patterns ------------------------------------------------------------------------------------------------

    def _whole(self, seen: Residuals) -> bool:
        """Explain the residuals by one factor on the whole block, or by its transpose."""
        block = self.screened.block
        factor = scaled_block(self.plan, self.region, seen) if block.size > 1 else None
        if factor is not None and self._examples(self.region):
            single = [self.known.factor(place) for place in self.known.looked if self.known.is_wrong(place)]
            agreeing = [c for c in single if abs(c - factor) <= AGREES * abs(factor)]
            if 2 * len(agreeing) >= len(single):
                exact = min(agreeing, key=lambda c: abs(c - float(np.median(agreeing))))
                self.found.findings.append(describe.scaled(block, exact))
                return True
        if transposed(self.plan, self.region, seen) and self._examples(self.region):
            self.found.findings.append(describe.transposed(block))
            return True
        return False

    def _slice(self, seen: Residuals) -> bool:
        """Explain the residuals by one factor on one row or column."""
        for one in scaled_slices(self.plan, self.region, seen)[:FEW]:
            length = self.screened.block.shape[one.axis]
            places = _along(self.screened.block, one.axis, one.index)
            if length < 2 or not any(self.known.look(places)):
                continue
            self.found.findings.append(describe.scaled_slice(self.screened.block, one.axis, one.index, one.factor))
            return True
        return False

    def _coordinates(self, region: Region, seen: Residuals) -> Residuals:
        """Explain what can be explained by single coordinates, and return what is left."""
        while not self.over and not seen.silent and len(seen.numbers) > 1 and self._telling(region, seen):
            clues = candidates(self.plan, region, seen)
            while len(clues) > FEW and len(seen.numbers) < DIRECTIONS + MORE and not self.over:
                more = self._one_more(region, seen)
                if more is None:
                    return seen
                seen = more
                clues = candidates(self.plan, region, seen)
            left = self._first_confirmed(clues[:FEW], seen)
            if left is None:
                return seen
            seen = left
        return seen

    def _telling(self, region: Region, seen: Residuals) -> bool:
        """Say whether few more directions would leave one candidate by chance: a fit is as rare as 1 / s^(k - 1)."""
        loudness = float(np.median(np.abs(seen.value) / seen.uncertainty)) * self.plan.judge.z / SPREAD
        needed = 1 + math.log(region.size) / math.log(loudness) if loudness > 1 else math.inf
        return needed <= len(seen.numbers) + AFFORDABLE

    def _one_more(self, region: Region, seen: Residuals) -> Residuals | None:
        """Measure a further direction over a region."""
        number = max(seen.numbers) + 1
        step = self._step(region)
        probe = measure(self.plan, region, number, step)
        if probe is None or probe.state not in (State.CLEAN, State.REPEATED):
            return None
        residual = probe.residual - self.known.residual(region, number)
        return Residuals(
            (*seen.numbers, number), np.append(seen.value, residual), np.append(seen.uncertainty, probe.uncertainty)
        )

    def _first_confirmed(self, clues: Sequence[Clue], seen: Residuals) -> Residuals | None:
        """Measure clues one by one until one is wrong; return what it leaves unexplained, or None."""
        for clue in clues:
            if clue.place in self.known.looked or self.over:
                continue
            if not any(self.known.look([clue.place])):
                continue
            error = self.known.error(clue.place)
            if not 0.5 < error / clue.error < 2.0:
                del self.known.looked[clue.place]  # not the error that the directions show: no witness of anything
                continue
            entries = np.array([self.known.entry(number, clue.place) for number in seen.numbers])
            return seen.less(error * entries, np.abs(entries) * self.known.looked[clue.place].uncertainty)
        return None

    # -- coordinates ---------------------------------------------------------------------------------------------

    def _examples(self, region: Region) -> bool:
        """Measure a few coordinates of a region that is wrong throughout; say whether most of them are."""
        return self._examples_of(self._draw(region, self.examples))

    def _examples_of(self, places: Sequence[int]) -> bool:
        wrong = self.known.look(places)
        return 2 * sum(wrong) >= max(1, len(wrong))

    def _draw(self, region: Region, count: int) -> list[int]:
        """Return some coordinates of a region, none twice."""
        chosen = self.rng.choice(region.size, size=min(count, region.size), replace=False)
        return [region.nth(int(k)) for k in chosen]

    # -- splitting -----------------------------------------------------------------------------------------------

    def _split(self, part: _Part) -> None:
        """Go down into a region until everything in it is explained."""
        parts = [part]
        while parts and not self.over:
            part = parts.pop()
            seen = self._coordinates(part.region, part.seen)
            if seen.silent:
                continue
            if part.region.size == 1:
                self.known.look([part.region.nth(0)])
                continue
            parts += self._halves(replace(part, seen=_few(seen)))
        self.lost = self.lost or bool(parts)

    def _halves(self, part: _Part) -> list[_Part]:
        """Return the parts of a region to go on with; none where it is wrong throughout."""
        region = part.region
        axes = [axis for axis in (part.axis, 1 - part.axis) if (region.width if axis else region.height) > 1]
        both: list[_Part] = []
        for axis in axes:
            halves = self._measured(part, axis)
            if halves is None:
                self.lost = True
                return []
            loud = [half for half in halves if not half.seen.silent]
            if len(loud) < 2:
                return loud
            both = both or loud
        if region.size <= SAMPLED + RIGHT:
            places = [region.nth(k) for k in range(region.size)]
            self.known.look([place for place in places if self.known.looks_wrong(place)])
            return []
        if self._dense(region):
            self.dense.append(region)
            return []
        return both

    def _dense(self, region: Region) -> bool:
        """Draw coordinates until enough are wrong, or too many are right; measure the wrong ones well."""
        wrong: list[int] = []
        right = 0
        for place in self._draw(region, SAMPLED + RIGHT):
            if self.over or right == RIGHT:
                return False
            if self.known.looks_wrong(place):
                wrong.append(place)
            else:
                right += 1
            if len(wrong) == SAMPLED:
                break
        return right < RIGHT and len(wrong) > right and self._examples_of(wrong[: self.examples])

    def _measured(self, part: _Part, axis: int) -> list[_Part] | None:
        """Measure one half, and derive the other or measure it too; None when the run was stopped."""
        first, second = part.region.halves(axis)
        left = self._over(first, part.seen)
        if left is None:
            return None
        right: Residuals | None = part.seen.less(left.value, left.uncertainty)
        assert right is not None
        loudest = float(np.max(np.abs(part.seen.value) / part.seen.uncertainty))
        if np.max(right.uncertainty / part.seen.uncertainty) > CERTAIN * loudest or _faint(right):
            right = self._over(second, part.seen)
            if right is None:
                return None
        return [_Part(first, left, axis), _Part(second, right, axis)]

    def _over(self, region: Region, whole: Residuals) -> Residuals | None:
        """Measure the residuals of a half along the directions of the whole, less what is known."""
        step = self._step(region)
        plausible = SURPRISE * float(np.abs(whole.value).max())
        probes: list[Probe] = []
        for number in whole.numbers:
            probe = measure(self.plan, region, number, step, plausible)
            if probe is None:
                return None
            probes.append(probe)
        value = np.array([p.residual - self.known.residual(region, p.number) for p in probes])
        return Residuals(whole.numbers, value, np.array([p.uncertainty for p in probes]))

    def _step(self, region: Region) -> float:
        """Return a step for a region: what served the block."""
        return float(np.median([probe.step for probe in self.probes]))

    # -- words ---------------------------------------------------------------------------------------------------

    def _conclude(self) -> None:
        spent = self.plan.evaluator.evaluations - self.began
        self.found.findings += describe.dense(self.screened.block, self.dense, self.plan.analytic.flat)
        wrong = sorted(place for place in self.known.looked if self.known.is_wrong(place))
        if wrong and not self.found.findings:
            self.found.findings.append(describe.located(self.screened.block, wrong, spent, complete=not self.lost))
        elif not self.found.findings or self.lost:
            self.found.findings.append(describe.not_located(self.screened.block, spent))


def _along(block: Block, axis: int, index: int) -> list[int]:
    """Return a few coordinates of a slice of a block, spread over it."""
    others = [1 if k == axis else length for k, length in enumerate(block.shape)]
    size = math.prod(others)
    places = []
    for k in np.linspace(0, size - 1, min(EXAMPLES, size)).astype(int).tolist():
        inside = list(np.unravel_index(k, others))
        inside[axis] = index
        places.append(block.coordinate([int(i) for i in inside]))
    return places


def _few(seen: Residuals) -> Residuals:
    """Keep the directions whose residuals stand out most."""
    order = np.sort(np.argsort(-np.abs(seen.value) / seen.uncertainty, kind="stable")[:DIRECTIONS])
    return Residuals(tuple(seen.numbers[k] for k in order), seen.value[order], seen.uncertainty[order])


def _faint(seen: Residuals) -> bool:
    """Say whether a derived residual stands out, but so little that it may be what two measurements left."""
    loudness = float(np.max(np.abs(seen.value) / seen.uncertainty))
    return 1 < loudness < 3
