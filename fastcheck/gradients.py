"""The analytic gradient: called, matched to the parameters block by block, and made one flat vector."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcheck.arrays import FloatArray
from fastcheck.errors import InputError, LossError, text_of
from fastcheck.parameters import ROOT, Parameters, leaves, refuse_masked

__all__ = ["Analytic", "match_gradient", "matched", "spellings"]

ROUNDINGS = 32.0  # of numbers as large as the whole gradient, in each block that the way back passes
SPELLINGS = (
    *("d{}", "d_{}", "grad_{}", "g_{}", "{}_grad", "{}.grad"),
    *("dJd{}", "dJ_d{}", "dLd{}", "dL_d{}", "dloss_d{}", "grad{}"),
)


@dataclass(frozen=True)
class Analytic:
    """The user's gradient as a flat vector.

    Attributes
    ----------
    flat : float64, shape (P,)
        In the order of theta, in units of the loss over units of the parameter.
    eps : float64, shape (blocks,)
        Unit roundoff of the arithmetic each block came in, times the number of blocks: errors grow with depth.
    extras : tuple of str
        Entries of the gradient that belong to no block.
    doubt : float64, shape (blocks,)
        Error of each block, as a norm, that arithmetic of few digits may explain; 0 where the gradient came with more
        digits than that, or with fewer than its parameters have.
    integers : tuple of str
        Blocks that came as an array of integers.
    """

    flat: FloatArray
    eps: FloatArray
    extras: tuple[str, ...]
    doubt: FloatArray
    integers: tuple[str, ...] = ()


def flat_gradient(gradient: Any, args: tuple[Any, ...], params: Any, layout: Parameters) -> FloatArray:
    """Return a gradient, or what a gradient function returns at the parameters, as a new vector, shape (P,)."""
    tree = gradient(layout.unflatten(layout.flatten(params)), *args) if callable(gradient) else gradient
    return match_gradient(tree, layout).flat


def match_gradient(gradient: Any, layout: Parameters, *, name: str = "gradient", of: str = "params") -> Analytic:
    """Match a gradient tree to the parameters by name, or by the ``dW1`` for ``W1`` convention.

    Error messages call the gradient `name` and the parameters `of`.

    Raises
    ------
    InputError
        A block is missing, ambiguous, misshapen or of another type.
    LossError
        A value is NaN or infinite.
    """
    found, extras = matched(gradient, [block.name for block in layout.blocks], name=name, of=of)
    flat = np.empty(layout.size)
    eps = np.empty(len(layout.blocks))
    integers = []
    for number, block in enumerate(layout.blocks):
        entry, leaf = found[block.name]
        array = _as_block(leaf, f"{name}[{entry!r}]", block.shape, f"{of}[{block.name!r}]")
        real = array.dtype.kind == "f"
        eps[number] = np.finfo(array.dtype if real else float).eps
        block.view(flat)[...] = array
        if not real and isinstance(leaf, np.ndarray):
            integers.append(block.name)
    return Analytic(flat, eps * len(layout.blocks), tuple(extras), _doubt(flat, eps, layout), tuple(integers))


def matched(
    gradient: Any, names: Sequence[str], *, name: str = "gradient", of: str = "params"
) -> tuple[dict[str, tuple[str, Any]], dict[str, Any]]:
    """Return for each name the entry of a gradient tree that belongs to it, and the entries that belong to none.

    The entries of the tree are its leaves; where none fits, also lists of numbers, as deep as they like.

    Raises
    ------
    InputError
        A block is missing or ambiguous, or the gradient is None.
    """
    if gradient is None:
        raise InputError(f"{name}=None: is its `return` missing? Return one array for every block of {of}.")
    found = {".".join(path) or ROOT: leaf for path, leaf in leaves(gradient, name)}
    lists = dict(_lists(gradient, ""))
    taken, chosen = set(names), {}
    for one in names:
        entry = _name_in(found, lists, one, taken, name, of)
        chosen[one] = entry, found[entry] if entry in found else lists[entry]
    used = {entry for entry, _ in chosen.values()}
    below = tuple(entry + "." for entry in used if entry not in found)
    rest = {
        e: leaf for e, leaf in found.items() if e not in used and not e.startswith(below) and ROOT + "." not in below
    }
    return chosen, rest


def spellings(name: str) -> list[str]:
    """Return how the gradient of a block may be called, beside the block's own name."""
    path, _, last = name.rpartition(".")
    return [(path + "." if path else "") + spelling.format(last) for spelling in SPELLINGS]


