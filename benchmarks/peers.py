"""fastcheck beside the checkers of the frameworks, on functions and modules that are right or wrong.

``python -m benchmarks.peers`` asks all of them about every subject of `benchmarks.torch_subjects` and
`benchmarks.jax_subjects`, and writes ``benchmarks/results/peers.json``; ``--only PATTERN`` asks about some, and prints.
Then ``python -m benchmarks.pages`` writes the table of ``docs/peers.md``.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import fastcheck
from benchmarks.judgement import machine, versions

RESULTS = Path(__file__).parent / "results" / "peers.json"
ROUNDS = 3
RIGHT, WRONG, UNTOLD, REFUSED = "right", "wrong", "cannot tell", "error"


@dataclass(frozen=True)
class Subject:
    """A function or a module with what is true of its gradient.

    Attributes
    ----------
    name : str
    group : str
        The heading of the table that it is in.
    truth : {"right", "wrong"}
    blocks : frozenset of str
        Where it is wrong; empty where it is right, or where the error has no place.
    make : callable
        Returns the ways to ask about it, each with a function of its own, so that nothing is compiled already.
    within : callable
        The context in which all of them are asked: jax's precision.
    """

    name: str
    group: str
    truth: str
    blocks: frozenset[str]
    make: Callable[[], dict[str, Callable[[], Any]]]
    within: Callable[[], AbstractContextManager[Any]] = nullcontext


def subjects() -> Iterator[Subject]:
    """Yield those of the frameworks that are installed."""
    from importlib.util import find_spec

    if find_spec("torch"):
        from benchmarks.torch_subjects import SUBJECTS

        yield from SUBJECTS
    if find_spec("jax"):
        from benchmarks.jax_subjects import SUBJECTS as OTHERS

        yield from OTHERS


def answer(way: Callable[[], Any]) -> tuple[str, str, list[str]]:
    """Return what a checker says, the place that it names, and all places where it says them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            said = way()
        except Exception as error:
            return *_raised(error), []
    if isinstance(said, fastcheck.Report):
        verdict = RIGHT if said.passed else WRONG if said.verdict.refuted else UNTOLD
        return verdict, "" if said.passed else named(said), list(said.blocks)
    return RIGHT, "", []


def named(report: fastcheck.Report) -> str:
    """Return the place that a report names: one coordinate where it lists one alone, else its blocks."""
    blocks = [name or "the input" for name, block in report.blocks.items() if block.verdict.refuted]
    if len(report.wrong) == 1 and len(blocks) == 1 and report.blocks[report.wrong[0].block].size > 1:
        return report.wrong[0].name
    return "; ".join(blocks) or next((f.block for f in report.findings if f.block), "")


def _raised(error: Exception) -> tuple[str, str]:
    """Return what the checkers say by raising: that it is wrong, or something else."""
    said = f"{type(error).__name__}: {error}"
    wrong = type(error).__name__ == "GradcheckError" or isinstance(error, AssertionError)
    place = re.search(r"with respect to input (\d+)", said)
    return (WRONG if wrong else REFUSED), f"input {place[1]}" if place else "" if wrong else said.splitlines()[0][:100]


def asked(subject: Subject, rounds: int = ROUNDS) -> dict[str, Any]:
    """Return a row of the results: [verdict, place, median seconds] by checker, of up to three calls.

    gradcheck names one input by its number; its name is that of a report's block.
    """
    answers: dict[str, list[Any]] = {}
    blocks: list[str] = []
    with subject.within():
        for checker in subject.make():
            seconds: list[float] = []
            while len(seconds) < rounds and sum(seconds) < 1:
                way = subject.make()[checker]
                began = time.perf_counter()
                verdict, place, places = answer(way)
                seconds.append(time.perf_counter() - began)
            blocks = blocks or places
            number = re.fullmatch(r"input (\d+)", place)
            place = blocks[int(number[1])] if number and int(number[1]) < len(blocks) else place
            answers[checker] = [verdict, place, float(f"{statistics.median(seconds):.2g}")]
    told = {"name": subject.name, "group": subject.group, "truth": subject.truth, "blocks": sorted(subject.blocks)}
    return {**told, "answers": answers}


def seen(verdict: str) -> bool:
    """Whether the reader of an answer knows that something is wrong; an error says so too."""
    return verdict in (WRONG, REFUSED)


def names_it(row: dict[str, Any], place: str) -> bool:
    """Whether a place is in the wrong blocks of a row of the results, and in no other."""
    blocks = [re.sub(r"\[[\d, ]+\]$", "", name) for name in place.split("; ")]
    return bool(place) and set(blocks) <= set(row["blocks"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="a regular expression of names and groups; prints, and writes nothing")
    options = parser.parse_args()
    rows = []
    chosen = [s for s in subjects() if not options.only or re.search(options.only, f"{s.group}: {s.name}")]
    for subject in chosen[:1]:
        asked(subject, 1)  # what the libraries load when they are first used
    for subject in chosen:
        rows.append(row := asked(subject))
        print(f"{subject.group}: {subject.name} ({' '.join([subject.truth, *row['blocks']])})")
        for checker, (verdict, place, seconds) in row["answers"].items():
            mark = " " if (verdict == RIGHT) == (subject.truth == RIGHT) else "!"
            print(f"  {mark} {checker:16} {verdict:12} {seconds:8.3g} s  {place}", flush=True)
    if not options.only:
        head = {"date": date.today().isoformat(), "machine": machine(), "versions": versions()}
        RESULTS.write_text(json.dumps(head | {"subjects": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
