"""How work is shared out: whether workers pay, how many coordinates make a shard, and how shards become values.

A grid is cut into shards as they are asked for.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field

import numpy as np

from fastcheck.arrays import FloatArray, IntArray
from fastcheck.errors import InputError
from fastcheck.losses.evaluator import Evaluator, Shardable, is_shardable
from fastcheck.parallel.crew import Crew, WorkerDiedError, cores, hire
from fastcheck.parallel.worker import Done, Shard

__all__ = ["Cutter", "LossRefusedError", "Pace", "Probes", "Staff", "evaluated"]

SHARD_SECONDS = 0.05  # aimed at: short enough for a budget and a progress bar to act between two
SHARE_OF_BUDGET = 0.02
LARGEST = 1 << 15  # rows, so that the memory of a shard stays small beside theta
KNOWN_SECONDS = 0.002
GROWTH = 4  # of a shard over the one before: the first few are too short to be measured well
FIRST = 1  # rows that stand for a shard before the first, where the cost of an evaluation is known already


@dataclass
class Pace:
    """The measured cost of a coordinate.

    Attributes
    ----------
    cost : float
        Seconds a coordinate took in the last shard on one worker; 0.0 before the first.
    shards : int
        Shards measured.
    shard_seconds : float
        Seconds a shard is to take.
    known : bool
        Whether the cost is worth building on: not that of the first shard, which may include compiling, nor that of a
        shard too short to measure.
    last : int
        Rows of the largest shard so far.
    """

    cost: float = 0.0
    shards: int = 0
    shard_seconds: float = SHARD_SECONDS
    known: bool = False
    last: int = 0

    @classmethod
    def within(cls, budget: float | None, cost: float = 0.0) -> Pace:
        """Return a pace whose shards are short beside a budget in seconds, with what a coordinate may cost."""
        seconds = SHARD_SECONDS if budget is None else min(SHARD_SECONDS, SHARE_OF_BUDGET * budget)
        return cls(cost, shard_seconds=seconds, last=FIRST)

    def measured(self, rows: int, seconds: float) -> None:
        """Take note of a finished shard."""
        self.cost = max(seconds, 1e-9) / rows
        self.shards += 1
        self.known = self.shards > 1 and seconds > KNOWN_SECONDS
        self.last = max(self.last, rows)

    def rows(self, remaining: int, workers: int = 1) -> int:
        """Return how many of the remaining rows the next shard takes."""
        if not self.cost:
            return 1
        size = min(int(self.shard_seconds / self.cost), GROWTH * self.last, LARGEST)
        if workers > 1:  # the last shards are short, so that all workers end together
            size = min(size, -(-remaining // (2 * workers)))
        return max(1, min(size, remaining))


STARTUP = {"threads": 0.02, "processes": 1.0}  # seconds until the first shard is under way
WORTH = 2.0  # what workers save must be this many times what it costs to start them
LEAST = 0.02  # seconds of work for each worker


@dataclass
class Staff:
    """Hires a crew when it is worth it, and keeps it to the end of the run.

    Attributes
    ----------
    workers : int or None
        How many: None for as many as pay, -1 for one per core.
    backend : str
        As of `fastcheck.check`.
    """

    workers: int | None = None
    backend: str = "auto"
    _crew: Crew | None = None
    _served: Evaluator | None = field(default=None, repr=False)
    _barred: bool = False

    @property
    def measures_first(self) -> bool:
        """Whether the choice is left to what a coordinate costs."""
        return self.backend == "auto"

    def crew_for(self, evaluator: Evaluator, seconds: float) -> Crew | None:
        """Return workers for so many seconds of work, or None where it is better done here.

        Raises
        ------
        InputError
            The backend was named, and there is none such, or the loss can't travel there.
        """
        if self._barred or self.backend == "serial" or not is_shardable(evaluator):
            return None
        if self._crew is not None and self._served is evaluator:
            return self._crew
        many = self._many(evaluator, seconds)
        if many < 2 and self.backend in ("auto", "threads", "processes"):
            return None
        self.close()
        try:
            self._crew = hire(evaluator.home if self.measures_first else self.backend, many, evaluator)
        except InputError:
            if not self.measures_first:
                raise
            self.bar()
            return None
        self._served = evaluator
        return self._crew

    def bar(self) -> None:
        """Do all the rest without workers."""
        self.close()
        self._barred = True

    def close(self) -> None:
        """Send the workers home."""
        crew, self._crew, self._served = self._crew, None, None
        if crew is not None:
            crew.close()

    def _many(self, evaluator: Shardable, seconds: float) -> int:
        """Return how many workers to have."""
        if not self.measures_first:
            return cores() if self.workers in (None, -1) else int(self.workers or 1)
        startup = STARTUP[evaluator.home]
        if self.workers == 1 or seconds <= WORTH * startup:  # ever so many workers save less than all of it
            return 1
        wanted = cores() if self.workers in (None, -1) else int(self.workers or 1)
        if self.workers is None:
            wanted = min(wanted, int(seconds / LEAST))
        saved = seconds * (1 - 1 / max(1, wanted))
        return wanted if saved > WORTH * startup else 1


Probes = Callable[[slice], tuple[IntArray, FloatArray]]


# -- shards of a grid -------------------------------------------------------------------------------------------------


class LossRefusedError(Exception):
    """The workers can't rebuild the loss; the message says why. Nothing is lost: the shards are with the cutter."""


