"""The settings of a check, validated in one place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypedDict, get_args

import numpy as np

from fastcheck.errors import InputError

__all__ = ["MODES", "SCHEME_NAMES", "Backend", "Mode", "Options", "Scheme", "Settings", "as_args"]

Mode: TypeAlias = Literal["auto", "full", "sample", "screen"]
Scheme: TypeAlias = Literal["central", "forward", "complex", "richardson"]
Backend: TypeAlias = Literal["auto", "serial", "threads", "processes", "dask"] | str  # or a backend of joblib's

MODES: tuple[Mode, ...] = get_args(Mode)
SCHEME_NAMES: tuple[Scheme, ...] = get_args(Scheme)
CHEAP = 2.0  # seconds that a full check may take before "auto" screens instead


Unchecked: TypeAlias = Literal["fail", "allow"]


class Options(TypedDict, total=False):
    """The options of `fastcheck.check`, for functions that hand them on."""

    args: tuple[Any, ...]
    mode: Mode
    samples: int | None
    blocks: str | Sequence[str] | None
    step: float | None
    scheme: Scheme
    tolerance: float
    confidence: float
    seed: int
    workers: int | None
    backend: Backend
    budget: float | None
    checkpoint: str | Path | None
    progress: bool | None
    unchecked: Unchecked
    bounds: Any
    replay: bool


@dataclass(frozen=True)
class Settings:
    """All that is needed to repeat a check; see `fastcheck.check` for what each means.

    Raises
    ------
    InputError
        A value breaks its rule.
    """

    mode: Mode = "auto"
    samples: int | None = None
    blocks: str | Sequence[str] | None = None
    step: float | None = None
    scheme: Scheme = "central"
    tolerance: float = 1e-7
    confidence: float = 0.9999
    seed: int = 0
    workers: int | None = None
    backend: Backend = "auto"
    budget: float | None = None
    checkpoint: str | Path | None = None
    progress: bool | None = None
    unchecked: str = "fail"
    replay: bool = True

    def __post_init__(self) -> None:
        _one_of("mode", self.mode, MODES)
        _one_of("scheme", self.scheme, SCHEME_NAMES)
        _one_of("unchecked", self.unchecked, ("fail", "allow"))
        _number("tolerance", self.tolerance, 0, 1)
        _number("confidence", self.confidence, 0, 1)
        _number("step", self.step, 0, math.inf, optional=True)
        _number("budget", self.budget, 0, math.inf, optional=True)
        _integer("seed", self.seed, 0)
        _integer("samples", self.samples, 1, optional=True)
        if self.workers != -1:
            _integer("workers", self.workers, 1, optional=True, also=" (or -1 for one per core)")
        if self.samples is not None and self.mode not in ("sample", "auto"):
            raise InputError(f"samples={self.samples} goes with mode='sample', not mode={self.mode!r}.")
        if self.mode == "screen" and (self.step is not None or self.scheme != "central"):
            raise InputError(
                f"step={self.step!r}, scheme={self.scheme!r}: mode='screen' chooses its steps itself, by directions. "
                "Leave both out, or name them with mode='full'."
            )
        if not isinstance(self.backend, str):
            raise InputError(
                f"backend={self.backend!r} (type={type(self.backend).__name__}) must be a name, as 'auto'."
            )
        if self.progress not in (None, True, False):
            raise InputError(f"progress={self.progress!r} must be True, False, or None for when the work is long.")
        if not isinstance(self.replay, bool):
            raise InputError(f"replay={self.replay!r} must be True or False.")
        if not (self.checkpoint is None or isinstance(self.checkpoint, (str, Path))):
            raise InputError(f"checkpoint={self.checkpoint!r} (type={type(self.checkpoint).__name__}) must be a path.")

    def mode_for(self, count: int, cost: float) -> Mode:
        """Return the mode to run.

        For ``"auto"`` that is full where so many coordinates, at a cost in seconds of each evaluation, are cheap; else
        a screen.
        """
        if self.mode != "auto":
            return self.mode
        if self.samples is not None:
            return "sample"
        if self.step is not None or self.scheme != "central" or self.checkpoint is not None:
            return "full"  # asked for by name, and a screen has no use for them
        patience = CHEAP if self.budget is None else min(CHEAP, 0.5 * self.budget)
        return "full" if 2 * count * cost <= patience else "screen"

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as plain data."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}


def as_args(args: Any) -> tuple[Any, ...]:
    """Return the extra positional arguments of the loss as a tuple.

    Raises
    ------
    InputError
        They are neither a tuple nor a list: a lone array would be taken apart row by row.
    """
    if not isinstance(args, (tuple, list)):
        raise InputError(
            f"args (type={type(args).__name__}) must be a tuple of the further arguments of the loss: "
            "write args=(X,) with its comma for a single one, args=() for none."
        )
    return tuple(args)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return [str(item) for item in value] if isinstance(value, (list, tuple)) else str(value)


def _one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InputError(f"{name}={value!r} must be one of {', '.join(map(repr, allowed))}.")


def _number(name: str, value: object, low: float, high: float, *, optional: bool = False) -> None:
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise InputError(f"{name}={value!r} (type={type(value).__name__}) must be a number.")
    if not low < value < high:
        raise InputError(f"{name}={value!r} must lie strictly between {low} and {high}.")


def _integer(name: str, value: object, low: int, *, optional: bool = False, also: str = "") -> None:
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise InputError(f"{name}={value!r} (type={type(value).__name__}) must be an integer >= {low}{also}.")
    if value < low:
        raise InputError(f"{name}={value!r} must be >= {low}{also}.")
