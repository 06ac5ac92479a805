"""The history of a monitor as versioned JSON, as a plot, and as a page."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from fastcheck.errors import InputError, MissingDependencyError
from fastcheck.report import words
from fastcheck.report.report import Report, write_text

__all__ = ["FORMAT", "VERSION", "figure", "save"]

FORMAT = "fastcheck-history"
VERSION = 1
FLOOR = 1e-17  # a difference of zero is drawn here

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>fastcheck: the history of a gradient</title>
<style>
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
div { overflow-x: auto; }
table { border-collapse: collapse; } td, th { padding: .2rem .8rem .2rem 0; text-align: right; }
td:last-child, th:last-child { text-align: left; } img { max-width: 100%; }
.bad { color: light-dark(#b00020, #ff7b82); font-weight: 600; }
</style></head><body>
<h1>{{ title }}</h1>
<img alt="Relative difference of every block over the steps of training" src="data:image/png;base64,{{ plot }}">
<div><table><tr><th>step</th><th>seconds</th><th>evaluations</th><th>difference</th><th>verdict</th></tr>
{% for row in rows %}<tr><td>{{ row.step }}</td><td>{{ row.at }}</td><td>{{ row.evaluations }}</td>
<td>{{ row.difference }}</td><td{% if row.bad %} class="bad"{% endif %}>{{ row.headline }}</td></tr>
{% endfor %}</table></div><p>{{ run }}</p></body></html>
"""


class Moment(Protocol):
    """One check: the step of training, the second, the report."""

    @property
    def step(self) -> int:
        """Steps of training before it."""
        ...

    @property
    def at(self) -> float:
        """Seconds since the first step."""
        ...

    @property
    def report(self) -> Report:
        """What the check found."""
        ...


def save(history: Sequence[Moment], path: Path, tolerance: float) -> Path:
    """Write a history to ``*.json`` or ``*.html``, and return the path.

    Raises
    ------
    InputError
        The name ends in neither, or there is no such folder.
    """
    if path.suffix == ".json":
        text = json.dumps(_as_dict(history), indent=1, allow_nan=False) + "\n"
    elif path.suffix in (".html", ".htm"):
        text = _page(history, tolerance)
    else:
        raise InputError(f"path={str(path)!r}: a history is saved as *.json or *.html.")
    if not path.parent.is_dir():
        raise InputError(f"path={str(path)!r}: there is no folder {str(path.parent)!r}.")
    write_text(path, text)
    return path


def _as_dict(history: Sequence[Moment]) -> dict[str, Any]:
    moments = [{"step": one.step, "at": one.at, "report": one.report.to_dict()} for one in history]
    return {"format": FORMAT, "version": VERSION, "moments": moments}


def figure(history: Sequence[Moment], tolerance: float) -> Any:
    """Return a matplotlib Figure: the difference of every block over the steps, wrong ones marked.

    Raises
    ------
    MissingDependencyError
        matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError("The plot needs matplotlib: pip install 'fastcheck[html]'") from error
    shown = Figure(figsize=(9, 4), layout="constrained")
    axes = shown.subplots()
    names = list(history[0].report.blocks) if history else []
    for name in names:
        points = [(one.step, one.report.blocks[name]) for one in history if name in one.report.blocks]
        points = [(step, block) for step, block in points if not math.isnan(block.difference)]
        drawn = [max(block.difference, FLOOR) for _, block in points]
        (line,) = axes.plot([step for step, _ in points], drawn, ".-", label=name, linewidth=1)
        bad = [k for k, (_, block) in enumerate(points) if block.verdict.refuted]
        axes.plot([points[k][0] for k in bad], [drawn[k] for k in bad], "x", color=line.get_color(), markersize=10)
    axes.axhline(tolerance, color="0.6", linewidth=1, linestyle="--")
    axes.set(yscale="log", xlabel="step", ylabel="relative difference")
    if 0 < len(names) <= 12:
        axes.legend(loc="upper left", fontsize="small", ncols=3)
    return shown


def _page(history: Sequence[Moment], tolerance: float) -> str:
    try:
        from jinja2 import Environment
    except ImportError as error:
        raise MissingDependencyError("The page needs jinja2: pip install 'fastcheck[html]'") from error
    image = io.BytesIO()
    figure(history, tolerance).savefig(image, format="png", dpi=120)
    bad = [one for one in history if one.report.verdict.refuted]
    title = f"{words.count(len(history), 'check')} during training, "
    title += f"wrong from step {bad[0].step} on" if bad else "none of them wrong"
    rows = [
        {
            "step": one.step,
            "at": f"{one.at:.1f}",
            "evaluations": one.report.evaluations,
            "difference": words.number(one.report.difference),
            "headline": words.headline(one.report),
            "bad": one in bad,
        }
        for one in history
    ]
    run = words.circumstances(history[-1].report.settings) if history else ""
    encoded = base64.b64encode(image.getvalue()).decode("ascii")
    return Environment(autoescape=True).from_string(_PAGE).render(title=title, plot=encoded, rows=rows, run=run)
