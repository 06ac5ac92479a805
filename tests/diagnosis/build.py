"""Exact evidence: arrays in, evidence out, with a known tolerance."""

import numpy as np

from fastcheck.diagnosis import BlockEvidence, Coordinates, DataFacts, Evidence
from fastcheck.parameters import Parameters

TOLERANCE = 1e-9


def evidence(g, n, theta=None, *, facts=None, rows=None, tolerance=TOLERANCE):
    """Return the evidence of dicts of arrays; blocks whose g and n differ are wrong."""
    theta = theta or {name: np.cos(1.7 * np.arange(value.size) + 0.3).reshape(value.shape) for name, value in g.items()}
    layout = Parameters.of(theta)
    blocks = []
    for block in layout.blocks:
        flat_g, flat_n = (np.asarray(part[block.name], float).ravel() for part in (g, n))
        view = Coordinates() if rows is None else Coordinates(rows[block.name])
        measured = view.of(flat_n)
        wrong = bool(np.any(np.abs(flat_g - flat_n) > tolerance))
        blocks.append(
            BlockEvidence(
                block,
                flat_g,
                np.asarray(theta[block.name], float).ravel(),
                view,
                measured,
                np.full(len(measured), tolerance),
                wrong=wrong,
            )
        )
    return Evidence(tuple(blocks), facts or DataFacts())


def gradients(seed=0, **shapes):
    """Return a dict of normal arrays."""
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape) for name, shape in (shapes or DENSE).items()}


DENSE = {"W1": (5, 4), "b1": (5, 1), "W2": (5, 5), "b2": (5, 1), "W3": (3, 5), "b3": (3, 1)}
