"""A gradient of other parameters: from the cache of an earlier forward pass, or from before the last update."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np

from fastcheck.arrays import FloatArray
from fastcheck.diagnosis.evidence import Evidence
from fastcheck.diagnosis.functions import NEAR, UserFunctions
from fastcheck.findings import Finding, Kind

__all__ = ["stale"]

AWAY = 2.0**-4  # relative to the parameters
OCTAVES = range(-20, 2)  # of the rate, relative to theta over the gradient, that are scanned
SCANNED, WITNESSES = 2, 3  # directions in which a rate is looked for, and in which it must hold too


def stale(functions: UserFunctions, evidence: Evidence) -> Finding | None:
    """Ask whether the gradient remembers an earlier call, or is that of the parameters one descent step ago."""
    return _remembers(functions, evidence) or _one_step_ago(functions, evidence)


def _remembers(functions: UserFunctions, evidence: Evidence) -> Finding | None:
    elsewhere = functions.gradient_at(functions.theta * (1 + AWAY))
    again = functions.gradient_at(functions.theta)
    if elsewhere is None or again is None:
        return None
    size = float(np.linalg.norm(functions.claimed))
    blocks = [block.name for block in evidence.wrong]
    apart = float(np.linalg.norm(again - functions.claimed))
    if apart > 1e-6 * size:
        return Finding(
            Kind.STALE,
            None,
            "Called again at the same parameters after a call at others, the gradient is another one: it uses what "
            "an earlier forward pass left in a cache. Run the forward pass inside the gradient, or before each call.",
            {
                "blocks": blocks,
                "apart": apart / size,
                "short": "of a stale cache",
            },
        )
    if size and np.array_equal(elsewhere, again) and _bends(functions, evidence):
        return Finding(
            Kind.STALE,
            None,
            "The gradient is the same at other parameters: it does not use the ones it is given, but a copy, a global "
            "or what an earlier forward pass left in a cache.",
            {"blocks": blocks, "short": "does not depend on the parameters given"},
        )
    return None


def _bends(functions: UserFunctions, evidence: Evidence) -> bool:
    """Say whether the true gradient is another one at other parameters; that of a linear loss is the same."""
    (v,) = functions.directions(evidence, evidence.wrong, 1)
    here, there = (
        functions.slope(functions.evaluator, v),
        functions.slope(functions.evaluator, v, AWAY * functions.theta),
    )
    return not abs(there - here) <= NEAR * abs(here)


def _one_step_ago(functions: UserFunctions, evidence: Evidence) -> Finding | None:
    """Look for a rate r > 0 at which the loss at theta + r g has the gradient g, along every direction."""
    g = functions.claimed
    if evidence.right or not g.any() or functions.affordable < 2 * SCANNED * len(OCTAVES):
        return None
    directions = functions.directions(evidence, evidence.wrong, SCANNED + WITNESSES)
    scanned, others = directions[:SCANNED], directions[SCANNED:]
    errors = [functions.slope(functions.evaluator, v) - float(g @ v) for v in others]
    # A kink on the way can hide the rate from the scan along one direction, hardly from that along another.
    for rate in itertools.chain.from_iterable(_rates(functions, g, v) for v in scanned):
        left = [functions.slope(functions.evaluator, v, rate * g) - float(g @ v) for v in others]
        if all(abs(after) <= NEAR * abs(before) for after, before in zip(left, errors, strict=True)):
            return Finding(
                Kind.STALE,
                None,
                f"The gradient is right for the parameters one descent step ago, theta + r g with a rate of r = "
                f"{rate:.4g}: it was computed before the last update, or from the cache of the forward pass before it.",
                {"blocks": [b.name for b in evidence.wrong], "rate": rate, "short": "of the parameters one step ago"},
            )
    return None


def _rates(functions: UserFunctions, g: FloatArray, v: FloatArray) -> Iterator[float]:
    """Yield the rates r > 0 with d/dv J(theta + r g) = g.v that a scan by octaves finds."""
    target = float(g @ v)

    def apart(rate: float) -> float:
        return functions.slope(functions.evaluator, v, rate * g) - target

    unit = float(np.linalg.norm(functions.theta)) / float(np.linalg.norm(g))
    low, before = 0.0, functions.slope(functions.evaluator, v) - target
    for octave in OCTAVES:
        high = unit * 2.0**octave
        after = apart(high)
        if not math.isfinite(after):
            return
        if before * after < 0:
            from scipy.optimize import brentq  # here, since it takes longer to load than most checks to run

            yield float(brentq(apart, low, high, xtol=1e-12 * high, rtol=1e-9))
        low, before = high, after
