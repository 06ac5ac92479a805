"""One run's limits: how long it may take, who is told how far it is, and whether somebody stopped it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from fastcheck.arrays import FloatArray, IntArray
from fastcheck.losses.evaluator import Evaluator

__all__ = ["Run"]

SHARD_SECONDS = 0.05  # aimed at: short enough for a budget and a progress bar to act between two


@dataclass
class Run:
    """Evaluates grids shard by shard within a budget.

    Attributes
    ----------
    budget : float or None
        Seconds the whole run may take.
    advance : callable
        Is told how many coordinates are done, after each shard.
    stopped : str or None
        Why the run ended early: ``"budget"`` or ``"interrupted"``.
    """

    budget: float | None = None
    advance: Callable[[int], None] = lambda done: None
    stopped: str | None = None
    started: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Seconds since the run began."""
        return time.perf_counter() - self.started

    def grid(
        self, evaluator: Evaluator, coordinates: IntArray, steps: FloatArray, offsets: tuple[float, ...]
    ) -> Iterator[tuple[slice, FloatArray]]:
        """Yield ``(rows, values)`` shard by shard, in order, until done or stopped; see `Evaluator.on_grid`."""
        start, size = 0, 1
        while start < len(coordinates) and not self.over():
            rows = slice(start, min(start + size, len(coordinates)))
            began = time.perf_counter()
            try:
                values = evaluator.on_grid(coordinates[rows], steps[rows], offsets)
            except KeyboardInterrupt:
                self.stopped = "interrupted"
                return
            spent = time.perf_counter() - began
            yield rows, values
            self.advance(rows.stop - rows.start)
            start = rows.stop
            size = max(1, min(2 * size, int(size * SHARD_SECONDS / max(spent, 1e-9))))

    def over(self) -> bool:
        """Say whether the run is to end, because it was stopped or its budget is spent."""
        if self.stopped is None and self.budget is not None and self.seconds >= self.budget:
            self.stopped = "budget"
        return self.stopped is not None
