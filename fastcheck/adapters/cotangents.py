"""The transposed Jacobian of a function, checked as the gradients of scalars: u . f(x) has the gradient J(x)^T u.

A function of few outputs is checked with every unit cotangent u, each an output of its own, and one at random; other
functions with a few random ones. An error of J^T hides from a random u only where E^T u = 0, which has probability
zero; entries of u keep away from zero, so that no output counts for little, and from one another, so that a backward
pass that ignores u, or squares it, is found as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fastcheck.adapters import measured
from fastcheck.arrays import FloatArray
from fastcheck.errors import InputError
from fastcheck.finding import Finding
from fastcheck.report import BlockReport, Report
from fastcheck.verdict import worst

__all__ = ["check_products", "cotangents", "merged"]

FEW = 4  # outputs up to which every unit cotangent is tried
RANDOM = 3  # cotangents where there are more

Arrays = dict[str, Any]


def check_products(
    function: Callable[[Arrays], Sequence[Any]],
    pull_back: Callable[[Arrays, Sequence[FloatArray]], Arrays],
    params: Arrays,
    shapes: Sequence[tuple[int, ...]],
    options: Mapping[str, Any],
) -> Report:
    """Check ``pull_back(x, u) = J(x)^T u`` of a function with several cotangents u, and return one report of all.

    Parameters
    ----------
    function : callable
        Returns the outputs at a dict of arrays, a list of float arrays.
    pull_back : callable
        Returns a dict like params, at a dict of arrays and for a list of cotangents shaped like the outputs.
    params : dict of float arrays
        Where to check.
    shapes : sequence of tuple of int
        Of the outputs.
    options : mapping
        As of `fastcheck.check`; budget and the chance of a false alarm are shared out to the cotangents.

    Raises
    ------
    InputError
        A checkpoint is asked for.
    """
    if options.get("checkpoint") is not None:
        raise InputError("checkpoint: a function is checked once for each cotangent, which one file can't hold.")
    drawn = cotangents(shapes, np.random.default_rng(int(options.get("seed", 0))))
    own = dict(options)
    confidence = float(own.get("confidence", 0.9999))
    if 0 < confidence < 1:
        own["confidence"] = 1 - (1 - confidence) / len(drawn)
    if own.get("budget"):
        own["budget"] = own["budget"] / len(drawn)
    reports = {label: _one(function, pull_back, params, u, own) for label, u in drawn.items()}
    report = merged(reports)
    return replace(report, settings={**report.settings, "confidence": confidence, "budget": options.get("budget")})


def cotangents(shapes: Sequence[tuple[int, ...]], rng: np.random.Generator) -> dict[str, list[FloatArray]]:
    """Return cotangents by name: units for few outputs, and random ones, signs times magnitudes in [1/2, 3/2]."""
    total = sum(int(np.prod(shape)) for shape in shapes)
    found = {}
    if total <= FEW:
        for k, shape in enumerate(shapes):
            for index in np.ndindex(*shape):
                units = [np.zeros(s) for s in shapes]
                units[k][index] = 1.0
                where = f"[{', '.join(map(str, index))}]" if index else ""
                found[f"output{k}{where}"] = units
    for number in range(1 if found else RANDOM):
        found[f"random {number}"] = [np.asarray(rng.choice([-1.0, 1.0], s) * rng.uniform(0.5, 1.5, s)) for s in shapes]
    return found


def merged(reports: Mapping[str, Report]) -> Report:
    """Return one report of several about the same parameters: in every place the worst of what they say."""
    ordered = sorted(reports.values(), key=lambda report: (-report.verdict.severity, -report.difference))
    first = ordered[0]
    blocks = {name: _worst_block([report.blocks[name] for report in ordered]) for name in first.blocks}
    places = {coordinate.name: coordinate for report in reversed(ordered) for coordinate in report.wrong}
    said = {(finding.kind, finding.block): finding for report in reversed(ordered) for finding in report.findings}
    told = [*first.findings, *(finding for finding in said.values() if finding not in first.findings)]
    return replace(
        first,
        blocks=blocks,
        bound=max(report.bound for report in ordered),
        wrong=tuple(sorted(places.values(), key=lambda c: -abs(c.analytic - c.numerical))),
        findings=(*_which(reports), *told),
        coverage=min(report.coverage for report in ordered),
        evaluations=sum(report.evaluations for report in ordered),
        seconds=sum(report.seconds for report in ordered),
        numerical=None,
    )


def _one(
    function: Callable[[Arrays], Sequence[Any]],
    pull_back: Callable[[Arrays, Sequence[FloatArray]], Arrays],
    params: Arrays,
    u: Sequence[FloatArray],
    options: Mapping[str, Any],
) -> Report:
    def loss(tree: Arrays) -> float:
        return float(sum(np.vdot(part, output) for part, output in zip(u, function(tree), strict=True)))

    return measured(loss, lambda tree: pull_back(tree, u), params, (), options)


def _worst_block(found: Sequence[BlockReport]) -> BlockReport:
    return replace(
        max(found, key=lambda block: (block.verdict.severity, block.difference)),
        checked=min(block.checked for block in found),
        bound=max(block.bound for block in found),
        detectable=max(block.detectable for block in found),
        verdict=worst(block.verdict for block in found),
        wrong=max(block.wrong for block in found),
        kinks=max(block.kinks for block in found),
    )


def _which(reports: Mapping[str, Report]) -> list[Finding]:
    failed = [label for label, report in reports.items() if not report.passed]
    if not failed or len(reports) == 1:
        return []
    names = ", ".join(failed)
    return [
        Finding(
            "cotangent",
            None,
            f"{len(failed)} of {len(reports)} cotangents do not pass: {names}. (A cotangent is what the backward pass "
            "is given: a unit for one output alone, or random for all of them.)",
            {"cotangents": failed},
        )
    ]
