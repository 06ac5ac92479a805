"""The sample: random coordinates without replacement, and what they say about the others.

A uniform sample of the whole is drawn first; blocks that got less than their minimum are filled up. The part of either
draw that lies in one block is a uniform sample of that block, so that the hypergeometric statements are exact, for
each block and, from the first draw, for the whole.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from fastcheck.arrays import IntArray
from fastcheck.bounds import sample_size, split, wrong_count_bound
from fastcheck.findings import Finding, Kind
from fastcheck.parameters import Block, Parameters
from fastcheck.report.report import Report

__all__ = ["MINIMUM", "SHARE", "Sample", "draw", "stated"]

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


def draw(blocks: Sequence[Block], samples: int | None, confidence: float, rng: np.random.Generator) -> Sample:
    """Draw a sample.

    Parameters
    ----------
    blocks : sequence of Block
        To draw from.
    samples : int or None
        How many coordinates; None for as many as find a share of `SHARE` at `confidence`. Blocks that are filled up to
        their minimum come on top.
    confidence : float
        Of that.
    rng : numpy.random.Generator
        Draws.
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


def stated(report: Report, sample: Sample, layout: Parameters, confidence: float) -> Report:
    """Return the report with what the sample says about the coordinates that were not measured.

    Parameters
    ----------
    report : Report
        Of the sample.
    sample : Sample
        What was drawn.
    layout : Parameters
        The blocks.
    confidence : float
        Of all statements together.
    """
    by_block = {name: block for name, block in report.blocks.items() if block.checked}
    if not by_block:
        return report
    each = split(confidence, len(by_block) + 1)
    bounds = {name: wrong_count_bound(block.size, block.checked, block.wrong, each) for name, block in by_block.items()}
    total = sum(block.wrong for block in by_block.values())
    checked = sum(block.checked for block in by_block.values())
    failures = total
    if total == len(report.wrong):  # all are listed: count those of the uniform draw alone
        first = set(sample.uniform.tolist())
        failures = sum(layout[c.block].coordinate(c.index) in first for c in report.wrong)
    complete = checked == sum(len(places) for places in sample.places)
    measured = len(sample.uniform) if complete else 0
    most = wrong_count_bound(sample.population, measured, min(failures, measured), each) if measured else None
    most = sum(bounds.values()) if most is None else min(most, sum(bounds.values()))
    worst = max(by_block, key=lambda name: bounds[name] / by_block[name].size)
    message = (
        f"{checked:,} of {sample.population:,} coordinates were measured, {total:,} of them wrong. With "
        f"{100 * confidence:.6g}% confidence at most {most:,} ({100 * most / sample.population:.2g}%) of all are wrong"
    )
    if len(by_block) > 1:
        message += f", and of no block more than {100 * bounds[worst] / by_block[worst].size:.2g}% ({worst})"
    evidence = {
        "measured": checked,
        "wrong": total,
        "at_most": most,
        "share": most / sample.population,
        "blocks": {name: {"at_most": bounds[name], "share": bounds[name] / by_block[name].size} for name in by_block},
    }
    finding = Finding(Kind.SAMPLE, None, message + ".", evidence)
    return dataclasses.replace(report, findings=(*report.findings, finding))
