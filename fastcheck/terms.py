"""check_terms(): a loss that is a sum, checked term by term, so that no term hides behind a larger one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastcheck.arrays import FloatArray
from fastcheck.checks import check
from fastcheck.errors import GradientError, InputError
from fastcheck.finding import Finding
from fastcheck.gradients import match_gradient
from fastcheck.parameters import Parameters
from fastcheck.report import Report
from fastcheck.verdict import Verdict, worst

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
        from fastcheck.report.tables import plain, width_here
        from fastcheck.report.terms import render

        return plain(render(self), width_here())

    def __repr__(self) -> str:
        return f"<TermsReport {str(self).splitlines()[0]}>"

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        from fastcheck.report.tables import as_html, width_here
        from fastcheck.report.terms import render

        return as_html(render(self), width_here())

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
    layout = Parameters.of(params)
    known = {name: _term(name, term, tuple(args)) for name, term in _nonempty(terms).items()}
    throw = bool(options.pop("throw", False))
    flat = {name: _gradient(term, params, layout) for name, term in known.items()}
    reports = {
        name: check(term[0], layout.unflatten(flat[name].copy()), params, args=term[2], **options)
        for name, term in known.items()
    }

    def total(tree: Any) -> float:
        return math.fsum(float(loss(tree, *own)) for loss, _, own in known.values())

    whole: FloatArray = np.sum(list(flat.values()), axis=0)
    report = check(total, layout.unflatten(whole.copy()), params, **options)
    found = TermsReport(reports, report, tuple(_findings(layout, flat, whole, reports, report)))
    return found.raise_if_wrong() if throw else found


def _nonempty(terms: Mapping[str, tuple[Any, ...]]) -> Mapping[str, tuple[Any, ...]]:
    if not isinstance(terms, Mapping) or not terms:
        raise InputError(f"terms={terms!r} must be a mapping of a name to (loss, gradient), with at least one term.")
    return terms


def _term(name: str, term: object, args: tuple[Any, ...]) -> Term:
    if not isinstance(term, (tuple, list)) or len(term) not in (2, 3) or not callable(term[0]):
        raise InputError(f"terms[{name!r}]={term!r} must be (loss, gradient) or (loss, gradient, args), loss callable.")
    return term[0], term[1], tuple(term[2]) if len(term) == 3 else args


def _gradient(term: Term, params: Any, layout: Parameters) -> FloatArray:
    """Return a term's gradient as a flat vector; blocks that a dict leaves out are zero."""
    _, gradient, args = term
    tree = gradient(layout.unflatten(layout.flatten(params)), *args) if callable(gradient) else gradient
    flat_names = all("." not in block.name for block in layout.blocks)
    if isinstance(tree, Mapping) and isinstance(params, Mapping) and flat_names:
        missing = {b.name: np.zeros(b.shape) for b in layout.blocks if not {b.name, f"d{b.name}"} & set(tree)}
        tree = {**tree, **missing}
    return match_gradient(tree, layout).flat


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
            yield Finding(
                "masked",
                name,
                f"{name} is {reports[name].verdict.value}, yet the sum passes: beside {largest}, whose gradient is "
                f"{1 / ratio:.3g} times as large, its error is below the tolerance."
                if ratio < 1
                else f"{name} is {reports[name].verdict.value}, yet the sum passes: another term's error cancels it.",
                {"ratio": ratio, "hidden": hidden},
            )
        elif name != largest and ratio < DROWNED:
            yield Finding(
                "drowned",
                name,
                f"{name} is drowned by {largest}: its gradient is {ratio:.2g} of that one's, so in the sum alone an "
                f"error of {name} up to a relative {hidden:.2g} may pass unseen. It was checked alone: "
                f"{reports[name].verdict.value}.",
                {"ratio": ratio, "hidden": hidden},
            )
    for name, own in reports.items():
        for finding in (f for f in own.findings if "blocks" in f.evidence):
            yield Finding(finding.kind, finding.block, f"{name}: {finding.message}", finding.evidence)


def _hidden(layout: Parameters, term: FloatArray, whole: FloatArray, report: Report) -> float:
    """Return the largest relative error of a term that the sum's check leaves possible in every block it acts on."""
    shares = []
    for block in layout.blocks:
        own, all_of_it = (float(np.linalg.norm(g[block.slice])) for g in (term, whole))
        if own and block.name in report.blocks:
            shares.append(report.blocks[block.name].detectable * all_of_it / own)
    return min(shares, default=math.inf)
