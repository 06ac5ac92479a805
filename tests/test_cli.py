"""The command: what it prints, and its exit status, which is what CI acts on."""

from __future__ import annotations

import os
import shlex
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
problem = fastcheck.Problem(net.loss, net.backward, fastcheck.attributes(net, "w", "b"), args, name="held")
"""
)
WRONG = RIGHT.replace("c.sum()", "c.sum() / 3")
RANDOM = RIGHT.replace("return float(", "return float(np.random.default_rng().random() + ")
PROBLEM = (
    RIGHT
    + """
import fastcheck

problem = fastcheck.Problem(loss, gradient, params, args, name="mine")
other = fastcheck.Problem(loss, lambda p, X: {"w": np.zeros(2), "b": np.zeros(1)}, params, args=args)

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
    monkeypatch.setattr(sys, "argv", list(sys.argv))
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
        (["--confidence", "1"], "confidence=1.0"),
        (["--scheme", "backward"], "--scheme"),
        (["--backend", "cloud"], "backend='cloud'"),
        (["--checkpoint", "nowhere/kept"], "nowhere"),
        (["--json", "nowhere/run.json"], "path='nowhere/run.json' can't be written: there is no folder 'nowhere'"),
        (["--html", "nowhere/run.html"], "path='nowhere/run.html' can't be written: there is no folder 'nowhere'"),
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


@pytest.mark.parametrize("options", [["--html", "nowhere/run.html"], ["--json", "run.txt"]])
def test_where_a_report_goes_is_asked_before_the_run(options):
    path = write("raise RuntimeError('this file was run')\n" + RIGHT)
    result = run("check", path, *options)
    assert result.exit_code == 2
    assert "this file was run" not in result.stderr
    assert "path=" in result.stderr


