"""A gradient of other parameters: from the cache of an earlier forward pass, or from before the last update."""

from __future__ import annotations

import math

import numpy as np

from fastcheck.arrays import FloatArray
from fastcheck.diagnosis.evidence import Evidence
from fastcheck.diagnosis.lab import Lab
from fastcheck.finding import Finding

__all__ = ["stale"]

AWAY = 2.0**-4  # relative to the parameters
FIRST_RATE = 1e-3  # of theta over the gradient, where the search for the step begins
TURNS = 25
NEAR = 1e-6  # of the error along a direction that may be left
WITNESSES = 3  # directions that must agree on one rate


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
    if size and np.array_equal(elsewhere, again):
        return Finding(
            "stale",
            None,
            "The gradient is the same at other parameters: it does not use the ones it is given, but a copy, a global "
            "or what an earlier forward pass left in a cache.",
            {"blocks": blocks, "short": "does not depend on the parameters given"},
        )
    return None


def _one_step_ago(lab: Lab, evidence: Evidence) -> Finding | None:
    """Look for a rate r > 0 at which the loss at theta + r g has the gradient g, along every direction."""
    g = lab.claimed
    if not all(block.wrong or not block.checked for block in evidence.blocks) or not g.any():
        return None
    directions = lab.directions(evidence, evidence.wrong, WITNESSES)
    rate = _rate(lab, g, directions[0])
    if rate is None:
        return None
    for v in directions[1:]:
        before, after = lab.slope(lab.evaluator, v) - float(g @ v), lab.slope(lab.evaluator, v, rate * g) - float(g @ v)
        if not abs(after) <= 1e-3 * abs(before):
            return None
    return Finding(
        "stale",
        None,
        f"The gradient is right for the parameters one descent step ago, theta + r g with a rate of r = {rate:.4g}: it "
        "was computed before the last update, or from the cache of the forward pass before it.",
        {"blocks": [b.name for b in evidence.wrong], "rate": rate, "short": "of the parameters one step ago"},
    )


def _rate(lab: Lab, g: FloatArray, v: FloatArray) -> float | None:
    """Return r > 0 with d/dv J(theta + r g) = g.v, by secants; None where there is none."""
    target = float(g @ v)
    low, f_low = 0.0, lab.slope(lab.evaluator, v) - target
    high = FIRST_RATE * float(np.linalg.norm(lab.theta)) / float(np.linalg.norm(g))
    first = abs(f_low)
    for _ in range(TURNS):
        f_high = lab.slope(lab.evaluator, v, high * g) - target
        if not math.isfinite(f_high) or f_high == f_low:
            return None
        if abs(f_high) <= NEAR * first:
            return high if high > 0 else None
        low, high, f_low = high, high - f_high * (high - low) / (f_high - f_low), f_high
    return None
