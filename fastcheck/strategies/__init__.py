"""How a gradient is measured: one module for each way, one form of call and of result; `strategy_for` chooses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from fastcheck.arrays import FloatArray
from fastcheck.context import Context, Outcome
from fastcheck.losses import measures_itself
from fastcheck.measure.steps import is_low_precision
from fastcheck.settings import Settings
from fastcheck.strategies import full, sample, screen, structured

__all__ = ["Strategy", "derivatives", "refuse", "strategy_for"]

HELD_UP = 20.0  # times as long may an evaluation take that another process held up

Strategy: TypeAlias = Callable[[Context], Outcome]


def strategy_for(context: Context) -> Strategy:
    """Return the strategy for the loss and the mode that was asked for."""
    itself = measures_itself(context.loss)
    measure = structured.measure if itself else full.measure
    mode = context.settings.mode_for(context.size, 0.0 if itself else context.cost)
    if mode == "screen" and context.settings.mode_for(context.size, context.cost / HELD_UP) == "full":
        mode = context.settings.mode_for(context.size, _quickest(context))
    if mode == "screen" and context.settings.mode == "auto" and is_low_precision(context.evaluator):
        mode = "sample"  # kinks within the long steps of low precision can look like errors along a direction
    if mode == "screen":
        return partial(_said, mode, screen.measure)
    if mode == "sample":
        return partial(_said, mode, partial(_sampled, measure))
    return partial(_said, mode, lambda context: measure(context, [None] * len(context.blocks)))


def _quickest(context: Context) -> float:
    """Return the seconds of an evaluation where nothing else takes the core: on a busy machine a mean says too much."""
    seconds = [context.cost]
    for _ in range(2):
        began = context.run.seconds
        context.evaluator.base()
        seconds.append(context.run.seconds - began)
    return min(seconds)


def _said(mode: str, measure: Strategy, context: Context) -> Outcome:
    """Measure, and say in the report's settings which mode was chosen, so that the run can be repeated."""
    outcome = measure(context)
    return replace(outcome, settings={"mode": mode, **outcome.settings})


def refuse(loss: Callable[..., Any], settings: Settings) -> None:
    """Refuse, before anything is evaluated, what the strategy for a loss can't honour; `InputError` names it."""
    if measures_itself(loss):
        structured.refuse(settings)


def derivatives(context: Context) -> FloatArray:
    """Return the measured derivative of every coordinate, shape (P,), whatever the gradient."""
    if measures_itself(context.loss):
        return np.concatenate(
            [found.value for found in structured.measure(context, [None] * len(context.blocks)).estimates]
        )
    return full.derivatives(context)


def _sampled(measure: Callable[..., Outcome], context: Context) -> Outcome:
    """Draw a sample, and measure it."""
    settings = context.settings
    some = sample.drawn([block for _, block in context.blocks], settings.samples, settings.confidence, context.rng)
    return replace(measure(context, some.places), drawn=some)
