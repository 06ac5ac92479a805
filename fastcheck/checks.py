"""check(): the pipeline read top to bottom.

params -> flat theta -> probes -> loss differences -> measured derivatives -> comparison -> findings -> report.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastcheck.assemble import assemble, unmeasurable
from fastcheck.compare import Judge
from fastcheck.diagnosis import diagnosed
from fastcheck.differences import SCHEMES
from fastcheck.errors import InputError, LossError
from fastcheck.losses import PythonLoss, evaluator_for
from fastcheck.noise import measure_noise
from fastcheck.parameters import Parameters
from fastcheck.plans import full
from fastcheck.preflight import Preflight, preflight
from fastcheck.report import Report
from fastcheck.report.progress import bar
from fastcheck.run import Run
from fastcheck.settings import Settings, as_args
from fastcheck.steps import choose_steps, fixed_steps

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
    gradient : tree or callable
        A tree like params, or ``gradient(params, *args)`` that returns one. A dict may name its entries ``dW1`` for
        ``W1``; entries that belong to no parameter are ignored with a note.
    params : array, or dict, list, tuple, namedtuple, dataclass of float arrays, nested as deep as you like
        Where to check. The arrays are read, never written.
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
    report = _check(loss, gradient, params, as_args(args), settings)
    return report.raise_if_wrong() if throw else report


def _check(loss: Callable[..., Any], gradient: Any, params: Any, args: tuple[Any, ...], settings: Settings) -> Report:
    run = Run(settings.budget)
    layout = Parameters.of(params)
    chosen = layout.select(settings.blocks)
    numbers = tuple(layout.blocks.index(block) for block in chosen)
    rng = np.random.default_rng(settings.seed)
    evaluator = evaluator_for(loss, layout, layout.flatten(params), args)
    seen = preflight(evaluator, gradient, args, rng)
    if seen.fatal:
        return unmeasurable(layout, chosen, seen, evaluator.evaluations, run.seconds, settings)
    count = sum(block.size for block in chosen)
    plan = _plan(evaluator, seen, settings, run, rng, numbers, count)
    with bar(run, count, settings.progress):
        found = full.measure(plan, [(number, block, None) for number, block in zip(numbers, chosen, strict=True)])
    report = assemble(layout, chosen, seen, plan, found, settings)
    return diagnosed(report, plan, found, loss, gradient, args)


def _plan(
    evaluator: PythonLoss,
    seen: Preflight,
    settings: Settings,
    run: Run,
    rng: np.random.Generator,
    numbers: tuple[int, ...],
    count: int,
) -> full.Full:
    """Measure the noise, choose the steps, and return what the plans work with."""
    noise = measure_noise(evaluator, seen.base, rng, seen.repeat)
    scheme = SCHEMES[settings.scheme]
    judge = Judge(settings.tolerance, settings.confidence, count)
    if settings.step is None:
        steps = choose_steps(evaluator, seen.base, seen.analytic.flat, noise, scheme, rng, numbers)
    else:
        steps = fixed_steps(evaluator, settings.step)
    return full.Full(evaluator, seen.analytic, seen.base, noise, steps, scheme, judge, run)


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
        New float64 arrays, in units of the loss over units of the parameters.

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
    run = Run()
    layout = Parameters.of(params)
    rng = np.random.default_rng(seed)
    args = as_args(args)
    evaluator = evaluator_for(loss, layout, layout.flatten(params), args)
    seen = preflight(evaluator, layout.unflatten(np.zeros(layout.size)), args, rng)
    if seen.fatal:
        raise LossError(seen.findings[-1].message)
    plan = _plan(evaluator, seen, settings, run, rng, tuple(range(len(layout.blocks))), layout.size)
    with bar(run, layout.size, progress):
        value = full.first_pass(plan)
    if not np.isfinite(value).all():
        raise LossError(
            f"{np.count_nonzero(~np.isfinite(value))} of {layout.size} derivatives failed: {evaluator.failure}"
        )
    return layout.unflatten(value)
