"""A product with the Hessian of a loss: checked against differences of its gradient, which is checked before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from fastcheck.adapters.checking import measured, multiplied
from fastcheck.adapters.precision import weights_like
from fastcheck.adapters.second import FIRST
from fastcheck.products import check_hvp
from fastcheck.report import Report

__all__ = ["Curvature", "curvature"]


class Loss(Protocol):
    """A loss of a framework with a product with its Hessian."""

    own: set[str]
    narrowed: set[str]
    args: tuple[Any, ...]

    @property
    def eps(self) -> float:
        """Of its own precision."""

    def params(self) -> dict[str, Any]:
        """Return where it is looked at."""

    def gradient(self, tree: Mapping[str, Any], *args: Any) -> dict[str, Any]:
        """Return its gradient."""

    def derivative(self, tree: Mapping[str, Any], own: bool = False) -> dict[str, Any]:
        """Return its gradient, in its own precision if asked."""

    def multiply(self, tree: Mapping[str, Any], vector: Mapping[str, Any], own: bool = False) -> dict[str, Any]:
        """Return H v."""


class Curvature:
    """The product with a Hessian as what is compared in two precisions; see `fastcheck.adapters.precision.Subject`.

    Parameters
    ----------
    loss : Loss
    """

    def __init__(self, loss: Loss) -> None:
        self._loss, self.own, self.narrowed = loss, loss.own, loss.narrowed

    @property
    def eps(self) -> float:
        """See `Subject`."""
        return self._loss.eps

    def params(self) -> dict[str, Any]:
        """See `Subject`."""
        return self._loss.params()

    def derivative(self, tree: Mapping[str, Any], own: bool = False) -> dict[str, Any]:
        """See `Subject`: H v for one random v."""
        return self._loss.multiply(tree, weights_like(tree), own)


def curvature(
    loss: Loss, value: Callable[..., Any], options: Mapping[str, Any], call: str
) -> tuple[Report, Curvature | Loss]:
    """Check the gradient of a loss, and if that is right, the product with its Hessian.

    Parameters
    ----------
    loss : Loss
    value : callable
        What it returns, of a dict of arrays and its arguments.
    options : mapping
        As for `fastcheck.check_hvp`.
    call : str
        How the report says that it is repeated.

    Returns
    -------
    report : Report
        Of the product; of the gradient, if that does not pass.
    subject : Curvature or Loss
        What the report is about.
    """
    known = {name: option for name, option in options.items() if name not in ("tangents", "cotangents")}
    first = measured(value, loss.gradient, loss.params(), loss.args, known, call)
    if not first.passed:
        return replace(first, findings=(FIRST, *first.findings)), loss

    def gradient(tree: Mapping[str, Any]) -> dict[str, Any]:
        return loss.gradient(tree, *loss.args)

    return multiplied(check_hvp, gradient, loss.multiply, loss.params(), options, call), Curvature(loss)
