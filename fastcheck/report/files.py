"""A file that is complete or not there."""

from __future__ import annotations

import contextlib
import uuid
from pathlib import Path

from fastcheck.errors import InputError

__all__ = ["write_text"]


def write_text(path: Path, text: str) -> None:
    """Write a text as UTF-8, beside the path first; a file that was there is replaced, or left as it was.

    Raises
    ------
    InputError
        The file can't be written.
    """
    partial = path.parent / f".fastcheck-{uuid.uuid4().hex}"  # of a length that every file system takes
    try:
        partial.write_bytes(text.encode("utf-8", "backslashreplace"))
        partial.replace(path)
    except (OSError, ValueError) as error:  # a ValueError: a NUL in the name
        why = getattr(error, "strerror", None) or error
        raise InputError(f"path={str(path)!r} can't be written: {why}.") from error
    finally:
        with contextlib.suppress(OSError, ValueError):
            partial.unlink()
