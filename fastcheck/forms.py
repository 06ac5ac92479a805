"""The forms of code that people bring, and the one that everything else here is written for.

That is a loss and a gradient of a tree of float arrays. Here are the other forms of the parameters and of their
gradient: held by an object, numbers in a list, pandas, complex numbers; `fastcheck.plain` makes the one of all of them.

A leaf that is no plain array of floats has a kind: how it becomes real float arrays, its *parts*, and is made again
from them. Most leaves have one part, a complex array has two.
"""

from __future__ import annotations

import dataclasses
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcheck.errors import InputError
from fastcheck.gradients import matched
from fastcheck.held import Attributes
from fastcheck.parameters import ROOT, leaves, rebuilt, vectors

__all__ = ["Form", "Given", "Kind", "Returned", "as_it_is"]


# -- kinds of leaf ----------------------------------------------------------------------------------------------------


class Kind(ABC):
    """How a leaf of the user's becomes real arrays and back.

    Attributes
    ----------
    suffixes : tuple of str
        What the name of the leaf is followed by in the name of each of its parts.
    """

    suffixes: tuple[str, ...] = ("",)

    def split(self, leaf: Any) -> Sequence[Any]:
        """Return the parts of a leaf of this kind, or of its gradient."""
        return (leaf,)

    @abstractmethod
    def join(self, parts: Sequence[NDArray[Any]]) -> Any:
        """Return the leaf with these parts, as the loss takes it; as views of them where that is possible."""


class _Plain(Kind):
    def join(self, parts: Sequence[NDArray[Any]]) -> Any:
        return parts[0]


class _Matrix(Kind):
    """A `numpy.matrix`: ``*`` is its product, which the loss relies on."""

    def split(self, leaf: Any) -> Sequence[Any]:
        return (np.asarray(leaf),)

    def join(self, parts: Sequence[NDArray[Any]]) -> Any:
        return parts[0].view(np.matrix)


class _Complex(Kind):
    """Complex numbers: their real and their imaginary parts.

    The gradient of a real loss J is dJ/dRe + i dJ/dIm: the direction in which J rises fastest.
    """

    suffixes = (".real", ".imag")

    def split(self, leaf: Any) -> Sequence[Any]:
        array = np.asarray(leaf)
        if array.dtype.kind not in "fiuc":  # no number: the message is the one of all leaves
            return (leaf, leaf)
        return (array.real, array.imag)

    def join(self, parts: Sequence[NDArray[Any]]) -> Any:
        real, imag = parts
        if real.dtype.kind == "c":
            raise InputError("scheme='complex' is for real parameters; these are complex. Use scheme='central'.")
        array = np.empty(real.shape, np.result_type(real.dtype, np.complex64))
        array.real, array.imag = real, imag
        return array


@dataclass(frozen=True)
class _Pandas(Kind):
    """A Series or a DataFrame: the loss gets one with the same labels, and gradients are aligned to them."""

    make: Any
    labels: dict[str, Any]
    name: Any

    @classmethod
    def of(cls, leaf: Any) -> _Pandas:
        labels = {"index": leaf.index} | ({"columns": leaf.columns} if leaf.ndim == 2 else {})
        return cls(type(leaf), labels, getattr(leaf, "name", None) if leaf.ndim == 1 else None)

    def split(self, leaf: Any) -> Sequence[Any]:
        if _is_pandas(leaf) and leaf.ndim == len(self.labels):
            for axis, labels in self.labels.items():
                own = getattr(leaf, axis)
                same = own.is_unique and labels.is_unique and len(own) == len(labels) and labels.isin(own).all()
                leaf = leaf.reindex(**{axis: labels}) if same and not own.equals(labels) else leaf
        return (leaf.to_numpy() if _is_pandas(leaf) else leaf,)

    def join(self, parts: Sequence[NDArray[Any]]) -> Any:
        named = {"name": self.name} if len(self.labels) == 1 else {}
        return self.make(parts[0], copy=False, **self.labels, **named)


PLAIN, MATRIX, COMPLEX = _Plain(), _Matrix(), _Complex()


def kind_of(leaf: Any) -> Kind:
    """Return the kind of a leaf of params."""
    if _is_pandas(leaf):
        return _Pandas.of(leaf)
    if isinstance(leaf, np.matrix) and leaf.dtype.kind == "f":
        return MATRIX
    if isinstance(leaf, (np.ndarray, np.generic, complex)) and np.iscomplexobj(leaf):
        return COMPLEX
    return PLAIN


def _is_pandas(leaf: Any) -> bool:
    pandas = sys.modules.get("pandas")  # a Series can't exist where this is not loaded
    return pandas is not None and isinstance(leaf, (pandas.Series, pandas.DataFrame))


# -- forms of parameters ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Form:
    """How the user's parameters become a plain tree, and back.

    The template is the user's containers, of whose leaves there are names and kinds; `held` is who holds the
    parameters, if an object does.
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
        if self.held is not None and len(self.names) == 1 and isinstance(gradient, (np.ndarray, float)):
            gradient = {self.names[0]: gradient}  # of the only one that the object was asked for
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


def as_it_is(found: Any) -> Any:
    """Return what it is given."""
    return found


@dataclass(frozen=True)
class Returned:
    """A function that returns a gradient of the user's parameters, as one that returns it of the plain tree."""

    function: Callable[..., Any]
    form: Form
    complete: Callable[[Any], Any] = as_it_is
    name: str = "gradient"
    of: str = "params"

    def __call__(self, *args: Any) -> Any:
        """Call it."""
        return self.form.plain(self.complete(self.function(*args)), self.name, self.of)
