"""The pytest plugin, in runs of pytest of its own."""

from __future__ import annotations

import ast
import re
import shlex
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import pytest_fastcheck
from fastcheck.settings import MODES
from tests.test_docs import fences

ROOT = Path(__file__).parents[1]
pytest_plugins = ["pytester"]

SUITE = """
    import numpy as np
    import pytest
    import fastcheck

    def loss(p):
        return float(np.sum(np.sin(p["w"]) * p["b"]))

    def right(p):
        return {"w": np.cos(p["w"]) * p["b"], "b": np.sin(p["w"]).sum(keepdims=True)}

    def wrong(p):
        g = right(p)
        g["w"][2] *= 2
        return g

    params = {"w": np.linspace(0.1, 1, 5), "b": np.ones(1)}

    def test_right(gradcheck):
        report = gradcheck(loss, right, params)
        assert report.passed and gradcheck.reports == [report]

    def test_wrong(gradcheck):
        gradcheck(loss, wrong, params)

    def test_noisy(gradcheck):
        rng = np.random.default_rng(0)
        gradcheck(lambda p: loss(p) * rng.random(), right, params)
"""


@pytest.fixture
def run(pytester, monkeypatch):
    """Return a function that runs pytest, with the plugin, in a process of its own."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for name in ("PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT"):
        monkeypatch.delenv(name, raising=False)
    installed = any(entry.name == "fastcheck" for entry in entry_points(group="pytest11"))
    plugin = () if installed else ("-p", "pytest_fastcheck")
    return lambda *args: pytester.runpytest_subprocess(
        *plugin, "-p", "no:cacheprovider", "-p", "no:hypothesispytest", *args
    )


def test_failures_are_the_report_and_nothing_else(run, pytester):
    pytester.makepyfile(SUITE)
    result = run("-W", "error")
    result.assert_outcomes(passed=1, failed=2)
    text = result.stdout.str()
    result.stdout.fnmatch_lines(
        [
            ">       gradcheck(loss, wrong, params)",
            "E       fastcheck.errors.GradientError: WRONG: w[[]2[]] ×2.000 of the measured one; 1 of 2 blocks agrees",
            "E       coordinate * analytic * numerical *",
            "E       w[[]2[]] *",
            "*INCONCLUSIVE: The loss is random: *",
            "*to repeat: pytest *",
        ]
    )
    assert not re.search(r"(fastcheck/\w+|pytest_fastcheck)\.py:\d+", text), "no frame of the library"
    summary = text.partition("= gradient checks =")[2]
    assert "test_wrong: WRONG: w[2]" in summary
    assert "test_noisy: INCONCLUSIVE: The loss is random" in summary
    assert "test_right" not in summary
    assert "3 gradient checks, 2 not passed" in summary


def test_reports_travel_from_the_workers(run, pytester):
    pytester.makepyfile(SUITE)
    result = run("-n", "2", "-v", "--fastcheck-html", "pages", "--fastcheck-inconclusive", "xfail", "--junitxml=j.xml")
    result.assert_outcomes(passed=1, failed=1, xfailed=1)
    summary = result.stdout.str().partition("= gradient checks =")[2]
    assert "test_right: CORRECT: every block" in summary
    assert "test_wrong: WRONG: w[2]" in summary
    assert "test_noisy: INCONCLUSIVE" in summary
    assert "3 gradient checks, 2 not passed" in summary
    pages = sorted(path.name for path in (pytester.path / "pages").iterdir())
    assert [re.sub(r"_[0-9a-f]{8}_1\.html$", "", name).rpartition("py_")[2] for name in pages] == [
        "test_noisy",
        "test_wrong",
    ]
    assert "<html" in (pytester.path / "pages" / pages[1]).read_text(encoding="utf-8")
    result.stdout.fnmatch_lines(["E       the whole report: *pages*test_wrong_*_1.html"])
    assert 'name="fastcheck" value="CORRECT: every block' in (pytester.path / "j.xml").read_text(encoding="utf-8")


def test_the_page_about_it_is_right(run, pytester):
    for _, options, body in fences(ROOT / "docs" / "pytest.md", "python"):
        pytester.path.joinpath(re.search(r'title="([^"]+)"', options)[1]).write_text(body, encoding="utf-8")
    result = run("--strict-markers", "-W", "error")
    result.assert_outcomes(passed=5)
    wrong = pytester.path / "test_net.py"
    wrong.write_text(wrong.read_text(encoding="utf-8").replace("np.mean(r, keepdims=True)", "r.sum(keepdims=True)"))
    result = run("-k", "test_gradient")
    text = "\n".join(body for _, _, body in fences(ROOT / "docs" / "pytest.md", "text"))
    shown = [line for line in text.splitlines() if "WRONG: b" in line]
    assert [line for line in result.stdout.lines if line in shown] == shown


def test_passing_checks_are_quiet(run, pytester):
    pytester.makepyfile(SUITE)
    result = run("-k", "right")
    result.assert_outcomes(passed=1, deselected=2)
    assert "gradient checks" not in result.stdout.str()


OPTIONS = """
    import numpy as np
    import pytest
    import fastcheck

    def loss(x): return float(np.sin(x).sum())
    x = np.linspace(0.1, 1, 7)
    problem = fastcheck.Problem(lambda x, a: float(a * x @ x), lambda x, a: 2 * a * x, x, (3.0,))

    def settings(gradcheck, **options):
        data = gradcheck(loss, np.cos, x, **options).settings
        return data["mode"], data["seed"], data["budget"], data["tolerance"]

    def test_defaults(gradcheck):
        assert settings(gradcheck) == EXPECTED

    @pytest.mark.fastcheck(mode="sample", tolerance=1e-3)
    class TestMarked:
        def test_of_the_class(self, gradcheck):
            assert settings(gradcheck) == ("sample", *EXPECTED[1:3], 1e-3)

        @pytest.mark.fastcheck(mode="screen", seed=9)
        def test_nearest_first(self, gradcheck):
            assert settings(gradcheck) == ("screen", 9, EXPECTED[2], 1e-3)
            assert settings(gradcheck, mode="full") == ("full", 9, EXPECTED[2], 1e-3)

    @pytest.mark.parametrize("p", [problem], ids=lambda p: p.name)
    def test_a_problem(gradcheck, p):
        assert gradcheck(p).passed
        assert gradcheck(p, blocks="theta").settings["blocks"] == "theta"
        with pytest.raises(fastcheck.InputError, match="takes nothing from a Problem twice"):
            gradcheck(p, np.cos, x)

    def test_products(gradcheck):
        gradcheck.vjp(np.sin, lambda x, u: u * np.cos(x), x)
        gradcheck.jvp(np.sin, lambda x, v: v * np.cos(x), x)
        gradcheck.hvp(np.sin, lambda x, v: v * np.cos(x), x)
        with pytest.raises(fastcheck.GradientError, match="vjp ignores the cotangent") as caught:
            gradcheck.vjp(np.sin, lambda x, u: np.cos(x), x)
        assert caught.value.report is gradcheck.reports[-1]
        assert len(gradcheck.reports) == 4

    def test_bad_input(gradcheck):
        with pytest.raises(fastcheck.InputError, match="gradcheck always throws"):
            gradcheck(loss, np.cos, x, throw=False)
        gradcheck(loss, np.cos, x, tolerance=2)

    def raises(x): raise ValueError("the user's own")

    def test_a_loss_that_raises(gradcheck):
        gradcheck(raises, np.cos, x)

    @pytest.mark.fastcheck("full")
    def test_bad_marker(gradcheck):
        gradcheck(loss, np.cos, x)
