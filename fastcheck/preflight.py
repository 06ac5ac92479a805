"""Before anything is measured: is the loss a function of theta at all?

Four evaluations on a well-behaved loss: J, the gradient, J again, J a step away, J back; a bound `Network` needs the
first alone. When two calls at one theta differ, up to four more tell why.
"""

from __future__ import annotations

import contextlib
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fastcheck.arithmetic import theirs
from fastcheck.arrays import FloatArray, equal
from fastcheck.errors import FastcheckError, InputError, LossError, said
from fastcheck.findings import Finding, Kind
from fastcheck.gradients import Analytic, match_gradient
from fastcheck.losses.evaluator import Evaluator, as_float, measures_itself
from fastcheck.losses.python import PythonLoss
from fastcheck.measure.noise import FAINTEST, generic_direction
from fastcheck.parameters import ROOT, Parameters, leaves
from fastcheck.plain import takes
from fastcheck.replay import Draws

__all__ = ["Preflight", "low_precision", "preflight", "undecided"]

SAME = 1e-9  # relative difference of two calls that may still be a noise (threads that sum in another order)
COUNTS = 1e-6  # relative scatter of the steps of a loss that counts its calls
GEOMETRIC = 0.05  # and of their ratios, where running statistics move towards their limit
LARGEST = 1e44  # of the loss and its derivatives: the uncertainties still fit into single precision
AWAY = 2.0**-10  # relative to the parameters


@dataclass(frozen=True)
class Preflight:
    """What the preflight saw.

    Attributes
    ----------
    base : float
        J(theta).
    repeat : float
        Largest |difference| of calls at the same theta that still counts as noise, in units of the loss.
    analytic : Analytic
        The user's gradient.
    findings : tuple of Finding
        What it noticed.
    fatal : bool
        The loss is not a function of theta: nothing can be measured.
    """

    base: float
    repeat: float
    analytic: Analytic
    findings: tuple[Finding, ...] = field(default=())
    fatal: bool = False

    @property
    def random(self) -> bool:
        """Whether the loss draws at random."""
        return self.fatal and self.findings[-1].kind is Kind.RANDOM_LOSS


def preflight(
    evaluator: Evaluator, gradient: Any, args: tuple[Any, ...], rng: np.random.Generator, draws: Draws | None = None
) -> Preflight:
    """Look the loss and the gradient over.

    `draws` is what loss and gradient may draw from.

    Raises
    ------
    LossError
        The loss or the gradient raises, or returns no finite number, or one beyond 1e44, at theta.
    InputError
        The gradient does not fit the parameters.
    """
    _refuse_faint(evaluator.theta)
    data = _fingerprint(args)
    base = _loss_at_theta(evaluator)
    findings: list[Finding] = []
    if isinstance(evaluator, PythonLoss) and evaluator.refusal is not None:
        findings.append(low_precision(evaluator.layout, evaluator.refusal))
    if not evaluator.untouched:
        findings.append(_CHANGES_PARAMS)
    if _fingerprint(args) != data:
        findings.append(_CHANGES_ARGS)
    analytic, changed = _gradient_at_theta(evaluator, gradient, args)
    _refuse_units("loss", abs(base))
    _refuse_units("gradient", max(float(analytic.flat.max(initial=0.0)), -float(analytic.flat.min(initial=0.0))))
    if changed:
        findings.append(_GRADIENT_CHANGES_PARAMS)
    if analytic.extras:
        findings.append(_extras(analytic.extras))
    fatal = [finding for finding in findings if finding.kind in (Kind.LOSS_CHANGES_PARAMS, Kind.LOSS_CHANGES_ARGS)]
    if fatal:
        return Preflight(base, 0.0, analytic, tuple(findings), fatal=True)
    if measures_itself(getattr(evaluator, "loss", None)):  # a function of theta, as fastcheck made it
        return Preflight(base, 0.0, analytic, tuple(findings))
    again = _loss_at_theta(evaluator)
    if _differ(base, again):
        why = _why_different(evaluator, gradient, draws or Draws(), base, again)
        return Preflight(base, 0.0, analytic, (*findings, why), fatal=True)
    evaluator.along(0, generic_direction(evaluator, rng), np.array([AWAY]))
    back = _loss_at_theta(evaluator)
    if _differ(again, back):
        why = _back_is_different(evaluator, draws or Draws(), again, back)
        return Preflight(base, 0.0, analytic, (*findings, why), fatal=True)
    return Preflight(base, max(abs(again - base), abs(back - again)), analytic, tuple(findings))