def test_a_page_that_can_not_be_made_is_refused_before_the_run(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = run("check", write("raise RuntimeError('this file was run')\n" + RIGHT), "--html", "run.html")
    assert result.exit_code == 2
    assert "pip install 'fastcheck[html]'" in result.stderr


def test_the_arguments_are_the_files_own():
    path = write("import sys\nargv = list(sys.argv)\nassert argv == ['net.py'], argv\n" + RIGHT)
    assert run("check", path, "--seed", "3").exit_code == 0


def test_quiet_says_one_line():
    for text, verdict in ((RIGHT, "CORRECT: "), (WRONG, "WRONG: b ")):
        result = run("check", write(text), "--quiet")
        assert result.output.startswith(verdict)
        assert result.output.count("\n") == 1


def test_the_command_that_repeats_a_run_repeats_it():
    path = write(WRONG)
    options = [
        "--blocks",
        "b",
        "--blocks",
        "w*",
        "--tolerance",
        "1e-6",
        "--scheme",
        "richardson",
        "--confidence",
        "0.999",
    ]
    assert run("check", path, *options, "--json", "run.json", "--html", "run.html").exit_code == 1
    first = fastcheck.Report.load("run.json")
    command = first.settings["command"]
    assert command == (
        "fastcheck check net.py --mode full --blocks b --blocks 'w*' --tolerance 1e-06 --confidence 0.999 "
        "--scheme richardson --seed 0"
    )
    result = run(*shlex.split(command)[1:], "--json", "again.json")
    assert f"to repeat: {command}" in result.output
    again = fastcheck.Report.load("again.json")
    assert (again.wrong, again.evaluations) == (first.wrong, first.evaluations)
    assert shlex.quote(command)[1:-1].split("'")[0] in Path("run.html").read_text()


def test_a_checkpoint_is_gone_on_from():
    path = write(RIGHT)
    first = run("check", path, "--checkpoint", "kept.db")
    assert first.exit_code == 0, first.output
    assert Path("kept.db").exists()
    assert run("check", path, "--checkpoint", "kept.db").exit_code == 0


@pytest.mark.parametrize(("columns", "widest"), [("60", 60), ("100", 100)])
def test_the_command_follows_the_terminal(monkeypatch, columns, widest):
    monkeypatch.setenv("COLUMNS", columns)
    result = run("check", write(WRONG))
    assert max(len(line) for line in result.output.splitlines() if "to repeat" not in line) <= widest
    assert run("check", write(WRONG), "--json", "run.json").exit_code == 1
    shown = [line.rstrip() for line in run("report", "run.json").output.splitlines()]
    assert shown == str(fastcheck.Report.load("run.json")).splitlines()


def test_self_test():
    result = run("self-test", write(RIGHT), "--kinds", "sign", "--kinds", "factor_2")
    assert result.exit_code == 0, result.output
    assert result.output.startswith("PASSED: ")
    assert "smallest found" in result.output
    assert run("self-test", "net.py", "--kinds", "sign", "-q").output.count("\n") == 1
    refused = run("self-test", write(WRONG))
    assert refused.exit_code == 1
    assert refused.output.startswith("WRONG: b ")
    assert run("self-test", write(RANDOM)).exit_code == 3
    unknown = run("self-test", write(RIGHT), "--kinds", "typo")
    assert unknown.exit_code == 2
    assert "kinds='typo' is not known" in unknown.stderr


def test_diff():
    assert run("check", write(WRONG), "--json", "before.json").exit_code == 1
    assert run("check", write(RIGHT), "--json", "after.json", "--tolerance", "1e-6").exit_code == 0
    fixed = run("diff", "before.json", "after.json")
    assert fixed.exit_code == 0
    assert fixed.output.startswith("WRONG → CORRECT: 2 blocks, 1 fixed, 1 as before")
    assert "not alike: tolerance=1e-07 → 1e-06" in fixed.output
    broken = run("diff", "after.json", "before.json")
    assert broken.exit_code == 1
    assert broken.output.startswith("CORRECT → WRONG: 2 blocks, 1 broken, 1 as before")
    assert run("diff", "before.json", "after.json", "--html", "diff.html").exit_code == 0
    assert "1 fixed" in Path("diff.html").read_text(encoding="utf-8")
    assert run("diff", "before.json", "absent.json").exit_code == 2
    assert run("diff", "before.json", "after.json", "--html", "diff.txt").exit_code == 2


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


@pytest.mark.parametrize("columns", ["60", "110"])
def test_demo(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    result = run("demo")
    assert result.exit_code == 0, result.output
    assert "…" not in result.output
    verdicts = [line.split(":")[0] for line in result.output.splitlines() if line.split(":")[0].isupper()]
    assert verdicts == ["CORRECT", "WRONG", "CORRECT", "WRONG"]
    assert "W2 ×3.000" in result.output
    assert "b1 ×2.000" in result.output


def test_help_and_version():
    assert "Exit status: 0 passed, 1 not passed, 2 bad input, 3 inconclusive, 70 a" in " ".join(
        run("--help").output.split()
    )
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


def process(*words, **env):
    return subprocess.run(
        [sys.executable, "-m", "fastcheck", *map(str, words)],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | env,
        capture_output=True,
        timeout=120,
    )


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437"])
def test_output_falls_back_to_what_the_terminal_can_show(encoding):
    text = WRONG.replace('"w"', '"größe\u2260"').replace('"dw"', '"größe\u2260"')
    done = process("check", write(text), PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    shown = done.stdout.decode(encoding)
    assert done.returncode == 1, done.stderr
    assert done.stderr == b""
    assert shown.startswith("WRONG: b ")
    if encoding == "ascii":
        assert "\\xf6\\xdfe" in shown
        assert "b x0.333" in shown


@pytest.mark.slow
def test_the_demo_in_ascii():
    done = process("demo", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert b"W2 x3.000" in done.stdout


def test_a_crash_is_no_verdict(monkeypatch):
    def crash(*_, **__):
        raise RuntimeError("a bug of fastcheck's own")

    monkeypatch.setattr("fastcheck.check", crash)
    result = run("check", write(RIGHT))
    assert result.exit_code == 70
    assert "an unexpected error, which is no verdict" in result.stderr
    assert "RuntimeError: a bug of fastcheck's own" in result.stderr


def test_ctrl_c_is_no_verdict():
    assert (
        run("check", write(RIGHT.replace("import numpy", "raise KeyboardInterrupt\nimport numpy", 1))).exit_code == 130
    )


@pytest.mark.parametrize("device", ["/dev/full", "pipe"])
def test_output_that_nobody_takes_is_no_verdict(device):
    if device == "pipe":
        read, out = os.pipe()
        os.close(read)
    else:
        out = os.open(device, os.O_WRONLY)
    done = subprocess.run(
        [sys.executable, "-m", "fastcheck", "check", write(RIGHT)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=out,
        stderr=subprocess.PIPE,
        timeout=120,
    )
    os.close(out)
    assert done.returncode == 70, done.stderr
    assert (b"No space left" in done.stderr) is (device != "pipe")


def test_a_file_that_changes_the_folder_does_not_take_the_report_with_it(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    text = RIGHT + "\nimport os\nos.chdir('elsewhere')\n"
    assert run("check", write(text), "--json", "run.json").exit_code == 0
    assert (tmp_path / "run.json").exists()


HOSTILE = "\x1b[2J\x1b]0;title\x07\n\r\x08\u202e\u200b[red]\udcff"


def test_no_name_moves_the_cursor():
    """Escapes, newlines and marks in the names of blocks, in the report, in what is said and in what is refused."""
    text = WRONG.replace('"b"', repr(HOSTILE)).replace('"db"', repr(HOSTILE))
    result = run("check", write(text))
    assert result.exit_code == 1, result.stderr
    assert "\\x1b[2J" in result.output
    assert all(c.isprintable() or c == "\n" for c in result.output)
    assert len(result.output.splitlines()) <= 25
    result = run("check", write(text.replace("np.array([0.1])", "np.array([1])")))
    assert result.exit_code == 2
    assert all(c.isprintable() or c == "\n" for c in result.stderr)


def test_a_long_name_is_shortened_in_its_middle():
    name = "begin" + "x" * 100_000 + "end"
    text = WRONG.replace('"b"', repr(name)).replace('"db"', repr(name))
    for source in (text, RIGHT.replace('"b"', repr(name)).replace('"db"', repr(name))):
        result = run("check", write(source))
        assert len(result.output.splitlines()) <= 25
        assert len(result.output) < 5000
        assert result.exit_code in (0, 1)
    result = run("check", write(text), "--json", "run.json")
    assert "beginxxx" in result.output
    assert "xxxend" in result.output
    assert list(fastcheck.Report.load("run.json").blocks)[1] == name
