"""The culprit in the order of backpropagation: an error made at one layer spoils all layers before it."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from fastcheck.diagnosis.evidence import BlockEvidence, Evidence
from fastcheck.diagnosis.told import listed
from fastcheck.findings import Finding, Kind

__all__ = ["in_order", "layer_of", "origin"]

SMALL = 1e-5  # relative error of the size of float32 arithmetic


def layer_of(name: str) -> str:
    """Return what names of one layer share: ``"2"`` of W2 and b2, ``"cell"`` of cell.bias and cell.weight."""
    path, _, last = name.rpartition(".")
    if path:
        return path
    numbered = re.fullmatch(r"[A-Za-z_]+(\d+)", last)
    if numbered:
        return numbered.group(1)
    return re.sub(r"_?(bias|weight|kernel|gain|shift)$", "", last) or last


def in_order(blocks: Sequence[BlockEvidence]) -> list[BlockEvidence]:
    """Return blocks from input to output: by number where names are W1, b1, W2 ..., else as the parameters stand."""
    layers = [layer_of(block.name) for block in blocks]
    if layers and all(layer.isdigit() for layer in layers):
        return [block for _, block in sorted(zip(layers, blocks, strict=True), key=lambda item: int(item[0]))]
    return list(blocks)


def origin(evidence: Evidence, unexplained: Sequence[BlockEvidence]) -> Finding:
    """Say which of the wrong blocks comes first on the way back from the output, and where to look.

    Parameters
    ----------
    evidence : Evidence
        All blocks.
    unexplained : sequence of BlockEvidence
        The wrong blocks whose error has no explanation of its own; at least one.
    """
    ordered = in_order(evidence.blocks)
    culprit = [block for block in ordered if block in unexplained][-1]
    others = [block for block in ordered if block.checked]
    numbers = {"blocks": [block.name for block in ordered if block.wrong], "culprit": culprit.name} | _relation(culprit)
    if len(others) < 2:
        return Finding(Kind.UNKNOWN, culprit.name, f"{culprit.name} is wrong. {_likeness(culprit)}", numbers)
    wrong, right = (_named(others, flag) for flag in (True, False))
    said = f"{listed(wrong)} {'is' if len(wrong) == 1 else 'are'} wrong"
    said += f", {listed(right)} {'is' if len(right) == 1 else 'are'} right" if right else " (every block)"
    return Finding(Kind.ORIGIN, culprit.name, f"{said}: {_where(others, culprit)} {_likeness(culprit)}", numbers)


def _named(blocks: Sequence[BlockEvidence], wrong: bool) -> list[str]:
    return [block.name for block in blocks if block.wrong == wrong]


def _where(ordered: Sequence[BlockEvidence], culprit: BlockEvidence) -> str:
    layer = layer_of(culprit.name)
    mates = [b for b in ordered if b.name != culprit.name and layer_of(b.name) == layer]
    earlier = [b for b in ordered[: ordered.index(culprit)] if b.wrong and b not in mates]
    follow = (
        f" The blocks before it ({listed([b.name for b in earlier])}) may be wrong only because of it."
        if earlier
        else ""
    )
    right_mates = [b.name for b in mates if not b.wrong]
    if right_mates:
        verb = "is" if len(right_mates) == 1 else "are"
        return (
            f"look first at {culprit.name}. {listed(right_mates)}, of the same layer, {verb} right, so what arrives "
            f"there on the way back seems right: look at what makes {culprit.name} of it (the stored input, the order "
            f"of the factors, an index or a time step).{follow}"
        )
    after = [b for b in ordered[ordered.index(culprit) + 1 :] if b not in mates]
    if after and not after[0].wrong:
        return (
            f"look at the step from layer {layer_of(after[0].name)} back to layer {layer} (the activation's "
            f"derivative, a mask, the transpose of the weights between them).{follow}"
        )
    return f"the error is there from the output on: look at the derivative of the loss and of the last layer.{follow}"


def _relation(block: BlockEvidence) -> dict[str, float]:
    g, n = block.claimed, block.n
    if not len(n):
        return {}
    sizes = float(np.linalg.norm(g)), float(np.linalg.norm(n))
    if not all(sizes):
        return {"ratio": sizes[0] / sizes[1] if sizes[1] else np.inf}
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
    if len(block.n) < 2 or "degrees" not in relation:
        return f"{said}; it is {relation['ratio']:.6g} times as large as the measured one."
    if relation["relative"] < SMALL:
        return (
            f"{said}; it is a relative {relation['relative']:.1g}, the size of float32 arithmetic somewhere on the way "
            "back, or of a tiny term left out."
        )
    degrees, ratio = relation["degrees"], relation["ratio"]
    return f"{said}: it points {degrees:.3g}° away from the measured one and is {ratio:.3g} times as long."
