"""The pytest plugin of fastcheck: a fixture that checks gradients, and what becomes of its reports.

It lives outside the package, so that pytest loads it without loading fastcheck or numpy: those come with the first
check. Reports travel as ``user_properties`` of the tests, and so through pytest-xdist and into JUnit files too.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import pytest

if TYPE_CHECKING:
    from fastcheck import Report

__all__ = ["Gradcheck", "gradcheck"]

MODES = ("auto", "full", "sample", "screen")
INCONCLUSIVE = ("fail", "skip", "xfail")
PROPERTY = "fastcheck"
LONGEST = 120  # bytes of what a file's name tells of its test
SENTENCE = re.compile(r"(?<=\w)\. ")  # what ends the first one
PASSED = ("CORRECT", "ACCEPTABLE")


@dataclass(frozen=True)
class Setting:
    """One setting of the plugin: an option of the command line, and an entry of the ini file."""

    name: str
    help: str
    read: Callable[[str], Any] = str
    choices: tuple[str, ...] | None = None
    metavar: str | None = None

    @property
    def entry(self) -> str:
        """Name of the ini entry."""
        return f"fastcheck_{self.name}"

    def add_to(self, parser: pytest.Parser, group: pytest.OptionGroup) -> None:
        """Declare it."""
        kind = {"choices": self.choices} if self.choices else {"type": self.read, "metavar": self.metavar}
        group.addoption(f"--fastcheck-{self.name}", dest=self.entry, default=None, help=self.help, **kind)
        parser.addini(self.entry, f"{self.help} (default of --fastcheck-{self.name})", default=None)

    def of(self, config: pytest.Config) -> Any:
        """Return the value: of the command line, else of the ini file, else None.

        Raises
        ------
        pytest.UsageError
            The ini file holds something else.
        """
        given = config.getoption(self.entry)
        text = config.getini(self.entry)
        if given is not None or not text:
            return given
        try:
            value = self.read(text)
        except ValueError as error:
            raise pytest.UsageError(f"{self.entry}={text!r} in the ini file: {error}") from error
        if self.choices and value not in self.choices:
            raise pytest.UsageError(f"{self.entry}={text!r} in the ini file must be one of {', '.join(self.choices)}")
        return value


SETTINGS = {
    setting.name: setting
    for setting in (
        Setting("mode", "what gradcheck measures, unless the test says", choices=MODES),
        Setting("seed", "seed of everything that gradcheck draws, unless the test says", int, metavar="INT"),
        Setting("budget", "seconds that a check may take, unless the test says", float, metavar="SECONDS"),
        Setting("html", "write the report of every check that did not pass to this folder", metavar="DIR"),
        Setting("inconclusive", "what becomes of a test whose check is inconclusive", choices=INCONCLUSIVE),
    )
}
OF_CHECK = ("mode", "seed", "budget")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options."""
    group = parser.getgroup("fastcheck", "gradient checks (fastcheck)")
    for setting in SETTINGS.values():
        setting.add_to(parser, group)


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker, and read the settings once, so that a wrong one ends the run at its start."""
    config.addinivalue_line(
        "markers", "fastcheck(**options): options of fastcheck.check for the gradcheck fixture, as mode or tolerance"
    )
    for setting in SETTINGS.values():
        setting.of(config)


@pytest.fixture
def gradcheck(request: pytest.FixtureRequest) -> Gradcheck:
    """Check a gradient, and fail the test unless it passes: ``gradcheck(loss, gradient, params, **options)``.

    Like `fastcheck.assert_gradient`, with defaults from the marker ``fastcheck``, the command line and the ini file.
    """
    return Gradcheck(request.node, request.config)


@dataclass(repr=False)
class Gradcheck:
    """What the fixture returns.

    Attributes
    ----------
    reports : list of Report
        Of the checks that this test has made, also of those that failed.
    """

    _item: pytest.Item
    _config: pytest.Config
    reports: list[Report] = field(default_factory=list)

    def __repr__(self) -> str:  # pytest shows it above each failure
        return f"<gradcheck, {len(self.reports)} reports>"

    def __call__(self, loss: Any, gradient: Any = None, params: Any = None, **options: Any) -> Report:
        """Check a gradient as `fastcheck.check` does, and return the report if it passed.

        Parameters
        ----------
        loss, gradient, params
            As of `fastcheck.check`; or a `fastcheck.Problem` alone.
        **options
            As of `fastcheck.check`. They win over the marker, and that over the command line and the ini file.

        Raises
        ------
        GradientError
            The gradient did not pass; the message is the report.
        """
        __tracebackhide__ = True
        import fastcheck

        if isinstance(loss, fastcheck.Problem):
            if gradient is not None or params is not None:
                raise fastcheck.InputError("gradcheck(problem) takes nothing from a Problem twice: leave the rest out.")
            options = {"args": loss.args, **options}
            loss, gradient, params = loss.loss, loss.gradient, loss.params
        return self._judged(fastcheck.check, (loss, gradient, params), options)

    def vjp(self, function: Any, vjp: Any, inputs: Any, **options: Any) -> Report:
        """Check a vector-Jacobian product, as `fastcheck.check_vjp` does."""
        __tracebackhide__ = True
        import fastcheck

        return self._judged(fastcheck.check_vjp, (function, vjp, inputs), options)

    def jvp(self, function: Any, jvp: Any, inputs: Any, **options: Any) -> Report:
        """Check a Jacobian-vector product, as `fastcheck.check_jvp` does."""
        __tracebackhide__ = True
        import fastcheck

        return self._judged(fastcheck.check_jvp, (function, jvp, inputs), options)

    def hvp(self, gradient: Any, hvp: Any, params: Any, **options: Any) -> Report:
        """Check a Hessian-vector product, as `fastcheck.check_hvp` does."""
        __tracebackhide__ = True
        import fastcheck

        return self._judged(fastcheck.check_hvp, (gradient, hvp, params), options)

    def _judged(self, check: Callable[..., Report], what: tuple[Any, ...], options: dict[str, Any]) -> Report:
        """Run a check, note what came of it, and let it decide the test."""
        __tracebackhide__ = True
        from fastcheck.errors import FastcheckError, GradientError, InputError
        from fastcheck.judge.verdict import Verdict
        from fastcheck.report.words import headline, shown

        if "throw" in options:
            raise InputError(f"throw={options['throw']!r}: gradcheck always throws; call fastcheck.check to choose.")
        options = {"progress": False, **self._defaults(), **options}
        try:
            report = check(*what, **options)
        except FastcheckError as error:
            raise error.with_traceback(None) from error.__cause__  # the library's frames say nothing about the test
        report = replace(report, settings={**report.settings, "command": self._command(report.settings, options)})
        self.reports.append(report)
        said = shown(report, headline(report))
        self._item.user_properties.append((PROPERTY, said))
        if report.passed:
            return report
        page = self._page(report)
        policy = SETTINGS["inconclusive"].of(self._config) or "fail"
        if report.verdict is Verdict.INCONCLUSIVE and policy != "fail":
            (pytest.skip if policy == "skip" else pytest.xfail)(said)
        raise GradientError("\n".join(filter(None, (str(report), page))), report)

    def _defaults(self) -> dict[str, Any]:
        """Return the options of the ini file, the command line, and the markers, the nearest last."""
        given = {name: SETTINGS[name].of(self._config) for name in OF_CHECK}
        options = {name: value for name, value in given.items() if value is not None}
        for marker in reversed(list(self._item.iter_markers("fastcheck"))):
            if marker.args:
                raise pytest.UsageError(f"@pytest.mark.fastcheck{marker.args!r}: options go by name, as mode='full'")
            options |= marker.kwargs
        return options

    def _command(self, settings: Mapping[str, Any], options: Mapping[str, Any]) -> str:
        """Return the command that runs this test again, in the mode that was chosen unless the test says which."""
        given = {name: self._config.getoption(SETTINGS[name].entry) for name in OF_CHECK}
        if "mode" not in options and settings["mode"] != "auto":
            given["mode"] = settings["mode"]
        words = [f"--fastcheck-{name}={value}" for name, value in given.items() if value is not None]
        return shlex.join(["pytest", self._item.nodeid, *words])

    def _page(self, report: Report) -> str:
        """Write the report of a failed check as a page, where one is asked for; return where it is."""
        folder = SETTINGS["html"].of(self._config)
        if not folder:
            return ""
        directory = Path(self._config.invocation_params.dir, folder)
        try:
            directory.mkdir(parents=True, exist_ok=True)
            page = report.save(directory / f"{_stem(self._item.nodeid)}_{len(self.reports)}.html")
        except Exception as error:  # whatever it is, it must not hide the report
            from fastcheck.errors import said

            return f"no page was written: {said(error)}"
        self._item.user_properties.append((f"{PROPERTY}_html", str(page)))
        return f"the whole report: {page}"


def _stem(nodeid: str) -> str:
    """Return a name of a file for a test: what it tells of it, cut by bytes, and a hash that keeps two apart."""
    told = re.sub(r"[^\w.-]+", "_", nodeid).encode(errors="replace")[-LONGEST:].decode(errors="ignore").strip("_")
    return f"{told}_{hashlib.sha256(nodeid.encode(errors='surrogatepass')).hexdigest()[:8]}"


class _Told(Protocol):
    """What a test's report holds that is of interest here."""

    nodeid: str
    user_properties: list[tuple[str, object]]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List the checks that did not pass; with -v every check, in one line each."""
    checks = list(_checks(terminalreporter))
    failed = [(test, said) for test, said in checks if not said.startswith(PASSED)]
    shown = checks if terminalreporter.verbosity > 0 else failed
    if not shown:
        return
    terminalreporter.section("gradient checks")
    for test, said in shown:
        terminalreporter.line(f"{test}: {SENTENCE.split(said)[0]}")
    plural = "s" if len(checks) != 1 else ""
    terminalreporter.line(f"{len(checks)} gradient check{plural}, {len(failed)} not passed")


def _checks(terminalreporter: pytest.TerminalReporter) -> Iterator[tuple[str, str]]:
    """Yield (test, headline) of every check of the run, whichever process it ran in."""
    longest: dict[str, list[str]] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            if not hasattr(report, "user_properties"):
                continue
            told = cast(_Told, report)  # set-up, call and tear-down each tell all that is known so far
            said = [str(value) for name, value in told.user_properties if name == PROPERTY]
            if len(said) > len(longest.get(told.nodeid, [])):
                longest[told.nodeid] = said
    for test, lines in longest.items():
        yield from ((test, line) for line in lines)
