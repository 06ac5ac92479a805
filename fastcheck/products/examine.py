"""A product with a Jacobian as checks of losses <u, f>: cotangents are chosen, checked, and cut up on failure."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastcheck.arrays import FloatArray
from fastcheck.findings import Finding, Kind
from fastcheck.gradients import match_gradient
from fastcheck.parameters import Parameters
from fastcheck.products.checks import Checked, Checks
from fastcheck.products.outputs import slope, suspects
from fastcheck.products.point import Point, Product, Told
from fastcheck.products.vectors import COTANGENT, TANGENT, bounded, unit
from fastcheck.report import Coordinate, words
from fastcheck.verdict import Verdict, worst

__all__ = ["Cotangent", "Form", "cotangents_for", "examine"]

FEW = 8  # outputs, or entries of them, that are each looked at alone
RANDOM = 3  # cotangents at random where there are more
SHOWN = 4  # names in a message
STEP = 6e-6  # where a check left none: the cube root of the roundoff

Cotangent = tuple[str, FloatArray, bool]


@dataclass(frozen=True)
class Form(ABC):
    """How a claimed product becomes the gradient of <u, f>.

    Attributes
    ----------
    point : Point
        The function.
    product : Product
        The user's product.
    """

    point: Point
    product: Product

    @property
    def params(self) -> Any:
        """What the loss is differentiated by: the inputs, a private copy."""
        return self.point.inputs.astype_user(self.point.theta)

    def loss(self, u: FloatArray) -> Callable[..., Any]:
        """Return the loss of a cotangent, a function of params."""
        return self.point.weighted(u)

    def direction(self, coordinate: Coordinate) -> FloatArray:
        """Return the direction of the inputs that a coordinate of params stands for, shape (n,)."""
        block = self.point.inputs[coordinate.block]
        return unit(block.coordinate(coordinate.index), self.point.theta.size)

    @abstractmethod
    def gradient(self, u: FloatArray) -> Callable[..., Any]:
        """Return a function of a tree like params, and of args: the claimed gradient of the loss."""

    @abstractmethod
    def claim(self, v: FloatArray) -> Callable[[FloatArray], float]:
        """Return the claimed <u, J v> as a function of u."""


def cotangents_for(point: Point, count: int | None, seed: int) -> list[Cotangent]:
    """Return cotangents as (name, u, alone): some that weigh all outputs at random, and few outputs each alone."""
    size, blocks = point.outputs.size, [block for block in point.outputs.blocks if block.size]
    chosen: list[Cotangent] = []
    if size == 1:
        places: list[int] = []
    elif size <= max(FEW, count or 0):
        places = list(range(size))
    else:
        places = []
        if 1 < len(blocks) <= FEW:
            for number, block in enumerate(blocks):
                u = np.zeros(size)
                u[block.slice] = bounded(seed, COTANGENT + 1 + number, 0, block.size)
                chosen.append((point.name_of(block), point.representable(u), True))
    dense = 1 if places or size == 1 else RANDOM if count is None else count
    at_random = [point.representable(bounded(seed, COTANGENT, k, size)) for k in range(dense)]
    return [
        *(("all outputs", u, False) for u in at_random),
        *((point.entry(place), unit(place, size), True) for place in places),
        *chosen,
    ]


def examine(form: Form, checks: Checks, chosen: Sequence[Cotangent], **over: Any) -> tuple[list[Checked], list[Told]]:
    """Check every cotangent; where one fails, find out which outputs are to blame.

    Parameters
    ----------
    form : Form
        The product.
    checks : Checks
        Runs them.
    chosen : sequence of (name, u, alone)
        The cotangents.
    **over
        Settings that replace those of the run.
    """
    over = {"mode": _mode(form.point, checks, len(chosen)), **over}

    def run(one: Cotangent, left: int = 1) -> Checked:
        name, u, alone = one
        claimed = _Recorded(form.gradient(u))
        report = checks(left, form.loss(u), claimed, form.params, form.point.args, **over)
        return Checked(name, u, report, alone, claimed.norm)

    done = [run(one, len(chosen) - number) for number, one in enumerate(chosen)]
    failed = [one for one in done if one.failed]
    size = form.point.outputs.size
    if not failed or size == 1:
        return done, []
    single = [one for one in done if one.alone]
    if len(single) == size:
        return done, list(_blamed(form, single, worst(one.report.verdict for one in single if not one.failed)))
    places = _suspects(form, failed[0])
    checks.evaluations += 2
    single = [run((form.point.entry(place), unit(place, size), True)) for place in places]
    rest = failed[0].weights.copy()
    rest[places] = 0
    others = run(("the other outputs", rest, True)).report.verdict if places else Verdict.WRONG
    return [*done, *single], list(_blamed(form, single, others))


def _mode(point: Point, checks: Checks, count: int) -> str:
    """Return one mode for all checks, so that together they are no longer than a single one may be."""
    began = time.perf_counter()
    point.at(point.theta.copy())
    checks.evaluations += 1
    mode = checks.settings.mode_for(count * point.theta.size, time.perf_counter() - began)
    low = any(block.dtype.itemsize < point.theta.itemsize for block in point.inputs.blocks)
    return checks.settings.mode if mode == "screen" and low else mode  # each may then prefer a sample


@dataclass
class _Recorded:
    """A gradient that remembers the norm of what it returned."""

    gradient: Callable[..., Any]
    norm: float = 0.0

    def __call__(self, params: Any, *args: Any) -> Any:
        returned = self.gradient(params, *args)
        self.norm = float(np.linalg.norm(match_gradient(returned, Parameters.of(params)).flat))
        return returned


def _suspects(form: Form, failed: Checked) -> list[int]:
    """Return the outputs that a failed cotangent's error seems to come from."""
    report = failed.report
    if report.wrong:
        name, v = report.wrong[0].block, form.direction(report.wrong[0])
    else:  # an error of the whole block that no coordinate shows
        name, v = words.block_order(report)[0][0], np.zeros(form.point.theta.size)
        block = form.point.inputs[name]
        v[block.slice] = bounded(0, TANGENT, 0, block.size)
    step = report.settings.get("steps", {}).get(name, STEP * float(np.abs(form.point.theta).max() or 1.0))
    return suspects(form.point, form.claim(v), failed.weights, slope(form.point, v, step))


def _blamed(form: Form, single: Sequence[Checked], others: Verdict) -> Iterator[Told]:
    """Yield which outputs are wrong, given the verdict on the others; the checks have their own verdicts."""
    names = [one.name for one in single if one.failed]
    rest = form.point.outputs.size - len(names)
    if not names or not rest:
        return
    shown = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    if others.passed:
        end = f" alone: it agrees for the other {f'{rest:,}' if rest > 1 else 'output'}."
    elif others is Verdict.INCONCLUSIVE:
        end = "; the others could not all be judged."
    else:
        end = ", and for others."
    said = f"{form.product.name} is wrong for {shown}{end}"
    unused = [one.name for one in single if one.failed and not one.claimed]
    if unused:
        verb = "are never used" if len(unused) > 1 else "is never used"
        said += f" What it returns for {', '.join(unused[:SHOWN])} is zero: that part of the cotangent {verb}."
    yield Told(Finding(Kind.OUTPUTS, None, said, {"outputs": names, "others_agree": others.passed}))
