"""What the form of a gradient explains: it is the conjugate of what is meant here, or of another convention."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastcheck.arrays import FloatArray
from fastcheck.findings import Finding, Kind
from fastcheck.gradients import match_gradient
from fastcheck.losses import Evaluator, evaluator_for
from fastcheck.parameters import Parameters
from fastcheck.plain import Plain
from fastcheck.report import Report

__all__ = ["recognised"]

STEP = 2.0**-18  # of a direction, relative to the parameters that it moves
AGREES = 1e-4  # relative, of the slopes with those of another convention
DIFFERS = 1e-2  # at least, of the slopes with those of the gradient as it is
DIRECTIONS = 3

CONVENTIONS = (
    (1.0, -1.0, "the conjugate", "the conjugate, dJ/dRe - i dJ/dIm, as jax.grad returns it", "numpy.conj(g)"),
    (2.0, -1.0, "dJ/dz", "the derivative by z, (dJ/dRe - i dJ/dIm) / 2", "2 * numpy.conj(g)"),
    (2.0, 1.0, "dJ/dconj(z)", "the derivative by conj(z), (dJ/dRe + i dJ/dIm) / 2", "2 * g"),
)


def recognised(report: Report, problem: Plain, args: tuple[Any, ...]) -> Report:
    """Return the report of a plain problem as the user's form has it, first what the form of the gradient explains."""
    form = problem.form
    found: tuple[Finding, ...] = ()
    spent = 0
    if form.complexes and report.verdict.refuted:
        found, spent = _conventions(report, problem, args)
    blocks = {name for finding in found for name in finding.evidence["blocks"]}
    rest = [f for f in report.findings if not _is_explained(f, blocks)]
    numerical = report.numerical if report.numerical is None else form.user(report.numerical)
    return dataclasses.replace(
        report, findings=(*found, *rest), numerical=numerical, evaluations=report.evaluations + spent
    )


def _is_explained(finding: Finding, blocks: set[str]) -> bool:
    """Say whether a finding gives another reason for the same blocks."""
    return "short" in finding.evidence and set(finding.evidence.get("blocks", ())) <= blocks and bool(blocks)


def _refuted(report: Report, name: str) -> bool:
    return name in report.blocks and report.blocks[name].verdict.refuted


def _conventions(report: Report, problem: Plain, args: tuple[Any, ...]) -> tuple[tuple[Finding, ...], int]:
    """Return which complex leaves have a right gradient of another convention, and the evaluations spent."""
    layout = Parameters.of(problem.params)
    evaluator = evaluator_for(problem.loss, layout, layout.flatten(problem.params), args)
    try:
        gradient = problem.gradient
        tree = gradient(evaluator.tree_of(evaluator.theta.copy()), *args) if callable(gradient) else gradient
        flat = match_gradient(tree, layout).flat
    except Exception:
        return (), evaluator.evaluations
    by_convention: dict[int, list[str]] = {}
    for name in problem.form.complexes:
        if _refuted(report, f"{name}.real") or _refuted(report, f"{name}.imag"):
            number = _convention(evaluator, flat, name)
            if number is not None:
                by_convention.setdefault(number, []).append(name)
    return tuple(_told(n, names) for n, names in by_convention.items()), evaluator.evaluations


def _convention(evaluator: Evaluator, flat: FloatArray, name: str) -> int | None:
    """Return the number of the convention in which a leaf's gradient agrees with the slopes along some directions."""
    parts = [evaluator.layout[name + end] for end in (".real", ".imag")]
    start, stop = parts[0].start, parts[1].stop
    rng, middle = np.random.default_rng(stop), parts[1].start - start
    theta, claimed = evaluator.theta[start:stop], flat[start:stop]
    scale = float(np.sqrt(np.mean(theta**2))) or 1.0
    directions = scale * rng.standard_normal((DIRECTIONS, stop - start))
    values = np.array([evaluator.along(start, v, np.array([STEP, -STEP])) for v in directions])
    slopes = (values[:, 0] - values[:, 1]) / (2 * STEP)
    size = float(np.linalg.norm(slopes))
    real, imag = directions[:, :middle] @ claimed[:middle], directions[:, middle:] @ claimed[middle:]
    if not np.linalg.norm(real + imag - slopes) > DIFFERS * size:
        return None
    for number, (factor, sign, *_) in enumerate(CONVENTIONS):
        if np.linalg.norm(factor * (real + sign * imag) - slopes) <= AGREES * size:
            return number
    return None


def _told(number: int, names: Sequence[str]) -> Finding:
    _, _, short, words, remedy = CONVENTIONS[number]
    listed = ", ".join(names)
    return Finding(
        Kind.CONJUGATE,
        None,
        f"The gradient of {listed} is {words}. Here, as in torch, the gradient of a complex parameter is "
        f"dJ/dRe + i dJ/dIm, along which J rises fastest: return {remedy}.",
        {
            "blocks": [name + end for name in names for end in (".real", ".imag")],
            "short": f"is {short}",
            "where": listed,
            "convention": short,
        },
    )
