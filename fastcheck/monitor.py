"""Checks during training, within a share of its time.

Weights grow while a net trains, and some bugs show only then. The monitor is called at every step, and decides by
itself whether to check now: a few directions over every block and a few single coordinates, new ones each time.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fastcheck import thresholds
from fastcheck.arithmetic import own
from fastcheck.conclude import conclude, unmeasurable
from fastcheck.context import Outcome, prepared
from fastcheck.conventions import recognised
from fastcheck.errors import InputError
from fastcheck.judge.directions import BlockProbes
from fastcheck.judge.judge import judge
from fastcheck.measure.probes import Probing
from fastcheck.notice import noticed
from fastcheck.parameters import Block, Parameters
from fastcheck.plain import Plain, plain
from fastcheck.replay import Draws
from fastcheck.report import Report
from fastcheck.run import Run
from fastcheck.settings import Settings, as_args
from fastcheck.strategies.coordinates import is_wrong, measured, quickly
from fastcheck.strategies.locate import Located, locate
from fastcheck.strategies.screen import chosen, probing_of, screen

__all__ = ["Moment", "Monitor"]

DIRECTIONS = (2,)  # over every block, at every check
COORDINATES = 2  # measured one by one, at every check
TRIES = 64  # at coordinates not seen yet, before one is measured again
_WORD = 1 << 64
_GOLDEN = 0x9E3779B97F4A7C15  # steps a seed to one that shares nothing with it


@dataclass(frozen=True)
class Moment:
    """One check.

    Attributes
    ----------
    step : int
        Steps of training before it, from 0.
    at : float
        Seconds since the monitor's first step.
    report : Report
        What it found.
    """

    step: int
    at: float
    report: Report


@dataclass
class Monitor:
    """Checks a gradient now and then while a net is trained.

    Parameters
    ----------
    loss : callable
        ``loss(params, *args) -> float``, as in `fastcheck.check`.
    gradient : callable or True
        ``gradient(params, *args)`` returns a tree like params; True where the loss returns ``(loss, gradient)``.
    overhead : float
        Share of the training time that checks may take; the first step is always checked, and its time is paid back
        before the next.
    on_wrong : {"warn", "raise"} or callable
        What happens when a check finds a wrong or suspicious gradient: a RuntimeWarning, a `GradientError`, or a call
        with the report.
    tolerance, confidence, seed
        As in `fastcheck.check`.

    Attributes
    ----------
    history : list of Moment
        Every check so far.

    Raises
    ------
    InputError
        An argument breaks a rule.
    """

    loss: Callable[..., Any]
    gradient: Callable[..., Any] | Literal[True]
    overhead: float = field(default=0.02, kw_only=True)
    on_wrong: Literal["warn", "raise"] | Callable[[Report], object] = field(default="warn", kw_only=True)
    tolerance: float = field(default=1e-7, kw_only=True)
    confidence: float = field(default=0.9999, kw_only=True)
    seed: int = field(default=0, kw_only=True)
    history: list[Moment] = field(default_factory=list, init=False)
    _steps: int = field(default=0, init=False, repr=False)
    _began: float = field(default=0.0, init=False, repr=False)
    _spent: float = field(default=0.0, init=False, repr=False)
    _seen: dict[str, set[int]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self._settings = Settings(
            "screen", tolerance=self.tolerance, confidence=self.confidence, seed=self.seed, unchecked="allow"
        )
        if not callable(self.loss) or not (callable(self.gradient) or self.gradient is True):
            raise InputError("loss and gradient must be callable: the monitor calls both at each check's parameters.")
        if isinstance(self.overhead, bool) or not isinstance(self.overhead, (int, float)) or not 0 < self.overhead < 1:
            raise InputError(f"overhead={self.overhead!r} must be a share of the training time, as 0.02 for 2%.")
        if self.on_wrong not in ("warn", "raise") and not callable(self.on_wrong):
            raise InputError(f"on_wrong={self.on_wrong!r} must be 'warn', 'raise' or a function of the report.")

    @property
    def share(self) -> float:
        """Time of the checks so far over the time of the training between them; 0.0 before the first step."""
        training = time.perf_counter() - self._began - self._spent if self._steps else 0.0
        return self._spent / training if training > 0 else 0.0

    def step(self, params: Any, args: tuple[Any, ...] = ()) -> Report | None:
        """Check now, if it is time.

        Parameters
        ----------
        params : tree of float arrays, or `fastcheck.attributes`
            The parameters now, in any form that `fastcheck.check` takes; read, never changed.
        args : tuple
            The rest of the arguments of loss and gradient, as the batch.

        Returns
        -------
        Report or None
            None where it was not time.

        Raises
        ------
        GradientError
            With ``on_wrong="raise"``, where the gradient is wrong or suspicious.
        """
        now = time.perf_counter()
        if not self._steps:
            self._began = now
        self._steps += 1
        if not self._due(now):
            return None
        draws = Draws(self.loss, self.gradient, args)
        try:
            with own():
                report = self._check(params, as_args(args))
        finally:
            draws.put_back()  # the training goes on with the numbers that it would have drawn
        self.history.append(Moment(self._steps - 1, now - self._began, report))
        self._spent += time.perf_counter() - now
        if report.verdict.refuted:
            self._alarm(report)
        return report

    def save(self, path: str | Path) -> Path:
        """Write the history to ``*.json``, or with its plot to ``*.html``, and return the path.

        Raises
        ------
        InputError
            The name ends in neither.
        MissingDependencyError
            A page needs jinja2 and matplotlib.
        """
        from fastcheck.report import history

        return history.save(self.history, Path(path), self.tolerance)

    def plot(self) -> Any:
        """Return a matplotlib Figure of the difference of every block over the steps.

        Raises
        ------
        MissingDependencyError
            matplotlib is not installed.
        """
        from fastcheck.report import figures

        return figures.history(self.history, self.tolerance)

    def _due(self, now: float) -> bool:
        """Say whether another check as long as the last would still be within the overhead."""
        if not self.history:
            return True
        training = now - self._began - self._spent
        expected = self.history[-1].report.seconds
        return self._spent + expected <= self.overhead * training

    def _check(self, params: Any, args: tuple[Any, ...]) -> Report:
        with plain(self.loss, self.gradient, params) as problem:
            return recognised(self._screened(problem, args), problem, args)

    def _screened(self, problem: Plain, args: tuple[Any, ...]) -> Report:
        run, number = Run(), len(self.history)
        layout = Parameters.of(problem.params)
        settings = replace(self._settings, seed=(self.seed + number * _GOLDEN) % _WORD)
        context = prepared(problem.loss, problem.gradient, args, settings, run, layout, layout.flatten(problem.params))
        if context.preflight.fatal:
            return unmeasurable(
                layout, context.preflight.findings, context.evaluator.evaluations, run.seconds, self._settings
            )
        context = context.counting(thresholds.PROBES * len(layout.blocks))
        plan = probing_of(context)
        screened = screen(plan, context.blocks, self.confidence, DIRECTIONS, joint=False)
        located = locate(plan, [one for one in screened if one.failed])
        self._coordinates(plan, screened, located, context.rng)
        estimates = [one.derivatives() for one in located.values()]
        outcome = Outcome(context, estimates, screened, located, settings=chosen(screened))
        verdicts = judge(outcome)
        return conclude(outcome, verdicts, (*context.preflight.findings, *noticed(outcome, verdicts, run.stopped)))

    def _coordinates(
        self, plan: Probing, screened: list[BlockProbes], located: dict[str, Located], rng: np.random.Generator
    ) -> None:
        """Measure a few coordinates that were not measured before, of one block after the other."""
        for k in range(COORDINATES):
            one = screened[(len(self.history) * COORDINATES + k) % len(screened)]
            if not one.block.size:
                continue
            place = self._unseen(one.block, rng)
            resolved = quickly(plan, one.number, place)
            if is_wrong(plan, place, resolved):
                resolved = measured(plan, one.number, [place], one.shortest)[place]
            located.setdefault(one.block.name, Located(one)).measured[place] = resolved

    def _unseen(self, block: Block, rng: np.random.Generator) -> int:
        seen = self._seen.setdefault(block.name, set())
        if len(seen) >= block.size:
            seen.clear()  # all were seen: begin again, theta is another by now
        place = int(rng.integers(block.start, block.stop))
        for _ in range(TRIES):
            if place not in seen:
                break
            place = int(rng.integers(block.start, block.stop))
        else:
            place = next(p for p in range(block.start, block.stop) if p not in seen)
        seen.add(place)
        return place

    def _alarm(self, report: Report) -> None:
        if self.on_wrong == "raise":
            report.raise_if_wrong()
        elif self.on_wrong == "warn":
            message = f"gradient check at step {self._steps - 1}: {str(report).splitlines()[0]}"
            warnings.warn(message, RuntimeWarning, stacklevel=3)
        elif callable(self.on_wrong):
            self.on_wrong(report)
