"""check(): the pipeline read top to bottom.

params -> flat theta -> probes -> loss differences -> measured derivatives -> comparison -> findings -> report.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from fastcheck.arrays import IntArray
from fastcheck.assemble import assemble, unmeasurable
from fastcheck.compare import Judge
from fastcheck.diagnosis import Facts, diagnosed, diagnosed_screen, facts_of
from fastcheck.differences import SCHEMES, BlockDerivatives
from fastcheck.errors import InputError, LossError
from fastcheck.finding import Finding
from fastcheck.losses import Evaluator, MeasuresItself, evaluator_for
from fastcheck.losses.imaginary import STEP, ImaginaryLoss
from fastcheck.noise import Noise, measure_noise
from fastcheck.parallel.checkpoint import Checkpoint
from fastcheck.parallel.crew import cores
from fastcheck.parallel.identity import identity
from fastcheck.parallel.staff import Staff
from fastcheck.parameters import Block, Parameters
from fastcheck.plain import plain
from fastcheck.plans import full, sample, screen
from fastcheck.plans.locate import locate
from fastcheck.plans.probing import Probing
from fastcheck.preflight import Preflight, preflight
from fastcheck.recognised import recognised
from fastcheck.report import Report
from fastcheck.report.progress import bar
from fastcheck.run import Run
from fastcheck.screened import assemble_screen
from fastcheck.settings import Settings, as_args
from fastcheck.steps import choose_steps, fixed_steps, rounds
from fastcheck.taylor import second_opinion
from fastcheck.verdict import Verdict

__all__ = ["assert_gradient", "check", "numerical_gradient"]


def check(
    loss: Callable[..., Any],
    gradient: Any,
    params: Any,
    *,
    args: tuple[Any, ...] = (),
    mode: str = "auto",
    samples: int | None = None,
    blocks: str | Sequence[str] | None = None,
    step: float | None = None,
    scheme: str = "central",
    tolerance: float = 1e-7,
    confidence: float = 0.9999,
    seed: int = 0,
    workers: int | None = None,
    backend: str = "auto",
    budget: float | None = None,
    checkpoint: str | Path | None = None,
    progress: bool | None = None,
    throw: bool = False,
) -> Report:
    """Compare a gradient with finite differences of the loss, and say whether it is right.

    Parameters
    ----------
    loss : callable
        ``loss(params, *args) -> float``; deterministic, and it leaves its arguments alone.
    gradient : tree, callable or True
        A tree like params, or ``gradient(params, *args)`` that returns one; True where the loss returns
        ``(loss, gradient)``. A dict may name its entries ``dW1`` for ``W1``; entries that belong to no parameter are
        ignored with a note.
    params : array, or dict, list, tuple, namedtuple, dataclass of float arrays, nested as deep as you like
        Where to check. The arrays are read, never written. A list of numbers is a vector; a Series or DataFrame of
        pandas comes to the loss as one; of complex numbers the gradient is dJ/dRe + i dJ/dIm. Parameters that an
        object holds: `fastcheck.attributes`.
    args : tuple
        Further positional arguments of the loss, and of the gradient if it is callable.
    mode : {"auto", "full", "sample", "screen"}
        Every coordinate; a random sample; random directions with certified bounds; or the best of them for the cost.
    samples : int, optional
        How many coordinates ``mode="sample"`` measures.
    blocks : str or sequence of str, optional
        Check only these blocks, by name or glob (``"W1"``, ``"encoder.*"``).
    step : float, optional
        The step h, in units of the parameters. By default it is chosen from the measured noise of the loss.
    scheme : {"central", "forward", "complex", "richardson"}
        The difference scheme.
    tolerance : float
        Relative error that still counts as correct.
    confidence : float
        Of every bound in the report.
    seed : int
        Of everything that is drawn; the same seed gives the same report.
    workers : int, optional
        Parallel workers; by default as many as pay off. The numbers do not depend on it.
    backend : str
        ``"auto"``, ``"serial"``, ``"threads"``, ``"processes"``, ``"dask"``, or the name of a joblib backend.
    budget : float, optional
        Seconds after which to stop and report what was covered.
    checkpoint : path, optional
        Where finished shards are kept, and resumed from.
    progress : bool, optional
        A progress bar on stderr; by default when that is a terminal and the work is long.
    throw : bool
        Raise `GradientError` unless the verdict is a pass.

    Returns
    -------
    Report

    Raises
    ------
    InputError
        An argument breaks a rule; nothing was evaluated or nothing is lost.
    LossError
        The loss or the gradient fails at theta itself.
    GradientError
        With ``throw=True``, when the gradient did not pass.
    """
    settings = Settings(
        mode, samples, blocks, step, scheme, tolerance, confidence, seed, workers, backend, budget, checkpoint, progress
    )
    args = as_args(args)
    with plain(loss, gradient, params) as problem:
        with Run(settings.budget, Staff(settings.workers, settings.backend)) as run:
            report = _check(problem.loss, problem.gradient, problem.params, args, settings, run)
        report = recognised(report, problem, args)
    return report.raise_if_wrong() if throw else report


def _check(
    loss: Callable[..., Any], gradient: Any, params: Any, args: tuple[Any, ...], settings: Settings, run: Run
) -> Report:
    layout = Parameters.of(params)
    chosen = layout.select(settings.blocks)
    numbers = tuple(layout.blocks.index(block) for block in chosen)
    rng = np.random.default_rng(settings.seed)
    evaluator = evaluator_for(loss, layout, layout.theta_of(params), args)
    seen = preflight(evaluator, gradient, args, rng)
    if seen.fatal:
        return unmeasurable(layout, chosen, seen, evaluator.evaluations, run.seconds, settings)
    if settings.checkpoint is not None:
        problem = identity(evaluator, loss, args, seen.base, seen.analytic.flat, settings.as_dict())
        run.checkpoint = Checkpoint(settings.checkpoint, problem)
    began, before = run.seconds, evaluator.evaluations
    noise = measure_noise(evaluator, seen.base, rng, seen.repeat)
    count = sum(block.size for block in chosen)
    cost = 0.0 if isinstance(loss, MeasuresItself) else (run.seconds - began) / max(1, evaluator.evaluations - before)
    mode = settings.mode_for(count, cost)
    if mode == "screen" and settings.mode == "auto" and rounds(evaluator):
        mode = "sample"  # kinks within the long steps of low precision can look like errors along a direction
    if mode == "screen":
        with bar(run, count, settings.progress):
            facts = facts_of(loss, args, [block.shape for block in layout.blocks])
            return _screen(evaluator, seen, noise, list(zip(numbers, chosen, strict=True)), settings, run, facts)
    places: Sequence[IntArray | None] = [None] * len(chosen)
    if mode == "sample":
        drawn = sample.draw(chosen, settings.samples, settings.confidence, rng)
        places, count = drawn.places, sum(map(len, drawn.places))
    pilot = () if isinstance(loss, MeasuresItself) else numbers
    plan = _plan(evaluator, seen, noise, settings, run, rng, pilot, count)
    with bar(run, count, settings.progress):
        if isinstance(loss, MeasuresItself):
            workers = cores() if settings.workers in (None, -1) else int(settings.workers or 1)
            found = _by_structure(loss, plan, chosen, places, workers)
        else:
            found = full.measure(plan, list(zip(numbers, chosen, places, strict=True)))
    report = assemble(layout, chosen, seen, plan, found, settings)
    measured = run.stopped
    with run.interruptible():  # what was measured stands without them
        report = diagnosed(report, plan, found, loss, gradient, args)
        report = second_opinion(report, plan, chosen, found, settings.seed)
    report = _cut_short(report, run, measured)
    return sample.stated(report, drawn, layout, settings.confidence) if mode == "sample" else report


def _by_structure(
    loss: MeasuresItself, plan: full.Full, chosen: Sequence[Block], places: Sequence[IntArray | None], workers: int
) -> list[BlockDerivatives]:
    """Let a loss that knows its structure measure the blocks, or some places of them."""
    layout, theta = plan.evaluator.layout, plan.evaluator.theta
    some = [np.arange(b.start, b.stop) if p is None else p for b, p in zip(chosen, places, strict=True)]
    whole = sum(map(len, some)) == layout.size
    measured = loss.measure(theta, layout, None if whole else np.concatenate(some), workers=workers)
    return [BlockDerivatives.of_measured(block, measured) for block in chosen]


def _screen(
    evaluator: Evaluator,
    seen: Preflight,
    noise: Noise,
    chosen: Sequence[tuple[int, Block]],
    settings: Settings,
    run: Run,
    facts: Facts,
) -> Report:
    """Screen the blocks, locate the errors of those that fail, and say what kind of bug they have."""
    judge = Judge(settings.tolerance, settings.confidence, screen.PROBES * len(chosen))
    plan = Probing(evaluator, seen.analytic, seen.base, noise, judge, run, settings.seed)
    screened = screen.screen(plan, chosen, settings.confidence)
    located = locate(plan, [one for one in screened if one.failed])
    report = assemble_screen(plan, seen, screened, located, settings)
    if not report.verdict.refuted:
        return report
    sure = [
        one for one in screened if not one.failed or report.blocks[one.block.name].verdict is not Verdict.INCONCLUSIVE
    ]
    measured = run.stopped
    with run.interruptible():
        report = diagnosed_screen(report, plan, sure, located, facts)
    return _cut_short(report, run, measured)


def _cut_short(report: Report, run: Run, measured: str | None) -> Report:
    """Return the report with a finding where the run was interrupted after all was measured."""
    if run.stopped != "interrupted" or measured is not None:
        return report
    finding = Finding(
        "stopped", None, "Interrupted during the diagnosis: verdict and numbers are complete, reasons may be missing."
    )
    return replace(report, findings=(*report.findings, finding))


def _plan(
    evaluator: Evaluator,
    seen: Preflight,
    noise: Noise,
    settings: Settings,
    run: Run,
    rng: np.random.Generator,
    numbers: tuple[int, ...],
    count: int,
) -> full.Full:
    """Choose the steps, and return what the full plan works with."""
    scheme = SCHEMES[settings.scheme]
    real = scheme if scheme.subtracts else SCHEMES["central"]
    judge = Judge(settings.tolerance, settings.confidence, count)
    if settings.step is None or not scheme.subtracts:
        steps = choose_steps(evaluator, seen.base, seen.analytic.flat, noise, real, rng, numbers)
    else:
        steps = fixed_steps(evaluator, settings.step)
    plan = full.Full(evaluator, seen.analytic, seen.base, noise, steps, real, judge, run)
    if scheme.subtracts:
        return plan
    imaginary = ImaginaryLoss(evaluator)
    direction = rng.standard_normal(evaluator.theta.size) * steps.of(evaluator, np.arange(evaluator.theta.size))
    imaginary.verify(seen.base, direction, np.array([0.25]))
    first = fixed_steps(evaluator, settings.step or STEP * float(np.abs(evaluator.theta).max() or 1.0))
    return replace(plan, first=replace(plan, evaluator=cast(Evaluator, imaginary), steps=first, scheme=scheme))


def assert_gradient(loss: Callable[..., Any], gradient: Any, params: Any, **options: Any) -> Report:
    """Check a gradient and raise unless it passes; `fastcheck.check` with ``throw=True``, and the same options.

    Raises
    ------
    GradientError
        An AssertionError whose message is the report; the report itself is its ``report``.
    """
    if "throw" in options:
        raise InputError(f"throw={options['throw']!r}: assert_gradient always throws; call check() to choose.")
    return check(loss, gradient, params, throw=True, **options)


def numerical_gradient(
    loss: Callable[..., Any],
    params: Any,
    *,
    args: tuple[Any, ...] = (),
    step: float | None = None,
    scheme: str = "central",
    seed: int = 0,
    workers: int | None = None,
    backend: str = "auto",
    progress: bool | None = None,
) -> Any:
    """Return the gradient of a loss by finite differences.

    Parameters
    ----------
    loss, params, args, step, scheme, seed, workers, backend, progress
        As in `fastcheck.check`.

    Returns
    -------
    tree like params
        New float64 arrays, in units of the loss over units of the parameters. Where a kink (relu, max, abs) is near,
        a shorter step was taken; exactly at a kink, the mean of the slopes to its two sides. With a step of your own
        these are the plain difference quotients.

    Raises
    ------
    InputError
        An argument breaks a rule.
    LossError
        The loss fails at theta, is random, or changes its arguments.
    """
    settings = Settings(
        "full", step=step, scheme=scheme, seed=seed, workers=workers, backend=backend, progress=progress
    )
    with plain(loss, (), params, matched=False) as problem:
        return problem.form.user(_numerical(problem.loss, problem.params, as_args(args), settings))


def _numerical(loss: Callable[..., Any], params: Any, args: tuple[Any, ...], settings: Settings) -> Any:
    layout = Parameters.of(params)
    rng = np.random.default_rng(settings.seed)
    with Run(staff=Staff(settings.workers, settings.backend)) as run:
        evaluator = evaluator_for(loss, layout, layout.theta_of(params), args)
        seen = preflight(evaluator, layout.unflatten(np.zeros(layout.size)), args, rng)
        if seen.fatal:
            raise LossError(seen.findings[-1].message)
        noise = measure_noise(evaluator, seen.base, rng, seen.repeat)
        plan = _plan(evaluator, seen, noise, settings, run, rng, tuple(range(len(layout.blocks))), layout.size)
        with bar(run, layout.size, settings.progress):
            value = full.derivatives(plan)
    if run.stopped == "interrupted":
        raise KeyboardInterrupt
    if not np.isfinite(value).all():
        raise LossError(
            f"{np.count_nonzero(~np.isfinite(value))} of {layout.size} derivatives failed: {evaluator.failure}"
        )
    return layout.unflatten(value)
