"""Where in the user's own files an exception came from."""

from __future__ import annotations

import os
import sysconfig
import traceback

__all__ = ["at_line", "line_of"]

_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_LIBRARIES = tuple(
    {os.path.abspath(sysconfig.get_path(name)) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")}
)


def at_line(error: BaseException) -> str:
    """Return ``" (net.py, line 12)"``, or nothing; see `line_of`."""
    line = line_of(error)
    return f" ({line})" if line else ""


def line_of(error: BaseException) -> str:
    """Return ``"net.py, line 12"``: the innermost line of the user's own that an exception passed; else nothing."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(_HERE)]
    own = [frame for frame in frames if not os.path.abspath(frame.filename).startswith(_LIBRARIES)]
    if not own:
        return ""
    return f"{os.path.basename(own[-1].filename)}, line {own[-1].lineno}"
