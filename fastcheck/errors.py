"""Every error that fastcheck raises: what happened, what it means, what to do."""

from __future__ import annotations

import os
import sysconfig
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastcheck.report import Report

__all__ = [
    "CheckpointError",
    "FastcheckError",
    "GradientError",
    "InputError",
    "LossError",
    "MissingDependencyError",
    "line_of",
    "said",
    "text_of",
]


class FastcheckError(Exception):
    """Base class of every error raised by fastcheck itself."""


class InputError(FastcheckError, ValueError):
    """An argument breaks a rule. The message gives ``name=value``, the rule and the remedy; nothing was evaluated."""


class LossError(FastcheckError):
    """The loss or the gradient could not be used: it raised, or returned something that is not a finite float.

    When the loss raised, the original exception is the ``__cause__``.
    """


class CheckpointError(FastcheckError):
    """A checkpoint file belongs to another problem or is damaged. It is never overwritten: name another path."""


class MissingDependencyError(FastcheckError, ImportError):
    """An optional dependency is needed; the message is the pip command that installs it."""


class GradientError(FastcheckError, AssertionError):
    """The gradient did not pass. ``report`` holds the whole evidence.

    Parameters
    ----------
    message : str
        The headline of the report and its worst coordinates.
    report : Report
        The report that did not pass.
    """

    def __init__(self, message: str, report: Report) -> None:
        super().__init__(message)
        self.report = report


def text_of(error: BaseException) -> str:
    """Return the message of any exception, also of one that can't be shown."""
    try:
        return str(error)
    except Exception as worse:
        return f"(its message raised {type(worse).__name__})"


def said(error: BaseException, where: str = "", *, line: bool = True) -> str:
    """Return ``"ValueError at theta: bad weather (net.py, line 12)"`` of any exception, as far as it is known."""
    text, at = text_of(error), line_of(error) if line else ""
    return type(error).__name__ + where + (f": {text}" if text else "") + (f" ({at})" if at else "")


_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_LIBRARIES = tuple(
    {os.path.abspath(sysconfig.get_path(name)) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")}
)


def line_of(error: BaseException) -> str:
    """Return ``"net.py, line 12"``: the innermost line of the user's own that an exception passed; else nothing."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(_HERE)]
    own = [frame for frame in frames if not os.path.abspath(frame.filename).startswith(_LIBRARIES)]
    if not own:
        return ""
    return f"{os.path.basename(own[-1].filename)}, line {own[-1].lineno}"
