"""What one run works with: made once, handed to every strategy, the judge, the diagnosis and the report."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastcheck import thresholds
from fastcheck.arrays import FloatArray
from fastcheck.domain import BIAS, DEVIATION, Continued
from fastcheck.errors import InputError
from fastcheck.estimates import Estimates
from fastcheck.gradients import Analytic, match_gradient
from fastcheck.judge.coordinates import Judge, Lost
from fastcheck.judge.directions import BlockProbes
from fastcheck.losses import evaluator_for
from fastcheck.losses.evaluator import Evaluator, measures_itself
from fastcheck.losses.python import PythonLoss
from fastcheck.measure.noise import FLOAT64_EPS, Noise, Sizes, measure_noise, scale_of_blocks, uneven
from fastcheck.measure.steps import Steps
from fastcheck.parallel.checkpoint import Checkpoint
from fastcheck.parallel.digest import identity
from fastcheck.parameters import Block, Parameters
from fastcheck.preflight import Preflight, preflight, undecided
from fastcheck.replay import Draws, Replay, Replayed, same
from fastcheck.run import Run
from fastcheck.settings import Settings

if TYPE_CHECKING:
    from fastcheck.strategies.sample import Sample

__all__ = ["Context", "Outcome", "prepared", "tells_noise"]


@dataclass(frozen=True)
class Context:
    """What a run works with.

    Attributes
    ----------
    loss, gradient, args
        As the user gave them.
    settings : Settings
        What was asked for.
    run : Run
        Budget, workers and progress.
    evaluator : Evaluator
        The loss around theta.
    preflight : Preflight
        J(theta), the analytic gradient, and what was noticed of both.
    noise : Noise
        The noise of one loss value.
    blocks : tuple of (int, Block)
        The blocks to check, each with its number in the layout.
    judge : Judge
        What counts as an error; its count of things measured is the strategy's.
    rng : numpy.random.Generator
        Draws what the run draws, in a fixed order.
    cost : float
        Seconds of one evaluation, as far as is known.
    replay : Replay or None
        Of a random loss: what every evaluation replays.
    """

    loss: Callable[..., Any] = field(repr=False)
    gradient: Any = field(repr=False)
    args: tuple[Any, ...] = field(repr=False)
    settings: Settings
    run: Run
    evaluator: Evaluator
    preflight: Preflight
    noise: Noise
    blocks: tuple[tuple[int, Block], ...]
    judge: Judge
    rng: np.random.Generator
    cost: float = 0.0
    replay: Replay | None = None

    @property
    def layout(self) -> Parameters:
        """How the tree becomes theta."""
        return self.evaluator.layout

    @property
    def theta(self) -> FloatArray:
        """The base point, shape (P,)."""
        return self.evaluator.theta

    @property
    def base(self) -> float:
        """J(theta)."""
        return self.preflight.base

    @property
    def analytic(self) -> Analytic:
        """The user's gradient."""
        return self.preflight.analytic

    @property
    def seed(self) -> int:
        """Of the directions."""
        return self.settings.seed

    @property
    def size(self) -> int:
        """Coordinates of the blocks to check."""
        return sum(block.size for _, block in self.blocks)

    @property
    def loss_error(self) -> float:
        """Largest error of one loss value in the whole run, at its confidence."""
        return self.noise.error(self.judge.z)

    def counting(self, count: int) -> Context:
        """Return the context of a strategy that measures so many things."""
        return replace(self, judge=replace(self.judge, count=count))

    def of_block(self, number: int) -> tuple[FloatArray, Lost, float]:
        """Return a block's analytic gradient, what rounding it lost, and the norm of an error that is no proof."""
        g = self.analytic.flat[self.layout.blocks[number].slice]
        lost = Lost(float(self.analytic.eps[number]), self._argument(number, g) if self.noise.argument else 0.0)
        return g, lost, float(self.analytic.doubt[number])

    @cached_property
    def _scales(self) -> FloatArray:
        return scale_of_blocks(self.evaluator)

    def _argument(self, number: int, g: FloatArray) -> float:
        """Return what rounding of the parameters makes of any entry of a block's gradient.

        Entries of unlike sizes lose by their own, and that counts where all of them are next to stationary.
        """
        theta, scale = self.theta[self.layout.blocks[number].slice], float(self._scales[number])
        if uneven(theta):
            sizes = Sizes.of(theta, g, scale)(theta, g) if g.any() else np.where(theta != 0, np.abs(theta), scale)
            slope = thresholds.ARGUMENT * FLOAT64_EPS * float(np.linalg.norm(g * sizes))
            if slope <= thresholds.STATIONARY * self.noise.argument:
                scale = float(sizes.min())
        return self.noise.argument / scale


