"""check(): the pipeline read top to bottom.

params -> flat theta -> probes -> loss differences -> measured derivatives -> comparison -> findings -> report.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, Unpack, cast

import numpy as np

from fastcheck.arithmetic import own
from fastcheck.conclude import conclude, record, unmeasurable
from fastcheck.context import prepared
from fastcheck.conventions import recognised
from fastcheck.elsewhere import decided_elsewhere
from fastcheck.errors import InputError, LossError
from fastcheck.explain import explained, superseded
from fastcheck.findings import Finding, Kind
from fastcheck.judge.judge import judge
from fastcheck.notice import noticed
from fastcheck.parallel.shards import Staff
from fastcheck.parameters import Parameters
from fastcheck.plain import plain, within
from fastcheck.report import Report
from fastcheck.run import OutOfBudget, Run, bar
from fastcheck.settings import Backend, Mode, Options, Scheme, Settings, Unchecked, as_args
from fastcheck.strategies import derivatives, refuse, strategy_for
from fastcheck.taylor import second_opinion

__all__ = ["assert_gradient", "check", "numerical_gradient"]

Tree = TypeVar("Tree")


def check(
    loss: Callable[..., Any],
    gradient: Any,
    params: Tree,
    *,
    args: tuple[Any, ...] = (),
    mode: Mode = "auto",
    samples: int | None = None,
    blocks: str | Sequence[str] | None = None,
    step: float | None = None,
    scheme: Scheme = "central",
    tolerance: float = 1e-7,
    confidence: float = 0.9999,
    seed: int = 0,
    workers: int | None = None,
    backend: Backend = "auto",
    budget: float | None = None,
    checkpoint: str | Path | None = None,
    progress: bool | None = None,
    unchecked: Unchecked = "fail",
    bounds: Any = None,
    replay: bool = True,
    throw: bool = False,
) -> Report[Tree]:
    """Compare a gradient with finite differences of the loss, and say whether it is right.

    Parameters
    ----------
    loss : callable
        ``loss(params, *args) -> float``; it leaves its arguments alone, and is the same function in every call (see
        ``replay``).
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
    unchecked : {"fail", "allow"}
        Whether a block that could not be checked (its derivative is below the noise, here and nearby) spoils a pass.
    bounds : (low, high), optional
        Where the loss may be evaluated: each None, a number, or a tree like params. At a bound differences are taken
        to the inside.
    replay : bool
        Where the loss draws at random (dropout, noise), put what it draws from (Python's, numpy's and torch's global
        generators, and those that loss and gradient can reach) into the same state before every evaluation and before
        the gradient, and check that one function. The generators are then put back. A gradient that is an array was
        computed with other draws and stays undecided.
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
        mode=mode,
        samples=samples,
        blocks=blocks,
        step=step,
        scheme=scheme,
        tolerance=tolerance,
        confidence=confidence,
        seed=seed,
        workers=workers,
        backend=backend,
        budget=budget,
        checkpoint=checkpoint,
        progress=progress,
        unchecked=unchecked,
        replay=replay,
    )
    args = as_args(args)
    with plain(loss, gradient, params) as problem:
        problem = within(problem, bounds)
        with own(), Run(settings.budget, Staff(settings.workers, settings.backend)) as run:
            report = _check(problem.loss, problem.gradient, problem.params, args, settings, run)
        report = recognised(report, problem, args)
    report = replace(report, findings=(*report.findings, *run.notes))
    call = "check(loss, gradient, params" + (", bounds=bounds" if bounds is not None else "")
    report = replace(report, settings={**report.settings, **record(loss, args, call)})
    return report.raise_if_wrong() if throw else report


