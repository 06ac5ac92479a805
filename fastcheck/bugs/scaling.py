"""Bugs of size: factors, signs, zeros, clipping, the batch's m, precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastcheck.bugs.mutation import Mutation, Planted, Rule, Subject
from fastcheck.bugs.net import Net

__all__ = ["SCALING"]


def _factor(of: Callable[[Net], float], entries: int = 1) -> Rule:
    """Return the rule that multiplies one block with so many entries; a factor of 0 (unknown) or 1 makes no sense.

    One number is off by some factor whatever the bug: only a factor that bugs often have says something there.
    """

    def rule(subject: Subject, rng: np.random.Generator) -> Planted | None:
        factor, block = of(subject.net), subject.pick(rng, lambda b: subject.nonzero(b) >= entries)
        if block is None or factor in (0.0, 1.0):
            return None
        return Planted(subject.changed(block, factor * block.view(subject.g)), {"factor": factor})

    return rule


def _data_factor(of: Callable[[Net], float]) -> Rule:
    """Return the rule that multiplies the data term of every block, not the regulariser."""

    def rule(subject: Subject, rng: np.random.Generator) -> Planted | None:
        factor = of(subject.net)
        if factor in (0.0, 1.0):
            return None
        return Planted(factor * (subject.g - subject.penalty) + subject.penalty, {"factor": factor})

    return rule


def _inverse_batch(net: Net) -> float:
    return 1 / net.batch if net.batch else 0.0


def _short_last_batch(net: Net) -> float:
    """The last batch is a quarter smaller than the m that the gradient divides by."""
    nominal = net.batch + -(-net.batch // 3)
    return net.batch / nominal if net.batch else 0.0


def _zero(subject: Subject, rng: np.random.Generator) -> Planted | None:
    block = subject.pick(rng)
    return None if block is None else Planted(subject.changed(block, 0.0), {"factor": 0.0})


def _accumulated(subject: Subject, rng: np.random.Generator) -> Planted:
    return Planted(2 * subject.g, {"factor": 2.0})


def _clipped(subject: Subject, rng: np.random.Generator) -> Planted | None:
    """Clip every coordinate at the 80% quantile of the sizes of one block, so that some saturate and most do not."""
    block = subject.pick(rng, lambda block: block.size >= 10)
    if block is None:
        return None
    limit = float(np.quantile(np.abs(subject.g[block.slice]), 0.8))
    if limit == 0.0:
        return None
    return Planted(np.clip(subject.g, -limit, limit), {"limit": limit})


def _single(value: Any) -> Any:
    """Return floats as float32, inside tuples too; anything else as it is."""
    if isinstance(value, tuple):
        return tuple(_single(item) for item in value)
    return value.astype(np.float32) if isinstance(value, np.ndarray) and value.dtype == np.float64 else value


def _float32(subject: Subject, rng: np.random.Generator) -> Planted | None:
    if not callable(subject.net.gradient):
        return None
    params = subject.layout.unflatten(subject.theta.astype(np.float32))
    return Planted(subject.flat(subject.net.gradient(params, *_single(subject.net.args))))


SCALING = (
    Mutation("factor_m", "one block without its 1/m", _factor(lambda net: float(net.batch)), ("factor",)),
    Mutation("factor_1/m", "one block divided by m twice", _factor(_inverse_batch), ("factor",)),
    Mutation("factor_2", "one block doubled, as from a square's derivative", _factor(lambda net: 2.0), ("factor",)),
    Mutation("factor_1/2", "one block halved", _factor(lambda net: 0.5), ("factor",)),
    Mutation(
        "factor_classes",
        "one block divided by the number of classes",
        _factor(lambda net: 1 / net.classes if net.classes else 0.0),
        ("factor",),
    ),
    Mutation("factor_1.01", "one block 1% too large", _factor(lambda net: 1.01, entries=3), ("factor",)),
    Mutation("sign", "one block with the wrong sign", _factor(lambda net: -1.0), ("sign", "factor")),
    Mutation("zero", "one block never filled in", _zero, ("zero",)),
    Mutation(
        "sum_over_batch",
        "the data term summed where the loss takes the mean",
        _data_factor(lambda net: float(net.batch)),
        ("sum_over_batch", "factor"),
    ),
    Mutation(
        "last_batch",
        "the data term divided by the nominal m, while the last batch is smaller",
        _data_factor(_short_last_batch),
        ("last_batch", "sum_over_batch", "factor"),
    ),
    Mutation("accumulated", "the gradient added twice to a buffer", _accumulated, ("accumulated", "factor")),
    Mutation("clipped", "every coordinate clipped at +-c", _clipped, ("clipped",)),
    Mutation("float32", "the backward pass runs in float32", _float32, ("float32",)),
)