def prepared(
    loss: Callable[..., Any],
    gradient: Any,
    args: tuple[Any, ...],
    settings: Settings,
    run: Run,
    layout: Parameters,
    theta: FloatArray,
) -> Context:
    """Look the loss and the gradient over at theta, measure the noise, and return what a run works with.

    Where the preflight is fatal (the loss is no function of theta), nothing more is measured.
    """
    path = None if settings.checkpoint is None else Path(settings.checkpoint).absolute()  # a loss may change the folder
    rng = np.random.default_rng(settings.seed)
    chosen = [(layout.number(block), block) for block in layout.select(settings.blocks)]
    draws = Draws() if isinstance(loss, Replayed) else Draws(loss, gradient, args)
    evaluator = evaluator_for(loss, layout, theta, args)
    run.watch(evaluator)
    seen = preflight(evaluator, gradient, args, rng, draws)
    judge = Judge(settings.tolerance, settings.confidence, 1)
    silent = Noise(0.0, 0.0, False)
    context = Context(loss, gradient, args, settings, run, evaluator, seen, silent, tuple(chosen), judge, rng)
    if seen.random:
        run.at_end(draws.put_back)
        return _replaying(context, draws)
    if seen.fatal:
        return context
    if path is not None:
        problem = identity(evaluator, loss, args, seen.base, seen.analytic.flat, settings.as_dict())
        run.checkpoint = Checkpoint(path, problem)
    if tells_noise(loss, settings, layout.size):
        return context
    began, before = run.seconds, evaluator.evaluations
    views = [block.view(theta) for block in layout.blocks]
    box = loss.box if isinstance(loss, Continued) else None
    noise = measure_noise(evaluator, seen.base, rng, seen.repeat, None if box is None else box.at(views))
    if not noise.resolved and settings.unchecked == "fail":
        _refuse_constant(evaluator, seen, noise)
    if box is not None and box.near(views):
        noise = replace(noise, level=DEVIATION * noise.level, grain=BIAS * noise.grain)
    cost = run.pace = (run.seconds - began) / max(1, evaluator.evaluations - before)
    return replace(context, noise=noise, cost=cost)


def tells_noise(loss: Callable[..., Any], settings: Settings, count: int) -> bool:
    """Say whether all coordinates of a loss are measured by its own structure, which then tells its noise as well."""
    everything = settings.blocks is None and settings.budget is None and settings.mode_for(count, 0.0) == "full"
    return measures_itself(loss) and everything


