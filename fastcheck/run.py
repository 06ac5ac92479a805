"""One run: how long it may take, who works on it, who is told how far it is, and whether somebody stopped it."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import numpy as np

from fastcheck.arrays import FloatArray, IntArray, keep_freed_memory
from fastcheck.errors import InputError
from fastcheck.findings import Finding, Kind
from fastcheck.losses.evaluator import Direction, Evaluator, PerturbedLoss, written
from fastcheck.parallel.blas import one_blas_thread
from fastcheck.parallel.checkpoint import Checkpoint
from fastcheck.parallel.crew import CrewGoneError
from fastcheck.parallel.shards import Cutter, LossRefusedError, Pace, Probes, Staff, evaluated
from fastcheck.parallel.worker import Done, Shard, evaluate

__all__ = ["OutOfBudget", "Run", "bar"]

_REST = "What was measured by then is kept; a checkpoint lets the rest be measured later."
OVERRUN = 0.1  # share of the budget by which a run may exceed it
LADDERS = 1000  # that are kept; the worst coordinates are looked at first
MOST_LOST = 16  # coordinates that may end their worker before the run gives up


class OutOfBudget(BaseException):
    """The budget was spent before anything was measured; like KeyboardInterrupt, it is no error of the loss.

    Attributes
    ----------
    evaluator : PerturbedLoss
        The loss.
    """

    def __init__(self, evaluator: PerturbedLoss) -> None:
        super().__init__()
        self.evaluator = evaluator


@dataclass
class _Collected:
    """What the shards of one stream cost, and what the first failed evaluation said."""

    evaluations: int = 0
    failure: str | None = None


@dataclass
class Run:
    """Evaluates grids shard by shard within a budget; a context manager, inside which every BLAS has one thread.

    Attributes
    ----------
    budget : float or None
        Seconds the whole run may take.
    staff : Staff
        The workers.
    checkpoint : Checkpoint or None
        Where finished shards are kept.
    advance : callable
        Is told how many coordinates are done, after each shard.
    stopped : str or None
        Why the run ended early: ``"budget"``, ``"interrupted"`` or ``"workers"`` (they died again and again).
    lost : list of int
        Coordinates whose evaluation ended a worker process; not to be evaluated in this one.
    notes : list of Finding
        What went wrong beside the measuring.
    ladders : dict
        Steps, achieved to both sides, and losses there of coordinates that were looked at again; see `keep`.
    """

    budget: float | None = None
    staff: Staff = field(default_factory=lambda: Staff(backend="serial"))
    checkpoint: Checkpoint | None = None
    advance: Callable[[int], None] = lambda done: None
    stopped: str | None = None
    lost: list[int] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)
    ladders: dict[tuple[int, int], tuple[FloatArray, ...]] = field(default_factory=dict, repr=False)
    started: float = field(default_factory=time.perf_counter)
    pace: float = 0.0  # seconds of one evaluation, as far as is known
    _grids: int = 0
    _watched: PerturbedLoss | None = field(default=None, repr=False)
    _open: contextlib.ExitStack = field(default_factory=contextlib.ExitStack, repr=False)

    def __enter__(self) -> Self:
        keep_freed_memory()
        self._open.enter_context(one_blas_thread())
        self._open.callback(self.staff.close)
        self._open.callback(self._on_disk, Checkpoint.close)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._open.close()

    @property
    def seconds(self) -> float:
        """Seconds since the run began."""
        return time.perf_counter() - self.started

    def keep(self, evaluator: Evaluator, place: int, ladder: tuple[FloatArray, ...]) -> None:
        """Remember how a coordinate was looked at again, as long as few are, so that the report can show it."""
        key = id(evaluator), place
        if key in self.ladders:
            ladder = tuple(np.concatenate(pair) for pair in zip(self.ladders[key], ladder, strict=True))
        if len(self.ladders) < LADDERS:
            self.ladders[key] = ladder

    def at_end(self, call: Callable[[], None]) -> None:
        """Let something be called when the run ends, however it does."""
        self._open.callback(call)

    def over(self) -> bool:
        """Say whether the run is to end, because it was stopped or its budget is spent."""
        if self.stopped is None and self.budget is not None and self.seconds >= self.budget:
            self.stopped = "budget"
        return self.stopped is not None

    def watch(self, evaluator: Evaluator) -> None:
        """Let an evaluation raise `OutOfBudget` when the budget is spent, until `begin` is called."""
        if self.budget is not None and isinstance(evaluator, PerturbedLoss):
            self._watched = evaluator
            evaluator.before_each = self._look

    def _look(self) -> None:
        if self._watched is not None and self._watched.evaluations and self.over():
            raise OutOfBudget(self._watched)

    def begin(self) -> None:
        """End what `watch` does: from here on, the strategies look at the clock."""
        if self._watched is not None:
            self._watched.before_each = None
            self._watched = None

    def _next(self) -> int:
        """Return the number of the next grid, which is the same in every run of one problem."""
        number, self._grids = self._grids, self._grids + 1
        return number

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let Ctrl-C end what stands inside, and the run with it, but not the report of what was covered."""
        try:
            yield
        except KeyboardInterrupt:
            self.stopped = "interrupted"

    @contextlib.contextmanager
    def keeping_back(self, share: float) -> Iterator[None]:
        """Let what stands inside end when a share of the budget is left."""
        whole = self.budget
        self.budget = None if whole is None else (1 - share) * whole
        try:
            yield
        finally:
            self.budget = whole

    @contextlib.contextmanager
    def reprieved(self, seconds: float) -> Iterator[None]:
        """Let what stands inside begin though the run was stopped, in what was kept back, or in so many seconds."""
        why, whole = self.stopped, self.budget
        if why == "interrupted":
            self.stopped, self.budget = None, min(whole or math.inf, self.seconds + seconds)
        if why == "budget":
            self.stopped = None
        try:
            yield
        finally:
            self.stopped, self.budget = why or self.stopped, whole

    def grid(
        self, evaluator: Evaluator, coordinates: IntArray, steps: FloatArray, offsets: tuple[float, ...]
    ) -> Iterator[tuple[slice, FloatArray]]:
        """Yield ``(rows, values)`` shard by shard, in order, until done or stopped; see `Evaluator.on_grid`."""
        probes = lambda rows: (coordinates[rows], steps[rows])  # noqa: E731
        for shard, values in self.stream(evaluator, len(coordinates), probes, offsets):
            yield shard.rows, values

    def along(
        self, evaluator: Evaluator, start: int, direction: FloatArray | Direction, steps: FloatArray
    ) -> FloatArray:
        """Return the losses along a direction, from the checkpoint where they are there; see `Evaluator.along`."""
        number = self._next()
        if self.checkpoint is None:
            return evaluator.along(start, direction, steps)
        direction = written(direction)  # its digest is that of all of it
        probes = (np.array([start]), direction, steps)
        done = self.checkpoint.recall(number, probes)
        if done is not None:
            evaluator.evaluations += done.evaluations
            evaluator.failure = evaluator.failure or done.failure
            kept: FloatArray = done.values[0]
            return kept
        before, began = evaluator.evaluations, self.seconds
        values = evaluator.along(start, direction, steps)
        done = Done(values[None], evaluator.evaluations - before, evaluator.failure, self.seconds - began)
        self._on_disk(Checkpoint.add, number, 0, probes, done)
        return values

    def stream(
        self, evaluator: Evaluator, count: int, probes: Probes, offsets: tuple[float, ...]
    ) -> Iterator[tuple[Shard, FloatArray]]:
        """Yield shards and their losses, shape (m, len(offsets)), in order, until done or stopped.

        The grid, of `count` rows, is never held as a whole: `probes` returns the coordinates and steps of a slice of
        rows; it is called from other threads too. The offsets are in units of the step.
        """
        with one_blas_thread():  # again: the first calls of the loss may have brought a BLAS with them
            yield from self._stream(evaluator, count, probes, offsets)

    def _stream(
        self, evaluator: Evaluator, count: int, probes: Probes, offsets: tuple[float, ...]
    ) -> Iterator[tuple[Shard, FloatArray]]:
        number = self._next()
        pace = Pace.within(self.budget, len(offsets) * self.pace)
        cutter = Cutter(count, probes, offsets, pace, self._may_start)
        collected = _Collected()
        try:
            if self.checkpoint is not None:
                for shard, done in self.checkpoint.stored(number, cutter):
                    yield shard, self._take(evaluator, shard, done, collected)
            results = self._results(evaluator, cutter, pace)
            with contextlib.closing(results):
                while True:
                    try:
                        result = next(results, None)
                    except KeyboardInterrupt:
                        self.stopped = "interrupted"
                        return
                    except CrewGoneError as error:
                        self.stopped = "workers"
                        self.notes.append(Finding(Kind.WORKERS_GONE, None, f"The workers are gone: {error}. {_REST}"))
                        return
                    if result is None:
                        break
                    shard, done = result
                    pace.measured(len(shard.coordinates), done.seconds)
                    self.pace = pace.cost / len(offsets)
                    self._on_disk(Checkpoint.add, number, shard.start, shard.probes, done)
                    yield shard, self._take(evaluator, shard, done, collected)
                    if self.stopped == "workers":
                        return
            self._on_disk(Checkpoint.commit)
        finally:  # not before: a thread may be counting on the same evaluator
            evaluator.evaluations += collected.evaluations
            evaluator.failure = evaluator.failure or collected.failure

    def _results(self, evaluator: Evaluator, cutter: Cutter, pace: Pace) -> Generator[tuple[Shard, Done], None, None]:
        """Yield shards as they are done: here while that is cheap or being measured, then by a crew where it pays."""
        while True:
            crew = None
            if pace.known or not self.staff.measures_first:
                crew = self.staff.crew_for(evaluator, self._left(cutter.remaining * pace.cost))
            if crew is not None:
                try:
                    yield from evaluated(crew, cutter)
                    return
                except LossRefusedError as error:
                    if not self.staff.measures_first:
                        raise InputError(
                            f"backend={self.staff.backend!r}: a worker can't rebuild the loss ({error}). Its module "
                            "must be importable there; or use backend='threads' or 'serial'."
                        ) from error
                    self.staff.bar()
                    cutter.workers = 1
            shard = next(cutter, None)
            if shard is None:
                return
            done = evaluate(evaluator, shard)
            cutter.out.popleft()
            yield shard, done

    def _on_disk(self, write: Callable[..., None], *what: Any) -> None:
        """Write to the checkpoint, if there is one; where the disk refuses, go on without it, and say so."""
        if self.checkpoint is None:
            return
        try:
            write(self.checkpoint, *what)
        except OSError as error:
            lost, self.checkpoint = self.checkpoint, None
            lost.abandon()
            self.notes.append(
                Finding(
                    Kind.CHECKPOINT_LOST,
                    None,
                    f"The checkpoint {str(lost.path)!r} could not be written to the end ({error.strerror or error}). "
                    "The run went on without it; what the file holds can be resumed once there is room.",
                )
            )

    def _take(self, evaluator: Evaluator, shard: Shard, done: Done, collected: _Collected) -> FloatArray:
        """Count what was done, and remember what failed."""
        collected.evaluations += done.evaluations
        if done.lost:
            self.lost.extend(shard.coordinates.tolist())
            if len(self.lost) >= MOST_LOST:
                self.stopped = "workers"
        if collected.failure is None and done.failure is not None:
            where = f" (at a step along {evaluator.layout.breadcrumb(int(shard.coordinates[0]))})" if done.lost else ""
            collected.failure = done.failure + where
        self.advance(len(shard.coordinates))
        return done.values

    def _may_start(self, expected: float, one_evaluation: float) -> bool:
        """Say whether a shard of so many seconds ends in time, give or take the share allowed and one evaluation."""
        if self.over():
            return False
        if self.budget is None or self.seconds + expected <= (1 + OVERRUN) * self.budget + one_evaluation:
            return True
        self.stopped = "budget"
        return False

    def _left(self, seconds: float) -> float:
        return seconds if self.budget is None else min(seconds, max(0.0, self.budget - self.seconds))


# -- a progress bar ---------------------------------------------------------------------------------------------------


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
