"""Text of a given width: tables that shorten names and drop columns but never cut a number.

The one place that turns a layout into a string, plain or with colours for a notebook. What comes out depends on the
width and on nothing else: not on the terminal, on a notebook that is running, or on ``FORCE_COLOR`` and ``NO_COLOR``.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.table import Table
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from fastcheck.report import words

__all__ = ["Column", "as_html", "plain", "shortened", "table", "width_here"]

GAP = 2  # between columns
NARROWEST, USUAL, WIDEST = 60, 110, 120
SHORT = 16  # characters that a name keeps as long as a column can be dropped instead
LEAST = 6  # and that it keeps in any case
# Of a notebook: to be read on white and on black.
GREY, RED, GREEN, YELLOW, MAGENTA = (118, 128, 138), (214, 64, 74), (42, 146, 88), (178, 120, 16), (166, 84, 190)
COLOURS = TerminalTheme(GREY, GREY, [GREY, RED, GREEN, YELLOW, GREY, MAGENTA, GREY, GREY])
PRE = (
    "<pre style=\"font-family: ui-monospace, 'DejaVu Sans Mono', Consolas, monospace; line-height: 1.35\">{code}</pre>"
)


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes
    ----------
    title : str
        Its head.
    cells : sequence of str or Text
        One for each row.
    left : bool
        Whether it stands to the left, as words do; numbers stand to the right.
    drop : int
        Where there is no room for all columns the one with the largest goes first; 0 never goes.
    name : bool
        Whether its cells are names, which may be shortened.
    """

    title: str
    cells: Sequence[str | Text]
    left: bool = False
    drop: int = 0
    name: bool = False

    @property
    def width(self) -> int:
        """Terminal cells it takes."""
        return max(map(cell_len, (self.title, *map(str, self.cells))))

    def legible(self) -> Column:
        """Return the column with its names as people see them, without control characters."""
        return replace(self, cells=[words.name(str(cell)) for cell in self.cells]) if self.name else self

    def within(self, width: int) -> Column:
        """Return the column with its names shortened."""
        return replace(self, cells=[shortened(str(cell), width) for cell in self.cells])


def width_here() -> int:
    """Return the width for text: ``COLUMNS``, else the terminal's, else 110; at least 60 and at most 120."""
    return min(max(shutil.get_terminal_size((USUAL, 24)).columns, NARROWEST), WIDEST)


def plain(content: RenderableType, width: int) -> str:
    """Return text without escape codes and without blanks at the ends of its lines."""
    return "\n".join(line.rstrip() for line in _printed(content, width).export_text().splitlines())


def as_html(content: RenderableType, width: int) -> str:
    """Return text as an element of HTML, in colours that are readable on light and dark."""
    return _printed(content, width).export_html(theme=COLOURS, code_format=PRE, inline_styles=True)


def _printed(content: RenderableType, width: int) -> Console:
    # Whatever is not said here, rich asks of the environment: a notebook would get the text in place of the file.
    console = Console(
        file=io.StringIO(),
        record=True,
        width=width,
        height=100,
        color_system=None,
        force_terminal=False,
        force_jupyter=False,
        force_interactive=False,
        no_color=False,
        highlight=False,
        legacy_windows=False,
    )
    console.print(content, crop=False)
    return console


def table(columns: Sequence[Column], width: int) -> Table:
    """Return a table that fits into the width: names are shortened first, then columns dropped, then names again."""
    shown = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="dim")
    fitted = _fitted([column.legible() for column in columns], width)
    for column in fitted:
        shown.add_column(column.title, justify="left" if column.left else "right", no_wrap=True)
    for row in zip(*(column.cells for column in fitted), strict=True):
        # not a plain str, in which rich would read [...] as markup
        shown.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    return shown


def _fitted(columns: list[Column], width: int) -> list[Column]:
    while (excess := sum(c.width for c in columns) + GAP * (len(columns) - 1) - width) > 0:
        droppable = max(columns, key=lambda c: c.drop)
        slack = sum(max(0, c.width - SHORT) for c in columns if c.name)
        if excess <= slack or not droppable.drop:
            return _squeezed(columns, excess)
        columns.remove(droppable)
    return columns


def _squeezed(columns: list[Column], excess: int) -> list[Column]:
    """Return the columns with so many cells taken from their names, from the widest first."""
    widths = {place: column.width for place, column in enumerate(columns) if column.name}
    for _ in range(excess):
        widest = max(widths, key=lambda place: widths[place])
        widths[widest] = max(LEAST, widths[widest] - 1)
    return [column.within(widths[place]) if place in widths else column for place, column in enumerate(columns)]


def shortened(name: str, width: int) -> str:
    """Return a name without its middle where it is too wide; an index in brackets at its end stays whole."""
    if cell_len(name) <= width:
        return name
    body, bracket, index = name.rpartition("[") if name.endswith("]") else (name, "", "")
    end = bracket + index
    room = max(1, width - cell_len(end) - 1)
    head, tail = body[: (room + 1) // 2], body[len(body) - room // 2 :]
    while cell_len(head + tail) > room and len(head + tail) > 1:  # of wide characters fewer have room
        head, tail = (head[:-1], tail) if len(head) >= len(tail) else (head, tail[1:])
    return f"{head}…{tail}{end}"