def _refuse_units(name: str, largest: float) -> None:
    """Raise where uncertainties would leave single precision, and squares the double."""
    if largest > LARGEST:
        raise LossError(
            f"{name}={largest:.3g} is in units so small that it is above {LARGEST:g}: uncertainties would overflow. "
            "Multiply both the loss and its gradient by a small constant."
        )


def _refuse_faint(theta: FloatArray) -> None:
    """Raise where no step in proportion to the parameters is a number."""
    largest = max(float(theta.max()), -float(theta.min()))
    if 0 < largest <= FAINTEST:
        raise InputError(
            f"params are in units so large that none is above {FAINTEST:g} (largest={largest:.3g}): steps beside them "
            "would leave the range of float64. Give them in smaller units."
        )


def _loss_at_theta(evaluator: Evaluator) -> float:
    try:
        value = as_float(evaluator.call())
    except LossError:
        raise
    except (Exception, SystemExit) as error:  # a loss that exits would otherwise decide the exit status
        what = takes(getattr(evaluator, "loss", None))
        raise LossError(
            f"loss raised {said(error, ' at theta itself')}. It must accept {what}"
            f"{' and args' if evaluator.has_args and what != 'args alone' else ''}."
        ) from error
    if not math.isfinite(value):
        raise LossError(
            f"loss returned {value} at theta itself; no derivative exists there. Look for log(0), overflow in exp, or "
            "bad data."
        )
    return value


def _gradient_at_theta(evaluator: Evaluator, gradient: Any, args: tuple[Any, ...]) -> tuple[Analytic, bool]:
    """Return the gradient, and whether calling it changed its parameters."""
    layout: Parameters = evaluator.layout
    if not callable(gradient):
        return match_gradient(gradient, layout), False
    tree = evaluator.tree_of(evaluator.lent())
    try:
        with theirs():
            returned = gradient(tree, *args)
    except FastcheckError:
        raise
    except (Exception, SystemExit) as error:
        raise LossError(f"gradient raised {said(error, ' at theta')}.") from error
    analytic = match_gradient(returned, layout)
    held = _holds(tree, layout, evaluator.theta)
    return analytic, not (evaluator.untouched and held)


def _holds(tree: Any, layout: Parameters, theta: FloatArray) -> bool:
    """Say whether a tree, which somebody may have put other arrays into, still holds theta."""
    found = {".".join(path) or ROOT: leaf for path, leaf in leaves(tree)}
    views = {block.name: block.view(theta) for block in layout.blocks}
    return all(name in found and equal(np.asarray(found[name]), view) for name, view in views.items())


def _differ(a: float, b: float) -> bool:
    return abs(a - b) > SAME * max(abs(a), abs(b))


def _fingerprint(args: tuple[Any, ...]) -> int:
    """Return a checksum of the arrays in the arguments, however deep in dicts, lists or tuples."""
    total = 0
    with contextlib.suppress(InputError):  # data may contain itself: then that of its arrays that come first
        for _, item in leaves(args, "args"):
            if isinstance(item, np.ndarray) and not item.dtype.hasobject:
                total = zlib.crc32(np.ascontiguousarray(item).reshape(-1).view(np.uint8).data, total)
    return total


def _why_different(
    evaluator: Evaluator, gradient: Callable[..., Any] | Any, draws: Draws, first: float, second: float
) -> Finding:
    """Tell a random loss from one that keeps state and from a gradient that changes the loss."""
    values = [first, second]
    sources = draws.named(draws.used_by(lambda: values.append(_loss_at_theta(evaluator))))
    if sources:
        return _random([*values, _loss_at_theta(evaluator)], sources)
    if not _differ(values[1], values[2]) and callable(gradient):
        return _gradient_changes_loss(first, second)
    values.append(_loss_at_theta(evaluator))
    steps = np.diff(values)
    same_sign = bool(np.all(steps > 0) or np.all(steps < 0))
    if same_sign and np.ptp(steps) <= COUNTS * np.abs(steps).max():
        return _counts_calls(values)
    if same_sign and np.all(np.abs(steps[1:]) < np.abs(steps[:-1])) and _geometric(steps):
        return _running_statistics(values)
    return _random(values, "")


