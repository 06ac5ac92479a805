"""Ratios of two timings taken in turns in one run, and the table of them.

``pytest benchmarks/bench_*.py --benchmark-only --ratios docs/figures.md`` writes the table.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import pytest

RATIOS = pytest.StashKey()


def pytest_addoption(parser):
    parser.addoption("--ratios", help="write the table of ratios to this Markdown file")
    parser.addoption("--no-floor", action="store_true", help="report ratios below their floor without failing")


def pytest_configure(config):
    config.stash[RATIOS] = []


@pytest.fixture
def ratio(request, benchmark):
    """Return a function that times ours and theirs in turns, and holds their ratio to a floor."""

    def measure(what, ours, theirs, floor, *, rounds=5, units=(1, 1), unit="coordinate"):
        """Record theirs/ours per unit of work; ours and theirs are callables that do so many units each."""
        ours(), theirs()  # compiled, cached, started
        pairs = [(_seconds(ours) / units[0], _seconds(theirs) / units[1]) for _ in range(rounds)]
        benchmark.pedantic(ours, rounds=1)
        # in turns, and pair by pair: what else the machine does slows both of a pair
        factor = statistics.median(theirs / ours for ours, theirs in pairs)
        row = {
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


def _seconds(work):
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def pytest_terminal_summary(terminalreporter, config):
    rows = config.stash[RATIOS]
    if not rows:
        return
    table = ["| what | fastcheck | against | ratio | floor |", "|---|---|---|---|---|"]
    table += [
        f"| {row['what']} | {_time(row['ours'])} a {row['unit']} | {_time(row['theirs'])} | {_factor(row['ratio'])}x | "
        f"{row['floor']:,}x |"
        for row in rows
    ]
    terminalreporter.section("ratios")
    for line in table:
        terminalreporter.line(line)
    if config.getoption("ratios"):
        Path(config.getoption("ratios")).write_text("\n".join(table) + "\n")


def _factor(ratio):
    return f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.3g}"


def _time(seconds):
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"
