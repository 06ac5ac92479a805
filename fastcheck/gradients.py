"""The analytic gradient: called, matched to the parameters block by block, and made one flat vector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcheck.arrays import FloatArray
from fastcheck.errors import InputError, LossError, text_of
from fastcheck.parameters import ROOT, Parameters, leaves, refuse_masked

__all__ = ["Analytic", "match_gradient"]

ROUNDINGS = 32.0  # of numbers as large as the whole gradient, in each block that the way back passes
SPELLINGS = ("d{}", "d_{}", "grad_{}", "g_{}", "{}_grad", "{}.grad")


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
    """

    flat: FloatArray
    eps: FloatArray
    extras: tuple[str, ...]
    doubt: FloatArray


def match_gradient(gradient: Any, layout: Parameters, *, name: str = "gradient", of: str = "params") -> Analytic:
    """Match a gradient tree to the parameters by name, or by the ``dW1`` for ``W1`` convention.

    Parameters
    ----------
    gradient : tree
        One array for every block.
    layout : Parameters
        The blocks.
    name, of : str
        How error messages call the gradient and the parameters.

    Raises
    ------
    InputError
        A block is missing, ambiguous, misshapen or of another type.
    LossError
        A value is NaN or infinite.
    """
    found = {".".join(path) or ROOT: leaf for path, leaf in leaves(gradient, name)}
    flat = np.empty(layout.size)
    eps = np.empty(len(layout.blocks))
    used = set()
    taken = {block.name for block in layout.blocks}
    for number, block in enumerate(layout.blocks):
        entry = _name_in(found, block.name, taken, name, of)
        used.add(entry)
        array = _as_block(found[entry], f"{name}[{entry!r}]", block.shape, f"{of}[{block.name!r}]")
        eps[number] = np.finfo(array.dtype).eps if np.issubdtype(array.dtype, np.floating) else np.finfo(float).eps
        block.view(flat)[...] = array
    extras = tuple(entry for entry in found if entry not in used)
    return Analytic(flat, eps * len(layout.blocks), extras, _doubt(flat, eps, layout))


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


def _name_in(found: dict[str, Any], name: str, taken: set[str], gradient: str, of: str) -> str:
    """Return the entry that is the gradient of a block; an entry named like another block is that block's own."""
    if name in found:
        return name
    path, _, last = name.rpartition(".")
    stem = path + "." if path else ""
    spelled = [stem + spelling.format(last) for spelling in SPELLINGS]
    hits = [candidate for candidate in spelled if candidate in found and candidate not in taken]
    if len(hits) == 1:
        return hits[0]
    if hits:
        raise InputError(f"{gradient} has {' and '.join(hits)}: which is the gradient of {name!r}? Call it {name!r}.")
    raise InputError(
        f"{gradient} has no block {name!r} (nor {spelled[0]!r}); it has: {', '.join(map(repr, found)) or 'nothing'}. "
        f"Return one array for every block of {of}, under the same name."
    )


def _as_block(leaf: Any, name: str, shape: tuple[int, ...], block: str) -> NDArray[Any]:
    """Return a leaf as the array of a block; name and block are as messages call the two."""
    if leaf is None or isinstance(leaf, (str, bytes, bool)) or callable(leaf):
        raise InputError(f"{name}={leaf!r} (type={type(leaf).__name__}) is not a float array of {shape}.")
    refuse_masked(leaf, name)
    try:
        array = np.asarray(leaf)
    except Exception as error:  # a tensor that requires its gradient, say
        raise InputError(
            f"{name} (type={type(leaf).__name__}) can't be read as an array: {text_of(error)}. Convert it to a numpy "
            "array (.detach().numpy(), numpy.asarray)."
        ) from error
    if not (np.issubdtype(array.dtype, np.floating) or np.issubdtype(array.dtype, np.integer)):
        raise InputError(f"{name} has dtype {array.dtype}; the gradient of a real loss is an array of floats.")
    if array.shape != shape:
        hint = " It is the transpose: return its .T." if array.ndim > 1 and array.T.shape == shape else ""
        raise InputError(
            f"{name} has shape {array.shape}, but {block} has {shape}.{hint} "
            "The gradient of a block has the block's own shape."
        )
    finite = np.isfinite(array)
    if not finite.all():
        bad = np.argwhere(~finite)
        at = tuple(int(i) for i in bad[0])
        raise LossError(
            f"{name} is {array[at]} at index {list(at)} ({len(bad)} of {array.size} entries are not "
            "finite). Look for a division by zero, a log or a sqrt of zero on the way back."
        )
    return array
