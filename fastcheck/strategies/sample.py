"""The sample: random coordinates without replacement, and what they say about the others.

A uniform sample of the whole is drawn first; blocks that got less than their minimum are filled up. The part of either
draw that lies in one block is a uniform sample of that block, so that the hypergeometric statements are exact, for
each block and, from the first draw, for the whole.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from fastcheck.arrays import IntArray
from fastcheck.context import Outcome
from fastcheck.findings import Finding, Kind
from fastcheck.judge.bounds import sample_size, split, wrong_count_bound
from fastcheck.judge.coordinates import Comparison
from fastcheck.parameters import Block

__all__ = ["MINIMUM", "SHARE", "Sample", "drawn", "said"]

SHARE = 1e-3  # of wrong coordinates that a sample of the default size misses with probability 1 - confidence at most
MINIMUM = 16  # coordinates of every block


@dataclasses.dataclass(frozen=True)
class Sample:
    """What is measured.

    Attributes
    ----------
    places : tuple of int64 arrays
        Places in theta, rising, by block.
    uniform : int64, shape (n,)
        Those of the first draw, over all the blocks together.
    population : int
        Coordinates of all the blocks together.
    """

    places: tuple[IntArray, ...]
    uniform: IntArray
    population: int


def drawn(blocks: Sequence[Block], samples: int | None, confidence: float, rng: np.random.Generator) -> Sample:
    """Draw a sample of so many coordinates; by default, of as many as find a share of `SHARE` at the confidence.

    Blocks that are filled up to their minimum come on top.
    """
    sizes = np.array([block.size for block in blocks], dtype=np.int64)
    population = int(sizes.sum())
    wanted = sample_size(population, SHARE, 1 - confidence) if samples is None else min(samples, population)
    ends = np.cumsum(sizes)
    drawn = np.sort(rng.choice(population, size=wanted, replace=False).astype(np.int64))
    places, uniform = [], []
    for block, end in zip(blocks, ends.tolist(), strict=True):
        first = end - block.size
        inside = drawn[np.searchsorted(drawn, first) : np.searchsorted(drawn, end)] - first
        uniform.append(inside + block.start)
        missing = min(MINIMUM, block.size) - len(inside)
        if missing > 0:
            others = np.setdiff1d(np.arange(block.size), inside) if block.size < 4096 else _others(block, inside, rng)
            inside = np.sort(np.concatenate([inside, rng.choice(others, size=missing, replace=False)]))
        places.append(inside + block.start)
    return Sample(tuple(places), np.concatenate(uniform), population)


def _others(block: Block, inside: IntArray, rng: np.random.Generator) -> IntArray:
    """Return some coordinates of a large block, more than its minimum, none of them drawn before."""
    return np.setdiff1d(rng.choice(block.size, size=2 * MINIMUM + len(inside), replace=False), inside)


def said(outcome: Outcome, compared: Mapping[str, Comparison]) -> Iterator[Finding]:
    """Yield what the sample says about the coordinates that were not measured."""
    context, sample = outcome.context, outcome.drawn
    assert sample is not None
    found = {one.block.name: one for one in outcome.estimates if compared[one.block.name].norms.count}
    if not found:
        return
    confidence = context.settings.confidence
    each = split(confidence, len(found) + 1)
    wrong = {name: len(compared[name].wrong) for name in found}
    sizes = {name: one.block.size for name, one in found.items()}
    bounds = {n: wrong_count_bound(sizes[n], compared[n].norms.count, wrong[n], each) for n in found}
    total, checked = sum(wrong.values()), sum(compared[name].norms.count for name in found)
    most = sum(bounds.values())
    if len(found) == len(sample.places) and checked == sum(
        map(len, sample.places)
    ):  # complete: count those of the uniform draw alone
        uniform = set(sample.uniform.tolist())
        failures = sum(int(place) in uniform for name in found for place in compared[name].wrong)
        most = min(most, wrong_count_bound(sample.population, len(sample.uniform), failures, each))
    worst = max(found, key=lambda name: bounds[name] / sizes[name])
    message = (
        f"{checked:,} of {sample.population:,} coordinates were measured, {total:,} of them wrong. With "
        f"{100 * confidence:.6g}% confidence at most {most:,} ({100 * most / sample.population:.2g}%) of all are wrong"
    )
    if len(found) > 1:
        message += f", and of no block more than {100 * bounds[worst] / sizes[worst]:.2g}% ({worst})"
    evidence = {
        "measured": checked,
        "wrong": total,
        "at_most": most,
        "share": most / sample.population,
        "blocks": {name: {"at_most": bounds[name], "share": bounds[name] / sizes[name]} for name in found},
    }
    yield Finding(Kind.SAMPLE, None, message + ".", evidence)
