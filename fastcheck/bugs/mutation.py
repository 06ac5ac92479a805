"""What a mutation is, and what it works on: a problem that also knows its batch, its regulariser, its layers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np

from fastcheck.arrays import FloatArray, IntArray
from fastcheck.parameters import Block, Parameters
from fastcheck.problem import Problem

__all__ = ["Mutated", "Mutation", "Net", "Planted", "Rule", "Subject", "rows", "with_bugs"]


@dataclass(frozen=True)
class Net(Problem):
    """A `Problem` with a hand-written backward pass, and the facts that bugs are made of.

    Attributes
    ----------
    batch : int
        Number m of samples over which the loss is a mean; 0 where it is not a mean over samples.
    classes : int
        Number of classes of a softmax cross-entropy, else 0.
    decay : mapping
        Block name -> lambda of ``lambda / 2 * sum(W**2)``, a part of the loss that is not averaged over the batch.
    lasso : mapping
        Block name -> lambda of ``lambda * sum(|W|)``.
    biases : tuple of str
        The blocks that are biases, one entry per unit.
    take : callable or None
        ``take(args, indices)`` returns the args of a smaller batch; None where samples act on one another.
    bugs : mapping
        Kind of bug -> a backward pass in which that bug was really made, called like ``gradient``.
    """

    batch: int = 0
    classes: int = 0
    decay: Mapping[str, float] = field(default_factory=dict)
    lasso: Mapping[str, float] = field(default_factory=dict)
    biases: tuple[str, ...] = ()
    take: Callable[[tuple[Any, ...], IntArray], tuple[Any, ...]] | None = field(default=None, repr=False)
    bugs: Mapping[str, Callable[..., Any]] = field(default_factory=dict, repr=False)


def rows(args: tuple[Any, ...], indices: IntArray) -> tuple[Any, ...]:
    """Return the samples `indices` of args whose arrays have one sample per row; numbers are kept, tuples descended."""

    def pick(arg: Any) -> Any:
        if isinstance(arg, tuple):
            return rows(arg, indices)
        return arg[indices] if isinstance(arg, np.ndarray) else arg

    return tuple(pick(arg) for arg in args)


def with_bugs(gradient: Callable[..., Any], *kinds: str) -> dict[str, Callable[..., Any]]:
    """Return kind -> the backward pass `gradient` with its keyword ``bug`` set to that kind."""
    return {kind: partial(gradient, bug=kind) for kind in kinds}


NEGLIGIBLE = 1e-3  # relative to the largest entry of a block
UNCHANGED = 1e-12  # relative: below it a block differs by rounding alone


@dataclasses.dataclass(frozen=True)
class Subject:
    """A problem taken apart: its layout, theta, and its correct gradient as a flat vector."""

    net: Net
    layout: Parameters
    theta: FloatArray

    @classmethod
    def of(cls, problem: Problem) -> Subject:
        """Take a problem apart; one that is no `Net` has none of the facts that some bugs need."""
        shared = {field.name: getattr(problem, field.name) for field in dataclasses.fields(Problem)}
        net = problem if isinstance(problem, Net) else Net(**shared)
        layout = Parameters.of(net.params)
        return cls(net, layout, layout.flatten(net.params))

    @cached_property
    def g(self) -> FloatArray:
        """The correct gradient, shape (P,)."""
        return self.flat(self.net.claimed())

    @cached_property
    def penalty(self) -> FloatArray:
        """The part of the gradient that comes from L2 and L1, shape (P,)."""
        part = np.zeros_like(self.theta)
        for name, rate in self.net.decay.items():
            part[self.layout[name].slice] += rate * self.theta[self.layout[name].slice]
        for name, rate in self.net.lasso.items():
            part[self.layout[name].slice] += rate * np.sign(self.theta[self.layout[name].slice])
        return part

    def flat(self, gradient: Any) -> FloatArray:
        """Return a gradient as a flat vector; a dict with ``dW1`` for ``W1`` is understood."""
        names = [block.name for block in self.layout.blocks]
        if isinstance(gradient, Mapping) and all(f"d{name}" in gradient for name in names):
            gradient = {name: gradient[f"d{name}"] for name in names}
        return self.layout.flatten(gradient)

    def at(self, theta: FloatArray) -> FloatArray:
        """Return the correct gradient at another theta."""
        return self.flat(self.net.gradient(self.layout.unflatten(theta), *self.net.args))

    def blocks(self, fits: Callable[[Block], bool] = lambda block: True) -> list[Block]:
        """Return the blocks that fit and whose gradient is not negligible."""
        floor = 1e-6 * np.linalg.norm(self.g)
        return [b for b in self.layout.blocks if b.size and np.linalg.norm(self.g[b.slice]) > floor and fits(b)]

    def pick(self, rng: np.random.Generator, fits: Callable[[Block], bool] = lambda block: True) -> Block | None:
        """Return one of `blocks` at random, or None when there is none."""
        blocks = self.blocks(fits)
        return blocks[rng.integers(len(blocks))] if blocks else None

    def nonzero(self, block: Block) -> int:
        """Return how many entries of a block's gradient are not negligible beside its largest."""
        size = np.abs(self.g[block.slice])
        return int(np.count_nonzero(size > NEGLIGIBLE * size.max(initial=0.0)))

    def changed(self, block: Block, value: Any) -> FloatArray:
        """Return a copy of the gradient with one block replaced by `value`, of the block's shape."""
        wrong = self.g.copy()
        block.view(wrong)[...] = value
        return wrong


