"""How long a coordinate takes, and so how many make a shard."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Pace"]

SHARD_SECONDS = 0.05  # aimed at: short enough for a budget and a progress bar to act between two
SHARE_OF_BUDGET = 0.02
LARGEST = 1 << 15  # rows, so that the memory of a shard stays small beside theta
KNOWN_SECONDS = 0.002
GROWTH = 4  # of a shard over the one before: the first few are too short to be measured well


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
    def within(cls, budget: float | None) -> Pace:
        """Return a pace whose shards are short beside a budget in seconds."""
        return cls(shard_seconds=SHARD_SECONDS if budget is None else min(SHARD_SECONDS, SHARE_OF_BUDGET * budget))

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
