"""A tree of float arrays <-> one flat float64 vector theta, with block names, slices and breadcrumbs.

A *block* is one array of the tree. Blocks are named by their path (``"W1"``, ``"encoder.0.weight"``); a tree that is
a single array has one block called ``"theta"``. Dicts keep the user's order. Inside theta a block's entries stand in
the block's own memory order (C, or Fortran where the array is Fortran-contiguous only), so that the tree can be
rebuilt as *views* into theta: changing theta in place changes the tree, and no evaluation copies anything.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcheck.arrays import FloatArray, IntArray
from fastcheck.errors import InputError, said, text_of

__all__ = ["Block", "Parameters", "leaves", "rebuilt", "refuse_masked", "vectors"]

Path = tuple[str, ...]

_ADAPTERS = {"torch": "torch", "jax": "jax", "jaxlib": "jax"}  # by the package that a leaf's type comes from

DEEPEST = 100  # containers inside containers; deeper lies only what contains itself

ROOT = "theta"  # the name of the only block when the tree is one bare array


@dataclasses.dataclass(frozen=True)
class Block:
    """One array of the parameter tree and its place in theta.

    Attributes
    ----------
    name : str
        Path of the block in the tree, joined with dots.
    shape : tuple of int
        Shape of the user's array; ``()`` for a scalar.
    dtype : numpy.dtype
        The user's float dtype.
    start, stop : int
        ``theta[start:stop]`` are the entries of the block.
    order : {"C", "F"}
        Memory order of the entries inside theta.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    start: int
    stop: int
    order: str = "C"

    @property
    def size(self) -> int:
        """Number of coordinates."""
        return self.stop - self.start

    @property
    def slice(self) -> slice:
        """The block's place in theta."""
        return slice(self.start, self.stop)

    def view(self, theta: NDArray[Any]) -> NDArray[Any]:
        """Return ``theta[start:stop]`` in the block's shape, as a view."""
        return theta[self.slice].reshape(self.shape, order=self.order)  # type: ignore[call-overload,no-any-return]

    def multi_index(self, coordinate: int) -> tuple[int, ...]:
        """Return the index into the user's array of a coordinate of theta that lies in this block."""
        offset = coordinate - self.start
        if not 0 <= offset < self.size:
            raise IndexError(f"coordinate={coordinate} is not in block {self.name!r} [{self.start}, {self.stop})")
        return tuple(int(i) for i in np.unravel_index(offset, self.shape, order=self.order))  # type: ignore[call-overload]

    def coordinate(self, index: Sequence[int]) -> int:
        """Return the coordinate of theta of an index into the user's array (inverse of `multi_index`)."""
        if not self.shape:
            return self.start
        return self.start + int(np.ravel_multi_index(tuple(index), self.shape, order=self.order))  # type: ignore[call-overload]

    def breadcrumb(self, coordinate: int) -> str:
        """Return ``"W1[3, 7]"`` for a coordinate of theta; a scalar block is just its name."""
        index = self.multi_index(coordinate)
        return f"{self.name}[{', '.join(map(str, index))}]" if index else self.name


def leaves(tree: Any, name: str = "params") -> Iterator[tuple[Path, Any]]:
    """Yield ``(path, leaf)`` of a nested dict, list, tuple, namedtuple or dataclass, in the user's order.

    Raises
    ------
    InputError
        The tree, which messages call by its name, contains itself, or its items can't be read.
    """
    waiting: list[tuple[Path, Any]] = [((), tree)]
    while waiting:
        path, node = waiting.pop()
        try:
            children = _children(node)
        except Exception as error:
            raise InputError(
                f"{name}{_at(path)} (type={type(node).__name__}) can't be read: its items raised {said(error)}. "
                "Pass a plain dict, list or tuple of arrays."
            ) from error
        if children is None:
            yield path, node
            continue
        if len(path) >= DEEPEST:
            raise InputError(
                f"{name} is nested more than {DEEPEST} deep, or contains itself, as at {name}{_at(path[:3])}. Pass a "
                "tree of arrays."
            )
        waiting += [((*path, key), child) for key, child in reversed(children)]


