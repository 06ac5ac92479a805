"""After blocks failed their screen: what is wrong with them, and which of their coordinates?

First what costs no evaluation: the residuals along the screen's directions are explained by the rules of the diagnosis
(a factor, a transpose, an L2 term, one row that is off by a factor), then by single coordinates. Where that leaves
something, a few coordinates drawn at random tell an error that fills the block, which is diagnosed from them, from a
sparse one. A sparse one is searched for by splitting, with r(S) = r(S1) + r(S2): one half is measured, the other
follows. An error that fills a block and has no name spoils the blocks before it, and those are then not searched.
Every coordinate that is listed was measured by its own differences.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fastcheck.diagnosis.data_facts import DataFacts
from fastcheck.diagnosis.diagnose import RULES, choose
from fastcheck.diagnosis.evidence import BlockEvidence, Evidence
from fastcheck.diagnosis.first_wrong_layer import in_order
from fastcheck.diagnosis.hypothesis import Explained, Rule, explain
from fastcheck.diagnosis.places import COORDINATES, REGIONS, in_coordinates, in_region
from fastcheck.estimates import Estimate, Estimates, Status
from fastcheck.findings import Finding, Kind
from fastcheck.judge.directions import BlockProbes
from fastcheck.measure.ladder import State
from fastcheck.measure.probes import Probe, Probing, loud_one, measure
from fastcheck.measure.regions import Region, joined
from fastcheck.strategies.coordinates import Candidate, MeasuredCoordinates, Residuals, candidates
from fastcheck.strategies.evidence import of_coordinates, of_directions

__all__ = ["Located", "locate"]

EVALUATIONS = 1000  # at most, for one block
FRUITLESS = 600  # evaluations after which a search that has found nothing gives up
DIRECTIONS = 3  # followed down a split
SPREAD = 6.0  # standard deviations within which a candidate fits
AFFORDABLE = 4.0  # directions that may be missing for the candidates to be few
MORE = 8  # directions added while several coordinates explain the residuals equally well
FEW = 3  # candidates that are simply measured
DENSE = 3  # wrong coordinates in a random row that tell a dense error from a scattered one,
RIGHT = 2  # unless so many right ones are met first
SMALL = 10  # coordinates of a block that are all looked at
SURPRISE = 4.0  # a half whose residual is larger than the whole's by more than this is measured with more care
EXAMPLES = 1  # coordinates of errors that have a name that are measured and listed
FLOOR = 1e-3  # of a block's largest derivative: smaller ones are as good as zero
CERTAIN = 0.25  # uncertainty of a derived half, beside the residual of the whole, above which it is measured too; and
# share of its block's error up to which a coordinate has none of it


@dataclass
class Located:
    """What was found out about one block.

    Attributes
    ----------
    screened : BlockProbes
        The block.
    measured : dict of int to Estimate
        Coordinates measured one by one, by place in theta.
    candidates : list of Explained
        What may explain all of its error, best first.
    places : list of Explained
        Where its errors are; they hold together.
    findings : list of Finding
        The same in words.
    contradicted : bool
        What explained the error along directions is not true of a coordinate that was measured.
    """

    screened: BlockProbes
    measured: dict[int, Estimate] = field(default_factory=dict)
    candidates: list[Explained] = field(default_factory=list)
    places: list[Explained] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    contradicted: bool = False

    @property
    def nowhere(self) -> bool:
        """Whether its error was not located."""
        return any(finding.kind is Kind.NOT_LOCATED for finding in self.findings)

    def derivatives(self) -> Estimates:
        """Return the coordinates measured one by one."""
        places = np.array(sorted(self.measured), dtype=np.int64)
        found = Estimates.empty(self.screened.block, places)
        for place, resolved in self.measured.items():
            found.put(place, resolved)
        return found


def locate(plan: Probing, failed: Sequence[BlockProbes], facts: DataFacts | None = None) -> dict[str, Located]:
    """Explain the errors of the blocks that failed, or find their wrong coordinates, by block."""
    rows = {one.number: of_directions(plan, one) for one in failed}
    right = [
        rows.get(k) or BlockEvidence.without_rows(block, plan.analytic.flat, plan.evaluator.theta)
        for k, block in enumerate(plan.evaluator.layout.blocks)
    ]
    evidence = Evidence(tuple(right), facts or DataFacts(), integers=frozenset(plan.analytic.integers))
    searches = {one.block.name: _Search(plan, one, evidence) for one in failed}
    ordered = [searches[block.name] for block in reversed(in_order(evidence.blocks)) if block.wrong]
    for search in ordered:
        search.found.candidates = explain(evidence[search.name], evidence, RULES)
    named = choose([search.found.candidates for search in ordered])
    for search in ordered:
        search.named = search.name in named and not named[search.name].hypothesis.pattern
    examples = 0
    for search in ordered:
        if search.named and examples < EXAMPLES:
            search.example()
            examples += search.named
    spoiled = False
    for search in ordered:
        if not search.named and not search.single() and not (spoiled and search.is_wrong_somewhere()):
            search.search()
            spoiled = spoiled or search.fills_block
    for search in ordered:
        search.conclude()
    return {one.block.name: searches[one.block.name].found for one in failed}


@dataclass(frozen=True)
class _Part:
    """A region with the residuals along a few directions, and the axis along which it was split last."""

    region: Region
    seen: Residuals
    axis: int = 0


class _Search:
    """The search through one block."""

    def __init__(self, plan: Probing, screened: BlockProbes, evidence: Evidence) -> None:
        self.plan, self.screened, self.evidence = plan, screened, evidence
        self.coordinates = MeasuredCoordinates(plan, screened)
        self.found = Located(screened, self.coordinates.measured)
        self.region = Region.whole(screened.number, screened.block)
        self.began = plan.evaluator.evaluations
        self.probes = [p for p in screened.probes if p.state in (State.CLEAN, State.REPEATED)]
        self.rng = np.random.default_rng((plan.seed, screened.number, len(screened.probes)))
        self.seen = Residuals.of(self.probes)
        self.dense: list[Region] = []
        self.spent = 0
        self.named = self.searched = self.incomplete = False

    @property
    def name(self) -> str:
        """The block's."""
        return self.screened.block.name

    @property
    def fills_block(self) -> bool:
        """Whether the error was found to fill the block."""
        return any(region.size == self.region.size for region in self.dense)

    @property
    def over(self) -> bool:
        """Whether the search has used up its evaluations or its time."""
        spent = self.plan.evaluator.evaluations - self.began
        most = EVALUATIONS if self.coordinates.measured or self.dense else FRUITLESS
        return spent >= most or self.plan.run.over()

    # -- without a search ----------------------------------------------------------------------------------------

    def example(self) -> None:
        """Measure the coordinate whose derivative is claimed to be largest, or any one of a gradient of zeros.

        Of an error along theta it is one where theta is large beside the derivative. A factor that is not there is no
        factor: the steps along the directions are too long for the coordinate that nearly all of the slope is made of.
        """
        best = self.found.candidates[0]
        kind, facts = best.hypothesis.kind, best.hypothesis.facts
        g = np.abs(best.block.array(best.block.g))
        if kind in (Kind.L2, Kind.L1, Kind.PROJECTED) and g.any():
            g = np.abs(best.block.array(best.block.theta)) / (g + FLOOR * g.max())
        if kind is Kind.SLICE:
            inside = np.zeros(g.shape, dtype=bool)
            np.moveaxis(inside, facts["axis"], 0)[facts["index"]] = True
            g = np.where(inside, g, 0.0)
        g = best.block.vector(g)
        place = self.screened.block.start + (int(np.argmax(g)) if g.any() else int(self.rng.integers(len(g))))
        quick = self.coordinates.clearly_wrong(place)
        if quick is not None and self.coordinates.bears_out(place, quick):
            self.found.measured[place] = quick
            return
        self.coordinates.look([place])
        if kind is Kind.FACTOR and self._is_right(place):
            self.named, self.found.contradicted = False, True

    def _is_right(self, place: int) -> bool:
        """Say whether a coordinate was measured, and has none of the error that its block shows along directions."""
        seen, claimed = self.coordinates.measured.get(place), float(self.plan.analytic.flat[place])
        if seen is None or seen.status not in (Status.SMOOTH, Status.CROSSED):
            return False
        return abs(claimed - seen.value) + seen.uncertainty < CERTAIN * self.screened.difference * abs(claimed)

    def single(self) -> bool:
        """Explain the residuals by single coordinates, and say whether that leaves nothing."""
        self.began = self.plan.evaluator.evaluations
        self.seen = self._without_single(self.region, self.seen)
        self.spent += self.plan.evaluator.evaluations - self.began
        return self.seen.within_noise

    def is_wrong_somewhere(self) -> bool:
        """Look at a few coordinates, and say whether one is wrong."""
        return any(self.coordinates.looks_wrong(place) for place in self._draw(self.region, RIGHT))

    def search(self) -> None:
        """Tell whether the error fills the block, and look for its places where not."""
        self.began, self.searched = self.plan.evaluator.evaluations, True
        if self.screened.block.size <= SMALL:
            self._look_at_all()
        elif self._is_dense(self.region):
            self.dense.append(self.region)
        else:
            self._split(_Part(self.region, self.seen))
        self.spent += self.plan.evaluator.evaluations - self.began

    def _look_at_all(self) -> None:
        places = range(self.screened.block.start, self.screened.block.stop)
        wrong = [place for place in places if self.coordinates.looks_wrong(place)]
        if (len(wrong) > FEW or 2 * len(wrong) > len(places)) and self.coordinates.confirms(wrong[0]):
            self.dense.append(self.region)
        else:
            self.coordinates.look(wrong)
        self.incomplete = self.plan.run.over()

    # -- single coordinates --------------------------------------------------------------------------------------

    def _without_single(self, region: Region, seen: Residuals) -> Residuals:
        """Explain what can be explained by single coordinates, and return what is left."""
        while not self.over and not seen.within_noise and len(seen.numbers) > 1 and self._telling(region, seen):
            found = candidates(self.plan, region, seen)
            while len(found) > FEW and len(seen.numbers) < DIRECTIONS + MORE and not self.over:
                more = self._one_more(region, seen)
                if more is None:
                    return seen
                seen = more
                found = candidates(self.plan, region, seen)
            left = self._first_confirmed(found[:FEW], seen)
            if left is None:
                return seen
            seen = left
        return seen

    def _telling(self, region: Region, seen: Residuals) -> bool:
        """Say whether few more directions would leave one candidate by chance: a fit is as rare as 1 / s^(k - 1)."""
        ratio = float(np.median(np.abs(seen.value) / seen.uncertainty)) * self.plan.judge.z / SPREAD
        needed = 1 + math.log(region.size) / math.log(ratio) if ratio > 1 else math.inf
        return needed <= len(seen.numbers) + AFFORDABLE

    def _one_more(self, region: Region, seen: Residuals) -> Residuals | None:
        """Measure a further direction over a region."""
        number = max(seen.numbers) + 1
        like = loud_one(self.probes) if region is self.region else None
        probe = measure(self.plan, region, number, self._step(), like=like)
        if probe is None or probe.state not in (State.CLEAN, State.REPEATED):
            return None
        residual = probe.residual - self.coordinates.residual(region, number)
        return Residuals(
            (*seen.numbers, number), np.append(seen.value, residual), np.append(seen.uncertainty, probe.uncertainty)
        )

    def _first_confirmed(self, found: Sequence[Candidate], seen: Residuals) -> Residuals | None:
        """Measure candidates one by one until one is wrong; return what it leaves unexplained, or None."""
        known = self.coordinates
        for one in found:
            if one.place in known.measured or self.over:
                continue
            if (left := self._corroborated(one.place, seen)) is not None:
                return left
            if not any(known.look([one.place])):
                continue
            well = known.measured[one.place]
            if not 0.5 < known.error(one.place, well) / one.error < 2.0:
                del known.measured[one.place]  # not the error that the directions show: no witness of anything
                continue
            return known.left_by(one.place, well, seen)
        return None

    def _corroborated(self, place: int, seen: Residuals) -> Residuals | None:
        """Measure a candidate quickly; return what it leaves where that is nothing and it is clearly wrong.

        The directions and its own differences are then two witnesses that agree, and no ladder is needed.
        """
        known = self.coordinates
        quick = known.clearly_wrong(place)
        if quick is None:
            return None
        left = known.left_by(place, quick, seen)
        if not left.within_noise:
            return None
        known.measured[place] = quick
        return left

    # -- dense or sparse -----------------------------------------------------------------------------------------

    def _draw(self, region: Region, count: int) -> list[int]:
        """Return some coordinates of a region, none twice."""
        chosen = self.rng.choice(region.size, size=min(count, region.size), replace=False)
        return [region.nth(int(k)) for k in chosen]

    def _is_dense(self, region: Region) -> bool:
        """Draw coordinates until enough are wrong, or too many are right; measure one of the wrong ones well."""
        wrong: list[int] = []
        right = 0
        for place in self._draw(region, DENSE + RIGHT):
            if self.over or right == RIGHT:
                return False
            if self.coordinates.looks_wrong(place):
                wrong.append(place)
            else:
                right += 1
            if len(wrong) == DENSE:
                break
        return right < RIGHT and len(wrong) > right and self.coordinates.confirms(wrong[0])

    # -- splitting -----------------------------------------------------------------------------------------------

    def _split(self, part: _Part) -> None:
        """Go down into a region until everything in it is explained."""
        parts = [part]
        while parts and not self.over:
            part = parts.pop()
            seen = part.seen if part.region is self.region else self._without_single(part.region, part.seen)
            if seen.within_noise:
                continue
            if part.region.size == 1:
                self.coordinates.look([part.region.nth(0)])
                continue
            parts += self._halves(replace(part, seen=seen.clearest(DIRECTIONS)))
        self.incomplete = self.incomplete or bool(parts)

    def _halves(self, part: _Part) -> list[_Part]:
        """Return the parts of a region to go on with; none where it is wrong throughout."""
        region = part.region
        axes = [axis for axis in (part.axis, 1 - part.axis) if (region.width if axis else region.height) > 1]
        both: list[_Part] = []
        for axis in axes:
            halves = self._measured(part, axis)
            if halves is None:
                self.incomplete = True
                return []
            clear = [half for half in halves if not half.seen.within_noise]
            if len(clear) < 2:
                return clear
            both = both or clear
        if region.size <= DENSE + RIGHT + 1:
            places = [region.nth(k) for k in range(region.size)]
            self.coordinates.look([place for place in places if self.coordinates.looks_wrong(place)])
            return []
        if region.size < self.region.size and self._is_dense(region):
            self.dense.append(region)
            return []
        return both

    def _measured(self, part: _Part, axis: int) -> list[_Part] | None:
        """Measure one half, and derive the other or measure it too; None when the run was stopped."""
        first, second = part.region.halves(axis)
        left = self._over(first, part.seen)
        if left is None:
            return None
        right: Residuals | None = part.seen.less(left.value, left.uncertainty)
        assert right is not None
        clearest = float(np.max(np.abs(part.seen.value) / part.seen.uncertainty))
        if np.max(right.uncertainty / part.seen.uncertainty) > CERTAIN * clearest or right.barely_clear:
            right = self._over(second, part.seen)
            if right is None:
                return None
        return [_Part(first, left, axis), _Part(second, right, axis)]

    def _over(self, region: Region, whole: Residuals) -> Residuals | None:
        """Measure the residuals of a half along the directions of the whole, less what is known."""
        plausible = SURPRISE * float(np.abs(whole.value).max())
        probes: list[Probe] = []
        for number in whole.numbers:
            probe = measure(self.plan, region, number, self._step(), plausible)
            if probe is None:
                return None
            probes.append(probe)
        value = np.array([p.residual - self.coordinates.residual(region, p.number) for p in probes])
        return Residuals(whole.numbers, value, np.array([p.uncertainty for p in probes]))

    def _step(self) -> float:
        """Return a step for a region: what served the block."""
        return float(np.median([probe.step for probe in self.probes]))

    # -- what it comes to ----------------------------------------------------------------------------------------

    def conclude(self) -> None:
        """Write down what explains the error, or where it is."""
        found, evidence = self.found, self.evidence
        if self.named:
            best = found.candidates[0]
            found.findings.append(best.rule.tell([best], evidence))
            return
        rows = self.coordinates.seen
        if self.fills_block:
            found.candidates = explain(of_coordinates(self.plan, self.screened, rows), evidence, RULES)
            stands = [one for one in found.candidates if one.stands]
            found.findings.append(stands[0].rule.tell(stands[:1], evidence) if stands else self._unnamed(rows))
            return
        found.candidates = []
        for region in joined(self.dense):
            found.places += self._region(region, rows)
        alone = sorted(
            place
            for place in self.coordinates.measured
            if self.coordinates.is_wrong(place) and not any(region.holds(place) for region in self.dense)
        )
        if alone:
            found.places.append(self._alone(alone))
        if len(found.places) > 1:
            found.places = [one.with_facts(besides=True) for one in found.places]
        found.findings += [one.rule.tell([one], evidence) for one in found.places]
        if self.incomplete or (self.searched and not found.places):
            found.findings.append(self._not_located())

    def _region(self, region: Region, rows: dict[int, Estimate]) -> list[Explained]:
        """Return the best explanation of what was seen in a region that is wrong, beside what is right outside."""
        shown = {p: r for p, r in rows.items() if region.holds(p) or not self.coordinates.is_wrong_as(p, r)}
        block, box = of_coordinates(self.plan, self.screened, shown), region.box
        return explain(block, self.evidence, [Rule(lambda b, e: in_region(b, e, box), REGIONS.tell)])[:1]

    def _alone(self, places: Sequence[int]) -> Explained:
        """Return that some coordinates hold the error, or all that is left of it."""
        measured = {place: self.coordinates.measured[place] for place in places}
        block = of_coordinates(self.plan, self.screened, measured)
        every, nothing = np.arange(len(places)), np.zeros(len(places))
        facts = {"of": self.screened.block.size, "complete": not self.incomplete, "evaluations": self.spent}
        return Explained(block, in_coordinates(block, nothing, every, **facts), COORDINATES, 0.0, 1.0)

    def _unnamed(self, rows: dict[int, Estimate]) -> Finding:
        wrong = sum(self.coordinates.is_wrong_as(place, resolved) for place, resolved in rows.items())
        return Finding(
            Kind.UNKNOWN,
            self.name,
            f"{self.name} is wrong in {wrong:,} of {len(rows):,} coordinates drawn at random, and no known kind of bug "
            "fits.",
            {"wrong": wrong, "drawn": len(rows)},
        )

    def _not_located(self) -> Finding:
        return Finding(
            Kind.NOT_LOCATED,
            self.name,
            f"{self.name} is wrong, but not all of its wrong coordinates were located with {self.spent} evaluations. "
            f"Measure them all with mode='full', blocks={self.name!r}, or some with mode='sample'.",
            {"evaluations": self.spent},
        )
