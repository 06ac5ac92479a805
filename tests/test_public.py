"""What the package shows to the world, and what importing it costs."""

from __future__ import annotations

import importlib
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fastcheck

ROOT = Path(__file__).parents[1]
PACKAGES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "fastcheck").rglob("*.py")
    if path.name != "__main__.py"
)


def python(code):
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_all_is_the_sorted_public_names():
    assert fastcheck.__all__ == sorted(fastcheck.__all__)
    assert set(fastcheck.__all__) == set(fastcheck._HOMES)
    assert dir(fastcheck) == sorted([*fastcheck.__all__, "__version__", "jax", "torch"])
    for name in fastcheck.__all__:
        assert getattr(fastcheck, name).__name__ == name


def test_the_core_is_there():
    core = {"check", "assert_gradient", "numerical_gradient", "Report", "Verdict", "Problem", "GradientError"}
    assert core <= set(fastcheck.__all__)


def test_unknown_names():
    with pytest.raises(AttributeError, match="module 'fastcheck' has no attribute 'chek'"):
        fastcheck.chek  # noqa: B018


@pytest.mark.parametrize("name", [name.removesuffix(".__init__") for name in PACKAGES])
def test_every_module_names_what_it_offers(name):
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:  # an optional dependency that is not here
        pytest.skip(str(error))
    assert module.__doc__, "a module says in one line what it is for"
    offered = getattr(module, "__all__", None)
    if offered is None:
        return
    assert len(set(offered)) == len(offered)
    for each in offered:
        assert hasattr(module, each), each


def test_public_things_say_what_they_do():
    for name in fastcheck.__all__:
        thing = getattr(fastcheck, name)
        assert inspect.getdoc(thing), name
        if inspect.isfunction(thing):
            assert "Parameters" in thing.__doc__ or "Raises" in thing.__doc__, name


def test_check_has_the_documented_arguments():
    parameters = inspect.signature(fastcheck.check).parameters
    positional = [name for name, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == ["loss", "gradient", "params"]
    assert set(parameters) - set(positional) == {
        "args", "mode", "samples", "blocks", "step", "scheme", "tolerance", "confidence", "seed", "workers", "backend",
        "budget", "checkpoint", "progress", "throw", "unchecked", "replay", "bounds",
    }  # fmt: skip
    assert all(parameters[name].kind is inspect.Parameter.KEYWORD_ONLY for name in set(parameters) - set(positional))


HEAVY = ("numba", "scipy", "rich", "click", "joblib", "matplotlib", "jinja2", "torch", "jax", "dask", "pandas")


def test_import_is_light():
    loaded = python("import sys, fastcheck; print(*sys.modules)")
    assert [name for name in HEAVY if name in loaded] == []
    # Not even numpy, nor any module of its own, before a name is used.
    assert [name for name in loaded if name.startswith(("fastcheck.", "numpy"))] == []


UNUSED = ("numba", "scipy.stats", "matplotlib", "jinja2", "torch", "jax", "dask", "pandas")


@pytest.mark.parametrize("mode", ["full", "sample", "screen"])
@pytest.mark.parametrize("factor", [2, 3])
def test_a_check_loads_no_compiler_no_page_maker_and_nothing_that_takes_longer_than_itself(mode, factor):
    loaded = python(
        "import sys, numpy as np, fastcheck\n"
        "at = np.arange(1.0, 9.0)\n"
        f"report = fastcheck.check(lambda t: float(t @ t), lambda t: {factor} * t, at, mode={mode!r})\n"
        f"assert report.passed is {factor == 2}\n"
        "print(*sys.modules)"
    )
    assert [name for name in UNUSED if name in loaded] == []
    assert factor != 2 or "scipy.optimize" not in loaded


def test_errors_are_of_the_kinds_people_catch():
    assert issubclass(fastcheck.InputError, ValueError)
    assert issubclass(fastcheck.GradientError, AssertionError)
    assert issubclass(fastcheck.MissingDependencyError, ImportError)
    errors = [getattr(fastcheck, name) for name in fastcheck.__all__ if name.endswith("Error")]
    assert all(issubclass(error, fastcheck.FastcheckError) for error in errors)


def test_typed():
    assert (ROOT / "fastcheck" / "py.typed").exists()
