"""Labels off by one: the gradient is right for the labels of the next class, or of the next sample."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcheck.diagnosis.data_facts import arrays_in, class_axis, is_labels
from fastcheck.diagnosis.evidence import Evidence
from fastcheck.diagnosis.functions import NEAR, UserFunctions
from fastcheck.diagnosis.neutral import replaced
from fastcheck.diagnosis.wording import about_wrong, wrong_in
from fastcheck.findings import Finding, Kind

__all__ = ["shifted_labels"]

WITNESSES = 3  # directions
MANY = 4  # arrays that are tried


def shifted_labels(functions: UserFunctions, evidence: Evidence) -> Finding | None:
    """Ask whether the gradient is that of the loss with its labels, or its targets, off by one."""
    batch = evidence.facts.batch
    arrays = [array for array in arrays_in(functions.data) if batch > 2 and _is_target(array, batch)][:MANY]
    if not arrays:
        return None
    directions = functions.directions(evidence, evidence.wrong, WITNESSES)
    for array in arrays:
        for words, moved in _moved(array, batch):
            if not np.array_equal(moved, array) and _explains(functions, directions, array, moved):
                return about_wrong(
                    Kind.LABELS_SHIFTED,
                    evidence,
                    f"gradient of {wrong_in(evidence)} is right for {words}: "
                    "counted from 1 in one place and from 0 in the other, or an index off by one?",
                    short="labels off by one",
                )
    return None


def _is_target(array: NDArray[Any], batch: int) -> bool:
    """Say whether an array holds one label, one row of a one-hot matrix, or one number for each sample."""
    return batch in array.shape and (class_axis(array) is not None or array.size == batch)


def _moved(array: NDArray[Any], batch: int) -> Iterator[tuple[str, NDArray[Any]]]:
    axis = class_axis(array)
    for by in (1, -1):
        which = "next" if by == 1 else "previous"
        if axis is not None:
            yield f"the {which} class", np.roll(array, by, axis=axis)
        elif is_labels(array):
            classes = int(array.max()) + 1
            yield f"the {which} class", ((array + by) % classes).astype(array.dtype)
            yield f"the {which} class", np.clip(array + by, 0, classes - 1).astype(array.dtype)
        yield f"the label of the {which} sample", np.roll(array, -by, axis=array.shape.index(batch))


def _explains(
    functions: UserFunctions, directions: list[NDArray[np.float64]], array: NDArray[Any], moved: NDArray[Any]
) -> bool:
    elsewhere = functions.on(replaced({id(array): moved}, functions.data))
    for v in directions:
        claimed = float(functions.claimed @ v)
        before = functions.slope(functions.evaluator, v) - claimed
        after = functions.slope(elsewhere, v) - claimed
        functions.evaluator.evaluations += 2
        if not abs(after) <= NEAR * abs(before):
            return False
    return True