def _at(path: Path) -> str:
    return f"[{'.'.join(path)!r}]" if path else ""


@dataclasses.dataclass(frozen=True)
class Parameters:
    """The layout of one parameter tree: how it becomes a flat theta and back.

    Build it with `Parameters.of`. It holds names, shapes and dtypes, never the values.
    """

    blocks: tuple[Block, ...]
    template: Any = dataclasses.field(repr=False, compare=False)

    @classmethod
    def of(cls, tree: Any, *, name: str = "params") -> Parameters:
        """Read the layout of a tree.

        Parameters
        ----------
        tree : array or nested dict, list, tuple, namedtuple or dataclass of float arrays
            Leaves are numpy arrays, numpy floats or Python floats; other objects with ``__array__`` are converted.
        name : str
            How error messages call the tree.

        Raises
        ------
        InputError
            A leaf is not a float array, a value is not finite, two blocks have one name, or there is no coordinate.
        """
        blocks: list[Block] = []
        start = 0
        for path, leaf in leaves(tree, name):
            label = ".".join(path) or ROOT
            array = _float_leaf(leaf, f"{name}[{label!r}]" if path else name)
            order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
            blocks.append(Block(label, array.shape, array.dtype, start, start + array.size, order))
            start += array.size
        names = [block.name for block in blocks]
        label, times = next(iter(Counter(names).most_common(1)), ("", 0))
        if times > 1:
            raise InputError(
                f"{name} has two blocks called {label!r}; names are the dict keys, attributes and positions "
                "joined with dots. Rename one."
            )
        if start == 0:
            raise InputError(f"{name} has no coordinate to check (blocks: {names}). Pass at least one non-empty array.")
        return cls(tuple(blocks), _skeleton(tree))

    @property
    def size(self) -> int:
        """Number of coordinates P."""
        return self.blocks[-1].stop

    @cached_property
    def stops(self) -> IntArray:
        """The first place in theta after each block, shape (blocks,)."""
        return np.array([block.stop for block in self.blocks])

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {block.name: number for number, block in enumerate(self.blocks)}

    def __getitem__(self, name: str) -> Block:
        return self.blocks[self._numbers[name]]

    def number(self, block: Block) -> int:
        """Return which of the blocks one is, from 0."""
        return self._numbers[block.name]

    def block_at(self, coordinate: int) -> Block:
        """Return the block that holds a coordinate of theta."""
        for block in self.blocks:
            if block.start <= coordinate < block.stop:
                return block
        raise IndexError(f"coordinate={coordinate} is not in [0, {self.size})")

    def breadcrumb(self, coordinate: int) -> str:
        """Return ``"W1[3, 7]"`` for a coordinate of theta."""
        return self.block_at(coordinate).breadcrumb(coordinate)

    def flatten(self, tree: Any) -> FloatArray:
        """Return a new float64 theta, shape (P,), with the values of a tree of this layout."""
        theta = np.empty(self.size)
        for block, (_, leaf) in zip(self.blocks, leaves(tree), strict=True):
            block.view(theta)[...] = np.asarray(leaf)
        return theta

    def theta_of(self, tree: Any) -> FloatArray:
        """Return theta to be read only: where the tree is one float64 vector, that vector itself and no copy."""
        only = tree if isinstance(tree, np.ndarray) and tree.shape == (self.size,) else None
        if only is None or only.dtype != np.float64 or not only.flags.c_contiguous:
            return self.flatten(tree)
        view: FloatArray = only.view(np.ndarray)
        view.flags.writeable = False
        return view

    def unflatten(self, theta: NDArray[Any]) -> Any:
        """Return the tree whose arrays are views into theta (of theta's dtype), shape (P,)."""
        views = iter([block.view(theta) for block in self.blocks])
        return _rebuild(self.template, views)

    def unflatten_stack(self, parts: Sequence[NDArray[Any]]) -> Any:
        """Return the tree whose arrays have a leading axis of K sets, as views.

        Parameters
        ----------
        parts : sequence of array, shape (K, size of the block)
            One for each block, its entries in the block's memory order.
        """
        return _rebuild(self.template, iter([_stacked(b, part) for b, part in zip(self.blocks, parts, strict=True)]))

    def astype_user(self, theta: FloatArray) -> Any:
        """Return the tree with new arrays in the user's own dtypes, rounded from theta."""
        with np.errstate(all="ignore"):  # half precision ends at 65504
            arrays = iter([block.view(theta).astype(block.dtype) for block in self.blocks])
        return _rebuild(self.template, arrays)

    def select(self, patterns: str | Sequence[str] | None) -> tuple[Block, ...]:
        """Return the blocks whose names match any of the names or globs; all of them for None.

        Raises
        ------
        InputError
            A pattern matches no block, or is no text.
        """
        if patterns is None:
            return self.blocks
        wanted = [patterns] if isinstance(patterns, str) else patterns
        if not isinstance(wanted, Sequence) or not all(isinstance(pattern, str) for pattern in wanted):
            raise InputError(
                f"blocks={patterns!r} (type={type(patterns).__name__}) must be a name or glob, or a list of them."
            )
        if not wanted:
            raise InputError("blocks=[] selects nothing; pass None for all blocks.")
        for pattern in wanted:
            if not any(_matches(block.name, pattern) for block in self.blocks):
                names = ", ".join(block.name for block in self.blocks)
                raise InputError(f"blocks={pattern!r} matches no block; the blocks are: {names}.")
        return tuple(block for block in self.blocks if any(_matches(block.name, pattern) for pattern in wanted))


