"""A grid cut into shards as they are asked for, and what to do when one of them ends its worker."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator

import numpy as np

from fastcheck.arrays import FloatArray, IntArray
from fastcheck.parallel.cost import Pace
from fastcheck.parallel.crew import Crew, WorkerDiedError
from fastcheck.parallel.worker import Done, Shard

__all__ = ["Cutter", "LossRefusedError", "Probes", "evaluated"]

Probes = Callable[[slice], tuple[IntArray, FloatArray]]


class LossRefusedError(Exception):
    """The workers can't rebuild the loss; the message says why. Nothing is lost: the shards are with the cutter."""


class Cutter:
    """Cuts a grid into shards, of as many rows as the pace has them; remembers those that are out.

    Parameters
    ----------
    count : int
        Rows of the grid.
    probes : callable
        Returns coordinates and steps of a slice of rows.
    offsets : tuple of float
        The grid of a coordinate.
    pace : Pace
        What a row costs.
    may_start : callable
        Is asked, with the seconds expected and the seconds of one evaluation, whether a shard may begin.
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
