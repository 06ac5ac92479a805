"""The forms of code that people bring, and the one that everything else here is written for.

That is a loss and a gradient of a tree of float arrays. `plain` makes it of a function that returns both, of
parameters that an object holds, of numbers in a list, of pandas, and of complex numbers.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastcheck.errors import InputError, LossError
from fastcheck.gradients import matched
from fastcheck.held import Attributes, Called
from fastcheck.kinds import COMPLEX, PLAIN, Kind, kind_of
from fastcheck.losses.batched import Batched
from fastcheck.losses.evaluator import MeasuresItself
from fastcheck.parameters import ROOT, leaves, rebuilt, vectors

__all__ = ["Form", "Plain", "plain", "plain_products", "takes", "written"]


@dataclass(frozen=True)
class Form:
    """How the user's parameters become a plain tree, and back.

    Attributes
    ----------
    template : tree
        The user's containers.
    names : tuple of str
        Of its leaves.
    kinds : tuple of Kind
        What they are.
    held : Attributes or None
        The object that holds the parameters.
    """

    template: Any = dataclasses.field(repr=False)
    names: tuple[str, ...]
    kinds: tuple[Kind, ...]
    held: Attributes | None = None

    @classmethod
    def of(cls, params: Any, name: str = "params") -> tuple[Form, Any]:
        """Return the form of parameters, and the parameters as a plain tree."""
        held = None
        if isinstance(params, Attributes):  # anew: what the object holds may have changed since
            held = Attributes(params.target, params.names, params.found)
            params = held.tree
        tree = vectors(params) if list(leaves(params)) else params
        if isinstance(tree, np.ndarray) and tree is not params and tree.dtype.kind == "i":
            tree = tree.astype(float)  # x0 = [1, 2], as scipy takes it
        found = list(leaves(tree))
        names = tuple(".".join(path) or ROOT for path, _ in found)
        kinds = tuple(kind_of(leaf) for _, leaf in found)
        form = cls(rebuilt(tree, [None] * len(found)), names, kinds, held)
        return form, tree if form.ordinary else form.named([leaf for _, leaf in found])

    @property
    def ordinary(self) -> bool:
        """Whether the plain tree is the user's own."""
        return all(kind is PLAIN for kind in self.kinds)

    @property
    def complexes(self) -> tuple[str, ...]:
        """Names of the complex leaves."""
        return tuple(name for name, kind in zip(self.names, self.kinds, strict=True) if kind is COMPLEX)

    def named(self, found: Sequence[Any]) -> dict[str, Any]:
        """Return the parts of leaves, or of their gradients, by name."""
        split = zip(
            self.names, self.kinds, (k.split(leaf) for k, leaf in zip(self.kinds, found, strict=True)), strict=True
        )
        return {name + end: part for name, kind, parts in split for end, part in zip(kind.suffixes, parts, strict=True)}

    def user(self, tree: Any) -> Any:
        """Return a plain tree as the user's."""
        if self.ordinary:
            return tree
        kinds = zip(self.names, self.kinds, strict=True)
        return rebuilt(self.template, [kind.join([tree[name + end] for end in kind.suffixes]) for name, kind in kinds])

    def plain(self, gradient: Any, name: str = "gradient", of: str = "params") -> Any:
        """Return a gradient of the user's, in any spelling, as one of the plain tree.

        Raises
        ------
        InputError
            A block is missing or ambiguous.
        """
        if self.ordinary and self.held is None:
            return gradient
        try:
            found, extras = matched(gradient, self.names, name=name, of=of)
        except InputError as error:
            raise InputError(f"{error}{self._hint(gradient)}") from None
        return gradient if self.ordinary else extras | self.named([found[one][1] for one in self.names])

    def _hint(self, gradient: Any) -> str:
        """Return what else there is to say of a gradient that does not fit parameters that an object holds."""
        if self.held is None:
            return ""
        if gradient is None:
            return f" It takes no note of what backward left in attributes: return {{{self.names[0]!r}: ...}} of them."
        if self.held.found:
            return (
                " Without names, attributes() takes all float arrays: name the parameters, attributes(net, 'W1', ...)."
            )
        return ""


@dataclass(frozen=True)
class Given:
    """A function of the user's parameters as one of the plain tree; what it returns is left as it is."""

    function: Callable[..., Any]
    form: Form

    def __call__(self, tree: Any, *args: Any) -> Any:
        """Call it."""
        return self.function(self.form.user(tree), *args)


def _as_it_is(found: Any) -> Any:
    return found


@dataclass(frozen=True)
class Returned:
    """A function that returns a gradient of the user's parameters, as one that returns it of the plain tree."""

    function: Callable[..., Any]
    form: Form
    complete: Callable[[Any], Any] = _as_it_is
    name: str = "gradient"
    of: str = "params"

    def __call__(self, *args: Any) -> Any:
        """Call it."""
        return self.form.plain(self.complete(self.function(*args)), self.name, self.of)


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
    """A loss and a gradient of a tree of float arrays.

    Attributes
    ----------
    loss : callable
        ``loss(params, *args)``.
    gradient : tree or callable
        Of the same parameters.
    params : tree of float arrays
        Where to check.
    form : Form
        How the parameters were brought.
    """

    loss: Callable[..., Any]
    gradient: Any
    params: Any
    form: Form


@contextlib.contextmanager
def plain(
    loss: Any, gradient: Any, params: Any, *, matched: bool = True, complete: Callable[[Any], Any] = _as_it_is
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


@contextlib.contextmanager
def plain_products(
    function: Any, product: Any, inputs: Any, name: str, *, like: tuple[bool, bool, bool] = (False, False, False)
) -> Iterator[tuple[Any, Any, Any]]:
    """Give a function and a product with its Jacobian of a tree of float arrays.

    Parameters
    ----------
    function, product, inputs
        As the user brings them.
    name : str
        How messages call the product.
    like : (bool, bool, bool)
        Whether the function returns, the product takes, and the product returns a tree like the inputs.

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
    if not callable(function) or not callable(product) or (form.ordinary and form.held is None):
        with contextlib.nullcontext() if form.held is None else form.held.kept():
            yield function, product, tree
        return
    function, product = _given(function, form), _given(product, form, function, 1)
    if like[0]:
        function = Returned(function, form)
    if like[1]:
        product = _Vector(product, form)
    if like[2]:
        product = Returned(product, form, name=name, of="inputs")
    with contextlib.nullcontext() if form.held is None else form.held.kept():
        yield function, product, tree


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
    which = "a fastcheck.batched loss" if isinstance(loss, Batched) else "a bound Network"
    if not isinstance(loss, (Batched, MeasuresItself)):
        return
    if gradient is True:
        raise InputError(f"gradient=True: {which} returns no gradient with its values; pass the gradient itself.")
    if form.held is not None or not form.ordinary:
        kind = "attributes()" if form.held is not None else "complex numbers, pandas or numpy.matrix"
        raise InputError(f"params: {which} takes a tree of float arrays, not {kind}. Pass plain arrays.")


def written(function: Any) -> Any:
    """Return the function as the user wrote it."""
    while isinstance(getattr(function, "__self__", function), (Both, Called, Given, Returned)):
        function = getattr(function, "__self__", function).function
    return function


def takes(function: Any) -> str:
    """Return what the user's function is called with, beside args."""
    while isinstance(getattr(function, "__self__", function), (Both, Given)):
        function = getattr(function, "__self__", function).function
    return "args alone" if isinstance(function, Called) else "a tree like params"


def _said(value: Any) -> str:
    return f"{len(value)} values" if isinstance(value, (tuple, list)) else f"one {type(value).__name__}"
