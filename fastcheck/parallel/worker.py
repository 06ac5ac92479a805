"""What runs in a worker: one shard, on an evaluator that stays alive between shards."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastcheck.arithmetic import own
from fastcheck.arrays import FloatArray, IntArray, keep_freed_memory
from fastcheck.errors import said
from fastcheck.losses.evaluator import Evaluator, Shardable
from fastcheck.parallel.blas import one_blas_thread
from fastcheck.parallel.payload import Payload

__all__ = ["Done", "Shard", "evaluate", "evaluate_packed"]


@dataclass(frozen=True)
class Shard:
    """Some rows of a grid, from row `start` on: places in theta and steps, both of shape (m,).

    The offsets are the grid of each coordinate, in units of its step.
    """

    start: int
    coordinates: IntArray
    steps: FloatArray
    offsets: tuple[float, ...]

    @property
    def rows(self) -> slice:
        """Its rows."""
        return slice(self.start, self.start + len(self.coordinates))

    @property
    def probes(self) -> tuple[FloatArray | IntArray, ...]:
        """Where its losses are evaluated."""
        return self.coordinates, self.steps, np.array(self.offsets)

    def part(self, low: int, high: int) -> Shard:
        """Return its rows from low to high, counted from its own first."""
        return Shard(self.start + low, self.coordinates[low:high], self.steps[low:high], self.offsets)


@dataclass(frozen=True)
class Done:
    """What became of a shard.

    Attributes
    ----------
    values : float64, shape (m, len(offsets))
        The losses.
    evaluations : int
        How many it took.
    failure : str or None
        What the first failed evaluation said.
    seconds : float
        How long it took its worker.
    refused : str or None
        Why the worker could not rebuild the loss; then there are no values.
    lost : bool
        The evaluation ended its worker; the values are NaN.
    """

    values: FloatArray
    evaluations: int
    failure: str | None
    seconds: float
    refused: str | None = None
    lost: bool = False


def evaluate(evaluator: Evaluator, shard: Shard) -> Done:
    """Evaluate a shard here and now; the evaluator's own counts are left to who collects what is done."""
    before = evaluator.evaluations, evaluator.failure
    evaluator.failure = None
    began = time.perf_counter()
    try:
        values = evaluator.on_grid(shard.coordinates, shard.steps, shard.offsets)
        spent = time.perf_counter() - began
        return Done(values, evaluator.evaluations - before[0], evaluator.failure, spent)
    finally:
        evaluator.evaluations, evaluator.failure = before


def evaluate_packed(payload: Payload, errors: Mapping[str, Any], shard: Shard) -> Done:
    """Evaluate a shard in a worker process, with one BLAS thread and deaf to Ctrl-C, which is the caller's.

    Floating point signals to the loss what it does in the caller's process, see `fastcheck.arithmetic`.
    """
    with _deaf(), own(errors):
        try:
            evaluator, fresh = _revived(payload)
        except Exception as error:
            return Done(shard.steps[:0], 0, None, 0.0, said(error))
        with one_blas_thread(look=fresh):  # the loss may have brought its own BLAS
            return evaluate(evaluator, shard)


_ALIVE = threading.local()  # a worker's evaluator between two shards: there is nobody else to hold it


def _revived(payload: Payload) -> tuple[Shardable, bool]:
    """Return this thread's evaluator of a payload, and whether it is new here."""
    token, evaluator = getattr(_ALIVE, "kept", ("", None))
    if token == payload.token and evaluator is not None:
        return evaluator, False
    _ALIVE.kept = ("", None)  # the old one goes before the new one comes
    keep_freed_memory()
    evaluator = payload.load()
    _ALIVE.kept = (payload.token, evaluator)
    return evaluator, True


@contextmanager
def _deaf() -> Iterator[None]:
    """Ignore SIGINT in a process of its own: the caller hears it too, and ends the workers."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if main else None
    try:
        yield
    finally:
        if main:
            signal.signal(signal.SIGINT, before)