@dataclasses.dataclass(frozen=True)
class Planted:
    """A wrong gradient, shape (P,), and the numbers that describe the bug (factor, axis, index, ...)."""

    gradient: FloatArray
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)


Rule = Callable[[Subject, np.random.Generator], Planted | None]


@dataclasses.dataclass(frozen=True)
class Mutated:
    """A problem with a planted bug.

    Attributes
    ----------
    problem : Problem
        Its ``gradient`` is the wrong one, a tree like ``params``.
    kind : str
        Kind of the mutation.
    findings : tuple of str
        The finding kinds that name this bug rightly, the best first; empty where the gradient alone can't tell.
    errors : mapping
        Wrong block -> norm of its error over norm of the correct block (of the whole gradient where that is zero).
    facts : mapping
        The planted numbers: ``factor``, ``axis``, ``index``, ``lambda``, ``other`` block, ...
    """

    problem: Problem
    kind: str
    findings: tuple[str, ...]
    errors: Mapping[str, float]
    facts: Mapping[str, Any]

    @property
    def blocks(self) -> tuple[str, ...]:
        """Names of the wrong blocks, in the order of theta."""
        return tuple(self.errors)


@dataclasses.dataclass(frozen=True)
class Mutation:
    """A kind of gradient bug, and how it is planted.

    Attributes
    ----------
    kind : str
        Unique name.
    description : str
        What the author of such a gradient did.
    rule : callable
        ``rule(subject, rng)``, see `apply`.
    findings : tuple of str
        See `Mutated`. A bug is *identifiable* where it has any: where the gradient, the loss and its data, without
        any knowledge of the layers, tell it from every other kind of the catalogue.
    told_in : callable, optional
        ``told_in(subject)`` names the block in which the bug must show for that; elsewhere it is not identifiable.
    """

    kind: str
    description: str
    rule: Rule = dataclasses.field(repr=False)
    findings: tuple[str, ...] = ()
    told_in: Callable[[Subject], str] | None = dataclasses.field(default=None, repr=False)

    def apply(self, problem: Problem, rng: np.random.Generator) -> Mutated | None:
        """Plant the bug in a correct gradient; None where it makes no sense on this problem, or would change nothing.

        A `Net` also allows the bugs that need its batch, its regulariser or its layers. `rng` chooses block, axis, row
        and coordinate.
        """
        subject = Subject.of(problem)
        planted = self.rule(subject, rng)
        if planted is None:
            return None
        errors = _errors(subject, planted.gradient)
        if not errors:
            return None
        tree = subject.layout.unflatten(planted.gradient)
        wrong = dataclasses.replace(problem, name=f"{problem.name}: {self.kind}", gradient=tree)
        told = self.told_in is None or self.told_in(subject) in errors
        return Mutated(wrong, self.kind, self.findings if told else (), errors, planted.facts)


def _errors(subject: Subject, wrong: FloatArray) -> dict[str, float]:
    whole, errors = float(np.linalg.norm(subject.g)), {}
    for block in subject.layout.blocks:
        norm = float(np.linalg.norm(subject.g[block.slice])) or whole
        error = float(np.linalg.norm(wrong[block.slice] - subject.g[block.slice])) / norm
        if error > UNCHANGED:
            errors[block.name] = error
    return errors
