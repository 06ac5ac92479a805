"""Experiments: loss and gradient asked elsewhere, or on other data, where no pattern of the error says what it is.

Each is a function of the user's functions and the evidence, and returns a finding or None.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastcheck.arrays import FloatArray
from fastcheck.diagnosis.data_facts import arrays_in, class_axis, is_labels, is_mask, scalars_in
from fastcheck.diagnosis.evidence import BlockEvidence, Evidence
from fastcheck.diagnosis.functions import NEAR, Change, UserFunctions, unchanged
from fastcheck.diagnosis.wording import about_wrong, advice, wrong_in
from fastcheck.findings import Finding, Kind

__all__ = ["neutral", "replaced", "resized_bias", "samples", "shifted_labels", "stale", "take"]

# -- single samples ---------------------------------------------------------------------------------------------------


MOST = 512  # samples whose losses are asked for one by one
WITNESSES = 3  # directions in which what is found must hold
SAME = 1e-9  # relative difference of the loss from the mean of the samples' losses
About: TypeAlias = tuple[Kind, dict[str, Any]]
EXACT = 1e-5  # of a gradient, or of the error along a direction, that may be left


def samples(functions: UserFunctions, evidence: Evidence) -> Finding | None:
    """Ask the loss of every sample alone, and whether the error is made of some of them.

    Where the loss is a mean over samples, its derivative along v is the mean of the samples' own, d_i.v. Each
    hypothesis is a vector of weights w with g.v = sum_i w_i d_i.v; a few directions tell them apart.
    """
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
    tolerance = EXACT * np.abs(error) + 1e-8 * np.abs(table).mean(axis=1)
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


# -- a bias summed over the wrong axis --------------------------------------------------------------------------------


ENTRIES = 3  # of a bias, at least, that must agree


def resized_bias(functions: UserFunctions, evidence: Evidence) -> Finding | None:
    """Ask what each sample alone does to all units of a bias together: entry i of the wrong gradient, for sample i."""
    m, wrong = evidence.facts.batch, evidence.wrong
    if not 2 <= m <= MOST or not functions.data or functions.affordable < 2 * m:
        return None
    for block in wrong:
        if not ENTRIES <= block.block.size == max(block.block.shape, default=0):
            continue
        v = np.zeros(len(functions.theta))
        v[block.block.slice] = 1.0
        count = min(m, block.block.size)
        sums = np.array([functions.slope(functions.on(take(functions.data, i, m)), v) for i in range(count)])
        functions.evaluator.evaluations += 2 * count
        if np.isfinite(sums).all() and any(_equal(block, predicted) for predicted in _resized(sums, block, m)):
            return Finding(
                Kind.BIAS_RESIZED,
                block.name,
                f"gradient of {block.name} holds, entry by entry, the sums over all its units for one sample after the "
                "other, resized to fit: summed over the wrong axis. Sum over the samples instead.",
                {"blocks": [block.name], "short": "summed over the wrong axis and resized"},
            )
    return None


def _resized(sums: FloatArray, block: BlockEvidence, m: int) -> Iterator[FloatArray]:
    """Yield the sums repeated, or filled up with zeros, of a mean over samples or of their sum."""
    size = block.block.size
    for share in (1 / m, 1.0):
        yield share * np.resize(sums, size)
        yield share * np.concatenate([sums, np.zeros(size - len(sums))])


def _equal(block: BlockEvidence, predicted: FloatArray) -> bool:
    size = float(np.linalg.norm(predicted))
    return size > 0 and float(np.linalg.norm(block.g - predicted)) <= EXACT * size


# -- labels off by one ------------------------------------------------------------------------------------------------


MANY = 4  # arrays that are tried


def shifted_labels(functions: UserFunctions, evidence: Evidence) -> Finding | None:
    """Ask whether the gradient is that of the loss with its labels, or its targets, off by one."""
    batch = evidence.facts.batch
    arrays = [array for array in arrays_in(functions.data) if batch > 2 and _is_target(array, batch)][:MANY]
    if not arrays:
        return None
    directions = functions.directions(evidence, evidence.wrong, WITNESSES)
    for array in arrays:
        for words, moved in _moved_labels(array, batch):
            if not np.array_equal(moved, array) and _right_for_labels(functions, directions, array, moved):
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


def _moved_labels(array: NDArray[Any], batch: int) -> Iterator[tuple[str, NDArray[Any]]]:
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


def _right_for_labels(
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


# -- where nothing is transposed, masked or scaled --------------------------------------------------------------------


DONE = {"mask": "masked", "scale": "scaled", "mask and scale": "masked or scaled"}


def neutral(functions: UserFunctions, evidence: Evidence) -> Finding | None:
    """Ask whether the gradient is right where a square matrix is symmetric, or where dropout does nothing.

    One that multiplies by W for W.T is right where W is symmetric; one that forgets a mask or a scale of dropout is
    right where nothing is masked and the scale is 1.
    """
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


# -- other parameters -------------------------------------------------------------------------------------------------


AWAY = 2.0**-4  # relative to the parameters
OCTAVES = range(-20, 2)  # of the rate, relative to theta over the gradient, that are scanned
SCANNED = 2  # directions in which a rate is looked for


def stale(functions: UserFunctions, evidence: Evidence) -> Finding | None:
    """Ask whether the gradient remembers an earlier call, or is that of the parameters one descent step ago."""
    return _remembers(functions, evidence) or _one_step_ago(functions, evidence)


def _remembers(functions: UserFunctions, evidence: Evidence) -> Finding | None:
    elsewhere = functions.gradient_at(functions.theta * (1 + AWAY))
    again = functions.gradient_at(functions.theta)
    if elsewhere is None or again is None:
        return None
    size = float(np.linalg.norm(functions.claimed))
    blocks = [block.name for block in evidence.wrong]
    apart = float(np.linalg.norm(again - functions.claimed))
    if apart > 1e-6 * size:
        return Finding(
            Kind.STALE,
            None,
            "Called again at the same parameters after a call at others, the gradient is another one: it uses what "
            "an earlier forward pass left in a cache. Run the forward pass inside the gradient, or before each call.",
            {
                "blocks": blocks,
                "apart": apart / size,
                "short": "of a stale cache",
            },
        )
    if size and np.array_equal(elsewhere, again) and _bends(functions, evidence):
        return Finding(
            Kind.STALE,
            None,
            "The gradient is the same at other parameters: it does not use the ones it is given, but a copy, a global "
            "or what an earlier forward pass left in a cache.",
            {"blocks": blocks, "short": "does not depend on the parameters given"},
        )
    return None


def _bends(functions: UserFunctions, evidence: Evidence) -> bool:
    """Say whether the true gradient is another one at other parameters; that of a linear loss is the same."""
    (v,) = functions.directions(evidence, evidence.wrong, 1)
    here, there = (
        functions.slope(functions.evaluator, v),
        functions.slope(functions.evaluator, v, AWAY * functions.theta),
    )
    return not abs(there - here) <= NEAR * abs(here)


def _one_step_ago(functions: UserFunctions, evidence: Evidence) -> Finding | None:
    """Look for a rate r > 0 at which the loss at theta + r g has the gradient g, along every direction."""
    g = functions.claimed
    if evidence.right or not g.any() or functions.affordable < 2 * SCANNED * len(OCTAVES):
        return None
    directions = functions.directions(evidence, evidence.wrong, SCANNED + WITNESSES)
    scanned, others = directions[:SCANNED], directions[SCANNED:]
    errors = [functions.slope(functions.evaluator, v) - float(g @ v) for v in others]
    # A kink on the way can hide the rate from the scan along one direction, hardly from that along another.
    for rate in itertools.chain.from_iterable(_rates(functions, g, v) for v in scanned):
        left = [functions.slope(functions.evaluator, v, rate * g) - float(g @ v) for v in others]
        if all(abs(after) <= NEAR * abs(before) for after, before in zip(left, errors, strict=True)):
            return Finding(
                Kind.STALE,
                None,
                f"The gradient is right for the parameters one descent step ago, theta + r g with a rate of r = "
                f"{rate:.4g}: it was computed before the last update, or from the cache of the forward pass before it.",
                {"blocks": [b.name for b in evidence.wrong], "rate": rate, "short": "of the parameters one step ago"},
            )
    return None


def _rates(functions: UserFunctions, g: FloatArray, v: FloatArray) -> Iterator[float]:
    """Yield the rates r > 0 with d/dv J(theta + r g) = g.v that a scan by octaves finds."""
    target = float(g @ v)

    def apart(rate: float) -> float:
        return functions.slope(functions.evaluator, v, rate * g) - target

    unit = float(np.linalg.norm(functions.theta)) / float(np.linalg.norm(g))
    low, before = 0.0, functions.slope(functions.evaluator, v) - target
    for octave in OCTAVES:
        high = unit * 2.0**octave
        after = apart(high)
        if not math.isfinite(after):
            return
        if before * after < 0:
            from scipy.optimize import brentq  # here, since it takes longer to load than most checks to run

            yield float(brentq(apart, low, high, xtol=1e-12 * high, rtol=1e-9))
        low, before = high, after
