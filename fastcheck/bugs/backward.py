"""Bugs of the backward pass itself: wrong sums, wrong derivatives, wrong moments."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastcheck.bugs.mutation import Mutation, Planted, Rule, Subject
from fastcheck.bugs.places import contribution
from fastcheck.parameters import Block

__all__ = ["BACKWARD"]


def _bias_over_all(subject: Subject, rng: np.random.Generator) -> Planted | None:
    """Sum dZ over its units too (``np.sum`` without an axis): one number, broadcast to every unit.

    Behind a softmax that number is zero, and the bug no other than a block never filled in: not planted here.
    """

    def fits(block: Block) -> bool:
        g = subject.g[block.slice]
        return block.name in subject.net.biases and block.size > 1 and abs(g.sum()) > 1e-3 * np.linalg.norm(g)

    block = subject.pick(rng, fits)
    return None if block is None else Planted(subject.changed(block, block.view(subject.g).sum()))


def _bias_last_sample(subject: Subject, rng: np.random.Generator) -> Planted | None:
    """Assign dZ where it should be summed: the last sample alone is left."""
    block = subject.pick(rng, lambda b: b.name in subject.net.biases)
    part = contribution(subject, np.array([subject.net.batch - 1]))
    return None if block is None or part is None else Planted(subject.changed(block, block.view(part)))


def _stale(subject: Subject, rng: np.random.Generator) -> Planted | None:
    """Return the gradient at the parameters of one descent step earlier, 1% of theta away: theta + rate * gradient."""
    if not callable(subject.net.gradient) or not np.any(subject.g):
        return None
    rate = 0.01 * np.linalg.norm(subject.theta) / np.linalg.norm(subject.g)
    before = subject.g
    for _ in range(200):
        after = subject.at(subject.theta + rate * before)
        if np.linalg.norm(after - before) <= 1e-14 * np.linalg.norm(after):
            return Planted(after, {"rate": float(rate)})
        before = after
    return None


def _mean_of_means(subject: Subject, rng: np.random.Generator) -> Planted | None:
    """Average the means of smaller batches, as if the last were not smaller than the others."""
    batch = subject.net.batch
    size = -(-2 * batch // 5)
    chunks = [np.arange(start, min(start + size, batch)) for start in range(0, batch, size or 1)]
    wrong = subject.penalty.copy()
    for chunk in chunks:
        part = contribution(subject, chunk)
        if part is None:
            return None
        wrong += part * (batch / len(chunk) / len(chunks))
    return Planted(wrong, {"sizes": tuple(len(chunk) for chunk in chunks)}) if chunks else None


def _made_in_backward(kind: str) -> Rule:
    """Return the rule that runs the net's own backward pass with a bug in it."""

    def rule(subject: Subject, rng: np.random.Generator) -> Planted | None:
        net = subject.net
        return Planted(subject.flat(net.bugs[kind](net.params, *net.args))) if kind in net.bugs else None

    return rule


def _own(kind: str, description: str, *findings: str, told_in: Callable[[Subject], str] | None = None) -> Mutation:
    return Mutation(kind, description, _made_in_backward(kind), findings, told_in)


def _last_block(subject: Subject) -> str:
    """Return the name of the scores' bias: only of the output is it known that it stands before a softmax."""
    return subject.layout.blocks[-1].name


BACKWARD = (
    Mutation("bias_over_all", "a bias gradient summed over its units too", _bias_over_all, ("bias_sum",)),
    Mutation("bias_last_sample", "a bias gradient of the last sample, not the sum", _bias_last_sample, ("one_sample",)),
    Mutation("stale", "the gradient at the parameters before the last update", _stale, ("stale",)),
    Mutation("mean_of_means", "a mean over batches of which the last is smaller", _mean_of_means, ("mean_of_means",)),
    _own("missing_activation_derivative", "the activation's derivative is forgotten"),
    _own("wrong_activation_derivative", "the derivative of another activation"),
    _own("missing_output_derivative", "the output sigmoid's derivative counted wrongly"),
    _own("softmax_diagonal", "a softmax Jacobian without its cross terms", "softmax", told_in=_last_block),
    _own("dropout_backward", "a dropout mask applied forward only"),
    _own("off_by_one_time", "the state after a time step taken for the one before"),
    _own("truncated_time", "backprop through time stopped after three steps"),
    _own("reshaped_not_transposed", "a reshape where a transpose belongs, in every weight", "order", "transpose"),
    _own("leak_dropped", "relu's derivative for leaky relu's"),
    _own("hinge_counted_once", "the true class pushed once, not once for every violated margin"),
    _own("pool_everywhere", "max pooling's gradient handed to the whole window"),
    _own("missing_scale", "attention's 1/sqrt(d) forgotten backward", "factor"),
    _own("query_key_swapped", "query and key exchanged backward", "swapped"),
    _own("constant_statistics", "batch mean and variance taken for constants"),
    _own("repeats_overwritten", "repeated words of an embedding added once"),
    _own("skip_forgotten", "the gradient through the skip connection is forgotten"),
    _own("tied_once", "tied weights: the encoder's part is forgotten"),
)