"""


@pytest.mark.parametrize("where", ["command", "ini"])
def test_options(run, pytester, where):
    given = {"mode": "full", "seed": 4, "budget": 50.0}
    pytester.makepyfile(f"    EXPECTED = ('full', 4, 50.0, 1e-7)\n{OPTIONS}")
    lines = [f"fastcheck_{name} = {value}" for name, value in given.items()]
    ini = ["[pytest]", *(lines if where == "ini" else ["fastcheck_mode = sample"])]
    pytester.path.joinpath("pytest.ini").write_text("\n".join(ini))
    command = [f"--fastcheck-{name}={value}" for name, value in given.items()] if where == "command" else []
    result = run("--strict-markers", "-W", "error", *command)
    result.assert_outcomes(passed=5, failed=3)
    result.stdout.fnmatch_lines(
        [
            "E * fastcheck.errors.InputError: tolerance=2 must lie strictly between 0 and 1.",
            "E * ValueError: the user's own",
            "E * fastcheck.errors.LossError: loss raised ValueError at theta itself: the user's own*",
            "*pytest.mark.fastcheck('full',): options go by name, as mode='full'*",
        ]
    )


@pytest.mark.parametrize(
    ("ini", "args", "said"),
    [
        ("", ["--fastcheck-mode=fast"], "invalid choice: 'fast'"),
        ("", ["--fastcheck-seed=x"], "invalid int value: 'x'"),
        ("fastcheck_seed = x", [], "fastcheck_seed='x' in the ini file: invalid literal"),
        ("fastcheck_inconclusive = no", [], "'no' in the ini file must be one of fail, skip, xfail"),
    ],
)  # fmt: skip
def test_wrong_settings_end_the_run_at_its_start(run, pytester, ini, args, said):
    pytester.path.joinpath("pytest.ini").write_text(f"[pytest]\n{ini}\n")
    result = run(*args)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert said in result.stderr.str()


def test_a_failure_says_how_to_run_it_again(run, pytester, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    pytester.makepyfile(
        """
        import numpy as np
        import pytest

        x = np.linspace(0.1, 1, 7)

        @pytest.mark.parametrize("name", ["a b"])
        def test_of_auto(gradcheck, name):
            gradcheck(lambda x: float(np.sin(x).sum()), np.sin, x)

        @pytest.mark.fastcheck(mode="screen")
        def test_of_a_mode(gradcheck):
            gradcheck(lambda x: float(np.sin(x).sum()), np.sin, x)
        """
    )
    result = run("--fastcheck-seed=3", "--color=no", "--junit-xml=run.xml")
    result.assert_outcomes(failed=2)
    # where CI is set, pytest's summary says each failure a second time
    commands = list(dict.fromkeys(re.findall(r"to repeat: (.*)", "\n".join(result.outlines))))
    assert [shlex.split(command)[2:] for command in commands] == [
        ["--fastcheck-mode=full", "--fastcheck-seed=3"],
        ["--fastcheck-seed=3"],
    ]
    assert "test_of_auto[a b]" in shlex.split(commands[0])[1]
    assert "\x1b" not in "\n".join(result.outlines)
    written = pytester.path.joinpath("run.xml").read_text(encoding="utf-8")
    assert "WRONG" in written
    assert "#x1B" not in written
    again = run(*shlex.split(commands[0])[1:])
    again.assert_outcomes(failed=1)


def test_inconclusive_may_skip(run, pytester):
    pytester.makepyfile(SUITE)
    result = run("-k", "noisy", "--fastcheck-inconclusive=skip", "-rs")
    result.assert_outcomes(skipped=1, deselected=2)
    result.stdout.fnmatch_lines(["1 gradient check, 1 not passed", "SKIPPED * INCONCLUSIVE: The loss is random*"])


def test_a_run_without_checks_loads_nothing(run, pytester):
    pytester.makepyfile(
        """
        import sys

        def test_loaded():
            assert "pytest_fastcheck" in sys.modules
            heavy = ("numpy", "numba", "scipy", "rich", "fastcheck")
            assert [name for name in sys.modules if name.split(".")[0] in heavy] == []
        """
    )
    result = run()
    result.assert_outcomes(passed=1)


def test_the_fixture_is_listed_with_its_first_line(run, pytester):
    result = run("--fixtures", "-k", "nothing")
    result.stdout.fnmatch_lines(["gradcheck -- *", "*Check a gradient, and fail the test unless it passes*"])


def test_the_plugin_itself_imports_pytest_and_the_standard_library_only():
    tree = ast.parse(Path(pytest_fastcheck.__file__).read_text(encoding="utf-8"))
    imported = {
        name.split(".")[0]
        for node in tree.body
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert imported - {"pytest"} <= sys.stdlib_module_names


def test_modes_are_those_of_a_check():
    assert pytest_fastcheck.MODES == MODES


NAMES = """
    import numpy as np
    import pytest

    def loss(x): return float(np.sin(x).sum())
    x = np.linspace(0.1, 1, 7)

    CASES = ["a/b", "a?b", "a b", "a-b", "A-B", "漢" * 80, "漢" * 79 + "字", "x" * 4000, ".", ""]

    @pytest.mark.parametrize("case", CASES)
    def test_case(gradcheck, case):
        gradcheck(loss, 2 * np.cos(x), x)

    def test_two(gradcheck):
        for _ in range(2):
            with pytest.raises(AssertionError):
                gradcheck(loss, 2 * np.cos(x), x)
"""


@pytest.mark.slow
def test_every_test_has_a_page_of_its_own(run, pytester):
    pytester.makepyfile(NAMES)
    result = run("--fastcheck-html", "pages")
    result.assert_outcomes(failed=10, passed=1)
    pages = sorted(path.name for path in (pytester.path / "pages").iterdir())
    assert len({name.lower() for name in pages}) == len(pages) == 12
    assert all(len(name.encode()) < 160 for name in pages)
    assert "no page was written" not in result.stdout.str()


@pytest.mark.parametrize("folder", ["file", pytest.param("x" * 300, marks=pytest.mark.slow)])
def test_a_page_that_cannot_be_written_hides_no_report(run, pytester, folder):
    pytester.path.joinpath("file").write_text("")
    pytester.makepyfile(SUITE)
    result = run("-k", "wrong", "--fastcheck-html", folder)
    result.assert_outcomes(failed=1, deselected=2)
    result.stdout.fnmatch_lines(
        ["E       fastcheck.errors.GradientError: WRONG: w[[]2[]]*", "E       no page was written: *"]
    )
