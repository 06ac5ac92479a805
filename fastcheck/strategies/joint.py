"""Joint probes: one random direction through many blocks bounds the error of each of them.

Along v = sum_B s_B z_B with Gaussian z_B over every block, the residual e.v is N(0, sum_B s_B^2 ||e_B||^2). Right
blocks cancel exactly, whatever their size, so k residuals bound that sum by a chi-square quantile
(`fastcheck.judge.bounds`), and every ||e_B|| by the sum's root over s_B: the number of evaluations for a right
gradient does not depend on the number of blocks. The scales s_B make every block's share of the slope alike, as far
as the parameters' own magnitudes allow.

Where a residual stands out, the blocks are bisected along that same direction, r(S) = r(S1) + r(S2), which costs one
probe for each halving. Blocks that the others' noise hides (a far smaller gradient, a shorter step) are probed again
among themselves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import cast

import numpy as np

from fastcheck.arrays import FloatArray
from fastcheck.judge.bounds import error_norm, error_norm_bound
from fastcheck.judge.directions import BlockProbes
from fastcheck.measure.ladder import State
from fastcheck.measure.probes import Probe, Probing, measure, probe_step
from fastcheck.measure.regions import Region
from fastcheck.parameters import Block

__all__ = ["Joint", "screen_jointly"]

REACH = 8.0  # magnitudes of its parameters by which a block may be moved for its share to be like the others'
BAND = REACH**2  # ratio of shares by the blocks' own scales which scales can make alike
ALONE = 6  # evaluations that a block takes alone, if all is well
PATIENCE = 24  # evaluations, or as many as there are blocks, that groups may cost which settle fewer than that pays for
NEARLY = 8.0  # an acceptable bound is taken if alone, with this much longer a step, a block could hardly do better
PART = 1e-3  # of a residual: a part whose share is smaller is not followed
SLACK = 3.0  # times the bound that would be good that is taken of a part of the blocks: alone, each has its own price
FAINT = 1e-6  # of the median share: a block whose share is smaller is left to a group of its own


@dataclass(frozen=True)
class Member:
    """A block in a direction: its number in the layout, the block, how far it moves, and the norm it is measured by.

    The norm is that of its gradient, but for a gradient of next to nothing beside the whole.
    """

    number: int
    block: Block
    scale: float
    norm: float

    @property
    def share(self) -> float:
        """s_B ||g_B||: the standard deviation of its part of the slope along a direction."""
        return self.scale * self.norm


@dataclass(frozen=True)
class Group:
    """Blocks that one direction moves together; what a `Region` is for a part of one block."""

    members: tuple[Member, ...]

    def halves(self) -> tuple[Group, Group]:
        """Split in the middle."""
        middle = len(self.members) // 2
        return Group(self.members[:middle]), Group(self.members[middle:])


@dataclass(frozen=True)
class Joint(Probing):
    """What a probe through a group needs: the direction is put together from those over its blocks."""

    @classmethod
    def of(cls, plan: Probing) -> Joint:
        """Return the same for groups of blocks."""
        return cls(*(getattr(plan, field.name) for field in fields(plan)))

    def span(self, region: Region) -> tuple[int, int]:
        """Return the first and last plus one place in theta that moves."""
        members = cast(Group, region).members
        return min(one.block.start for one in members), max(one.block.stop for one in members)

    def write(self, region: Region, number: int, out: FloatArray) -> None:
        """Write a direction that moves every block by its own scale."""
        start, _ = self.span(region)
        out[:] = 0.0
        for one in cast(Group, region).members:
            part = out[one.block.start - start : one.block.stop - start]
            super().write(_whole(one), number, part)
            part *= one.scale

    def unit(self, region: Region) -> float:
        """Return the largest unit in the last place of theta, in units of what a direction moves there."""
        return max(self._unit(one) / one.scale for one in cast(Group, region).members)

    def lost(self, region: Region) -> float:
        """Return what a residual may lose, times the step, because theta + t v is rounded; see `Probing.lost`."""
        return math.hypot(*(self._unit(one) * self.norm(one.number) for one in cast(Group, region).members))

    def argument(self, region: Region) -> float:
        """See `Probing.argument`."""
        if not self.noise.argument:
            return 0.0
        return self.noise.argument * max(one.scale / self.natural(one.number) for one in cast(Group, region).members)

    def _unit(self, one: Member) -> float:
        if one.number not in self._units:
            self._units[one.number] = super().unit(_whole(one))
        return self._units[one.number]

    @cached_property
    def _units(self) -> dict[int, float]:
        return {}

    def along(self, group: Group, number: int, step: float, expected: float = 0.0) -> Probe | None:
        """Measure one direction through a group; None when the run was stopped."""
        return measure(self, cast(Region, group), number, step, expected)


def _whole(one: Member) -> Region:
    return Region.whole(one.number, one.block)


def screen_jointly(plan: Joint, found: Sequence[BlockProbes], looks: Sequence[int]) -> list[BlockProbes]:
    """Bound the errors of many blocks together, and return those that have to be looked at alone.

    Blocks that joint probes settle get their probes and bounds; a group is judged after so many directions as `looks`
    say.
    """
    by_number = {one.number: one for one in found}
    alone: list[BlockProbes] = []
    waiting = [(_group(plan, found), 0)]  # with the evaluations that others cost on the way to it, for nothing
    while waiting:
        group, lost = waiting.pop()
        if len(group.members) == 1 or plan.run.over() or lost > max(PATIENCE, len(group.members)):
            alone += [by_number[one.number] for one in group.members]
            continue
        before = plan.evaluator.evaluations
        slack = 1.0 if len(group.members) == len(found) else SLACK
        probes = _probed(plan, group, looks, by_number, slack)
        loud = [probe for probe in probes if probe.state is State.REPEATED]
        if loud:
            singled_out = _bisected(plan, group, max(loud, key=lambda probe: abs(probe.residual) / probe.uncertainty))
            wrong = list(singled_out)
            for one, (share, alone_too) in singled_out.items():
                by_number[one.number].singled_out = share.scaled(1 / one.scale)
                by_number[one.number].probes = [alone_too.scaled(1 / one.scale)] if alone_too is not None else []
            alone += [by_number[one.number] for one in wrong]
            rest = [by_number[one.number] for one in group.members if one not in wrong]
            waiting += [(_group(plan, rest), lost + plan.evaluator.evaluations - before)] if rest else []
            continue
        settled = probes and all(probe.state is State.CLEAN for probe in probes)
        left = [
            one for one in group.members if not (settled and _shared(plan, one, probes, by_number[one.number], slack))
        ]
        spent = plan.evaluator.evaluations - before
        lost = lost + spent if spent > ALONE * (len(group.members) - len(left)) else 0
        bands = _bands(plan, [by_number[one.number] for one in left])
        if len(bands) > 1:
            waiting += [(band, 0) for band in reversed(bands)]
        elif len(left) == len(group.members):
            waiting += [(half, lost) for half in reversed(group.halves())]
        else:
            waiting += [(band, lost) for band in bands]
    return alone


def _bands(plan: Joint, found: Sequence[BlockProbes]) -> list[Group]:
    """Return groups of blocks whose shares of a slope are alike by their own scales, the largest first."""
    shares = {one.number: plan.natural(one.number) * plan.norm_to_measure(one.number) for one in found}
    bands: list[list[BlockProbes]] = []
    largest = math.inf
    for one in sorted(found, key=lambda one: -shares[one.number]):
        if shares[one.number] * BAND < largest:
            largest = shares[one.number]
            bands.append([])
        bands[-1].append(one)
    return [_group(plan, band) for band in bands]


def _group(plan: Joint, found: Sequence[BlockProbes]) -> Group:
    """Return blocks with the scales that make their shares alike, those with the largest shares first."""
    natural = {one.number: plan.natural(one.number) for one in found}
    norms = {one.number: plan.norm_to_measure(one.number) for one in found}
    typical = float(np.median([natural[number] * norm for number, norm in norms.items()]))
    members = [
        Member(one.number, one.block, _scale(typical, norms[one.number], natural[one.number]), norms[one.number])
        for one in found
    ]
    return Group(tuple(sorted(members, key=lambda one: -one.share)))


def _scale(typical: float, norm: float, natural: float) -> float:
    wanted = typical / norm if norm else natural
    return float(2.0 ** np.round(np.log2(min(max(wanted, natural / REACH), natural * REACH))))


def _probed(
    plan: Joint, group: Group, looks: Sequence[int], by_number: dict[int, BlockProbes], slack: float
) -> list[Probe]:
    """Measure directions through a group until all of its blocks are bounded, or one stands out or can't be read."""
    shares = np.array([one.share for one in group.members])
    step = probe_step(plan, max(float(shares.min()), FAINT * float(np.median(shares))), 1.0)
    probes: list[Probe] = []
    for look in looks:
        while len(probes) < look:
            probe = plan.along(group, len(probes), step)
            if probe is None:
                return []
            probes.append(probe)
            if probe.state is not State.CLEAN:
                return probes
            step = probe.next_step(step)
        residuals = np.array([probe.residual for probe in probes])
        some = next(iter(by_number.values()))
        bound = error_norm_bound(residuals, some.each)
        best = error_norm_bound(np.ones(looks[-1]), some.each) * error_norm(residuals)
        good = some.good(slack)
        open_ = shares[bound > good * shares]
        if 2 * np.count_nonzero(best <= good * open_) <= len(open_):  # done, or more would not do it for most
            break
    return probes