def _stacked(block: Block, part: NDArray[Any]) -> NDArray[Any]:
    if block.order == "C":
        return part.reshape(len(part), *block.shape)
    return part.reshape(len(part), *block.shape[::-1]).transpose(0, *range(len(block.shape), 0, -1))


def _matches(name: str, pattern: str) -> bool:
    return name == pattern or fnmatch.fnmatchcase(name, pattern)


def _is_namedtuple(tree: Any) -> bool:
    return isinstance(tree, tuple) and hasattr(tree, "_fields")


def _children(tree: Any) -> list[tuple[str, Any]] | None:
    """Return the named children of a container, or None for a leaf."""
    if type(tree) is np.ndarray:
        return None
    if isinstance(tree, Mapping):
        return [(str(key), child) for key, child in tree.items()]
    if _is_namedtuple(tree):
        return list(zip(tree._fields, tree, strict=True))
    if isinstance(tree, (list, tuple)):
        return [(str(i), child) for i, child in enumerate(tree)]
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        return [(field.name, getattr(tree, field.name)) for field in dataclasses.fields(tree)]
    return None


def _build(tree: Any, children: list[Any]) -> Any:
    """Return a container like `tree` with other children."""
    if isinstance(tree, Mapping):
        return _like(tree, dict(zip(tree.keys(), children, strict=True)), dict)
    if _is_namedtuple(tree):
        return tuple.__new__(type(tree), children)  # without its own __new__, which may validate, convert or draw
    if isinstance(tree, (list, tuple)):
        return _like(tree, children, list if isinstance(tree, list) else tuple)
    new = object.__new__(type(tree))  # a dataclass: without __init__, which may validate, convert or draw
    for field, child in zip(dataclasses.fields(tree), children, strict=True):
        object.__setattr__(new, field.name, child)
    return new


def _like(tree: Any, items: Any, plain: type) -> Any:
    """Return a container of the tree's type, or where that takes no items (a defaultdict, say), a plain one."""
    if type(tree) is plain:
        return plain(items)
    try:
        new = type(tree)(items)
        return new if len(new) == len(items) else plain(items)
    except Exception:
        return plain(items)


