"""J v as the gradient of <u, f>: column by column, or along random tangents of each block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from fastcheck.arrays import FloatArray
from fastcheck.findings import Finding, Kind
from fastcheck.parameters import Block
from fastcheck.products.checks import Checked, Checks
from fastcheck.products.examine import Form
from fastcheck.products.tangents import Along, Tangents, spread
from fastcheck.products.vectors import unit
from fastcheck.report import BlockReport, Coordinate, Report
from fastcheck.verdict import Verdict

__all__ = ["Drawn", "Pushed"]

PARTS = 16  # that a block is cut into to find a wrong coordinate
MOST = 4  # blocks in which one is looked for


@dataclass(frozen=True)
class Pushed(Form):
    """J^T u by columns, <u, J e_i> for every unit tangent: the claim is called once for each input and cotangent."""

    def gradient(self, u: FloatArray) -> Callable[..., Any]:
        """See `Form.gradient`."""
        size = self.point.theta.size

        def columns(tree: Any, *args: Any) -> Any:
            flat = np.array([self.slope(u, unit(place, size), tree) for place in range(size)])
            return self.point.inputs.unflatten(flat)

        return columns

    def claim(self, v: FloatArray) -> Callable[[FloatArray], float]:
        """See `Form.claim`."""
        pushed = self.point.pushed(self.product, v).flat
        return lambda u: float(u @ pushed)

    def slope(self, u: FloatArray, v: FloatArray, tree: Any = None) -> Any:
        """Return the claimed <u, J v> as a scalar of the precision that the claim came in."""
        pushed = self.point.pushed(self.product, v, tree)
        eps = float(pushed.eps.max()) / len(self.point.outputs.blocks)
        kind = next((kind for kind in (np.float64, np.float32) if eps <= np.finfo(kind).eps), np.float16)
        return kind(u @ pushed.flat)


@dataclass(frozen=True)
class Drawn(Pushed):
    """<u, J v> for random tangents of each block, as the gradient of c -> <u, f(x + V c)> at c = 0."""

    tangents: Tangents
    settings: ClassVar[dict[str, Any]] = {"mode": "full", "samples": None, "blocks": None}

    @property
    def params(self) -> Any:
        """The coefficients c, zeros."""
        return self.tangents.params

    def loss(self, u: FloatArray) -> Callable[..., Any]:
        """See `Form.loss`."""
        return replace(self.point.weighted(u), function=Along(self.point, self.tangents))

    def gradient(self, u: FloatArray) -> Callable[..., Any]:
        """See `Form.gradient`."""
        return lambda tree, *args: self.tangents.gradient(lambda v: self.slope(u, v), self.point.theta.size)

    def direction(self, coordinate: Coordinate) -> FloatArray:
        """See `Form.direction`."""
        return self.tangents.vector(self.point.inputs[coordinate.block], coordinate.index[0], self.point.theta.size)

    def translated(self, report: Report, done: Sequence[Checked], checks: Checks) -> Report:
        """Return the report in terms of the inputs, with a wrong coordinate looked for in each wrong block."""
        failed = sorted((one for one in done if one.failed), key=lambda one: not one.alone)
        located = list(self._located(report, failed[0].weights, checks)) if failed else []
        wrong = tuple(coordinate for coordinate, _ in located)
        factor = spread(len(next(iter(self.tangents.of.values()))), len(self.tangents.of), checks.settings.confidence)
        blocks = {
            block.name: self._block(block, report, factor, [c for c in wrong if c.block == block.name])
            for block in self.point.inputs.blocks
        }
        return replace(
            report,
            bound=float(np.max([blocks[block.name].bound for block in self.tangents.of])),
            blocks=blocks,
            wrong=wrong,
            findings=(*_about_blocks(report.findings), *(finding for _, finding in located if finding)),
            coverage=0.0,
            evaluations=checks.evaluations,
            seconds=checks.seconds,
        )

    def _block(self, block: Block, report: Report, factor: float, wrong: list[Coordinate]) -> BlockReport:
        """Return what is known of a block: nothing of one that was not chosen."""
        nan = float("nan")
        seen = report.blocks.get(block.name)
        if seen is None:
            return BlockReport(block.shape, block.size, 0, nan, nan, nan, float("inf"), Verdict.INCONCLUSIVE)
        bound, detectable = factor * seen.bound, factor * seen.detectable
        whole = replace(seen, shape=block.shape, size=block.size, bound=bound, detectable=detectable)
        return replace(whole, checked=0, wrong=len(wrong))

    def _located(self, report: Report, u: FloatArray, checks: Checks) -> Iterator[tuple[Coordinate, Finding | None]]:
        """Yield a wrong coordinate of each wrong block, where one can be singled out."""
        for block in [block for block in self.tangents.of if report.blocks[block.name].verdict.refuted][:MOST]:
            start, stop, share = 0, block.size, ""
            while True:
                cut = replace(self, tangents=Tangents.parts(self.point, block, start, stop, PARTS))
                seen = checks(1, cut.loss(u), cut.gradient(u), cut.params, self.point.args, **self.settings)
                if not seen.wrong:
                    break
                worst = seen.wrong[0]
                share = share or f"{seen.blocks[block.name].wrong} of {len(cut.tangents.of[block])} parts"
                vector = cut.tangents.of[block][worst.index[0]]
                inside = np.flatnonzero(vector)
                if len(inside) == 1:
                    yield _entry(worst, block, int(inside[0]), float(vector[inside[0]])), _say(block, share)
                    break
                start, stop = int(inside[0]), int(inside[-1]) + 1


def _entry(seen: Coordinate, block: Block, place: int, scale: float) -> Coordinate:
    """Return the coordinate of the inputs that a part with a single entry is."""
    index = block.multi_index(block.start + place)
    return Coordinate(block.name, index, seen.analytic / scale, seen.numerical / scale, seen.uncertainty / abs(scale))


def _say(block: Block, share: str) -> Finding | None:
    if block.size <= PARTS:
        return None
    said = (
        f"{block.name} was looked at along random tangents; cut up, {share} of it are wrong, and one entry of the "
        "worst part is listed. mode='full' measures every entry."
    )
    return Finding(Kind.COORDINATE, block.name, said)


def _about_blocks(findings: Sequence[Finding]) -> Iterator[Finding]:
    """Yield the findings that are not about single coefficients of the tangents, which mean nothing to the user."""
    for finding in findings:
        drawn = "blocks" in finding.evidence and finding.kind not in (*_OF_BLOCKS, *_OF_PRODUCTS)
        if not drawn:
            yield finding


_OF_BLOCKS = (Kind.FACTOR, Kind.SIGN, Kind.ZERO)
_OF_PRODUCTS = (Kind.OUTPUTS, Kind.ASYMMETRIC, *(kind for kind in Kind if kind.startswith("vector_")))
