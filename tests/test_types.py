"""What a type checker is told: the options and their values, and that a tree comes back as it went in."""

import inspect
import sys
import typing
from pathlib import Path

import pytest

import fastcheck
from fastcheck.settings import MODES, SCHEME_NAMES, Backend, Mode, Options, Scheme

ROOT = Path(__file__).parents[1]

USES = """
import numpy as np
from numpy.typing import NDArray
import fastcheck

Array = NDArray[np.float64]
params: dict[str, Array] = {"W": np.ones((2, 2))}


def loss(p: dict[str, Array]) -> float:
    return float((p["W"] ** 2).sum())


def gradient(p: dict[str, Array]) -> dict[str, Array]:
    return {"W": 2 * p["W"]}


report = fastcheck.check(loss, gradient, params, mode="full", scheme="richardson", backend="loky")
reveal_type(report.numerical)
reveal_type(fastcheck.numerical_gradient(loss, params))
reveal_type(fastcheck.assert_gradient(loss, gradient, params, mode="screen", seed=3).numerical)
reveal_type(fastcheck.Report.load("run.json").numerical)
plain: fastcheck.Report = report
fastcheck.check(loss, gradient, params, mode="fast")
fastcheck.assert_gradient(loss, gradient, params, mode="fast")
fastcheck.assert_gradient(loss, gradient, params, tolerence=1e-3)
fastcheck.check(loss, gradient, params, scheme="backward")
"""


def test_options_are_those_of_a_check():
    parameters = inspect.signature(fastcheck.check).parameters
    keywords = {name for name, one in parameters.items() if one.kind is one.KEYWORD_ONLY}
    assert set(Options.__annotations__) == keywords - {"throw"}
    hints = typing.get_type_hints(fastcheck.check)
    assert {name: hints[name] for name in Options.__annotations__} == typing.get_type_hints(Options)


def test_values_are_spelled_out():
    hints = typing.get_type_hints(fastcheck.check)
    assert (hints["mode"], hints["scheme"], hints["backend"]) == (Mode, Scheme, Backend)
    assert typing.get_args(Mode) == MODES
    assert typing.get_args(Scheme) == SCHEME_NAMES


@pytest.mark.slow
def test_a_type_checker_agrees(tmp_path, monkeypatch):
    api = pytest.importorskip("mypy.api")
    monkeypatch.setenv("MYPYPATH", str(ROOT))
    file = tmp_path / "uses.py"
    file.write_text(USES)
    options = [
        "--strict",
        "--follow-imports=silent",
        f"--cache-dir={tmp_path / 'cache'}",
        f"--python-executable={sys.executable}",
    ]
    said = api.run([*options, str(file)])[0]
    lines = [line.partition(": ")[2] for line in said.splitlines() if line.startswith(str(file))]
    tree = "dict[str, ndarray[tuple[Any, ...], dtype[float64]]]"
    told = [
        line.partition('"')[2].rstrip('"').replace("builtins.", "").replace("numpy.", "")
        for line in lines
        if "Revealed" in line
    ]
    assert [line.replace("typing.", "") for line in told] == [
        f"{tree} | None",
        tree,
        f"{tree} | None",
        "dict[str, Any] | None",
    ], said
    errors = [line for line in lines if line.startswith("error")]
    assert len(errors) == 4, said
    assert sum("Literal" in line for line in errors) == 3
    assert sum('"tolerence"' in line for line in errors) == 1