def _lists(tree: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield the lists and tuples of a tree by their paths: one may be the rows of an array."""
    if type(tree) in (list, tuple):
        yield path or ROOT, tree
    if type(tree) in (list, tuple, dict):
        for key, child in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from _lists(child, f"{path}.{key}" if path else str(key))


def _doubt(flat: FloatArray, eps: FloatArray, layout: Parameters) -> FloatArray:
    """Return what the rounding of blocks that came in the low precision of their own parameters may have done.

    Cancellation on the way back (p - y where p is near y, a sum over samples near zero) multiplies the unit roundoff
    by an unknown factor. Up to half of the block's digits, or a rounding of numbers as large as the whole gradient's,
    such a block is no proof of a mistake; beyond that its numbers are wrong, whatever made them so.
    """
    native = np.array([np.finfo(block.dtype).eps for block in layout.blocks])
    low = (eps == native) & (eps > np.finfo(np.float64).eps)
    if not low.any():
        return np.zeros(len(eps))
    norms = np.array([np.linalg.norm(flat[block.slice]) for block in layout.blocks])
    doubt: FloatArray = np.sqrt(eps) * norms + ROUNDINGS * eps * len(eps) * np.linalg.norm(norms)
    return np.where(low, doubt, 0.0)


def _name_in(found: dict[str, Any], lists: dict[str, Any], name: str, taken: set[str], gradient: str, of: str) -> str:
    """Return the entry that is the gradient of a block; an entry named like another block is that block's own."""
    if name in found:
        return name
    spelled = spellings(name)
    hits = [candidate for candidate in spelled if candidate in found and candidate not in taken]
    if not hits:
        hits = [candidate for candidate in (name, *spelled) if candidate in lists and candidate not in taken - {name}]
    if len(hits) == 1:
        return hits[0]
    if hits:
        raise InputError(f"{gradient} has {' and '.join(hits)}: which is the gradient of {name!r}? Call it {name!r}.")
    if found.keys() == {ROOT}:
        raise InputError(
            f"{gradient} has no block {name!r}: it is one {_described(found[ROOT])}, and {of} a tree of {len(taken)}. "
            f"Return one array for every block of {of}, as in {{{name!r}: ...}}."
        )
    raise InputError(
        f"{gradient} has no block {name!r} (nor {spelled[0]!r}); it has: {', '.join(map(repr, found)) or 'nothing'}. "
        f"Return one array for every block of {of}, under the same name."
    )


def _described(leaf: Any) -> str:
    return f"array of shape {leaf.shape}" if isinstance(leaf, np.ndarray) else type(leaf).__name__


def _as_block(leaf: Any, name: str, shape: tuple[int, ...], block: str) -> NDArray[Any]:
    """Return a leaf as the array of a block; name and block are as messages call the two."""
    if leaf is None:
        raise InputError(f"{name}=None is not a float array of {shape}: is a `return` missing?")
    if isinstance(leaf, (str, bytes, bool)) or callable(leaf):
        raise InputError(f"{name}={leaf!r} (type={type(leaf).__name__}) is not a float array of {shape}.")
    refuse_masked(leaf, name)
    try:
        array = np.asarray(leaf)
    except Exception as error:  # a tensor that requires its gradient, say
        raise InputError(
            f"{name} (type={type(leaf).__name__}) can't be read as an array: {text_of(error)}. Convert it to a numpy "
            "array (.detach().numpy(), numpy.asarray)."
        ) from error
    if array.dtype.kind not in "fiu":
        raise InputError(f"{name} has dtype {array.dtype}; the gradient of a real loss is an array of floats.")
    if array.shape != shape:
        raise InputError(
            f"{name} has shape {array.shape}, but {block} has {shape}.{_shape_hint(leaf, array.shape, shape)} "
            "The gradient of a block has the block's own shape."
        )
    if array.size and not (np.isfinite(array.max()) and np.isfinite(array.min())):
        bad = np.argwhere(~np.isfinite(array))
        at = tuple(int(i) for i in bad[0])
        raise LossError(
            f"{name} is {array[at]} at index {list(at)} ({len(bad)} of {array.size} entries are not "
            "finite). Look for a division by zero, a log or a sqrt of zero on the way back."
        )
    return array


def _shape_hint(leaf: Any, found: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    """Return what most likely makes the one shape of the other."""
    if isinstance(leaf, np.matrix) and leaf.size == math.prod(wanted):
        return f" A numpy.matrix has always two axes: return numpy.asarray(g).reshape({wanted})."
    if len(found) > 1 and found[::-1] == wanted:
        return " It is the transpose: return its .T."
    if math.prod(found) == math.prod(wanted):
        return f" It has as many entries: return g.reshape({wanted})."
    for axis in range(len(found)):
        rest = found[:axis] + found[axis + 1 :]
        kept = (*found[:axis], 1, *found[axis + 1 :])
        if rest == wanted or kept == wanted:
            keep = "" if rest == wanted else ", keepdims=True"
            return f" One axis too many, of the batch? Sum over it: return g.sum(axis={axis}{keep})."
    if math.prod(found) == 1:
        return " It is one number: was it summed over all axes?"
    return ""