def _back_is_different(evaluator: Evaluator, draws: Draws, before: float, back: float) -> Finding:
    """Tell a loss that remembers a step away from a random one of few outcomes, the same twice by chance."""
    more: list[float] = []
    sources = draws.named(draws.used_by(lambda: more.append(_loss_at_theta(evaluator))))
    more.append(_loss_at_theta(evaluator))
    steps = np.diff([back, *more])
    settles = bool(np.all(steps >= 0) or np.all(steps <= 0)) and abs(steps[1]) <= abs(steps[0])
    if settles and not sources:
        return _keeps_state(before, back)
    return _random([before, back, *more], sources)


def _geometric(steps: np.ndarray[Any, Any]) -> bool:
    ratios = steps[1:] / steps[:-1]
    return bool(np.ptp(ratios) <= GEOMETRIC * np.abs(ratios).max())


_CHANGES_PARAMS = Finding(
    Kind.LOSS_CHANGES_PARAMS,
    None,
    "The loss changes the parameters it is given, so no two evaluations start from the same theta. "
    "Let it work on a copy (W = W / norm instead of W /= norm).",
)
_CHANGES_ARGS = Finding(
    Kind.LOSS_CHANGES_ARGS,
    None,
    "The loss changes its data (an array of args), so every evaluation sees other data. Let it work on a copy.",
)
_GRADIENT_CHANGES_PARAMS = Finding(
    Kind.GRADIENT_CHANGES_PARAMS,
    None,
    "The gradient function changes the parameters it is given (a training step inside?). It was given a private copy "
    "here, but in training it spoils theta.",
)


def low_precision(layout: Parameters, refusal: str) -> Finding:
    """Return the finding of a loss that refuses float64, and how."""
    dtype = min((block.dtype for block in layout.blocks), key=lambda one: one.itemsize)
    # The best central difference keeps two thirds of the digits of the loss.
    digits = math.floor(-math.log10(float(np.finfo(dtype).eps)) * 2 / 3)
    return Finding(
        Kind.LOW_PRECISION,
        None,
        f"The loss refuses float64 parameters ({refusal}), so it was checked in its own {dtype}, where a measured "
        f"derivative has about {digits} digits at best. Let it follow the dtype of its parameters to see smaller "
        "errors.",
        {"dtype": str(dtype), "digits": digits},
    )


def _extras(names: tuple[str, ...]) -> Finding:
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    return Finding(
        Kind.EXTRA_GRADIENT, None, f"The gradient also has {shown}: no such parameters, ignored.", {"names": names}
    )


def _gradient_changes_loss(before: float, after: float) -> Finding:
    return Finding(
        Kind.GRADIENT_CHANGES_LOSS,
        None,
        f"Calling the gradient changes the loss ({before:.17g} before, {after:.17g} after): the two share state. "
        "Let the gradient work on copies, or build its cache anew in each call.",
        {"before": before, "after": after},
    )


def _keeps_state(before: float, after: float) -> Finding:
    return Finding(
        Kind.STATEFUL_LOSS,
        None,
        f"The loss keeps state: {before:.17g} at theta before a step away, {after:.17g} after it. Running statistics "
        "(batch normalisation) or a cache are updated by each call: switch the layer to evaluation mode, or reset it.",
        {"before": before, "after": after},
    )


def _running_statistics(values: list[float]) -> Finding:
    return Finding(
        Kind.STATEFUL_LOSS,
        None,
        f"The loss drifts towards a limit when it is called again at the same theta ({_shown(values)}): running "
        "statistics (batch normalisation) are updated by each call. Switch the layer to evaluation mode, or reset it.",
        {"values": values},
    )


def _counts_calls(values: list[float]) -> Finding:
    return Finding(
        Kind.COUNTING_LOSS,
        None,
        f"The loss changes by the same amount with every call at the same theta ({_shown(values)}): it depends on a "
        "counter or another global that each call moves. Make it a function of theta alone.",
        {"values": values},
    )


def _random(values: list[float], sources: str) -> Finding:
    drawn, its = (f"It draws from {sources}. ", "its seed") if sources else ("", "the seed of its generator")
    return Finding(
        Kind.RANDOM_LOSS,
        None,
        f"The loss is random: {_apart(values)} at the same theta. {drawn}Dropout? Set keep_prob=1 (evaluation mode); "
        f"otherwise fix {its} at the start of each call.",
        {"values": values, "sources": sources},
    )


def undecided(random: Finding, why: str) -> Finding:
    """Return the finding of a random loss with why it can't be made one function."""
    return replace(random, message=f"The loss is random: {_apart(random.evidence['values'])} at the same theta. {why}")


def _apart(values: list[float]) -> str:
    """Return the values, those that came of the same draws once."""
    return _shown(list(dict.fromkeys(values)))


def _shown(values: list[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in values)
