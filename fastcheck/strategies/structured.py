"""A loss that knows its own structure measures itself: every coordinate of a bound `Network`, or some of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fastcheck.arrays import IntArray
from fastcheck.context import Context, Outcome, tells_noise
from fastcheck.errors import InputError
from fastcheck.estimates import Estimates
from fastcheck.losses.evaluator import MeasuresItself
from fastcheck.measure.noise import Noise
from fastcheck.parallel.crew import cores
from fastcheck.parameters import Block
from fastcheck.settings import Settings

__all__ = ["measure", "refuse"]

BACKENDS = ("auto", "serial", "threads")
PIECE = 1 << 14  # coordinates measured between two looks at the clock


def refuse(settings: Settings) -> None:
    """Refuse by name what such a loss can't honour.

    Raises
    ------
    InputError
        A scheme other than central differences, a checkpoint, or workers that are processes.
    """
    if settings.scheme != "central":
        raise InputError(
            f"scheme={settings.scheme!r}: a bound Network propagates central differences exactly. Leave scheme out, or "
            "check the loss given as like= by itself."
        )
    if settings.checkpoint is not None:
        raise InputError(
            f"checkpoint={str(settings.checkpoint)!r}: a bound Network is measured in seconds, and keeps nothing. "
            "Leave checkpoint out."
        )
    if settings.backend not in BACKENDS:
        raise InputError(
            f"backend={settings.backend!r}: a bound Network is measured by threads of this process. Use one of "
            f"{', '.join(map(repr, BACKENDS))}."
        )


def measure(context: Context, places: Sequence[IntArray | None]) -> Outcome:
    """Let the loss measure the chosen blocks, or some places in theta of each; None for all of a block."""
    loss, layout, settings = context.loss, context.layout, context.settings
    assert isinstance(loss, MeasuresItself)
    context.run.begin()
    workers = 1 if settings.backend == "serial" else cores() if settings.workers in (None, -1) else settings.workers
    blocks = [block for _, block in context.blocks]
    found = []
    count = sum(block.size if p is None else len(p) for block, p in zip(blocks, places, strict=True))
    context = context.counting(count)
    step = settings.step
    if context.run.budget is None:
        some = None if count == layout.size else np.concatenate(list(map(_places, blocks, places)))
        measured = loss.measure(context.theta, layout, some, step=step, workers=workers or 1)
        found = [Estimates.of_measured(block, measured) for block in blocks]
        if tells_noise(loss, settings, layout.size):
            context = replace(context, noise=Noise.of_rounding(measured.noise, context.base))
    else:
        parts = zip(blocks, map(_places, blocks, places), strict=True)
        found = [_in_time(context, block, part, workers or 1) for block, part in parts]
    return Outcome(context, found, settings={"step": loss.step if step is None else min(step, loss.step)})


def _places(block: Block, some: IntArray | None) -> IntArray:
    return np.arange(block.start, block.stop) if some is None else some


def _in_time(context: Context, block: Block, part: IntArray, workers: int) -> Estimates:
    """Measure a block piece by piece, until the budget is spent; what is left counts as not measured."""
    loss = context.loss
    assert isinstance(loss, MeasuresItself)
    found = Estimates.empty(block, None if len(part) == block.size else part)
    for start in range(0, len(part), PIECE):
        if context.run.over():
            break
        piece = part[start : start + PIECE]
        measured = loss.measure(context.theta, context.layout, piece, step=context.settings.step, workers=workers)
        inside = Estimates.of_measured(block, measured)
        rows = slice(start, start + len(piece))
        found.value[rows], found.truncation[rows] = inside.value, inside.truncation
        found.looks |= inside.looks
    return found
