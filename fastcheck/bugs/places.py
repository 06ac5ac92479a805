"""Bugs in one place of a block, or of some samples only."""

from __future__ import annotations

import numpy as np

from fastcheck.arrays import FloatArray, IntArray
from fastcheck.bugs.mutation import NEGLIGIBLE, Mutation, Planted, Rule, Subject

__all__ = ["PLACES", "contribution"]


def _slice(factor: float) -> Rule:
    """Return the rule that multiplies one row, column or channel whose gradient is not negligible."""

    def rule(subject: Subject, rng: np.random.Generator) -> Planted | None:
        block = subject.pick(rng, lambda b: len(b.shape) >= 2 and min(b.shape) > 1)
        if block is None:
            return None
        axis = int(rng.integers(len(block.shape)))
        g = np.moveaxis(block.view(subject.g), axis, 0)
        sizes = np.abs(g.reshape(len(g), -1))
        norms = np.linalg.norm(sizes, axis=1)
        # two entries at least, or it is a single coordinate; and others beside it, or it is the block
        full = np.count_nonzero(sizes > NEGLIGIBLE * norms.max(), axis=1) >= 2
        telling = full & (norms >= 0.1 * norms.max())
        if np.count_nonzero(norms > NEGLIGIBLE * norms.max()) < 2 or not telling.any():
            return None
        index = int(rng.choice(np.flatnonzero(telling)))
        wrong = subject.g.copy()
        np.moveaxis(block.view(wrong), axis, 0)[index] *= factor
        return Planted(wrong, {"axis": axis, "index": index, "factor": factor})

    return rule


def _coordinate(factor: float) -> Rule:
    """Return the rule that multiplies one coordinate, of at least the root mean square size of its block."""

    def rule(subject: Subject, rng: np.random.Generator) -> Planted | None:
        block = subject.pick(rng, lambda b: subject.nonzero(b) > 1)
        if block is None:
            return None
        size = np.abs(subject.g[block.slice])
        coordinate = block.start + int(rng.choice(np.flatnonzero(size >= np.sqrt(np.mean(size**2)))))
        wrong = subject.g.copy()
        wrong[coordinate] *= factor
        return Planted(wrong, {"index": block.multi_index(coordinate), "factor": factor})

    return rule


def contribution(subject: Subject, samples: IntArray) -> FloatArray | None:
    """Return what some samples contribute to the data term's gradient, shape (P,); None where they act on others."""
    net = subject.net
    if net.take is None or net.batch < 2:
        return None
    mean = subject.flat(net.gradient(net.params, *net.take(net.args, samples))) - subject.penalty
    return mean * (len(samples) / net.batch)


def _rare_branch(subject: Subject, rng: np.random.Generator) -> Planted | None:
    sample = int(rng.integers(max(subject.net.batch, 1)))
    part = contribution(subject, np.array([sample]))
    return None if part is None else Planted(subject.g - part, {"sample": sample})


PLACES = (
    Mutation("slice_zeroed", "one row, column or channel never filled in", _slice(0.0), ("slice",)),
    Mutation("slice_scaled", "one row, column or channel 1.5 times too large", _slice(1.5), ("slice",)),
    Mutation("coordinate_scaled", "one coordinate 1% too large", _coordinate(1.01), ("coordinate",)),
    Mutation("coordinate_sign", "one coordinate with the wrong sign", _coordinate(-1.0), ("coordinate",)),
    Mutation(
        "rare_branch", "one sample takes a branch whose derivative is forgotten", _rare_branch, ("sample_missing",)
    ),
)