def _rebuild(template: Any, arrays: Iterator[Any]) -> Any:
    children = _children(template)
    if children is None:
        return next(arrays)
    return _build(template, [_rebuild(child, arrays) for _, child in children])


def rebuilt(tree: Any, others: Iterable[Any]) -> Any:
    """Return a tree of the same containers with other leaves."""
    return _rebuild(tree, iter(others))


def vectors(tree: Any) -> Any:
    """Return a tree with every list and tuple of numbers in it as an array, as numpy and scipy take it."""
    if type(tree) in (list, tuple) and tree and all(map(_is_number, tree)):
        return np.asarray(tree)
    children = _children(tree)
    if children is None:
        return tree
    changed = [vectors(child) for _, child in children]
    return tree if all(new is old for new, (_, old) in zip(changed, children, strict=True)) else _build(tree, changed)


def _is_number(item: Any) -> bool:
    return isinstance(item, (int, float, complex, np.number)) and not isinstance(item, bool)


def _skeleton(tree: Any) -> Any:
    """Return the tree with its arrays dropped, so that a layout keeps no values alive."""
    count = sum(1 for _ in leaves(tree))
    return _rebuild(tree, iter(itertools.repeat(None, count)))


def _float_leaf(leaf: Any, label: str) -> NDArray[Any]:
    """Return the leaf as an array, or say why it can't be a block."""
    array = leaf if type(leaf) is np.ndarray else _as_array(leaf, label)
    if array.dtype.kind in "iub":
        raise InputError(
            f"{label} has dtype {array.dtype}: adding a small step to integers does nothing. "
            "Use float64, e.g. params.astype(float), or pass it through args= if it is data."
        )
    if array.dtype.kind == "c":
        raise InputError(f"{label} has dtype {array.dtype}: split it into a real and an imaginary block of float64.")
    if array.dtype.kind != "f":
        raise InputError(f"{label} has dtype {array.dtype}: parameters are arrays of floats. Convert it to float64.")
    if not np.isfinite(array).all():
        bad = np.argwhere(~np.isfinite(array))[0]
        at = f"{label}{bad.tolist()}" if array.ndim else label
        raise InputError(f"{at}={array[tuple(bad)]} is not finite; no derivative exists there.")
    return array


def _as_array(leaf: Any, label: str) -> NDArray[Any]:
    """Return a leaf that is no plain array as one, or say why it can't be."""
    _refuse_others(leaf, label)
    refuse_masked(leaf, label)
    if isinstance(leaf, (str, bytes, bool)) or leaf is None or callable(leaf):
        raise InputError(
            f"{label}={leaf!r} (type={type(leaf).__name__}) is not a float array. "
            "Parameters are arrays of floats; pass everything else through args=."
        )
    try:
        return np.asarray(leaf)
    except Exception as error:
        raise InputError(
            f"{label} (type={type(leaf).__name__}) can't be read as an array: {text_of(error)}. Convert it to a numpy "
            "array."
        ) from error


def refuse_masked(leaf: Any, label: str) -> None:
    """Raise where a mask would be lost: what it hides would be checked, or pass for checked.

    Raises
    ------
    InputError
        The leaf, which messages call by its label, is a masked array.
    """
    if isinstance(leaf, np.ma.MaskedArray):
        raise InputError(
            f"{label} (type={type(leaf).__name__}) is a masked array, and its mask would be lost. Pass .filled(value), "
            "with the value that the masked entries have, or leave them out of the parameters: .compressed()."
        )


def _refuse_others(leaf: Any, label: str) -> None:
    """Say which adapter a tensor, an array of jax or a module of torch is for."""
    homes = {base.__module__.partition(".")[0] for base in type(leaf).__mro__}
    for package, adapter in _ADAPTERS.items():
        if package in homes:
            raise InputError(
                f"{label} (type={type(leaf).__name__}) belongs to {adapter}: call fastcheck.{adapter}.check(loss, "
                "params) for a loss written in it. For a loss of numpy arrays, convert it to one (.detach().numpy(), "
                "numpy.asarray)."
            )
