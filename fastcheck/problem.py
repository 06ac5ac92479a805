"""What a gradient check is about: a loss, its claimed gradient, and where to look."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Problem"]


@dataclass(frozen=True)
class Problem:
    """A loss, its claimed gradient and the parameters at which they are compared.

    Attributes
    ----------
    loss : callable
        ``loss(params, *args) -> float``.
    gradient : callable, tree or True
        ``gradient(params, *args)`` returns a tree like ``params`` (or a dict with ``dW1`` for ``W1``), or that tree;
        True where the loss returns ``(loss, gradient)``.
    params : tree of float arrays
        An array, or a nested dict, list, tuple, namedtuple or dataclass of arrays, or another form that
        `fastcheck.check` takes.
    args : tuple
        Further positional arguments of the loss, and of the gradient where it is callable.
    name : str
        A short name, for reports.
    description : str
        One sentence for people.
    """

    loss: Callable[..., float] = field(repr=False)
    gradient: Any = field(repr=False)
    params: Any = field(repr=False)
    args: tuple[Any, ...] = field(default=(), repr=False)
    name: str = field(default="", kw_only=True)
    description: str = field(default="", kw_only=True)

    def value(self) -> float:
        """Return the loss at ``params``."""
        from fastcheck.losses.evaluator import as_float
        from fastcheck.plain import plain

        with plain(self.loss, self.gradient, self.params) as problem:
            return as_float(problem.loss(problem.params, *self.args))

    def claimed(self) -> Any:
        """Return the claimed gradient at ``params``: the tree itself, or what the callable returns."""
        from fastcheck.plain import plain

        with plain(self.loss, self.gradient, self.params) as problem:
            return problem.gradient(problem.params, *self.args) if callable(problem.gradient) else self.gradient