def _replaying(context: Context, draws: Draws) -> Context:
    """Return the context of a random loss made one function by replaying what it draws, or of why it can't be."""
    gradient, args, evaluator, run = context.gradient, context.args, context.evaluator, context.run
    if not context.settings.replay or not isinstance(evaluator, PythonLoss):
        return context
    used = draws.used_by(evaluator.call)
    if not used:
        return context
    sources = draws.named(used)
    if not callable(gradient):
        return _undecided(
            context,
            f"It draws from {sources}, and the gradient is an array, of other draws. Pass the function that computes "
            "it, and both draw the same in every call.",
        )
    loss, gradient = draws.replayed(context.loss, args, used), draws.replayed(gradient, args)
    again = replace(context.settings, replay=False)
    there = prepared(loss, gradient, args, again, run, context.layout, context.theta)
    there.evaluator.evaluations += evaluator.evaluations + 2
    if there.preflight.random:  # still: it draws from what can't be found
        return replace(context, evaluator=there.evaluator)
    if there.preflight.fatal:
        return replace(there, settings=context.settings)
    drawn = draws.used_by(lambda: gradient(evaluator.tree_of(context.theta.copy()), *args))
    others = draws.named(drawn.keys() - used.keys())
    if others:
        return _undecided(
            replace(context, evaluator=there.evaluator),
            f"It draws from {sources}, and the gradient from {others}: they are of different draws. Let both draw from "
            "one generator, in one order.",
        )
    anew = bool(drawn) and not same(drawn, used)
    mean = None
    if _is_blind(context, draws, there.analytic.flat):
        mean = undecided(
            context.preflight.findings[-1],
            f"It draws from {sources}, and the gradient is the same whatever that gives. As the gradient of the mean "
            "it is not that of one evaluation: pass the loss without its draws (keep_prob=1). In a net with dropout "
            "its masks, and their scale, are not applied on the way back.",
        )
    replay = Replay(sources, anew, mean, draws.rates())
    return replace(there, settings=context.settings, replay=replay)


def _is_blind(context: Context, draws: Draws, flat: FloatArray) -> bool:
    """Say whether the gradient stays what it is where the loss has drawn other numbers."""
    evaluator = context.evaluator
    draws.put_back()
    for _ in range(2):
        evaluator.call()
    tree = context.gradient(evaluator.tree_of(context.theta.copy()), *context.args)
    return np.array_equal(match_gradient(tree, context.layout).flat, flat)


def _undecided(context: Context, why: str) -> Context:
    """Return the context of a random loss that can't be replayed, with the reason in its finding."""
    seen = context.preflight
    return replace(context, preflight=replace(seen, findings=(*seen.findings[:-1], undecided(seen.findings[-1], why))))


def _refuse_constant(evaluator: Evaluator, seen: Preflight, noise: Noise) -> None:
    """Raise where J has the same bits wherever the parameters are, though its gradient is more than rounding."""
    flat, scaled = seen.analytic.flat, list(zip(evaluator.layout.blocks, scale_of_blocks(evaluator), strict=True))
    slope = math.hypot(*(scale * float(np.linalg.norm(flat[block.slice])) for block, scale in scaled))
    if slope <= thresholds.GRADIENT_ROUNDING * noise.level:
        return
    rng = np.random.default_rng(0)
    for _ in range(2):
        move = rng.standard_normal(evaluator.theta.size)
        for block, scale in scaled:
            move[block.slice] *= scale
        if np.any(evaluator.along(0, move, np.array(thresholds.FAR)) != seen.base):
            return
    raise InputError(
        f"loss={seen.base!r} wherever params are: the loss is the same number for all of them. Does it read them from "
        "elsewhere (self.W, a global)? It must use the params that it is called with."
    )


@dataclass(frozen=True)
class Outcome:
    """What a strategy measured: the one form of result of all of them.

    Attributes
    ----------
    context : Context
        With the judge of as many things as were measured.
    estimates : sequence of Estimates
        Coordinates measured one by one, by block.
    directions : sequence of BlockProbes
        Directions measured over whole blocks.
    located : mapping of str to Located
        What a search found in the blocks whose directions showed an error.
    steps : Steps or None
        Of the coordinates.
    drawn : Sample or None
        What was drawn, where the coordinates are a sample.
    settings : mapping
        What the strategy chose itself, for the report's settings.
    """

    context: Context
    estimates: Sequence[Estimates] = ()
    directions: Sequence[BlockProbes] = ()
    located: Mapping[str, Any] = field(default_factory=dict)
    steps: Steps | None = None
    drawn: Sample | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
