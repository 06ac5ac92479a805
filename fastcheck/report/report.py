"""What a check found out, as data."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, Self

from fastcheck.errors import GradientError, InputError, MissingDependencyError
from fastcheck.findings import Finding
from fastcheck.judge.verdict import Verdict

__all__ = ["BlockReport", "Coordinate", "Report", "Sweep", "Taylor", "suffix_of", "write_text"]

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from typing_extensions import TypeVar

    Tree = TypeVar("Tree", default=Any)
else:
    from typing import TypeVar

    Tree = TypeVar("Tree")


@dataclass(frozen=True)
class Coordinate:
    """One coordinate whose analytic derivative is not the measured one.

    Attributes
    ----------
    block : str
        Name of the block.
    index : tuple of int
        Index into the block's array; ``()`` for a scalar.
    analytic, numerical : float
        The user's derivative and the measured one.
    uncertainty : float
        |numerical - true derivative| is at most this, at the run's confidence.
    """

    block: str
    index: tuple[int, ...]
    analytic: float
    numerical: float
    uncertainty: float

    @property
    def name(self) -> str:
        """``"W1[3, 7]"``."""
        return f"{self.block}[{', '.join(map(str, self.index))}]" if self.index else self.block


@dataclass(frozen=True)
class BlockReport:
    """What was found out about one block.

    Attributes
    ----------
    shape : tuple of int
        Shape of the block.
    size : int
        Number of its coordinates.
    checked : int
        How many of them were measured one by one.
    difference : float
        The textbook's ratio ||g - n|| / (||g|| + ||n||), measured, or estimated from directions; NaN where unknown.
    bound : float
        Upper bound on the relative error ||e|| / ||g|| at the run's confidence; NaN where there is none.
    uncertainty : float
        Of `difference`.
    detectable : float
        The smallest relative error ||e|| / ||g|| that this run could have seen in the block, of a sample in those
        coordinates that were drawn; inf where it saw nothing.
    verdict : Verdict
        INCONCLUSIVE marks an unchecked block: its gradient is zero, or below the noise of the loss.
    wrong : int
        How many of the coordinates measured one by one are suspicious or wrong.
    kinks : int
        How many are at a kink, or needed a shorter step to avoid one.
    """

    shape: tuple[int, ...]
    size: int
    checked: int
    difference: float
    bound: float
    uncertainty: float
    detectable: float
    verdict: Verdict
    wrong: int = 0
    kinks: int = 0


@dataclass(frozen=True)
class Taylor:
    """How the remainder of J's linear model falls along one direction; see `fastcheck.taylor`.

    Attributes
    ----------
    order : float
        2 for a right gradient of a smooth loss, 1 for a wrong one; NaN where too few remainders stand clear of noise.
    steps : tuple of float
        In units of the parameters, falling; the four shortest, and longer ones where those do not stand clear.
    remainders : tuple of float
        ``|J(theta + t v) - J(theta) - t g.v|``, in units of the loss; NaN where the loss failed.
    """

    order: float
    steps: tuple[float, ...]
    remainders: tuple[float, ...]


@dataclass(frozen=True)
class Sweep:
    """Difference quotients of the worst coordinate over the step, as the second look measured them.

    The error of a gradient is the same at every step; that of a difference is not.

    Attributes
    ----------
    block : str
        Of the coordinate.
    index : tuple of int
        Into the block's array.
    steps : tuple of float
        Falling, in units of the parameters.
    derivatives : tuple of float
        The central difference with each, in units of the loss over those.
    rounding : tuple of float
        What the noise of the loss makes of each, at most.
    """

    block: str
    index: tuple[int, ...]
    steps: tuple[float, ...]
    derivatives: tuple[float, ...]
    rounding: tuple[float, ...]


@dataclass(frozen=True)
class Report(Generic[Tree]):
    """The answer to "is this gradient right?", and all that stands behind it.

    Attributes
    ----------
    verdict : Verdict
        The worst grade over the whole, the blocks and every coordinate measured alone.
    difference : float
        The textbook's ratio ||g - n|| / (||g|| + ||n||) over all that was measured.
    uncertainty : float
        Of `difference`.
    bound : float
        Upper bound on the relative error of the whole gradient at `confidence`; NaN where there is none.
    blocks : mapping of str to BlockReport
        In the order of the parameters.
    wrong : tuple of Coordinate
        Suspicious and wrong coordinates, worst first; at most ``settings["listed"]`` of them.
    findings : tuple of Finding
        What the run noticed, most telling first.
    numerical : tree like params, or None
        The measured gradient, of float64; None unless every chosen coordinate was measured.
    coverage : float
        Share of the coordinates measured one by one.
    evaluations : int
        Evaluations of the loss.
    seconds : float
        Wall time.
    settings : mapping
        All that is needed to repeat the run, what it chose itself, and which loss, when and with which versions.
    taylor : Taylor or None
        An independent second opinion; None where it was not asked (``mode="screen"``, a run that was stopped).
    sweep : Sweep or None
        How the worst coordinate looks at each step; None where none is wrong, or its steps were not kept.
    """

    verdict: Verdict
    difference: float
    uncertainty: float
    bound: float
    blocks: Mapping[str, BlockReport]
    wrong: tuple[Coordinate, ...]
    findings: tuple[Finding, ...]
    coverage: float
    evaluations: int
    seconds: float
    settings: Mapping[str, Any]
    numerical: Tree | None = field(default=None, repr=False, compare=False)
    taylor: Taylor | None = None
    sweep: Sweep | None = field(default=None, repr=False)

    @property
    def passed(self) -> bool:
        """Whether the verdict is correct or acceptable."""
        return self.verdict.passed

    @property
    def size(self) -> int:
        """Number of coordinates of the whole gradient."""
        return sum(block.size for block in self.blocks.values())

    def __bool__(self) -> bool:
        raise InputError(
            "a Report is neither true nor false: ask report.passed, or report.verdict for all five answers."
        )

    def __str__(self) -> str:
        from fastcheck.report.terminal import as_text

        return as_text(self)

    def __repr__(self) -> str:
        from fastcheck.report.words import headline

        return f"<Report {headline(self)}>"

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        from fastcheck.report.terminal import as_html, render, width_here

        return as_html(render(self, width_here()), width_here())

    def plot(self) -> Figure:
        """Return a matplotlib figure: the blocks on one axis, and where the worst one is wrong.

        Raises
        ------
        MissingDependencyError
            matplotlib is not installed.
        """
        from fastcheck.report.figures import overview

        return overview(self)

    def raise_if_wrong(self) -> Self:
        """Return the report itself if it passed.

        Raises
        ------
        GradientError
            The verdict is not a pass; the message is the report.
        """
        if not self.passed:
            raise GradientError(str(self), self)
        return self

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain, versioned data for JSON; NaN and infinities become strings."""
        from fastcheck.report.jsonfile import to_dict

        return to_dict(self)

    def to_frame(self) -> Any:
        """Return the blocks as a pandas.DataFrame, one row each.

        Raises
        ------
        MissingDependencyError
            pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise MissingDependencyError("Report.to_frame needs pandas: pip install pandas") from error
        rows = [{"block": name, **vars(block), "verdict": block.verdict.value} for name, block in self.blocks.items()]
        return pd.DataFrame(rows).set_index("block")

    def save(self, path: str | Path) -> Path:
        """Write the report to ``*.json`` (read it with `Report.load`) or ``*.html``, and return the path.

        Raises
        ------
        InputError
            The name ends in neither.
        """
        path = Path(path)
        if suffix_of(path) == ".json":
            from fastcheck.report.jsonfile import write

            write(self, path)
        else:
            from fastcheck.report.html import write_html

            write_html(self, path)
        return path

    @classmethod
    def load(cls, path: str | Path) -> Report[dict[str, Any]]:
        """Read a report that `save` wrote as JSON.

        Raises
        ------
        InputError
            The file is not such a report, or of a newer version.
        """
        from fastcheck.report.jsonfile import read

        return read(Path(path))


def suffix_of(path: Path) -> Literal[".json", ".html"]:
    """Return the form in which a report is saved to a path.

    Raises
    ------
    InputError
        The name ends in neither.
    """
    if path.suffix == ".json":
        return ".json"
    if path.suffix in (".html", ".htm"):
        return ".html"
    raise InputError(f"path={str(path)!r}: a report is saved as *.json or *.html.")


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
