"""Bugs of L2 and L1: the gradient is off by a multiple of theta, or of its sign."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastcheck.bugs.mutation import Mutation, Planted, Rule, Subject
from fastcheck.bugs.net import Net

__all__ = ["REGULARISERS"]


def _decay_times(of: Callable[[Net], float]) -> Rule:
    """Return the rule under which the L2 term of every block is multiplied by ``of(net)``."""

    def rule(subject: Subject, rng: np.random.Generator) -> Planted | None:
        if not subject.net.decay:
            return None
        times, wrong = of(subject.net), subject.g.copy()
        for name, rate in subject.net.decay.items():
            where = subject.layout[name].slice
            wrong[where] += (times - 1) * rate * subject.theta[where]
        return Planted(wrong, {"times": times, "lambda": dict(subject.net.decay)})

    return rule


def _missing_in_one(subject: Subject, rng: np.random.Generator) -> Planted | None:
    block = subject.pick(rng, lambda b: b.name in subject.net.decay)
    if block is None:
        return None
    rate = subject.net.decay[block.name]
    wrong = subject.changed(block, block.view(subject.g) - rate * block.view(subject.theta))
    return Planted(wrong, {"times": 0.0, "lambda": {block.name: rate}})


def _regularised_biases(subject: Subject, rng: np.random.Generator) -> Planted | None:
    if not subject.net.decay:
        return None
    rate, wrong = max(subject.net.decay.values()), subject.g.copy()
    for name in subject.net.biases:
        where = subject.layout[name].slice
        wrong[where] += rate * subject.theta[where]
    return Planted(wrong, {"lambda": dict.fromkeys(subject.net.biases, rate)})


def _missing_lasso(subject: Subject, rng: np.random.Generator) -> Planted | None:
    if not subject.net.lasso:
        return None
    wrong = subject.g.copy()
    for name, rate in subject.net.lasso.items():
        where = subject.layout[name].slice
        wrong[where] -= rate * np.sign(subject.theta[where])
    return Planted(wrong, {"lambda": dict(subject.net.lasso)})


REGULARISERS = (
    Mutation("l2_missing", "L2 is in the loss, not in the gradient", _decay_times(lambda net: 0.0), ("l2",)),
    Mutation("l2_missing_in_one", "L2 forgotten in the gradient of one block", _missing_in_one, ("l2",)),
    Mutation("l2_doubled", "2 lambda W where lambda W belongs", _decay_times(lambda net: 2.0), ("l2",)),
    Mutation("l2_sign", "L2 subtracted in the gradient", _decay_times(lambda net: -1.0), ("l2",)),
    Mutation(
        "l2_averaged",
        "L2 divided by m in the gradient only",
        _decay_times(lambda net: 1 / net.batch if net.batch else 1.0),
        ("l2",),
    ),
    Mutation("l2_biases", "L2 of the biases in the gradient only", _regularised_biases, ("l2",)),
    Mutation("l1_missing", "L1 is in the loss, not in the gradient", _missing_lasso, ("l1",)),
)
