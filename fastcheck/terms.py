"""check_terms(): a loss that is a sum, checked term by term, so that no term hides behind a larger one."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastcheck.arithmetic import own
from fastcheck.arrays import FloatArray
from fastcheck.checks import check
from fastcheck.conventions import recognised
from fastcheck.errors import GradientError, InputError
from fastcheck.findings import Finding, Kind
from fastcheck.gradients import flat_gradient, spellings
from fastcheck.held import Attributes
from fastcheck.judge.verdict import Verdict, worst
from fastcheck.losses.evaluator import as_float
from fastcheck.parameters import Parameters, vectors
from fastcheck.plain import Plain, plain
from fastcheck.replay import Draws, said_of_draws
from fastcheck.report import Report

__all__ = ["TermsReport", "check_terms"]

DROWNED = 1e-3
"""Norm of a term's gradient over the largest term's, below which it is said to be drowned."""

Term = tuple[Callable[..., Any], Any, tuple[Any, ...]]


@dataclass(frozen=True)
class TermsReport:
    """What the check of each term and of their sum found out.

    Attributes
    ----------
    terms : mapping of str to Report
        The report of each term alone.
    sum : Report
        The report of the sum of all terms.
    findings : tuple of Finding
        Which terms the sum cannot see, which are wrong behind its back, and what is wrong in each.
    """

    terms: Mapping[str, Report]
    sum: Report
    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> Verdict:
        """The worst of the verdicts of the terms and of the sum."""
        return worst([self.sum.verdict, *(report.verdict for report in self.terms.values())])

    @property
    def passed(self) -> bool:
        """Whether every term and the sum passed."""
        return self.verdict.passed

    def __bool__(self) -> bool:
        raise InputError("a TermsReport is neither true nor false: ask .passed, or .verdict for all five answers.")

    def __str__(self) -> str:
        from fastcheck.report.terminal import plain, render_terms, width_here

        return plain(render_terms(self), width_here())

    def __repr__(self) -> str:
        return f"<TermsReport {str(self).splitlines()[0]}>"

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        from fastcheck.report.terminal import as_html, render_terms, width_here

        return as_html(render_terms(self), width_here())

    def to_dict(self) -> dict[str, Any]:
        """Return the reports and findings as plain data for JSON."""
        return {
            "format": "fastcheck-terms",
            "version": 1,
            "verdict": self.verdict.value,
            "passed": self.passed,
            "terms": {name: report.to_dict() for name, report in self.terms.items()},
            "sum": self.sum.to_dict(),
            "findings": [{"kind": f.kind, "block": f.block, "message": f.message} for f in self.findings],
        }

    def raise_if_wrong(self) -> TermsReport:
        """Return the report itself if every term and the sum passed.

        Raises
        ------
        GradientError
            One did not; the message is this report, ``report`` the first that failed.
        """
        failed = [report for report in (*self.terms.values(), self.sum) if not report.passed]
        if failed:
            raise GradientError(str(self), failed[0])
        return self


def check_terms(
    terms: Mapping[str, tuple[Any, ...]], params: Any, *, args: tuple[Any, ...] = (), **options: Any
) -> TermsReport:
    """Check every term of a loss alone, and their sum.

    A regulariser is small beside the data term where training begins, and the data term beside the regulariser where
    it ends: in the sum, an error of the smaller one is below the tolerance. Alone, each shows at its full strength.

    Parameters
    ----------
    terms : mapping of str to (loss, gradient) or (loss, gradient, args)
        The terms, each called ``loss(params, *args)``, with a gradient as `fastcheck.check` takes it. Blocks that a
        term does not depend on may be missing from the dict its gradient returns.
    params : tree of float arrays
        Where to check.
    args : tuple
        Further positional arguments of the terms that bring none of their own.
    **options
        As for `fastcheck.check`: mode, tolerance, seed, ...

    Returns
    -------
    TermsReport

    Raises
    ------
    InputError
        There are no terms, or one is no pair.
    """
    known = {name: _term(name, term, tuple(args)) for name, term in _nonempty(terms).items()}
    throw = bool(options.pop("throw", False))
    with contextlib.ExitStack() as stack:
        problems = {n: (stack.enter_context(_problem(term, params)), term[2]) for n, term in known.items()}
        found = _checked(problems, options, stack)
    return found.raise_if_wrong() if throw else found


def _checked(
    problems: dict[str, tuple[Plain, tuple[Any, ...]]], options: dict[str, Any], stack: contextlib.ExitStack
) -> TermsReport:
    """Check each term, with its args, and their sum."""
    first = next(problem for problem, _ in problems.values())
    params, layout = first.params, Parameters.of(first.params)
    notes = list(_replay(problems, layout, stack)) if options.get("replay", True) else []
    flat = {name: flat_gradient(problem.gradient, own, params, layout) for name, (problem, own) in problems.items()}

    def checked(loss: Callable[..., Any], flat: FloatArray, problem: Plain, own: tuple[Any, ...]) -> Report:
        plain_one = Plain(loss, layout.unflatten(flat.copy()), params, problem.form)
        report = check(loss, plain_one.gradient, params, args=own, **options)
        return recognised(report, plain_one, own)

    def total(tree: Any) -> float:
        return math.fsum(as_float(problem.loss(tree, *own)) for problem, own in problems.values())

    reports = {name: checked(problem.loss, flat[name], problem, own) for name, (problem, own) in problems.items()}
    with own():
        whole: FloatArray = np.sum(list(flat.values()), axis=0)
    report = checked(total, whole, first, ())
    with own():
        return TermsReport(reports, report, (*_findings(layout, flat, whole, reports, report), *notes))


def _replay(
    problems: dict[str, tuple[Plain, tuple[Any, ...]]], layout: Parameters, stack: contextlib.ExitStack
) -> Iterator[Finding]:
    """Put in place of each random term the function that it is when all its calls draw the same, and say so."""
    draws = Draws(*((problem.loss, problem.gradient, own) for problem, own in problems.values()))
    for name, (problem, own_args) in problems.items():
        tree = layout.unflatten(layout.flatten(problem.params))
        loss, gradient, sources = draws.replayed_where_random(problem.loss, problem.gradient, tree, own_args)
        if sources:
            stack.callback(draws.put_back)
            problems[name] = replace(problem, loss=loss, gradient=gradient), own_args
            yield said_of_draws(sources, name)


def _nonempty(terms: Mapping[str, tuple[Any, ...]]) -> Mapping[str, tuple[Any, ...]]:
    if not isinstance(terms, Mapping) or not terms:
        raise InputError(f"terms={terms!r} must be a mapping of a name to (loss, gradient), with at least one term.")
    return terms


def _term(name: str, term: object, args: tuple[Any, ...]) -> Term:
    if not isinstance(term, (tuple, list)) or len(term) not in (2, 3) or not callable(term[0]):
        raise InputError(f"terms[{name!r}]={term!r} must be (loss, gradient) or (loss, gradient, args), loss callable.")
    return term[0], term[1], tuple(term[2]) if len(term) == 3 else args


def _problem(term: Term, params: Any) -> contextlib.AbstractContextManager[Plain]:
    """Return a term in the plain form, its gradient with zeros for the blocks that it leaves out."""
    loss, gradient, _ = term
    tree = vectors(params.tree if isinstance(params, Attributes) else params)

    def filled(found: Any) -> Any:
        if not isinstance(found, Mapping) or not isinstance(tree, Mapping):
            return found
        flat = {name: leaf for name, leaf in tree.items() if not isinstance(leaf, (Mapping, list, tuple))}
        missing = {n: np.zeros(np.shape(leaf)) for n, leaf in flat.items() if not {n, *spellings(str(n))} & set(found)}
        return {**found, **missing}

    return plain(loss, gradient, params, complete=filled)


def _findings(
    layout: Parameters, flat: Mapping[str, FloatArray], whole: FloatArray, reports: Mapping[str, Report], report: Report
) -> Iterator[Finding]:
    norms = {name: float(np.linalg.norm(g)) for name, g in flat.items()}
    largest = max(norms, key=lambda name: norms[name])
    for name, norm in norms.items():
        ratio = norm / norms[largest] if norms[largest] else math.nan
        hidden = _hidden(layout, flat[name], whole, report)
        wrong = not reports[name].passed and reports[name].verdict is not Verdict.INCONCLUSIVE
        if wrong and report.passed:
            if not ratio:
                why = f"its gradient is all zeros, and beside {largest} its error is below the tolerance"
            elif ratio < 1:
                why = (
                    f"beside {largest}, whose gradient is {1 / ratio:.3g} times as large, its error is below the "
                    "tolerance"
                )
            else:
                why = "another term's error cancels it"
            message = f"{name} is {reports[name].verdict.value}, yet the sum passes: {why}."
            yield Finding(Kind.MASKED, name, message, {"ratio": ratio, "hidden": hidden})
        elif name != largest and ratio < DROWNED:
            yield Finding(
                Kind.DROWNED,
                name,
                f"{name} is drowned by {largest}: its gradient is {ratio:.2g} of that one's, so in the sum alone an "
                f"error of {name} up to a relative {hidden:.2g} may pass unseen. It was checked alone: "
                f"{reports[name].verdict.value}.",
                {"ratio": ratio, "hidden": hidden},
            )
    for name, alone in reports.items():
        for finding in (f for f in alone.findings if "blocks" in f.evidence):
            yield Finding(finding.kind, finding.block, f"{name}: {finding.message}", finding.evidence)


def _hidden(layout: Parameters, term: FloatArray, whole: FloatArray, report: Report) -> float:
    """Return the largest relative error of a term that the sum's check leaves possible in every block it acts on."""
    shares = []
    for block in layout.blocks:
        own, all_of_it = (float(np.linalg.norm(g[block.slice])) for g in (term, whole))
        if own and block.name in report.blocks:
            shares.append(report.blocks[block.name].detectable * all_of_it / own)
    return min(shares, default=math.inf)
