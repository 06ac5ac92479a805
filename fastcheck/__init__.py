"""fastcheck: is this gradient right?

Public names are loaded when first used, so that ``import fastcheck`` stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastcheck.checks import assert_gradient, check, numerical_gradient
    from fastcheck.errors import (
        CheckpointError,
        FastcheckError,
        GradientError,
        InputError,
        LossError,
        MissingDependencyError,
    )
    from fastcheck.findings import Finding, Kind
    from fastcheck.held import attributes
    from fastcheck.judge.verdict import Verdict
    from fastcheck.losses.batched import batched
    from fastcheck.monitor import Monitor
    from fastcheck.networks import Network
    from fastcheck.problem import Problem
    from fastcheck.products import check_hvp, check_jacobian, check_jvp, check_vjp
    from fastcheck.report import BlockReport, Coordinate, Report
    from fastcheck.selftest import SelfTestReport, self_test
    from fastcheck.terms import TermsReport, check_terms

__version__ = "0.1.0"

_HOMES = {
    "BlockReport": "fastcheck.report",
    "CheckpointError": "fastcheck.errors",
    "Coordinate": "fastcheck.report",
    "FastcheckError": "fastcheck.errors",
    "Finding": "fastcheck.findings",
    "GradientError": "fastcheck.errors",
    "InputError": "fastcheck.errors",
    "Kind": "fastcheck.findings",
    "LossError": "fastcheck.errors",
    "MissingDependencyError": "fastcheck.errors",
    "Monitor": "fastcheck.monitor",
    "Network": "fastcheck.networks",
    "Problem": "fastcheck.problem",
    "Report": "fastcheck.report",
    "SelfTestReport": "fastcheck.selftest",
    "TermsReport": "fastcheck.terms",
    "Verdict": "fastcheck.judge.verdict",
    "assert_gradient": "fastcheck.checks",
    "attributes": "fastcheck.held",
    "batched": "fastcheck.losses.batched",
    "check": "fastcheck.checks",
    "check_hvp": "fastcheck.products",
    "check_jacobian": "fastcheck.products",
    "check_jvp": "fastcheck.products",
    "check_terms": "fastcheck.terms",
    "check_vjp": "fastcheck.products",
    "numerical_gradient": "fastcheck.checks",
    "self_test": "fastcheck.selftest",
}

_ADAPTERS = ("jax", "torch")
"""Modules of the same name as the framework they adapt to; neither is imported before it is used."""

__all__ = [
    "BlockReport",
    "CheckpointError",
    "Coordinate",
    "FastcheckError",
    "Finding",
    "GradientError",
    "InputError",
    "Kind",
    "LossError",
    "MissingDependencyError",
    "Monitor",
    "Network",
    "Problem",
    "Report",
    "SelfTestReport",
    "TermsReport",
    "Verdict",
    "assert_gradient",
    "attributes",
    "batched",
    "check",
    "check_hvp",
    "check_jacobian",
    "check_jvp",
    "check_terms",
    "check_vjp",
    "numerical_gradient",
    "self_test",
]


def __getattr__(name: str) -> Any:
    if name in _ADAPTERS:
        return importlib.import_module(f"fastcheck.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'fastcheck' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, *_ADAPTERS, "__version__"])
