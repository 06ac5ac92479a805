"""Is the product linear in its vector? Calls of the product alone tell, none of the function.

The classic bug is the upstream gradient that is never multiplied in: right for a loss, whose cotangent is 1, and wrong
for everything else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fastcheck.arrays import FloatArray
from fastcheck.errors import LossError
from fastcheck.findings import Finding, Kind
from fastcheck.gradients import Analytic
from fastcheck.judge.verdict import Verdict
from fastcheck.parameters import Block
from fastcheck.products.point import Product, ProductFinding

__all__ = ["Linear", "changes_vector", "nonlinear", "own_rounding"]

POWERS = (4.0, 2.0**-4)  # of two: a linear product of u scales with them to the last bit, however ill-conditioned
ROUNDINGS = 32.0
LOST = 64.0  # times what a product was seen to lose to rounding
AGAIN = 8  # calls that may show that it is another one each time; even of one unit, dropout has two outcomes
NEAR = 1e-3  # of a degree to a whole number


@dataclass(frozen=True)
class Linear:
    """What is asked to be linear: a user's product, as a call with a flat vector.

    The blocks are of what it returns; a relative deviation within the tolerance still counts as linear.
    """

    call: Callable[[FloatArray], Analytic]
    product: Product
    blocks: Sequence[Block]
    tolerance: float

    def differ(self, a: FloatArray, b: FloatArray, tolerance: float) -> tuple[str, ...]:
        """Return the names of the blocks in which two results differ by more than a relative tolerance."""
        return tuple(
            block.name
            for block in self.blocks
            if _norm(a[block.slice] - b[block.slice]) > tolerance * max(_norm(a[block.slice]), _norm(b[block.slice]))
        )

    def finding(self, kind: Kind, names: tuple[str, ...], said: str, short: str, **evidence: float) -> Finding:
        """Return a finding about some blocks of the result."""
        where = self.product.name if len(names) == len(self.blocks) else f"{self.product.name} of {', '.join(names)}"
        return Finding(
            kind,
            None,
            f"{where} {said}",
            {"blocks": list(names), "short": short, "where": where, **evidence},
        )


def nonlinear(ask: Linear, u: FloatArray, w: FloatArray) -> Iterator[ProductFinding]:
    """Yield at most one finding: how the product fails to be linear, or that it is another one at each call.

    `u` and `w` are independent vectors without a zero.
    """
    at_u, at_w = ask.call(u), ask.call(w)
    eps = float(at_u.eps.max())
    exact = max(ask.tolerance, ROUNDINGS * eps)
    loose = max(ask.tolerance, math.sqrt(eps))  # sums of other numbers round otherwise, and may cancel
    for finding in _first(
        _constant(ask, _at_zero(ask, u), at_u.flat, at_w.flat, exact),
        _power(ask, u, at_u.flat, exact),
        _sum(ask, u, w, at_u.flat + at_w.flat, loose),
    ):
        again = [ask.differ(ask.call(u).flat, at_u.flat, exact) for _ in range(AGAIN)]
        unsteady = max(again, key=len)
        yield (
            ProductFinding(_unsteady(ask, unsteady), Verdict.INCONCLUSIVE)
            if unsteady
            else ProductFinding(finding, Verdict.WRONG, True)
        )


def own_rounding(product: Callable[[FloatArray], Analytic], u: FloatArray, at_u: FloatArray) -> FloatArray:
    """Return how far the product of 3 u is from three times that of u: rounding alone, if it is proportional to u.

    What a layer loses to cancellation shows here, in its own arithmetic.
    """
    return np.asarray(product(3 * u).flat - 3 * at_u)


def changes_vector(product: Product) -> Finding:
    """Return the finding of a product that changes the vector it is given."""
    return Finding(
        Kind.VECTOR_CHANGED,
        None,
        f"{product.name} changes the {product.vector} it is given. It was given a private copy here, but elsewhere "
        "another branch may need it: work on a copy.",
    )


def _first(*kinds: Iterator[Finding]) -> Iterator[Finding]:
    """Yield the first finding of all: a product that ignores its vector fails the other rules too."""
    for findings in kinds:
        for finding in findings:
            yield finding
            return


def _unsteady(ask: Linear, names: tuple[str, ...]) -> Finding:
    return ask.finding(
        Kind.VECTOR_UNSTEADY,
        names,
        f"of the same {ask.product.vector} is another one when called again, so whether it is linear can't be said. "
        "Random draws (dropout), or a buffer kept between calls?",
        "is another one at each call",
    )


def _at_zero(ask: Linear, u: FloatArray) -> FloatArray:
    """Return the product of a zero vector; zero, too, where it fails, as one that divides by the vector does."""
    try:
        with np.errstate(all="ignore"):
            return ask.call(np.zeros_like(u)).flat
    except LossError:
        return np.zeros(ask.blocks[-1].stop)


def _constant(ask: Linear, at_zero: FloatArray, at_u: FloatArray, at_w: FloatArray, exact: float) -> Iterator[Finding]:
    there = ask.differ(at_zero, np.zeros_like(at_zero), exact)
    still = tuple(
        name for name in there if name not in {*ask.differ(at_u, at_zero, exact), *ask.differ(at_w, at_u, exact)}
    )
    vector = ask.product.vector
    if still:
        yield ask.finding(
            Kind.VECTOR_IGNORED,
            still,
            f"ignores the {vector}: it is the same for every one, also for zero. Multiply the {vector} in, entry by "
            f"entry{'; the upstream gradient is 1 for a loss only' if vector == 'cotangent' else ''}.",
            f"ignores the {vector}",
        )
    elif there:
        size = _norm(at_zero) / max(_norm(at_u), math.ulp(0.0))
        yield ask.finding(
            Kind.VECTOR_OFFSET,
            there,
            f"of a zero {vector} is not zero: a part of relative size {size:.2g} does not depend on the {vector}. "
            "A regulariser's gradient added in, or a buffer that is not cleared?",
            f"has a part that the {vector} does not multiply",
            size=size,
        )


def _power(ask: Linear, u: FloatArray, at_u: FloatArray, exact: float) -> Iterator[Finding]:
    turned = ask.differ(ask.call(-u).flat, -at_u, exact)
    for power in POWERS:
        scaled = ask.call(power * u).flat
        names = ask.differ(scaled, power * at_u, exact)
        if names:
            degree = _degree(ask, names, scaled, at_u, power)
            yield ask.finding(Kind.VECTOR_DEGREE, names, *_words_of_degree(degree, ask.product.vector), degree=degree)
            return
    if turned:
        yield ask.finding(
            Kind.VECTOR_SIGN,
            turned,
            f"of -{ask.product.vector} is not minus that of the {ask.product.vector}: an absolute value, a square or a "
            "clip of it?",
            f"loses the sign of the {ask.product.vector}",
        )


def _sum(ask: Linear, u: FloatArray, w: FloatArray, sum_of_both: FloatArray, loose: float) -> Iterator[Finding]:
    at_sum = ask.call(u + w).flat
    names = ask.differ(at_sum, sum_of_both, loose)
    lost = own_rounding(ask.call, u, ask.call(u).flat) if names else at_sum
    slices = {block.name: block.slice for block in ask.blocks}
    names = tuple(n for n in names if _norm((at_sum - sum_of_both)[slices[n]]) > LOST * _norm(lost[slices[n]]))
    if names:
        vector = ask.product.vector
        yield ask.finding(
            Kind.VECTOR_NONLINEAR,
            names,
            f"of a sum of two {vector}s is not the sum of the two: it is not linear in the {vector}. A maximum or a "
            "clip of it, or a buffer kept between calls?",
            f"is not linear in the {vector}",
        )


def _degree(ask: Linear, names: tuple[str, ...], scaled: FloatArray, at_u: FloatArray, power: float) -> float:
    """Return p where the product grows as the p-th power of its vector; NaN where it does not."""
    degrees = []
    for block in (b for b in ask.blocks if b.name in names):
        before, after = _norm(at_u[block.slice]), _norm(scaled[block.slice])
        if not before or not after:
            return math.nan
        degrees.append(math.log(after / before, power))
    low, high = min(degrees), max(degrees)
    return sum(degrees) / len(degrees) if high - low < NEAR else math.nan


def _words_of_degree(degree: float, vector: str) -> tuple[str, str]:
    if abs(degree - 2) < NEAR:
        return (
            f"grows with the square of the {vector}: it is multiplied in twice. Leave one factor out.",
            f"multiplies the {vector} in twice",
        )
    if abs(degree) < NEAR:
        return (
            f"does not depend on the size of the {vector}: it is normalised, or only its sign is used. "
            f"Multiply the {vector} itself in.",
            f"loses the size of the {vector}",
        )
    return (
        f"is not proportional to the {vector}: a clip of it, a term without it, or a buffer kept between calls?",
        f"is not proportional to the {vector}",
    )


def _norm(vector: FloatArray) -> float:
    return float(np.linalg.norm(vector))
