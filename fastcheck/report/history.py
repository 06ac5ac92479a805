"""The history of a monitor as versioned JSON, and as a page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastcheck.errors import InputError
from fastcheck.judge.verdict import worst
from fastcheck.report import figures, html, words
from fastcheck.report.figures import Moment
from fastcheck.report.report import write_text

__all__ = ["FORMAT", "VERSION", "save"]

FORMAT = "fastcheck-history"
VERSION = 1


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


def _page(history: Sequence[Moment], tolerance: float) -> str:
    bad = [one for one in history if one.report.verdict.refuted]
    return html.rendered(
        "history.html.j2",
        worst=worst(one.report.verdict for one in history) if history else None,
        title=f"{words.count(len(history), 'check')} during training, "
        + (f"wrong from step {bad[0].step} on" if bad else "none of them wrong"),
        plot=figures.over_training(history, tolerance),
        moments=history,
        run=words.circumstances(history[-1].report.settings) if history else "",
    )
