"""The report as one page of HTML that needs nothing else: no network, light and dark, printable.

It runs no script but one, a filter of blocks by name, where there are so many that one is wanted.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastcheck.errors import MissingDependencyError
from fastcheck.findings import Finding
from fastcheck.report import diff, figures, words
from fastcheck.report.axis import GradeAxis, tolerance_of
from fastcheck.report.report import BlockReport, Coordinate, Report, write_text

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["as_html", "diff_as_html", "rendered", "require_libraries", "write_diff", "write_html"]

BLOCKS, COORDINATES, FINDINGS, FIGURES = 16, 20, 12, 4  # in sight; the rest can be unfolded
FILTERED = 40  # blocks from which on there is a filter
TITLE = 90  # characters


PLACES = "relative error by index, and analytic against measured"
STEPS = (
    "where the error does not change with the step (dashed), it is the gradient's own. What rises to the right is the "
    "truncation of the difference; in the grey, the rounding of the loss could be all of it."
)


@dataclass(frozen=True)
class Figure:
    """One drawing and the words that stand for it."""

    of: str
    svg: str
    caption: str
    shows: str


def write_html(report: Report, path: Path) -> None:
    """Write the report as a page; the file is complete or not there.

    Raises
    ------
    InputError
        The file can't be written.
    MissingDependencyError
        Jinja2 or matplotlib is not installed.
    """
    write_text(path, as_html(report))


def write_diff(before: Report, after: Report, path: Path) -> None:
    """Write the comparison of two reports as a page; see `write_html`."""
    write_text(path, diff_as_html(before, after))


def require_libraries() -> None:
    """Raise unless all is installed that a page can need.

    Raises
    ------
    MissingDependencyError
        Jinja2 or matplotlib is not installed.
    """
    _environment()
    figures.require_matplotlib()


def as_html(report: Report) -> str:
    """Return the page; see `write_html`."""
    environment = _environment()
    headline = words.headline(report)
    word, _, rest = headline.partition(":")
    ordered = words.block_order(report)
    findings = [finding for finding in report.findings if finding.message not in headline]
    return environment.get_template("report.html.j2").render(
        report=report,
        word=word,
        rest=rest.strip(),
        title=_title(headline),
        policy=_policy(environment if len(ordered) > FILTERED else None),
        filtered=len(ordered) > FILTERED,
        findings=findings[:FINDINGS],
        more_findings=findings[FINDINGS:],
        axis=GradeAxis.of(report.blocks.values(), tolerance_of(report)),
        blocks=ordered[:BLOCKS],
        more_blocks=ordered[BLOCKS:],
        coordinates=report.wrong[:COORDINATES],
        more_coordinates=report.wrong[COORDINATES:],
        unlisted=max(0, sum(block.wrong for block in report.blocks.values()) - len(report.wrong)),
        figures=list(_figures(report, ordered)),
        repeat=words.replay(report.settings),
        run=words.circumstances(report.settings),
        settings=_rows(report.settings),
    )


def diff_as_html(before: Report, after: Report) -> str:
    """Return the page of a comparison; see `write_diff`."""
    environment = _environment()
    rows = diff.changes(before, after)
    verdicts, _, rest = diff.summary(before, after).partition(":")
    both = [block for one in rows for block in (one.before, one.after) if block is not None]
    return environment.get_template("diff.html.j2").render(
        title=_title(f"{verdicts}:{rest}"),
        verdicts=verdicts,
        rest=rest.strip(),
        policy=_policy(environment if len(rows) > FILTERED else None),
        filtered=len(rows) > FILTERED,
        axis=GradeAxis.of(both, tolerance_of(after)),
        rows=rows,
        reports=[("before", before), ("after", after)],
        unlike=diff.unlike(before, after),
    )


def rendered(template: str, **parts: Any) -> str:
    """Return a page of a template without a script, whose parts are data but for drawings made here.

    Raises
    ------
    MissingDependencyError
        Jinja2 is not installed.
    """
    return _environment().get_template(template).render(policy=_policy(None), **parts)


def _title(headline: str) -> str:
    return headline if len(headline) <= TITLE else headline[: TITLE - 3] + "..."


def _policy(environment: Environment | None) -> str:
    """Return what the page allows itself: its own style and, where it has one, its own script, known by its hash."""
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    if environment is None:
        return policy
    script = environment.get_template("filter.js").render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return f"{policy}; script-src 'sha256-{digest}'"


def _environment() -> Environment:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise MissingDependencyError("a report as a page needs Jinja2: pip install 'fastcheck[html]'") from error
    environment = Environment(
        loader=PackageLoader("fastcheck.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"words": words, "relative_error": figures.relative_error}
    environment.filters |= {
        "shape": words.shape,
        "evidence": _evidence,
        "tally": _tally,
        "breakable": _breakable,
        "plain": _value,
    }
    return environment


def _figures(report: Report, ordered: Sequence[tuple[str, BlockReport]]) -> Iterable[Figure]:
    """Yield one of the worst coordinate, and one for each of the worst blocks with more than one listed."""
    from markupsafe import Markup

    worst, sweep = next(iter(report.wrong), None), report.sweep
    if worst is not None and sweep is not None and (sweep.block, sweep.index) == (worst.block, worst.index):
        svg = figures.over_the_step(sweep, worst)
        if svg:
            yield Figure(worst.name, Markup(svg), STEPS, "its relative error over the step")
    listed: dict[str, list[Coordinate]] = {name: [] for name, _ in ordered}
    for coordinate in report.wrong:
        listed.setdefault(coordinate.block, []).append(coordinate)
    drawn = [(name, block) for name, block in ordered if len(listed[name]) > 1][:FIGURES]
    for number, (name, block) in enumerate(drawn, 1):
        svg = figures.wrong_coordinates(block.shape, listed[name], number)
        yield Figure(name, Markup(svg), _caption(block, len(listed[name])), PLACES)


def _caption(block: BlockReport, listed: int) -> str:
    wrong = words.count(block.wrong, "wrong coordinate")
    shown = f"all {wrong}" if listed == block.wrong else f"the worst {listed:,} of {wrong}"
    if block.wrong == block.size:
        return f"{shown}; the whole block is wrong."
    if block.checked < block.size:
        return f"{shown}; {block.checked:,} of {block.size:,} were measured one by one, so a blank is no proof."
    if listed < block.wrong:
        return f"{shown}; a blank was measured, and is right or not listed."
    return f"{shown}; the blank ones were measured and agree."


def _tally(blocks: Sequence[tuple[str, BlockReport]]) -> str:
    """Return ``"3 suspicious, 41 correct"``."""
    return ", ".join(f"{n:,} {word}" for word, n in Counter(words.graded(block.verdict) for _, block in blocks).items())


def _breakable(name: str) -> str:
    """Return the name, escaped, with leave to break a line after each dot and before an index, but not within it."""
    from markupsafe import Markup

    body, bracket, index = name.rpartition("[") if name.endswith("]") else (name, "", "")
    rest = bracket + index.replace(" ", "\N{NO-BREAK SPACE}")
    return Markup(".<wbr>").join(body.split(".")) + Markup("<wbr>") + rest


def _evidence(finding: Finding) -> str:
    """Return the plain numbers behind a finding in one line."""
    plain = {k: v for k, v in finding.evidence.items() if isinstance(v, (bool, int, float))}
    return ", ".join(f"{k.replace('_', ' ')} {_value(v)}" for k, v in plain.items())


def _rows(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the settings as name and text; a setting by block is one row per block."""
    rows = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            rows += [(f"{name}: {key}", _value(item)) for key, item in value.items()]
        else:
            rows.append((name, _value(value)))
    return rows


def _value(value: Any) -> str:
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_value, value))
    return "-" if value is None else str(value)
