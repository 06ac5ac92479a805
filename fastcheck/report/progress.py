"""A progress bar on stderr, for work that is long enough to make somebody wonder."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from fastcheck.run import Run

__all__ = ["bar"]

LONG = 1.5  # seconds of work after which the bar appears


@contextmanager
def bar(run: Run, total: int, wanted: bool | None) -> Iterator[None]:
    """Show a bar while the run works, with rate and remaining time.

    Parameters
    ----------
    run : Run
        The run; its `advance` is taken over.
    total : int
        Coordinates to do.
    wanted : bool or None
        None: only when stderr is a terminal and the work is long.
    """
    if wanted is False or (wanted is None and not sys.stderr.isatty()):
        yield
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    shown = Progress(
        TextColumn("checking"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=console,
        transient=console.is_terminal,  # a log keeps the last state, a terminal needs none
    )
    task = shown.add_task("checking", total=total, rate="")
    began = time.perf_counter()
    before = run.advance

    def advance(done: int) -> None:
        before(done)
        spent = time.perf_counter() - began
        if not shown.live.is_started and (wanted or spent > LONG):
            shown.start()
        rate = (shown.tasks[0].completed + done) / max(spent, 1e-9)
        shown.update(task, advance=done, rate=f"{rate:,.0f} coordinates/s")

    run.advance = advance
    try:
        yield
    finally:
        run.advance = before
        if shown.live.is_started:
            shown.stop()
