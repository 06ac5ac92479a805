"""The report as one page of HTML that needs nothing else: no network, no script, light and dark, printable."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastcheck.errors import MissingDependencyError
from fastcheck.findings import Finding
from fastcheck.report import plots, words
from fastcheck.report.files import write_text
from fastcheck.report.report import BlockReport, Coordinate, Report
from fastcheck.settings import Settings
from fastcheck.verdict import Verdict

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["as_html", "write_html"]

BLOCKS, COORDINATES, FINDINGS, FIGURES = 16, 20, 12, 4  # in sight; the rest can be unfolded
TITLE = 90  # characters


@dataclass(frozen=True)
class Figure:
    """One drawing and the words that stand for it."""

    block: str
    svg: str
    caption: str


def write_html(report: Report, path: Path) -> None:
    """Write the report as a page; the file is complete or not there.

    Parameters
    ----------
    report : Report
        A report of this run, or one that was loaded.
    path : Path
        The file; it is replaced if it is there.

    Raises
    ------
    InputError
        The file can't be written.
    MissingDependencyError
        Jinja2 or matplotlib is not installed.
    """
    write_text(path, as_html(report))


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
        title=headline if len(headline) <= TITLE else headline[: TITLE - 3] + "...",
        findings=findings[:FINDINGS],
        more_findings=findings[FINDINGS:],
        ladder=plots.Ladder.of(report.blocks.values(), _tolerance(report)),
        blocks=ordered[:BLOCKS],
        more_blocks=ordered[BLOCKS:],
        coordinates=report.wrong[:COORDINATES],
        more_coordinates=report.wrong[COORDINATES:],
        unlisted=max(0, sum(block.wrong for block in report.blocks.values()) - len(report.wrong)),
        figures=list(_figures(report, ordered)),
        repeat=_repeat(report.settings),
        settings=_rows(report.settings),
    )


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
    environment.globals |= {"words": words, "graded": _graded, "relative_error": plots.relative_error}
    environment.filters |= {"shape": _shape, "evidence": _evidence, "tally": _tally, "breakable": _breakable}
    return environment


def _figures(report: Report, ordered: Sequence[tuple[str, BlockReport]]) -> Iterable[Figure]:
    """Yield a drawing for each of the worst blocks that have more than one wrong coordinate listed."""
    from markupsafe import Markup

    listed: dict[str, list[Coordinate]] = {name: [] for name, _ in ordered}
    for coordinate in report.wrong:
        listed.setdefault(coordinate.block, []).append(coordinate)
    drawn = [(name, block) for name, block in ordered if len(listed[name]) > 1][:FIGURES]
    for number, (name, block) in enumerate(drawn, 1):
        svg = plots.wrong_coordinates(block.shape, listed[name], number)
        yield Figure(name, Markup(svg), _caption(block, len(listed[name])))


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


def _tolerance(report: Report) -> float:
    value = report.settings.get("tolerance")
    return float(value) if isinstance(value, (int, float)) and 0 < value < 1 else Settings().tolerance


def _graded(block: BlockReport) -> str:
    """Return the word for a block's verdict, as the terminal has it."""
    return "unchecked" if block.verdict is Verdict.INCONCLUSIVE else block.verdict.value


def _tally(blocks: Sequence[tuple[str, BlockReport]]) -> str:
    """Return ``"3 suspicious, 41 correct"``."""
    return ", ".join(f"{n:,} {word}" for word, n in Counter(_graded(block) for _, block in blocks).items())


def _shape(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape)) or "scalar"


def _breakable(name: str) -> str:
    """Return the name, escaped, with leave to break a line after each dot."""
    from markupsafe import Markup

    return Markup(".<wbr>").join(name.split("."))


def _evidence(finding: Finding) -> str:
    """Return the plain numbers behind a finding in one line."""
    plain = {k: v for k, v in finding.evidence.items() if isinstance(v, (bool, int, float))}
    return ", ".join(f"{k.replace('_', ' ')} {_value(v)}" for k, v in plain.items())


def _repeat(settings: Mapping[str, Any]) -> str:
    """Return the call that repeats the run: every setting that is not the default, and always the seed."""
    given = []
    for field in dataclasses.fields(Settings):
        value = settings.get(field.name, field.default)
        if field.name == "seed" or (field.name != "progress" and value != field.default):
            given.append(f"{field.name}={value!r}")
    return f"fastcheck.{settings.get('call', 'check(loss, gradient, params')}, {', '.join(given)})"


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
