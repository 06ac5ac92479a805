"""Something that does nothing when it is neutral: where the error is then gone, it was handled wrongly.

A gradient that multiplies by W for W.T is right where W is symmetric; one that forgets a mask or a scale of dropout is
right where nothing is masked and the scale is 1.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcheck.arrays import FloatArray
from fastcheck.diagnosis.data_facts import arrays_in, is_mask, scalars_in
from fastcheck.diagnosis.evidence import Evidence
from fastcheck.diagnosis.functions import Change, UserFunctions, unchanged
from fastcheck.diagnosis.wording import about_wrong, wrong_in
from fastcheck.findings import Finding, Kind

__all__ = ["neutral", "replaced"]

DONE = {"mask": "masked", "scale": "scaled", "mask and scale": "masked or scaled"}
WITNESSES = 3  # directions along which the error must be gone


def neutral(functions: UserFunctions, evidence: Evidence) -> Finding | None:
    """Ask whether the gradient is right where a square matrix is symmetric, or where dropout does nothing."""
    if not callable(functions.gradient):
        return None
    directions = functions.directions(evidence, evidence.wrong, WITNESSES)
    return _symmetric(functions, evidence, directions) or _kept(functions, evidence, directions)


def _symmetric(functions: UserFunctions, evidence: Evidence, directions: Sequence[FloatArray]) -> Finding | None:
    for block in functions.evaluator.layout.blocks:
        if len(block.shape) < 2 or block.shape[-1] != block.shape[-2] or block.shape[-1] < 2:
            continue
        theta = functions.theta.copy()
        W = block.view(theta)
        W[...] = (W + np.swapaxes(W, -1, -2)) / 2
        if not np.array_equal(theta, functions.theta) and functions.agrees(directions, theta, unchanged):
            return about_wrong(
                Kind.BACKWARD_TRANSPOSE,
                evidence,
                f"With {block.name} made symmetric the gradient of {wrong_in(evidence)} is right: the step back "
                f"multiplies by {block.name} where its transpose belongs, or by the transpose where {block.name} "
                "belongs.",
                matrix=block.name,
                short=f"{block.name} for its transpose on the way back",
            )
    return None


def _kept(functions: UserFunctions, evidence: Evidence, directions: Sequence[FloatArray]) -> Finding | None:
    for what, change in _without_dropout(functions.data):
        if functions.agrees(directions, functions.theta, change):
            return about_wrong(
                Kind.DROPOUT_BACKWARD,
                evidence,
                f"Where nothing is {DONE[what]} the gradient of {wrong_in(evidence)} is right: the {what} of the "
                "dropout is not applied on the way back.",
                forgotten=what,
                short=f"the {what} of the dropout forgotten",
            )
    return None


def _without_dropout(data: tuple[Any, ...]) -> Iterator[tuple[str, Change]]:
    """Yield what is taken away, and the change of the data that takes it away: scale, mask, both."""
    for mask in arrays_in(data):
        if not is_mask(mask):
            continue
        kept = mask.max()
        rates = [scalar for scalar in scalars_in(data) if 0 < scalar < 1]
        if kept != 1:
            yield "scale", functools.partial(replaced, {id(mask): (mask / kept).astype(mask.dtype)})
        for rate in rates:
            yield "scale", functools.partial(replaced, {}, scalar=rate)
        yield "mask", functools.partial(replaced, {id(mask): np.full_like(mask, kept)})
        if kept != 1:
            yield "mask and scale", functools.partial(replaced, {id(mask): np.ones_like(mask)})
        for rate in rates:
            yield "mask and scale", functools.partial(replaced, {id(mask): np.full_like(mask, kept)}, scalar=rate)


def replaced(arrays: Mapping[int, NDArray[Any]], data: Any, scalar: float | None = None) -> Any:
    """Return data with some arrays, known by identity, replaced, and numbers equal to `scalar` by 1."""
    if isinstance(data, Mapping):
        return {key: replaced(arrays, value, scalar) for key, value in data.items()}
    if type(data) in (tuple, list):
        return type(data)(replaced(arrays, value, scalar) for value in data)
    if id(data) in arrays:
        return arrays[id(data)]
    return 1.0 if scalar is not None and isinstance(data, float) and data == scalar else data
