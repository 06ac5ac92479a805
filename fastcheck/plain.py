"""A loss and a gradient of a tree of float arrays, of whatever the user brings; see `fastcheck.forms`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastcheck.domain import Box, Continued, Inside
from fastcheck.errors import InputError, LossError
from fastcheck.forms import Form, Given, Returned, as_it_is
from fastcheck.held import Called
from fastcheck.losses import structured
from fastcheck.parameters import leaves
from fastcheck.replay import Replayed

__all__ = ["Plain", "plain", "plain_products", "takes", "within", "written"]


class Both:
    """A function that returns ``(loss, gradient)``, as the two functions; one call is an evaluation of the loss.

    The gradient of the last call is kept until the gradient is first asked for: at the same parameters it then costs
    no call of its own.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self._last: tuple[list[Any], Any] | None = None
        self._asked = False

    def __reduce__(self) -> tuple[Any, ...]:
        return Both, (self.function,)

    def value(self, tree: Any, *args: Any) -> Any:
        """Return the loss."""
        at = None if self._asked else [np.array(leaf) for _, leaf in leaves(tree)]
        value, gradient = self._pair(tree, args)
        self._last = None if at is None else (at, gradient)
        return value

    def gradient(self, tree: Any, *args: Any) -> Any:
        """Return the gradient."""
        last, self._last, self._asked = self._last, None, True
        found = [leaf for _, leaf in leaves(tree)]
        if last is not None and all(np.array_equal(a, b) for a, b in zip(last[0], found, strict=True)):
            return last[1]
        return self._pair(tree, args)[1]

    def _pair(self, tree: Any, args: tuple[Any, ...]) -> tuple[Any, Any]:
        pair = self.function(tree, *args)
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise LossError(
                f"gradient=True: the function must return (loss, gradient), and returned {_said(pair)}. Return the "
                "two, or pass a loss and a gradient of their own."
            )
        return pair[0], pair[1]


@dataclass(frozen=True)
class Plain:
    """A loss, a gradient and the tree of float arrays that they are of; the form is how the parameters came."""

    loss: Callable[..., Any]
    gradient: Any
    params: Any
    form: Form


@contextlib.contextmanager
def plain(
    loss: Any, gradient: Any, params: Any, *, matched: bool = True, complete: Callable[[Any], Any] = as_it_is
) -> Iterator[Plain]:
    """Give a loss and a gradient of a tree of float arrays for what the user brings; what was in that form stays.

    Parameters
    ----------
    loss, gradient, params
        As of `fastcheck.check`.
    matched : bool
        There is a gradient, which fits the parameters.
    complete : callable
        Is given what the user's gradient returned, before it is matched.

    Raises
    ------
    InputError
        The loss has a form of its own that does not go with that of the parameters or of the gradient.
    """
    form, tree = Form.of(params)
    if gradient is None or gradient is False:
        raise InputError(
            f"gradient={gradient}: pass a tree like params, a function that returns one, or True where the loss "
            "returns (loss, gradient). numerical_gradient(loss, params) measures one without."
        )
    _refuse_structured(loss, gradient, form)
    given, own = _given(loss, form), gradient
    if gradient is True:
        both = Both(given)
        given, own = both.value, both.gradient
    elif callable(gradient):
        own = _given(gradient, form, loss)
    if callable(own):
        own = Returned(own, form, complete)
    elif matched:
        own = form.plain(complete(own))
    with contextlib.nullcontext() if form.held is None else form.held.kept():
        yield Plain(given, own, tree, form)


def within(problem: Plain, bounds: Any) -> Plain:
    """Return the problem with a loss that is evaluated inside bounds alone, and everywhere defined.

    Raises
    ------
    InputError
        The bounds break a rule, or the loss has a form of its own.
    """
    if bounds is None:
        return problem
    which = structured(problem.loss)
    if which:
        raise InputError(f"bounds={bounds!r}: {which} moves its parameters itself. Pass a plain loss of one set.")
    if problem.form.complexes:
        raise InputError(f"bounds={bounds!r}: {problem.form.complexes[0]} is complex, and complex numbers have none.")
    box = Box.of(bounds, problem.params)
    gradient = Inside(problem.gradient, box) if callable(problem.gradient) else problem.gradient
    return replace(problem, loss=Continued(problem.loss, box), gradient=gradient)


@contextlib.contextmanager
def plain_products(
    function: Any, product: Any, inputs: Any, name: str, *, like: tuple[bool, bool, bool] = (False, False, False)
) -> Iterator[tuple[Any, Any, Any]]:
    """Give a function and a product with its Jacobian, called `name`, of a tree of float arrays.

    `like` says whether the function returns, the product takes, and the product returns a tree like the inputs.

    Raises
    ------
    InputError
        The inputs are complex.
    """
    form, tree = Form.of(inputs)
    if form.complexes:
        raise InputError(
            f"{form.complexes[0]} is complex: check_{name} takes real inputs. Pass the real and the imaginary part as "
            "two of them."
        )
    given, own = _given(function, form), _given(product, form, function, 1)
    if like[0] and callable(function):
        given = Returned(given, form)
    if like[1] and callable(product):
        own = _Vector(own, form)
    if like[2] and callable(product):
        own = Returned(own, form, name=name, of="inputs")
    with contextlib.nullcontext() if form.held is None else form.held.kept():
        yield given, own, tree


@dataclass(frozen=True)
class _Vector:
    """A product that is given a vector like the parameters."""

    function: Callable[..., Any]
    form: Form

    def __call__(self, tree: Any, vector: Any, *args: Any) -> Any:
        return self.function(tree, self.form.user(vector), *args)


def _given(function: Any, form: Form, first: Any = None, vectors: int = 0) -> Any:
    """Return a function that is called with the user's parameters, as a function of the plain tree."""
    if not callable(function):
        return function
    if form.held is not None:
        function = Called(function, form.held, first, vectors)
    return function if form.ordinary else Given(function, form)


def _refuse_structured(loss: Any, gradient: Any, form: Form) -> None:
    """Raise where a loss of a form of its own does not go with the other forms."""
    which = structured(loss)
    if not which:
        return
    if gradient is True:
        raise InputError(f"gradient=True: {which} returns no gradient with its values; pass the gradient itself.")
    if form.held is not None or not form.ordinary:
        kind = "attributes()" if form.held is not None else "complex numbers, pandas or numpy.matrix"
        raise InputError(f"params: {which} takes a tree of float arrays, not {kind}. Pass plain arrays.")


WRAPPERS = (Both, Called, Continued, Given, Inside, Replayed, Returned)


def written(function: Any) -> Any:
    """Return the function as the user wrote it."""
    while isinstance(getattr(function, "__self__", function), WRAPPERS):
        function = getattr(function, "__self__", function).function
    return function


def takes(function: Any) -> str:
    """Return what the user's function is called with, beside args."""
    while isinstance(getattr(function, "__self__", function), (Both, Continued, Given, Inside, Replayed)):
        function = getattr(function, "__self__", function).function
    return "args alone" if isinstance(function, Called) else "a tree like params"


def _said(value: Any) -> str:
    return f"{len(value)} values" if isinstance(value, (tuple, list)) else f"one {type(value).__name__}"
