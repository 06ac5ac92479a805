"""The command: demo, check, self-test, report, diff. Only this module prints."""

from __future__ import annotations

import codecs
import importlib.util
import io
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

import fastcheck
from fastcheck.errors import FastcheckError, GradientError, InputError, said
from fastcheck.judge.verdict import Verdict
from fastcheck.problem import Problem
from fastcheck.report import words
from fastcheck.report.report import suffix_of
from fastcheck.settings import MODES, SCHEME_NAMES, as_args

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

__all__ = ["main"]

PASSED, NOT_PASSED, BAD_INPUT, INCONCLUSIVE, CRASHED, INTERRUPTED = 0, 1, 2, 3, 70, 130
PLAIN = {"×": "x", "‖": "||", "–": "-", "−": "-", "…": "...", "─": "-", "━": "-", "’": "'"}


class _Command(click.Group):
    """A command whose exit status is a verdict only where there is one, on a terminal of any encoding."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run it; what nobody expected, and Ctrl-C, have exit statuses of their own."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="fastcheck")
        try:
            try:
                return super().invoke(ctx)
            finally:
                sys.stdout.flush()
        except (click.ClickException, click.exceptions.Exit):
            raise
        except (KeyboardInterrupt, click.Abort):
            sys.exit(INTERRUPTED)
        except Exception as error:
            if not isinstance(error, BrokenPipeError):  # else nobody reads on, as behind `head`
                click.echo(f"fastcheck: an unexpected error, which is no verdict.\n{traceback.format_exc()}", err=True)
            _give_up_on(sys.stdout)
            sys.exit(CRASHED)


def _console(width: int) -> Console:
    """Return the console; where nobody reads on, rich's own would exit with 1, the status of "not passed"."""
    from rich.console import Console

    class Plain(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    return Plain(width=width, highlight=False)


def _give_up_on(stream: TextIO) -> None:
    """Drop what can't be written to a stream: the interpreter would try again at its end, and exit with 120."""
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _plain(error: UnicodeError) -> tuple[str, int]:
    """Replace characters that a stream can't show by plain ones."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    plain = (PLAIN.get(c) or c.encode("ascii", "backslashreplace").decode("ascii") for c in text)
    return "".join(plain), error.end


codecs.register_error("fastcheck", _plain)


@click.group(cls=_Command, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(fastcheck.__version__, prog_name="fastcheck")
def main() -> None:
    """Is this gradient right?

    Compares a hand-written gradient with finite differences of the loss. Exit status: 0 passed, 1 not passed, 2 bad
    input, 3 inconclusive, 70 a crash of fastcheck itself, 130 Ctrl-C.
    """


@main.command()
def demo() -> None:
    """Check two real nets, each with a correct and with a wrong backward pass."""
    from fastcheck import examples

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
        report = fastcheck.check(problem.loss, problem.gradient, problem.params, args=problem.args)
        _show(partial(_scene, title, report))
        as_promised &= report.passed is right
    sys.exit(PASSED if as_promised else NOT_PASSED)


def _scene(title: str, report: fastcheck.Report, width: int) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from fastcheck.report.terminal import render

    return Group(Text(f"── {title}", style="dim"), render(report, width), "")


def _target(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the argument that names a problem; a shell completes it as a file."""
    return click.argument("target", metavar="FILE.py[:NAME]", type=click.Path())(command)


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say how to check."""
    for option in reversed(
        (
            click.option("--mode", type=click.Choice(MODES), default="auto", help="What to measure."),
            click.option("--samples", type=int, help="How many coordinates to measure, with --mode sample."),
            click.option("--blocks", multiple=True, help="Only this block, a name or a glob; can be given repeatedly."),
            click.option("--tolerance", type=float, default=1e-7, help="Relative error that counts as correct."),
            click.option("--confidence", type=float, default=0.9999, help="Of every bound."),
            click.option("--step", type=float, help="The step h; by default chosen from the noise of the loss."),
            click.option(
                "--scheme", type=click.Choice(SCHEME_NAMES), default="central", help="How derivatives are measured."
            ),
            click.option("--workers", type=int, help="Parallel workers; by default as many as pay off."),
            click.option("--backend", default="auto", help="serial, threads, processes, dask or a joblib backend."),
            click.option("--seed", type=int, default=0, help="Of everything that is drawn."),
            click.option("-q", "--quiet", is_flag=True, help="Print the first line of the answer only."),
        )
    ):
        command = option(command)
    return command


@main.command()
@_target
@_options
@click.option("--budget", type=float, help="Seconds after which to stop and report.")
@click.option("--checkpoint", type=click.Path(dir_okay=False), help="Keep finished work here, and go on from it.")
@click.option("--html", type=click.Path(dir_okay=False), help="Also write the report to this page.")
@click.option("--json", "json_", type=click.Path(dir_okay=False), help="Also write the report to this file.")
def check(
    target: str, html: str | None, json_: str | None, blocks: tuple[str, ...], quiet: bool, **options: Any
) -> None:
    """Check the gradient in FILE.py.

    The file defines loss, gradient and params (and args, if the loss takes more), or NAME: a fastcheck.Problem or a
    function that returns one.
    """
    from fastcheck.report.terminal import render

    try:
        paths = [_destination(path).absolute() for path in (html, json_) if path]  # the file may change the folder
        problem = _load_problem(target)
        report = fastcheck.check(
            problem.loss,
            problem.gradient,
            problem.params,
            args=problem.args,
            blocks=blocks or None,
            progress=False if quiet else None,
            **options,
        )
        report = replace(report, settings={**report.settings, "command": _command(report.settings)})
        _show(words.headline(report) if quiet else partial(render, report))
        for path in paths:
            report.save(path)
    except FastcheckError as error:
        _complain(error)
    sys.exit(_status(report.verdict))


@main.command("self-test")
@_target
@_options
@click.option("--kinds", multiple=True, help="Only bugs of this kind, as sign or transpose; can be given repeatedly.")
@click.option("--budget", type=float, help="Seconds that each of the checks may take.")
def self_test(target: str, kinds: tuple[str, ...], blocks: tuple[str, ...], quiet: bool, **options: Any) -> None:
    """Plant known bugs in the gradient in FILE.py, and see whether a check finds them.

    The gradient must pass as it is. Exit status: 0 all bugs found, 1 one was missed or the gradient did not pass.
    """
    from fastcheck.report.terminal import render, render_self_test

    try:
        problem = _load_problem(target)
        found = fastcheck.self_test(
            problem.loss,
            problem.gradient,
            problem.params,
            args=problem.args,
            kinds=kinds or None,
            blocks=blocks or None,
            progress=False,
            **options,
        )
        _show(str(found).splitlines()[0] if quiet else partial(render_self_test, found))
    except GradientError as error:
        _show(words.headline(error.report) if quiet else partial(render, error.report))
        sys.exit(_status(error.report.verdict))
    except FastcheckError as error:
        _complain(error)
    sys.exit(PASSED if found.passed else NOT_PASSED)


@main.command()
@click.argument("source", metavar="RUN.json", type=click.Path(dir_okay=False))
@click.option("--html", type=click.Path(dir_okay=False), help="Write the report to this page.")
def report(source: str, html: str | None) -> None:
    """Show a report that was saved as JSON, or lay it out as a page."""
    from fastcheck.report.terminal import render

    try:
        saved = fastcheck.Report.load(source)
        if html:
            saved.save(html)
        else:
            _show(partial(render, saved))
    except FastcheckError as error:
        _complain(error)
    sys.exit(_status(saved.verdict))


@main.command()
@click.argument("before", metavar="BEFORE.json", type=click.Path(dir_okay=False))
@click.argument("after", metavar="AFTER.json", type=click.Path(dir_okay=False))
@click.option("--html", type=click.Path(dir_okay=False), help="Write the comparison to this page.")
def diff(before: str, after: str, html: str | None) -> None:
    """Compare two reports that were saved as JSON, before and after a fix.

    The exit status is that of the second.
    """
    from fastcheck.report.diff import render

    try:
        was, now = (fastcheck.Report.load(path) for path in (before, after))
        if html:
            from fastcheck.report.html import write_diff

            write_diff(was, now, _destination(html))
        else:
            _show(partial(render, was, now))
    except FastcheckError as error:
        _complain(error)
    sys.exit(_status(now.verdict))


def _show(content: str | Callable[[int], RenderableType]) -> None:
    """Print a line, or what a layout makes of the width there is."""
    if isinstance(content, str):
        click.echo(content)
        return
    from fastcheck.report.terminal import width_here

    width = width_here()
    _console(width).print(content(width), crop=False)


def _destination(name: str) -> Path:
    """Return the path of a report that is to be saved, so that a long run does not end with nowhere to go.

    Raises
    ------
    InputError
        It has no fitting suffix, or its folder can't be written to.
    MissingDependencyError
        What a page needs is not installed.
    """
    path = Path(name)
    kind = suffix_of(path)
    if not path.parent.is_dir():
        raise InputError(f"path={name!r} can't be written: there is no folder {str(path.parent)!r}.")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"path={name!r} can't be written: the folder {str(path.parent)!r} is read-only.")
    if kind == ".html":
        from fastcheck.report.html import require_libraries

        require_libraries()
    return path


def _command(settings: Mapping[str, Any]) -> str:
    """Return the command that repeats this one: in the mode that was chosen, with its seed, without where it writes."""
    context = click.get_current_context()
    words = ["fastcheck", str(context.info_name), str(context.params["target"])]
    given = {**context.params, "mode": settings["mode"]}
    for option in context.command.params:
        value = given.get(str(option.name))
        if option.name in ("target", "html", "json_", "quiet") or value is None:
            continue
        if option.name == "seed" or value != option.get_default(context):
            words += [word for each in (value if option.multiple else [value]) for word in (option.opts[0], str(each))]
    return shlex.join(words)


def _complain(error: Exception) -> None:
    from fastcheck.report.words import legible

    click.echo("\n".join(map(legible, f"fastcheck: {error}".split("\n"))), err=True)
    sys.exit(BAD_INPUT)


def _status(verdict: Verdict) -> int:
    if verdict.passed:
        return PASSED
    return INCONCLUSIVE if verdict is Verdict.INCONCLUSIVE else NOT_PASSED


if __name__ == "__main__":
    main()


# -- ``FILE.py[:NAME]``: the problem that a file defines --------------------------------------------------------------


def _load_problem(target: str) -> Problem:
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
    return Problem(names["loss"], names["gradient"], names["params"], as_args(names.get("args", ())), name=path.stem)


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
    sys.argv = [str(path)]  # the options of this command are not for the file
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise InputError(f"{path} does not parse: line {error.lineno}: {error.msg}.") from error
    except (Exception, SystemExit) as error:  # a file that exits would otherwise decide the exit status
        raise InputError(f"{path} raised {said(error, ' when it was run')}") from error
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
            raise InputError(f"{path}:{name} raised {said(error)}") from error
    if not isinstance(value, Problem):
        raise InputError(
            f"{path}:{name} is of type {type(value).__name__}; it must be a fastcheck.Problem, or a function "
            "that returns one."
        )
    return value
