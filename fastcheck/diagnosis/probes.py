"""Diagnosis from directional derivatives alone: a few probes tell the kinds of bug apart, whatever the size of the net.

A hypothesis predicts the true gradient n from the analytic one g, so it predicts n.v for every direction v. One that is
true predicts all of them within their uncertainty; another misses each by about |e|. So one set of random directions
tries all hypotheses at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from fastcheck.arrays import FloatArray
from fastcheck.diagnosis.diagnose import diagnose
from fastcheck.diagnosis.evidence import BlockEvidence, Coordinates, Directions, Evidence
from fastcheck.diagnosis.facts import Facts
from fastcheck.differences import SCHEMES
from fastcheck.findings import Finding
from fastcheck.losses.evaluator import Evaluator
from fastcheck.parameters import Block, Parameters
from fastcheck.thresholds import GRADIENT_ROUNDING

__all__ = ["Probe", "derivative_along", "from_probes"]

Probe = Callable[[Block, FloatArray], tuple[float, float]]
"""``probe(block, v)`` returns the measured n.v of a direction v, shape (n,), in that block, and its uncertainty."""

STEP = 2.0**-18  # of a direction, relative to the block's parameters
FEW, MOST = 3, 8  # directions of a block


def from_probes(
    layout: Parameters,
    theta: FloatArray,
    analytic: FloatArray,
    wrong: Sequence[str],
    probe: Probe,
    *,
    right: Sequence[str] | None = None,
    facts: Facts | None = None,
    probes: int = 10,
    seed: int = 0,
) -> tuple[Finding, ...]:
    """Say what kind of bug some blocks have, from directional derivatives.

    Parameters
    ----------
    layout : Parameters
        The blocks.
    theta, analytic : float64, shape (P,)
        The parameters and the analytic gradient.
    wrong : sequence of str
        The blocks found wrong.
    probe : callable
        Measures a directional derivative, see `Probe`; `derivative_along` makes one of an evaluator.
    right : sequence of str, optional
        The blocks found right; by default all that are not wrong.
    facts : Facts, optional
        What is known about the data.
    probes : int
        Directions to spend in all: at least one for each wrong block, three for those nearest to the output while they
        last, at most eight. A block without any is told to be wrong, not why.
    seed : int
        Of the directions.

    Returns
    -------
    tuple of Finding
        As `diagnose` returns them.
    """
    rng = np.random.default_rng(seed)
    counts = _shares([layout[name] for name in wrong if analytic[layout[name].slice].any()], layout, probes)
    blocks = []
    for block in layout.blocks:
        g, own = analytic[block.slice], theta[block.slice]
        if block.name in wrong:
            blocks.append(_probed(block, g, own, probe, counts.get(block.name, 0), rng))
        else:
            known = right is None or block.name in right
            blocks.append(BlockEvidence(block, g, own, NOWHERE, NOTHING, NOTHING, wrong=False, checked=known))
    return diagnose(Evidence(tuple(blocks), facts or Facts()))


NOTHING = np.zeros(0)
NOWHERE = Coordinates(np.zeros(0, dtype=np.int64))


def _shares(wrong: Sequence[Block], layout: Parameters, probes: int) -> dict[str, int]:
    """Return how many directions each block gets: one each, then a few for those nearest to the output, then more.

    One direction tells whether a number found elsewhere holds here too; a number of its own takes a few.
    """
    nearest = sorted(wrong, key=layout.blocks.index, reverse=True)
    counts = dict.fromkeys((block.name for block in nearest), 0)
    for enough in (1, FEW, MOST):
        for block in nearest:
            more = min(enough - counts[block.name], block.size - counts[block.name], probes)
            if more > 0:
                counts[block.name] += more
                probes -= more
    return counts


def _probed(
    block: Block, g: FloatArray, theta: FloatArray, probe: Probe, count: int, rng: np.random.Generator
) -> BlockEvidence:
    if not count:
        return BlockEvidence(block, g, theta, NOWHERE, NOTHING, NOTHING)
    if block.size <= count:  # as cheap to ask for the coordinates themselves
        measured = [probe(block, v) for v in np.eye(block.size)]
        view: Coordinates | Directions = Coordinates()
    else:
        signs = 2 * rng.integers(0, 2, (count, block.size), dtype=np.int8) - np.int8(1)
        measured = [probe(block, row.astype(np.float64)) for row in signs]
        view = Directions(signs)
    n, uncertainty = (np.array([pair[k] for pair in measured], dtype=np.float64) for k in (0, 1))
    own = GRADIENT_ROUNDING * np.finfo(np.float64).eps * float(np.linalg.norm(g))
    # One direction may show little of its error by accident; the block's directions all have about the same.
    tolerance = np.full(count, float(uncertainty.max()) + own + np.finfo(np.float64).tiny)
    return BlockEvidence(block, g, theta, view, n, tolerance)


def derivative_along(evaluator: Evaluator, loss_error: float) -> Probe:
    """Return a probe that spends four evaluations on each direction.

    Parameters
    ----------
    evaluator : Evaluator
        The loss.
    loss_error : float
        Largest error of one loss value, in units of the loss.

    Notes
    -----
    The value is the central difference D(h) with a step short enough that few kinks of a relu lie within it; its
    distance to D(4h) bounds what truncation and kinks do to it.
    """
    scheme = SCHEMES["central"]

    def probe(block: Block, v: FloatArray) -> tuple[float, float]:
        size = float(np.linalg.norm(evaluator.theta[block.slice])) or math.sqrt(block.size)
        h = 2.0 ** round(math.log2(STEP * size / float(np.linalg.norm(v))))
        steps = np.array([h, 4 * h])
        values = evaluator.along(block.start, v, np.outer(steps, scheme.offsets).ravel()).reshape(2, -1)
        short, long = scheme.derivative(values, steps).tolist()
        return short, abs(short - long) + scheme.amplification * loss_error / h

    return probe
