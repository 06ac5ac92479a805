"""The culprit in the order of backpropagation: an error made at one layer spoils all layers before it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fastcheck.diagnosis.evidence import BlockEvidence, Evidence
from fastcheck.diagnosis.wording import listed
from fastcheck.findings import Finding, Kind
from fastcheck.parameters import Block

__all__ = ["Layer", "first_wrong_layer", "in_order", "layers_of"]

SMALL = 1e-5  # relative error of the size of float32 arithmetic
ALIKE = 5e-3  # relative difference of two lengths that three digits hardly show


def in_order(blocks: Sequence[BlockEvidence]) -> list[BlockEvidence]:
    """Return blocks from input to output."""
    by_name = {block.name: block for block in blocks}
    return [by_name[name] for layer in layers_of([one.block for one in blocks]) for name in layer.names]


def first_wrong_layer(evidence: Evidence, unexplained: Sequence[BlockEvidence]) -> Finding:
    """Say which of the wrong blocks comes first on the way back from the output, and where to look.

    At least one is `unexplained`: its error has no explanation of its own.
    """
    ordered = in_order(evidence.blocks)
    names = {block.name for block in unexplained}
    culprit = [block for block in ordered if block.name in names][-1]
    others = [block for block in ordered if block.checked]
    numbers = {"blocks": [block.name for block in ordered if block.wrong], "culprit": culprit.name} | _relation(culprit)
    if len(others) < 2:
        return Finding(Kind.UNKNOWN, culprit.name, f"{culprit.name} is wrong. {_likeness(culprit)}", numbers)
    wrong, right = ([block.name for block in others if block.wrong == flag] for flag in (True, False))
    said = f"{listed(wrong)} {'is' if len(wrong) == 1 else 'are'} wrong"
    said += f", {listed(right)} {'is' if len(right) == 1 else 'are'} right" if right else " (every block)"
    where = _where(layers_of([block.block for block in evidence.blocks]), others, culprit, evidence.facts.draws)
    return Finding(Kind.FIRST_WRONG_LAYER, culprit.name, f"{said}: {where} {_likeness(culprit)}", numbers)


def _where(layers: Sequence[Layer], ordered: Sequence[BlockEvidence], culprit: BlockEvidence, draws: bool) -> str:
    layer_of = {name: layer for layer in layers for name in layer.names}
    own = layer_of[culprit.name]
    place = [block.name for block in ordered].index(culprit.name)
    mates = [block for block in ordered if block.name != culprit.name and layer_of[block.name] is own]
    same = {block.name for block in mates}
    earlier = [block.name for block in ordered[:place] if block.wrong and block.name not in same]
    follow = f" The blocks before it ({listed(earlier)}) may be wrong only because of it." if earlier else ""
    right_mates = [block.name for block in mates if not block.wrong]
    if own.known and right_mates:
        verb = "is" if len(right_mates) == 1 else "are"
        return (
            f"look first at {culprit.name}. {listed(right_mates)}, of the same layer, {verb} right, so what arrives "
            f"there on the way back seems right: look at what makes {culprit.name} of it (the stored input, the order "
            f"of the factors, an index or a time step).{follow}"
        )
    after = [block for block in ordered[place + 1 :] if block.name not in same]
    if not after or after[0].wrong:
        return (
            f"the error is there from the output on: look at the derivative of the loss and of the last layer.{follow}"
        )
    if own.known and layer_of[after[0].name].known:
        step = f"the step from {layer_of[after[0].name].label} back to {own.label}"
        if draws:
            return (
                f"look at {step}. Does it multiply by the mask that the loss drew there (dropout), and by its scale "
                f"1 / (1 - p)? Else at the activation's derivative and the transpose of the weights.{follow}"
            )
        return (
            f"look at {step} (the activation's derivative, a mask, the transpose of the weights between them).{follow}"
        )
    return (
        f"look first at {culprit.name}, in the order of the parameters the last that is wrong; {after[0].name} after "
        f"it is right.{follow}"
    )


def _relation(block: BlockEvidence) -> dict[str, float]:
    g, n = block.claimed, block.n
    if not len(n):
        return {}
    sizes = float(np.linalg.norm(g)), float(np.linalg.norm(n))
    if not all(sizes):
        return {"analytic": sizes[0], "measured": sizes[1]}
    cosine = float(np.clip(g @ n / (sizes[0] * sizes[1]), -1, 1))
    return {
        "ratio": sizes[0] / sizes[1],
        "degrees": float(np.degrees(np.arccos(cosine))),
        "relative": float(np.linalg.norm(g - n)) / sizes[0],
    }


def _likeness(block: BlockEvidence) -> str:
    """Say how the gradient and the measured one relate, where no kind of bug fits."""
    if not len(block.n):
        return f"{block.name} itself was not looked at more closely."
    relation = _relation(block)
    said = f"No known kind of bug fits the error of {block.name} itself"
    if "ratio" not in relation:
        return f"{said}; {'it' if relation['measured'] else 'the measured one'} is zero, the other is not."
    if relation["relative"] < SMALL:
        return (
            f"{said}; it is a relative {relation['relative']:.1g}, the size of float32 arithmetic somewhere on the way "
            "back, or of a tiny term left out."
        )
    ratio = relation["ratio"]
    if len(block.n) < 2:
        return f"{said}; it is {ratio:.6g} times as large as the measured one."
    long = "as long" if abs(ratio - 1) < ALIKE else f"{ratio:.3g} times as long"
    return f"{said}: it points {relation['degrees']:.3g}° away from the measured one and is {long}."


# -- which blocks make one layer --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layer:
    """Blocks of one layer, by name, in the order of the parameters.

    It is known where names or shapes tell that these, and no others, belong together; the label is what sentences call
    it.
    """

    names: tuple[str, ...]
    known: bool
    label: str


def layers_of(blocks: Sequence[Block]) -> list[Layer]:
    """Return the layers from input to output: by number where names are W1, b1, W2 ..., else as the parameters stand.

    Where names do not tell, shapes do: a bias belongs to the matrix one of whose ends has its length. Where several
    have, a chain of matrices shows which end is the output's, and equally many biases and matrices pair up in order;
    what is still open then is left open.
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
