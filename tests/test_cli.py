"""The command: what it prints, and its exit status, which is what CI acts on."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from click.testing import CliRunner

import fastcheck
from fastcheck.cli import main

ROOT = Path(__file__).parents[1]

RIGHT = """
import numpy as np

X = np.arange(6.0).reshape(3, 2)
params = {"w": np.array([0.5, -0.3]), "b": np.array([0.1])}
args = (X,)

def loss(p, X):
    return float(np.mean(np.sin(X @ p["w"] + p["b"])))

def gradient(p, X):
    c = np.cos(X @ p["w"] + p["b"]) / len(X)
    return {"dw": X.T @ c, "db": np.array([c.sum()])}
"""
BOTH = (
    RIGHT.replace("def loss", "def value").replace("def gradient", "def gradient_of")
    + """
def loss(p, X):
    return value(p, X), gradient_of(p, X)

gradient = True
"""
)
HELD = (
    RIGHT
    + """
import fastcheck

class Net:
    w, b = params["w"], params["b"]

    def loss(self, X):
        return loss({"w": self.w, "b": self.b}, X)

    def backward(self, X):
        return gradient({"w": self.w, "b": self.b}, X)

net = Net()
problem = fastcheck.Problem("held", net.loss, net.backward, fastcheck.attributes(net, "w", "b"), args)
"""
)
WRONG = RIGHT.replace("c.sum()", "c.sum() / 3")
RANDOM = RIGHT.replace("return float(", "return float(np.random.default_rng().random() + ")
PROBLEM = (
    RIGHT
    + """
import fastcheck

problem = fastcheck.Problem("mine", loss, gradient, params, args)
other = fastcheck.Problem("other", loss, lambda p, X: {"w": np.zeros(2), "b": np.zeros(1)}, params, args)

def made():
    return problem

def broken():
    raise RuntimeError("no data")

def nothing():
    return 3
"""
)


@pytest.fixture(autouse=True)
def _as_found(monkeypatch, tmp_path):
    """Leave no checked module and no path behind; work where the files are."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # two files of one name and one second would share it
    monkeypatch.chdir(tmp_path)
    yield
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


def run(*words):
    return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)


def write(text, name="net.py"):
    path = Path(name)
    path.write_text(textwrap.dedent(text))
    return path


@pytest.mark.parametrize(
    ("text", "status", "said"),
    [
        (RIGHT, 0, "CORRECT: every block"),
        (BOTH, 0, "CORRECT: every block"),
        (HELD, 0, "CORRECT: every block"),
        (WRONG, 1, "WRONG: b "),
        (RANDOM, 3, "INCONCLUSIVE: The loss is random"),
    ],
)
def test_exit_status(text, status, said):
    result = run("check", write(text))
    assert result.exit_code == status, result.output
    assert result.output.startswith(said)
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1", "net.py defines no loss and no gradient and no params"),
        (RIGHT.replace("def loss", "def cost"), "net.py defines no loss. It needs loss(params, *args)"),
        (RIGHT.replace("params =", "parameters ="), "net.py defines no params"),
        ("def loss(:\n", "net.py does not parse: line 1"),
        ("import no_such_module_at_all", "net.py raised ModuleNotFoundError"),
        ("x = 0\n1 / x", "net.py raised ZeroDivisionError when it was run: division by zero (net.py, line 2)"),
        ("import sys; sys.exit(0)", "net.py raised SystemExit when it was run: 0"),
        ("\0", "net.py"),
        (RIGHT.replace("args = (X,)", "args = X"), "args (type=ndarray) must be a tuple"),
        (RIGHT + "\nloss = 3.0", "loss=3.0 (type=float) is not callable"),
        (RIGHT.replace("0.5, -0.3", "1, 2"), "params['w'] has dtype int64"),
        (RIGHT.replace('"dw"', '"dv"'), "gradient has no block 'w'"),
        (RIGHT.replace("return float(np.mean(", "return (np.sin("), "net.py"),
        (RIGHT.replace("return float(", "return float('nan') * ("), "loss returned nan at theta itself"),
        (RIGHT.replace("return float(", "raise SystemExit(0) or float("), "loss raised SystemExit at theta itself"),
        (RIGHT.replace("return {", "raise SystemExit or {"), "gradient raised SystemExit at theta"),
        (RIGHT + "\nproblem = 3\nparams = {}", "params has no coordinate to check"),
    ],
)
def test_bad_file(text, said):
    result = run("check", write(text))
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("fastcheck: ")
    assert said in result.stderr or said == "net.py"
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("absent.py", "FILE='absent.py': no such file."),
        ("absent.py:problem", "FILE='absent.py': no such file."),
        (".", "no such file"),
        ("notes.txt", "its name must end in .py"),
        ("net.py:absent", "net.py defines no 'absent'. It has problem, other."),
        ("net.py:X", "net.py:X is of type ndarray; it must be a fastcheck.Problem"),
        ("net.py:broken", "net.py:broken raised RuntimeError: no data"),
        ("net.py:nothing", "net.py:nothing is of type int"),
        ("net.py:loss", "net.py:loss raised TypeError"),
    ],
)
def test_bad_target(target, said):
    write(PROBLEM)
    write(RIGHT, "notes.txt")
    result = run("check", target)
    assert result.exit_code == 2, result.output
    assert said in result.stderr


