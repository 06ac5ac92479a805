"""Shared by all tests: one hypothesis profile, and a small problem that everybody understands."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from threadpoolctl import threadpool_limits

from fastcheck.problem import Problem

# The machines that run the tests are shared and slow at times; a deadline would test them, not the code.
settings.register_profile(
    "fastcheck", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], max_examples=100
)
settings.load_profile("fastcheck")


@pytest.fixture(autouse=True, scope="session")
def _one_thread_for_small_products():
    """Let BLAS use one thread: the nets here are small, and threads that fight over a busy machine take minutes."""
    with threadpool_limits(1):
        yield


def pytest_configure(config):
    # in the environment, so that all workers of xdist explore the same seeds, and that a run can be repeated
    os.environ.setdefault("FASTCHECK_EXPLORE", str(time.time_ns() // 1000 % 10**9))


def pytest_collection_modifyitems(config, items):
    """Leave the exploring tests out unless they are asked for by name: what they find depends on the day."""
    if "explore" not in config.option.markexpr:
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("explore")])
        items[:] = [item for item in items if not item.get_closest_marker("explore")]


def pytest_terminal_summary(terminalreporter, config):
    if "explore" in config.option.markexpr:
        terminalreporter.line(f"explored: to repeat it, set FASTCHECK_EXPLORE={os.environ['FASTCHECK_EXPLORE']}")


@pytest.fixture
def fresh():
    """Return a function from a count to so many seeds that no run has used before."""
    first = int(os.environ["FASTCHECK_EXPLORE"])
    return lambda count: range(first, first + count)


@pytest.fixture(autouse=True)
def _width(monkeypatch):
    """Lay text out as where there is no terminal."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(params=[pytest.param(False, id="gate"), pytest.param(True, id="fresh", marks=pytest.mark.explore)])
def first_seed(request, fresh):
    """Return 0, and in a second, exploring run of the same test the first of the seeds that no run has used before."""
    return fresh(1)[0] if request.param else 0


@pytest.fixture
def rng():
    return np.random.default_rng(20)


@pytest.fixture
def regression(rng):
    """Return a linear least squares problem with two blocks and a right gradient."""
    X, y = rng.normal(size=(20, 3)), rng.normal(size=20)

    def loss(p, X, y):
        return float(0.5 * np.mean((X @ p["w"] + p["b"] - y) ** 2))

    def gradient(p, X, y):
        r = X @ p["w"] + p["b"] - y
        return {"dw": X.T @ r / len(y), "db": np.mean(r, keepdims=True)}

    return Problem(loss, gradient, {"w": rng.normal(size=3), "b": rng.normal(size=1)}, (X, y), name="regression")