def _check(
    loss: Callable[..., Any], gradient: Any, params: Any, args: tuple[Any, ...], settings: Settings, run: Run
) -> Report:
    refuse(loss, settings)
    layout = Parameters.of(params)
    try:
        context = prepared(loss, gradient, args, settings, run, layout, layout.theta_of(params))
        if context.preflight.fatal:
            found, evaluations = context.preflight.findings, context.evaluator.evaluations
            return unmeasurable(layout, found, evaluations, run.seconds, settings)
        with bar(run, context.size, settings.progress):
            outcome = strategy_for(context)(context)
    except OutOfBudget as spent:
        evaluations = spent.evaluator.evaluations
        return unmeasurable(layout, (_nothing(run, evaluations),), evaluations, run.seconds, settings)
    verdicts, said = decided_elsewhere(outcome, judge(outcome))
    measured = run.stopped
    reasons: tuple[Finding, ...] = ()
    taylor, contradiction = None, None
    with run.interruptible():  # what was measured stands without them
        taylor, verdicts, contradiction = second_opinion(outcome, verdicts)
        reasons = explained(outcome, verdicts)
    noted = [*context.preflight.findings, *said, *noticed(outcome, verdicts, measured)]
    if reasons:
        better = superseded(outcome)
        noted = [finding for finding in noted if not any(finding is one for one in better)]
    first = [contradiction] if contradiction is not None else []
    last = [_CUT_SHORT] if run.stopped == "interrupted" and measured is None else []
    return conclude(outcome, verdicts, (*first, *reasons, *noted, *last), taylor)


def _nothing(run: Run, evaluations: int) -> Finding:
    """Return the finding of a budget that was spent before anything was measured."""
    each = run.seconds / max(1, evaluations)
    return Finding(
        Kind.STOPPED,
        None,
        f"The run stopped after its budget of {run.budget or 0:g} s, before anything was measured: in that time the "
        f"loss was evaluated {evaluations} times ({each:.2g} s each). It takes a dozen to know its noise, and some "
        "more for the steps of each block. Give it a larger budget, or a smaller batch.",
        {"done": 0, "evaluations": evaluations, "seconds": each},
    )


_CUT_SHORT = Finding(
    Kind.STOPPED,
    None,
    "Interrupted during the diagnosis: verdict and numbers are complete, reasons may be missing.",
)


def assert_gradient(loss: Callable[..., Any], gradient: Any, params: Tree, **options: Unpack[Options]) -> Report[Tree]:
    """Check a gradient and raise unless it passes; `fastcheck.check` with ``throw=True``, and the same options.

    Raises
    ------
    GradientError
        An AssertionError whose message is the report; the report itself is its ``report``.
    """
    if "throw" in options:
        raise InputError(f"throw={dict(options)['throw']!r}: assert_gradient always throws; call check() to choose.")
    return check(loss, gradient, params, throw=True, **options)


def numerical_gradient(
    loss: Callable[..., Any],
    params: Tree,
    *,
    args: tuple[Any, ...] = (),
    step: float | None = None,
    scheme: Scheme = "central",
    seed: int = 0,
    workers: int | None = None,
    backend: Backend = "auto",
    progress: bool | None = None,
    bounds: Any = None,
) -> Tree:
    """Return the gradient of a loss by finite differences.

    Parameters
    ----------
    loss, params, args, step, scheme, seed, workers, backend, progress, bounds
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
        "full", step=step, scheme=scheme, seed=seed, workers=workers, backend=backend, progress=progress, replay=False
    )
    with plain(loss, (), params, matched=False) as problem:
        problem = within(problem, bounds)
        return cast(Tree, problem.form.user(_numerical(problem.loss, problem.params, as_args(args), settings)))


def _numerical(loss: Callable[..., Any], params: Any, args: tuple[Any, ...], settings: Settings) -> Any:
    refuse(loss, settings)
    layout = Parameters.of(params)
    with own(), Run(staff=Staff(settings.workers, settings.backend)) as run:
        zero = layout.unflatten(np.zeros(layout.size))
        context = prepared(loss, zero, args, settings, run, layout, layout.theta_of(params))
        if context.preflight.fatal:
            raise LossError(context.preflight.findings[-1].message)
        with bar(run, layout.size, settings.progress):
            value = derivatives(context)
    if run.stopped == "interrupted":
        raise KeyboardInterrupt
    if not np.isfinite(value).all():
        raise LossError(
            f"{np.count_nonzero(~np.isfinite(value))} of {layout.size} derivatives failed: {context.evaluator.failure}"
        )
    return layout.unflatten(value)