@pytest.mark.parametrize(("name", "status"), [("", 0), (":problem", 0), (":made", 0), (":other", 1)])
def test_problems_by_name(name, status):
    assert run("check", f"{write(PROBLEM)}{name}").exit_code == status


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--mode", "fast"], "--mode"),
        (["--samples", "many"], "--samples"),
        (["--tolerance", "2"], "tolerance=2.0 must lie strictly between 0 and 1"),
        (["--step", "-1"], "step=-1.0 must lie"),
        (["--blocks", "V*"], "blocks="),
        (["--workers", "0"], "workers=0"),
        (["--budget", "0"], "budget=0.0"),
        (["--nonsense"], "--nonsense"),
        (["--json", "nowhere/run.json"], "path='nowhere/run.json' can't be written"),
        (["--json", "run.txt"], "a report is saved as *.json or *.html"),
    ],
)
def test_bad_options(options, said):
    result = run("check", write(RIGHT), *options)
    assert result.exit_code == 2, result.output
    assert said in result.stderr


def test_options_reach_the_check():
    path = write(WRONG)
    assert run("check", path, "--blocks", "w").exit_code == 0
    assert run("check", path, "--blocks", "w", "--blocks", "b").exit_code == 1
    result = run("check", path, "--json", "run.json", "--step", "1e-5", "--seed", "7", "--tolerance", "1e-6")
    assert result.exit_code == 1
    settings = fastcheck.Report.load("run.json").settings
    assert (settings["step"], settings["seed"], settings["tolerance"]) == (1e-5, 7, 1e-6)


def test_report_of_a_saved_run():
    assert run("check", write(WRONG), "--json", "run.json").exit_code == 1
    result = run("report", "run.json")
    assert result.exit_code == 1
    assert result.output.startswith("WRONG: b ")
    assert run("check", write(RIGHT, "good.py"), "--json", "good.json").exit_code == 0
    assert run("report", "good.json").exit_code == 0


def test_report_of_no_run():
    assert run("report", "absent.json").exit_code == 2
    write("{}", "run.json")
    result = run("report", "run.json")
    assert result.exit_code == 2
    assert "not a fastcheck report" in result.stderr


def test_a_file_named_like_a_module_takes_no_ones_place():
    import random

    assert run("check", write(RIGHT, "random.py")).exit_code == 0
    assert sys.modules["random"] is random
    assert run("check", write(RIGHT, "fastcheck.py")).exit_code == 0
    assert sys.modules["fastcheck"] is fastcheck


def test_a_file_finds_its_neighbours():
    write("scale = 1.0", "neighbour.py")
    assert run("check", write("from neighbour import scale\n" + RIGHT)).exit_code == 0


def test_demo():
    result = run("demo")
    assert result.exit_code == 0, result.output
    verdicts = [line.split(":")[0] for line in result.output.splitlines() if line.split(":")[0].isupper()]
    assert verdicts == ["CORRECT", "WRONG", "CORRECT", "WRONG"]
    wrong = next(line for line in result.output.splitlines() if line.startswith("WRONG"))
    assert "W2 ×3.000" in wrong
    assert "b1 ×2.000" in wrong


def test_help_and_version():
    assert "Exit status: 0 passed, 1 not passed, 2 bad input, 3" in " ".join(run("--help").output.split())
    assert "FILE.py[:NAME]" in run("check", "-h").output
    assert run("--version").output == f"fastcheck, version {fastcheck.__version__}\n"


@pytest.mark.parametrize(("text", "status"), [(RIGHT, 0), (WRONG, 1), (RANDOM, 3), ("x = 1", 2)])
def test_as_a_process(text, status, tmp_path):
    path = write(text)
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "fastcheck", "check", path], env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == status, done.stderr
    assert (done.stderr == "") is (status != 2)
    assert "Traceback" not in done.stderr
    assert (tmp_path / "net.py").read_text() == textwrap.dedent(text)
