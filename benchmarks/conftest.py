"""Ratios of two timings taken in turns in one run, and the table of them.

``pytest benchmarks/bench_*.py --ratios docs/figures.md`` writes the tables.
"""

from __future__ import annotations

import statistics
import time
from importlib.metadata import version
from importlib.util import find_spec
from os import cpu_count
from pathlib import Path
from platform import python_version

import pytest

ROUNDS = 5
RATIOS = pytest.StashKey()
TABLES = pytest.StashKey()


def pytest_addoption(parser):
    parser.addoption("--ratios", help="write the table of ratios to this Markdown file")
    parser.addoption("--no-floor", action="store_true", help="report ratios below their floor without failing")


def pytest_configure(config):
    config.stash[RATIOS] = []
    config.stash[TABLES] = {}


@pytest.fixture
def ratio(request, benchmark):
    """Return a function that times ours and theirs in turns, and holds their ratio to a floor."""

    def measure(what, ours, theirs, floor, *, rounds=ROUNDS, units=(1, 1), unit="coordinate"):
        """Record theirs/ours per unit of work; ours and theirs are callables that do so many units each."""
        ours(), theirs()  # compiled, cached, started
        pairs = [(_seconds(ours) / units[0], _seconds(theirs) / units[1]) for _ in range(rounds)]
        benchmark.pedantic(ours, rounds=1)
        # in turns, and pair by pair: what else the machine does slows both of a pair
        factor = statistics.median(theirs / ours for ours, theirs in pairs)
        row = {
            "title": request.module.__doc__.splitlines()[0].rstrip("."),
            "what": what,
            "ours": statistics.median(pair[0] for pair in pairs),
            "theirs": statistics.median(pair[1] for pair in pairs),
            "ratio": factor,
            "floor": floor,
            "unit": unit,
        }
        benchmark.extra_info.update(row)
        request.config.stash[RATIOS].append(row)
        if not request.config.getoption("no_floor"):
            assert factor >= floor, f"{what}: {factor:.3g}x, not {floor}x"
        return factor

    return measure


@pytest.fixture
def table(request):
    """Return a function that adds a row to a table of its own: its title, its head and the cells."""

    def add(title, head, cells):
        request.config.stash[TABLES].setdefault(title, [head]).append(cells)

    return add


def _seconds(work):
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def pytest_terminal_summary(terminalreporter, config):
    rows, tables = config.stash[RATIOS], config.stash[TABLES]
    if not rows and not tables:
        return
    lines = [line for title in dict.fromkeys(row["title"] for row in rows) for line in _table(title, rows)]
    lines += [line for title, (head, *cells) in tables.items() for line in _lines(title, head, cells)]
    terminalreporter.section("ratios")
    for line in lines:
        terminalreporter.line(line)
    if config.getoption("ratios"):
        Path(config.getoption("ratios")).write_text("\n".join([_head(), *lines]) + "\n")


def _head():
    packages = ", ".join(
        f"{name} {version(name)}" for name in ("numpy", "numba", "joblib", "jax", "torch") if has(name)
    )
    return f"""# Figures

Each row of a table of ratios is one run in which fastcheck and what it is compared with were timed in turns, {ROUNDS}
times unless the file says otherwise: the medians, and the median of the ratios of the pairs. *asked* is the ratio below
which the benchmark fails. "`check()` whole" goes from the call to the report; every other table of ratios times the
measurement alone, where it says nothing else. The tables of screens hold one run each. Made
by `pytest benchmarks/bench_*.py --ratios docs/figures.md` on {cpu_count()} cores, Python {python_version()},
{packages}."""


def _table(title, rows):
    cells = (
        [
            row["what"],
            f"{_time(row['ours'])} a {row['unit']}",
            _time(row["theirs"]),
            f"{_factor(row['ratio'])}x",
            _asked(row["floor"]),
        ]
        for row in rows
        if row["title"] == title
    )
    return _lines(title, ["what", "fastcheck", "against", "ratio", "asked"], cells)


def _lines(title, head, cells):
    yield from ("", f"## {title}", "")
    for row in (head, ["---"] * len(head), *cells):
        yield f"| {' | '.join(row)} |"


def has(package):
    return find_spec(package) is not None


def _asked(floor):
    return f"{floor:,.3g}x" if 0 < floor < 1 else f"{floor:,}x" if floor else ""


def _factor(ratio):
    return f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.3g}"


def _time(seconds):
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"
