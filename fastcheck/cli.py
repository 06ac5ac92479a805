"""The command: demo, check, report. Only this module prints."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

import fastcheck
from fastcheck.errors import FastcheckError, InputError
from fastcheck.problem import Problem
from fastcheck.settings import MODES, as_args
from fastcheck.userline import at_line
from fastcheck.verdict import Verdict

__all__ = ["main"]

PASSED, NOT_PASSED, BAD_INPUT, INCONCLUSIVE = 0, 1, 2, 3


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(fastcheck.__version__, prog_name="fastcheck")
def main() -> None:
    """Is this gradient right?

    Compares a hand-written gradient with finite differences of the loss. Exit status: 0 passed, 1 not passed, 2 bad
    input, 3 inconclusive.
    """


@main.command()
def demo() -> None:
    """Check two real nets, each with a correct and with a wrong backward pass."""
    from rich.console import Console
    from rich.rule import Rule

    from fastcheck import examples
    from fastcheck.report.terminal import render

    console = Console()
    scenes = [
        ("The 4-5-3-1 net of the gradient checking exercise, correct backprop", examples.course_net(), True),
        (
            "The same net with its two classic bugs: dW2 without 1/m, db1 with 2/m",
            examples.course_net(bugs=True),
            False,
        ),
        ("A 64-100-10 net on 128 handwritten digits, correct backprop", examples.digits_net(), True),
        ("The same net; the backward pass forgets the regulariser", examples.digits_net(bug="missing_l2"), False),
    ]
    as_promised = True
    for title, problem, right in scenes:
        console.print(Rule(title, align="left", style="dim"))
        report = fastcheck.check(problem.loss, problem.gradient, problem.params, args=problem.args)
        console.print(render(report))
        console.print()
        as_promised &= report.passed is right
    sys.exit(PASSED if as_promised else NOT_PASSED)


@main.command()
@click.argument("target", metavar="FILE.py[:NAME]")
@click.option("--mode", type=click.Choice(MODES), default="auto", show_default=True, help="What to measure.")
@click.option("--samples", type=int, help="How many coordinates to measure, with --mode sample.")
@click.option("--blocks", multiple=True, help="Only this block, a name or a glob; can be given several times.")
@click.option("--tolerance", type=float, default=1e-7, show_default=True, help="Relative error that counts as correct.")
@click.option("--step", type=float, help="The step h; by default chosen from the noise of the loss.")
@click.option("--workers", type=int, help="Parallel workers; by default as many as pay off.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of everything that is drawn.")
@click.option("--budget", type=float, help="Seconds after which to stop and report.")
@click.option("--html", type=click.Path(dir_okay=False), help="Also write the report to this page.")
@click.option("--json", "json_", type=click.Path(dir_okay=False), help="Also write the report to this file.")
def check(target: str, html: str | None, json_: str | None, blocks: tuple[str, ...], **options: Any) -> None:
    """Check the gradient in FILE.py.

    The file defines loss, gradient and params (and args, if the loss takes more), or NAME: a fastcheck.Problem or a
    function that returns one.
    """
    from rich.console import Console

    from fastcheck.report.terminal import render

    try:
        problem = load_problem(target)
        report = fastcheck.check(
            problem.loss, problem.gradient, problem.params, args=problem.args, blocks=blocks or None, **options
        )
        Console().print(render(report))
        for path in filter(None, (html, json_)):
            report.save(path)
    except FastcheckError as error:
        _complain(error)
    sys.exit(_status(report.verdict))


@main.command()
@click.argument("source", metavar="RUN.json", type=click.Path(dir_okay=False))
@click.option("--html", type=click.Path(dir_okay=False), help="Write the report to this page.")
def report(source: str, html: str | None) -> None:
    """Show a report that was saved as JSON, or lay it out as a page."""
    from rich.console import Console

    from fastcheck.report.terminal import render

    try:
        saved = fastcheck.Report.load(source)
        if html:
            saved.save(html)
        else:
            Console().print(render(saved))
    except FastcheckError as error:
        _complain(error)
    sys.exit(_status(saved.verdict))


def load_problem(target: str) -> Problem:
    """Return the problem that FILE.py[:NAME] defines.

    Raises
    ------
    InputError
        The file does not exist, does not run, or does not define what is needed.
    """
    file, _, name = target.rpartition(":") if ".py:" in target else (target, "", "")
    path = Path(file)
    names = _run_file(path)
    if name:
        return _named(names, name, path)
    if isinstance(names.get("problem"), Problem):
        return names["problem"]  # type: ignore[no-any-return]
    missing = [wanted for wanted in ("loss", "gradient", "params") if wanted not in names]
    if missing:
        raise InputError(
            f"{path} defines no {' and no '.join(missing)}. It needs loss(params, *args), gradient (a function, a "
            f"tree, or True where loss returns both) and params; or name a fastcheck.Problem in it: {path}:NAME."
        )
    return Problem(path.stem, names["loss"], names["gradient"], names["params"], as_args(names.get("args", ())))


def _run_file(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise InputError(f"FILE={str(path)!r}: no such file.")
    # A file called like a loaded module (random.py, fastcheck.py) must not take that module's place.
    name = path.stem if path.stem not in sys.modules else f"_checked_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"FILE={str(path)!r} is not a Python file: its name must end in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # so that what it defines can be sent to worker processes
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise InputError(f"{path} does not parse: line {error.lineno}: {error.msg}.") from error
    except (Exception, SystemExit) as error:  # a file that exits would otherwise decide the exit status
        raise InputError(f"{path} raised {type(error).__name__} when it was run: {error}{at_line(error)}") from error
    return vars(module)


def _named(names: Mapping[str, Any], name: str, path: Path) -> Problem:
    if name not in names:
        known = [key for key, value in names.items() if isinstance(value, Problem)]
        raise InputError(f"{path} defines no {name!r}." + (f" It has {', '.join(known)}." if known else ""))
    value = names[name]
    if callable(value) and not isinstance(value, Problem):
        try:
            value = value()
        except (Exception, SystemExit) as error:
            raise InputError(f"{path}:{name} raised {type(error).__name__}: {error}{at_line(error)}") from error
    if not isinstance(value, Problem):
        raise InputError(
            f"{path}:{name} is of type {type(value).__name__}; it must be a fastcheck.Problem, or a function "
            "that returns one."
        )
    return value


def _complain(error: Exception) -> None:
    click.echo(f"fastcheck: {error}", err=True)
    sys.exit(BAD_INPUT)


def _status(verdict: Verdict) -> int:
    if verdict.passed:
        return PASSED
    return INCONCLUSIVE if verdict is Verdict.INCONCLUSIVE else NOT_PASSED


if __name__ == "__main__":
    main()
