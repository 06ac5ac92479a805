"""Errors that are made of single samples: one left out, one alone, a part of the batch, unequal batches averaged alike.

Where the loss is a mean over samples, its derivative along v is the mean of the samples' own, d_i.v. Each hypothesis
is a vector of weights w with g.v = sum_i w_i d_i.v; a few directions tell them apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np

from fastcheck.arrays import FloatArray
from fastcheck.diagnosis.evidence import Evidence
from fastcheck.diagnosis.functions import UserFunctions
from fastcheck.diagnosis.wording import about_wrong, advice, wrong_in
from fastcheck.findings import Finding, Kind

__all__ = ["samples", "take"]

MOST = 512  # samples whose losses are asked for one by one
WITNESSES = 3  # directions
SAME = 1e-9  # relative difference of the loss from the mean of the samples' losses
About: TypeAlias = tuple[Kind, dict[str, Any]]

NEAR = 1e-5  # of the error along a direction that may be left


def samples(functions: UserFunctions, evidence: Evidence) -> Finding | None:
    """Ask the loss of every sample alone, and whether the error is made of some of them."""
    m = evidence.facts.batch
    if not 2 <= m <= MOST or not functions.data or functions.affordable < (2 * WITNESSES + 1) * m:
        return None
    alone = [functions.on(take(functions.data, i, m)) for i in range(m)]
    losses = np.array([evaluator.base() for evaluator in alone])
    functions.evaluator.evaluations += m
    if not abs(losses.mean() - functions.base) <= SAME * abs(functions.base):
        return None
    directions = functions.directions(evidence, evidence.wrong, WITNESSES)
    table = np.array([[functions.slope(evaluator, v) for evaluator in alone] for v in directions])
    functions.evaluator.evaluations += 2 * table.size
    if not np.isfinite(table).all():
        return None
    claimed = np.array([float(functions.claimed @ v) for v in directions])
    error = claimed - table.mean(axis=1)
    tolerance = NEAR * np.abs(error) + 1e-8 * np.abs(table).mean(axis=1)
    if np.any(np.abs(error) <= 10 * tolerance):
        return None
    for about, words, weights in _weights(m):
        if np.all(np.abs(table @ weights - claimed) <= tolerance):
            kind, numbers = about
            return about_wrong(kind, evidence, f"gradient of {wrong_in(evidence)} is {words}", **numbers)
    return None


def _weights(m: int) -> Iterator[tuple[About, str, FloatArray]]:
    """Yield ``(kind and evidence, words, weights)`` of every hypothesis about m samples."""
    whole = np.full(m, 1 / m)
    for i in range(m):
        unit = np.zeros(m)
        unit[i] = 1.0
        which = "the last sample" if i == m - 1 else f"sample {i}"
        short = f"lacks {which}"
        without = f"the measured one without {which} (of {m}): {advice(Kind.SAMPLE_MISSING)}"
        yield (Kind.SAMPLE_MISSING, {"sample": i, "short": short}), without, whole - unit / m
        for share, times in ((1 / m, f"1/{m} of "), (1.0, "")):
            sole = f"{times}the gradient of {which} alone: {advice(Kind.ONE_SAMPLE)}"
            yield (Kind.ONE_SAMPLE, {"sample": i, "short": f"of {which} alone"}), sole, share * unit
    for k in range(2, m - 1):
        part = np.zeros(m)
        part[:k] = 1.0
        for share in (1 / m, 1 / k):
            words = f"that of the first {k} samples of {m}: {advice(Kind.PART_OF_BATCH)}"
            yield (Kind.PART_OF_BATCH, {"samples": k, "short": f"of the first {k} samples"}), words, share * part
    for size, weights in _batches(m):
        words = (
            f"the plain mean of the gradients of batches of {size}, of which the last has {m % size}: "
            f"{advice(Kind.MEAN_OF_MEANS)}"
        )
        yield (Kind.MEAN_OF_MEANS, {"size": size, "short": "batches averaged alike"}), words, weights


def _batches(m: int) -> Iterator[tuple[int, FloatArray]]:
    """Yield batch sizes that do not divide m, and the weights of samples where batches are averaged alike."""
    for size in range(2, m):
        if m % size:
            count = math.ceil(m / size)
            weights = np.full(m, 1 / (size * count))
            weights[size * (m // size) :] = 1 / (m % size * count)
            yield size, weights


def take(data: tuple[Any, ...], i: int, m: int) -> tuple[Any, ...]:
    """Return the data with sample i alone, along the first axis of length m, or else the last."""

    def pick(arg: Any) -> Any:
        if isinstance(arg, (tuple, list)):
            return type(arg)([pick(item) for item in arg])
        if not isinstance(arg, np.ndarray) or not arg.ndim:
            return arg
        if arg.shape[0] == m:
            return arg[i : i + 1]
        return arg[..., i : i + 1] if arg.shape[-1] == m else arg

    return tuple(pick(arg) for arg in data)
