"""self_test(): known bugs planted in the user's own gradient, to see that a check would find and name them."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from fastcheck.arrays import FloatArray
from fastcheck.bugs import MUTATIONS, Mutated, Mutation
from fastcheck.bugs.mutation import Net
from fastcheck.checks import check
from fastcheck.diagnosis.data_facts import facts_of
from fastcheck.errors import InputError
from fastcheck.findings import Kind
from fastcheck.gradients import flat_gradient
from fastcheck.judge.verdict import Verdict
from fastcheck.parameters import Parameters
from fastcheck.plain import Plain, plain
from fastcheck.replay import Draws
from fastcheck.report import Report

__all__ = ["PlantedBug", "SelfTestReport", "self_test"]

DECADES = 12  # how far below the planted size the smallest visible one is looked for


@dataclasses.dataclass(frozen=True)
class PlantedBug:
    """One known bug, and what the check made of it.

    Attributes
    ----------
    kind, description : str
        What was planted.
    blocks : tuple of str
        The blocks it spoils.
    size : float
        Its relative error, in the block where that is largest.
    found : bool
        Whether the check refused to pass the gradient.
    verdict : Verdict
        What the check said.
    finding : str or None
        The kind of the first finding.
    named : bool or None
        Whether that is the right one; None for bugs that a gradient alone can't tell from others.
    message : str
        The first finding's message.
    smallest : float
        The smallest relative error of this kind, by decades, that was found; NaN where that was not asked for.
    """

    kind: str
    description: str
    blocks: tuple[str, ...]
    size: float
    found: bool
    verdict: Verdict
    finding: str | None
    named: bool | None
    message: str
    smallest: float = math.nan


@dataclasses.dataclass(frozen=True)
class SelfTestReport:
    """What a check makes of known bugs in this gradient.

    Attributes
    ----------
    bugs : tuple of PlantedBug
        One for each kind that makes sense here.
    report : Report
        Of the gradient as it is, which passed.
    evaluations : int
        Evaluations of the loss in all.
    """

    bugs: tuple[PlantedBug, ...]
    report: Report
    evaluations: int

    @property
    def passed(self) -> bool:
        """Whether every planted bug was found."""
        return all(bug.found for bug in self.bugs)

    @property
    def named(self) -> float:
        """Share of the bugs that can be told apart whose first finding names them rightly; NaN if there are none."""
        told = [bug.named for bug in self.bugs if bug.named is not None]
        return sum(told) / len(told) if told else math.nan

    def __bool__(self) -> bool:
        raise InputError("a SelfTestReport is neither true nor false: ask .passed.")

    def __str__(self) -> str:
        from fastcheck.report.terminal import plain, render_self_test, width_here

        return plain(render_self_test(self, width_here()), width_here())

    def __repr__(self) -> str:
        return f"<SelfTestReport {str(self).splitlines()[0]}>"

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        from fastcheck.report.terminal import as_html, render_self_test, width_here

        return as_html(render_self_test(self, width_here()), width_here())

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "format": "fastcheck-self-test",
            "version": 1,
            "passed": self.passed,
            "evaluations": self.evaluations,
            "bugs": [
                {**dataclasses.asdict(bug), "verdict": bug.verdict.value, "blocks": list(bug.blocks)}
                | {"smallest": None if math.isnan(bug.smallest) else bug.smallest}
                for bug in self.bugs
            ],
        }


def self_test(
    loss: Callable[..., Any],
    gradient: Any,
    params: Any,
    *,
    args: tuple[Any, ...] = (),
    kinds: Sequence[str] | None = None,
    smallest: bool = True,
    seed: int = 0,
    **options: Any,
) -> SelfTestReport:
    """Plant known bugs in a correct gradient, one after the other, and check each as a user would.

    Parameters
    ----------
    loss, gradient, params, args
        As for `fastcheck.check`; the gradient must pass.
    kinds : sequence of str, optional
        Kinds of bug, as ``"sign"`` or ``"transpose"``; by default all that make sense.
    smallest : bool
        Also look for the smallest size at which each is found, a few more checks each.
    seed : int
        Of the places where bugs are planted, and of the checks.
    **options
        As for `fastcheck.check`: mode, tolerance, ...

    Returns
    -------
    SelfTestReport

    Raises
    ------
    GradientError
        The gradient itself did not pass: there is nothing to plant in.
    InputError
        A kind is not known.
    """
    own = check(loss, gradient, params, args=args, seed=seed, **options).raise_if_wrong()
    with plain(loss, gradient, params) as problem, _replayed(problem, args, own) as problem:
        bugs, evaluations = _planted(problem, args, _chosen(kinds), smallest, {"seed": seed, **options})
    return SelfTestReport(tuple(bugs), own, own.evaluations + evaluations)


@contextlib.contextmanager
def _replayed(problem: Plain, args: tuple[Any, ...], own: Report) -> Iterator[Plain]:
    """Give the problem itself, or of a random loss the one function that its check was of."""
    if not any(finding.kind is Kind.REPLAYED for finding in own.findings):
        yield problem
        return
    draws = Draws(problem.loss, problem.gradient, args)
    try:
        loss, gradient = draws.replayed(problem.loss, args), draws.replayed(problem.gradient, args)
        yield dataclasses.replace(problem, loss=loss, gradient=gradient)
    finally:
        draws.put_back()


def _planted(
    problem: Plain, args: tuple[Any, ...], mutations: Iterator[Mutation], smallest: bool, options: dict[str, Any]
) -> tuple[list[PlantedBug], int]:
    """Return what became of each bug, and the evaluations spent."""
    loss, gradient, params, seed = problem.loss, problem.gradient, problem.params, options["seed"]
    layout = Parameters.of(params)
    right = flat_gradient(gradient, args, params, layout)
    net = _as_net(loss, layout.unflatten(right.copy()), params, args, layout)

    def run(tree: Any) -> Report:
        return check(loss, tree, params, args=args, **options)

    bugs, evaluations = [], 0
    for mutation in mutations:
        mutated = mutation.apply(net, np.random.default_rng((seed, zlib.crc32(mutation.kind.encode()))))
        if mutated is None:
            continue
        report = run(mutated.problem.gradient)
        evaluations += report.evaluations
        bug = _bug(mutation, mutated, report)
        if smallest and bug.found:
            error = layout.flatten(mutated.problem.gradient) - right
            size, spent = _smallest(run, layout, right, error, bug.size, report)
            bug, evaluations = dataclasses.replace(bug, smallest=size), evaluations + spent
        bugs.append(bug)
    return bugs, evaluations


def _chosen(kinds: Sequence[str] | None) -> Iterator[Mutation]:
    known = {mutation.kind: mutation for mutation in MUTATIONS}
    for kind in known if kinds is None else kinds:
        if kind not in known:
            raise InputError(f"kinds={kind!r} is not known; there are: {', '.join(known)}.")
        yield known[kind]


def _as_net(loss: Callable[..., Any], gradient: Any, params: Any, args: tuple[Any, ...], layout: Parameters) -> Net:
    """Return the problem with what can be guessed of its batch, and the gradient as a tree."""
    facts = facts_of(loss, args, [block.shape for block in layout.blocks])
    return Net(loss, gradient, params, args, name="self test", batch=facts.batch, classes=facts.classes)


def _bug(mutation: Mutation, mutated: Mutated, report: Report) -> PlantedBug:
    first = report.findings[0] if report.findings else None
    found = report.verdict.refuted
    named = None
    if mutated.findings:
        named = found and first is not None and first.kind in mutated.findings
    return PlantedBug(
        mutation.kind,
        mutation.description,
        mutated.blocks,
        max(mutated.errors.values()),
        found,
        report.verdict,
        first.kind if first else None,
        named,
        first.message if first else "",
    )


def _smallest(
    run: Callable[[Any], Report], layout: Parameters, right: FloatArray, error: FloatArray, size: float, report: Report
) -> tuple[float, int]:
    """Return the smallest relative error found, by decades, and the evaluations spent.

    The search begins at the decade that the report says is detectable.
    """
    detectable = min((b.detectable for b in report.blocks.values() if math.isfinite(b.detectable)), default=size)
    begin = max(0, min(DECADES, math.floor(math.log10(size / max(detectable, 1e-16)))))
    evaluations = 0

    def visible(decade: int) -> bool:
        nonlocal evaluations
        seen = run(layout.unflatten(right + 10.0**-decade * error))
        evaluations += seen.evaluations
        return seen.verdict.refuted

    decade = begin
    while decade > 0 and not visible(decade):
        decade -= 1
    if decade == begin:
        while decade < DECADES and visible(decade + 1):
            decade += 1
    return size * 10.0**-decade, evaluations