class Cutter:
    """Cuts a grid of so many rows into shards, of as many rows as the pace has them; remembers those that are out.

    `probes` returns coordinates and steps of a slice of rows; `may_start` is asked, with the seconds expected and the
    seconds of one evaluation, whether a shard may begin.
    """

    def __init__(
        self,
        count: int,
        probes: Probes,
        offsets: tuple[float, ...],
        pace: Pace,
        may_start: Callable[[float, float], bool],
    ) -> None:
        self.start = 0
        self.workers = 1
        self.out: deque[Shard] = deque()
        self._count, self._probes, self._offsets = count, probes, offsets
        self._pace, self._may_start = pace, may_start
        self._again: deque[Shard] = deque()
        self._lock = threading.Lock()  # joblib draws shards from threads of its own

    def __iter__(self) -> Iterator[Shard]:
        return self

    def __next__(self) -> Shard:
        with self._lock:
            shard = self._again.popleft() if self._again else self._cut()
            self.out.append(shard)
            return shard

    @property
    def remaining(self) -> int:
        """Rows that no shard has had yet."""
        return self._count - self.start

    def take(self, rows: int) -> Shard:
        """Return a shard of the next rows."""
        part = slice(self.start, self.start + rows)
        coordinates, steps = self._probes(part)
        self.start = part.stop
        return Shard(part.start, coordinates, steps, self._offsets)

    def put_back(self) -> list[Shard]:
        """Count the shards that are out as not begun, to be handed out again first; return them."""
        with self._lock:
            back = list(self.out)
            self._again.extendleft(reversed(back))
            self.out.clear()
            return back

    def _cut(self) -> Shard:
        if not self.remaining:
            raise StopIteration
        rows = self._pace.rows(self.remaining, self.workers)
        ahead = 2 if self.workers > 1 else 1  # one shard is waited for
        if not self._may_start(ahead * rows * self._pace.cost, self._pace.cost / len(self._offsets)):
            raise StopIteration
        return self.take(rows)


def evaluated(crew: Crew, cutter: Cutter) -> Generator[tuple[Shard, Done], None, None]:
    """Yield the shards of a grid, in order, with what a crew made of them.

    A shard whose worker died is tried once more; when a worker dies again, every shard that is out goes to a worker
    alone, and the one that ends it is halved until the coordinate is known. All others keep their values.

    Raises
    ------
    LossRefusedError
        A worker could not rebuild the loss.
    """
    cutter.workers = crew.workers
    died_before = False
    while True:
        try:
            with contextlib.closing(crew.map(cutter)) as results:
                for done in results:
                    if done.refused is not None:
                        raise LossRefusedError(done.refused)
                    died_before = False
                    yield cutter.out.popleft(), done
            return
        except LossRefusedError:
            cutter.put_back()
            raise
        except WorkerDiedError as error:
            out = cutter.put_back()
            if died_before:
                for _ in out:
                    yield from _alone(crew, next(cutter), str(error))
                    cutter.out.popleft()
            died_before = not died_before


def _alone(crew: Crew, shard: Shard, why: str) -> Generator[tuple[Shard, Done], None, None]:
    """Evaluate one shard on a crew that does nothing else, halving it while its worker dies of it."""
    try:
        (done,) = crew.map(iter([shard]))
    except WorkerDiedError as error:
        rows = len(shard.coordinates)
        if rows == 1:
            nothing = np.full((1, len(shard.offsets)), np.nan)
            yield shard, Done(nothing, 0, f"the loss ended its worker process: {error}", 0.0, lost=True)
            return
        for low, high in ((0, rows // 2), (rows // 2, rows)):
            yield from _alone(crew, shard.part(low, high), why)
    else:
        yield shard, done
