"""A gradient of other parameters: from the cache of an earlier forward pass, or from before the last update."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np

from fastcheck.arrays import FloatArray
from fastcheck.diagnosis.evidence import Evidence
from fastcheck.diagnosis.lab import Lab
from fastcheck.finding import Finding

__all__ = ["stale"]

AWAY = 2.0**-4  # relative to the parameters
OCTAVES = range(-20, 2)  # of the rate, relative to theta over the gradient, that are scanned
NEAR = 1e-3  # of the error along a direction that may be left
SCANNED, WITNESSES = 2, 3  # directions in which a rate is looked for, and in which it must hold too


def stale(lab: Lab, evidence: Evidence) -> Finding | None:
    """Ask whether the gradient remembers an earlier call, or is that of the parameters one descent step ago."""
    return _remembers(lab, evidence) or _one_step_ago(lab, evidence)


def _remembers(lab: Lab, evidence: Evidence) -> Finding | None:
    elsewhere = lab.gradient_at(lab.theta * (1 + AWAY))
    again = lab.gradient_at(lab.theta)
    if elsewhere is None or again is None:
        return None
    size = float(np.linalg.norm(lab.claimed))
    blocks = [block.name for block in evidence.wrong]
    if np.linalg.norm(again - lab.claimed) > 1e-6 * size:
        return Finding(
            "stale",
            None,
            "Called again at the same parameters after a call at others, the gradient is another one: it uses what "
            "an earlier forward pass left in a cache. Run the forward pass inside the gradient, or before each call.",
            {"blocks": blocks, "apart": float(np.linalg.norm(again - lab.claimed)) / size, "short": "of a stale cache"},
        )
    if size and np.array_equal(elsewhere, again) and _bends(lab, evidence):
        return Finding(
            "stale",
            None,
            "The gradient is the same at other parameters: it does not use the ones it is given, but a copy, a global "
            "or what an earlier forward pass left in a cache.",
            {"blocks": blocks, "short": "does not depend on the parameters given"},
        )
    return None


def _bends(lab: Lab, evidence: Evidence) -> bool:
    """Say whether the true gradient is another one at other parameters; that of a linear loss is the same."""
    (v,) = lab.directions(evidence, evidence.wrong, 1)
    here, there = lab.slope(lab.evaluator, v), lab.slope(lab.evaluator, v, AWAY * lab.theta)
    return not abs(there - here) <= NEAR * abs(here)


def _one_step_ago(lab: Lab, evidence: Evidence) -> Finding | None:
    """Look for a rate r > 0 at which the loss at theta + r g has the gradient g, along every direction."""
    g = lab.claimed
    if evidence.right or not g.any():
        return None
    directions = lab.directions(evidence, evidence.wrong, SCANNED + WITNESSES)
    scanned, others = directions[:SCANNED], directions[SCANNED:]
    errors = [lab.slope(lab.evaluator, v) - float(g @ v) for v in others]
    # A kink on the way can hide the rate from the scan along one direction, hardly from that along another.
    for rate in itertools.chain.from_iterable(_rates(lab, g, v) for v in scanned):
        left = [lab.slope(lab.evaluator, v, rate * g) - float(g @ v) for v in others]
        if all(abs(after) <= NEAR * abs(before) for after, before in zip(left, errors, strict=True)):
            return Finding(
                "stale",
                None,
                f"The gradient is right for the parameters one descent step ago, theta + r g with a rate of r = "
                f"{rate:.4g}: it was computed before the last update, or from the cache of the forward pass before it.",
                {"blocks": [b.name for b in evidence.wrong], "rate": rate, "short": "of the parameters one step ago"},
            )
    return None


def _rates(lab: Lab, g: FloatArray, v: FloatArray) -> Iterator[float]:
    """Yield the rates r > 0 with d/dv J(theta + r g) = g.v that a scan by octaves finds."""
    target = float(g @ v)

    def apart(rate: float) -> float:
        return lab.slope(lab.evaluator, v, rate * g) - target

    unit = float(np.linalg.norm(lab.theta)) / float(np.linalg.norm(g))
    low, before = 0.0, lab.slope(lab.evaluator, v) - target
    for octave in OCTAVES:
        high = unit * 2.0**octave
        after = apart(high)
        if not math.isfinite(after):
            return
        if before * after < 0:
            from scipy.optimize import brentq  # here, since it takes longer to load than most checks to run

            yield float(brentq(apart, low, high, xtol=1e-12 * high, rtol=1e-9))
        low, before = high, after