def _shared(plan: Joint, one: Member, probes: Sequence[Probe], screened: BlockProbes, slack: float) -> bool:
    """Give a block its share of clean joint probes, if they bound its error well enough; say whether they do."""
    screened.probes = [replace(probe.scaled(1 / one.scale), slope=math.nan, step=probe.step) for probe in probes]
    screened.joint = tuple(probes)
    screened.look()
    bound = screened.bound_of_error / one.norm if one.norm else 0.0
    if bound <= screened.good(slack):
        return True
    longest = probe_step(plan, one.norm, plan.natural(one.number))
    if bound <= screened.limit and NEARLY * one.scale * min(probe.step for probe in probes) >= longest:
        return True
    screened.probes, screened.joint, screened.bound_of_error = [], (), math.inf
    return False


def _bisected(plan: Joint, group: Group, loud: Probe) -> dict[Member, tuple[Probe, Probe | None]]:
    """Return the blocks that a residual comes from, by halving the group along the same direction.

    Each with its share of the residual, and the probe through it alone, if one was made that is as loud. A thousandth
    of it may be curvature, which nothing repeats here: should it be an error, the rest of the group shows it again.
    Where the run was stopped, every block has all of it, and nothing is certain.
    """
    wrong: dict[Member, tuple[Probe, Probe | None]] = {}
    waiting: list[tuple[Group, Probe, bool]] = [(group, loud, False)]
    while waiting:
        part, share, measured = waiting.pop()
        if len(part.members) == 1:
            alone = loud.vouches(share) if measured else None
            alone = None if alone is None else replace(alone, kink=loud.kink, shortened=loud.shortened)
            wrong[part.members[0]] = share, alone
            continue
        first, second = part.halves()
        probe = plan.along(first, loud.number, loud.step, expected=4 * abs(loud.residual))
        if probe is None:
            return dict.fromkeys(group.members, (replace(loud, uncertainty=math.inf), None))
        left, uncertainty = share.residual - probe.residual, share.uncertainty + probe.uncertainty
        halves = [(first, probe, True), (second, replace(share, residual=left, uncertainty=uncertainty), False)]
        stand_out = [
            half for half in halves if abs(half[1].residual) > max(half[1].uncertainty, PART * abs(loud.residual))
        ]
        waiting += stand_out or [max(halves, key=lambda half: abs(half[1].residual) / half[1].uncertainty)]
    return wrong
