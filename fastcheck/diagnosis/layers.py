"""Which blocks make one layer, and in what order: by their names where those tell, else by their shapes.

A bias belongs to the matrix one of whose ends has its length. Where several have, a chain of matrices shows which end
is the output's, and equally many biases and matrices pair up in order; what is still open then is left open.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from fastcheck.diagnosis.wording import listed
from fastcheck.parameters import Block

__all__ = ["Layer", "layers_of"]


@dataclass(frozen=True)
class Layer:
    """Blocks of one layer.

    Attributes
    ----------
    names : tuple of str
        The blocks, in the order of the parameters.
    known : bool
        Whether names or shapes tell that these, and no others, belong together.
    label : str
        What sentences call it: ``"layer 2"``, or its blocks.
    """

    names: tuple[str, ...]
    known: bool
    label: str


def layers_of(blocks: Sequence[Block]) -> list[Layer]:
    """Return the layers from input to output: by number where names are W1, b1, W2 ..., else as the parameters stand.

    Parameters
    ----------
    blocks : sequence of Block
        In the order of the parameters.
    """
    numbers = [re.fullmatch(r"[A-Za-z_]+(\d+)", block.name) for block in blocks]
    if blocks and all(numbers):
        keys = [match.group(1) for match in numbers if match]
        return [_named(key, blocks, keys) for key in sorted(dict.fromkeys(keys), key=int)]
    keys = [_stem(block.name) for block in blocks]
    if blocks and all(key and keys.count(key) > 1 for key in keys):
        return [_named(key, blocks, keys) for key in dict.fromkeys(keys)]
    return _by_shape(blocks)


def _stem(name: str) -> str:
    """Return ``"cell"`` of cell.bias and ``"hidden"`` of hidden_bias; empty where a name has no such part."""
    path, _, last = name.rpartition(".")
    return path or (re.sub(r"_(b|w|bias|weight|kernel|gain|shift)$", "", last) if "_" in last else "")


def _named(key: str, blocks: Sequence[Block], keys: Sequence[str]) -> Layer:
    names = tuple(block.name for block, own in zip(blocks, keys, strict=True) if own == key)
    return Layer(names, True, f"layer {key}")


def _by_shape(blocks: Sequence[Block]) -> list[Layer]:
    matrices = [block for block in blocks if _is_matrix(block)]
    owner: dict[str, str | None] = {block.name: block.name for block in matrices}
    for size in dict.fromkeys(block.size for block in blocks if not _is_matrix(block)):
        vectors = [block for block in blocks if block.size == size and not _is_matrix(block)]
        owner |= _owners(vectors, _ending_in(size, matrices))
    layers: list[Layer] = []
    for block in blocks:
        if owner[block.name] is None:
            layers.append(Layer((block.name,), False, block.name))
        elif _is_matrix(block):
            names = tuple(other.name for other in blocks if owner[other.name] == block.name)
            layers.append(Layer(names, len(names) > 1, listed(names)))
    return layers


def _owners(vectors: Sequence[Block], matrices: Sequence[Block]) -> dict[str, str | None]:
    """Return the matrix that each vector of one length belongs to; None where that is open."""
    if len(matrices) == 1:
        return dict.fromkeys((vector.name for vector in vectors), matrices[0].name)
    if len(matrices) != len(vectors):
        return dict.fromkeys((vector.name for vector in vectors), None)
    return {vector.name: matrix.name for vector, matrix in zip(vectors, matrices, strict=True)}


def _ending_in(size: int, matrices: Sequence[Block]) -> list[Block]:
    """Return the matrices that a vector of a length can be the bias of."""
    ends = [end for end in (0, -1) if _chained(matrices, end)]
    ends = ends if len(ends) == 1 and len(matrices) > 1 else [0, -1]
    return [matrix for matrix in matrices if size in {matrix.shape[end] for end in ends}]


def _chained(matrices: Sequence[Block], out: int) -> bool:
    """Say whether each matrix takes what the one before it gives, were `out` the end of the outputs."""
    pairs = itertools.pairwise(matrices)
    return all(len(a.shape) == len(b.shape) == 2 and a.shape[out] == b.shape[-1 - out] for a, b in pairs)


def _is_matrix(block: Block) -> bool:
    return sum(length > 1 for length in block.shape) > 1
