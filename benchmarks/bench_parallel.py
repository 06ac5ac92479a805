"""Two workers against one, on work of at least 5 seconds; and what fastcheck itself costs a Python loss."""

from __future__ import annotations

import multiprocessing
import time

import numpy as np

from fastcheck.losses import PythonLoss, evaluator_for
from fastcheck.parallel.shards import Staff
from fastcheck.parameters import Parameters
from fastcheck.run import Run
from tests.zoo.compiled import compiled_mlp

SECONDS = 5.0
WEIGHTS = np.random.default_rng(0).standard_normal((30, 40))


def interpreted(params):
    """Return a loss that keeps the interpreter busy, as most Python losses do."""
    total = 0.0
    for row in WEIGHTS:
        total += float(np.tanh(row @ params["W"]))
    return total


def with_workers(loss, params, args, backend):
    layout = Parameters.of(params)
    evaluator = evaluator_for(loss, layout, layout.flatten(params), args)
    rows = rows_for(evaluator)

    def probes(part):
        return np.arange(part.start, part.stop) % layout.size, np.full(part.stop - part.start, 1e-6)

    def measure(workers):
        with Run(staff=Staff(workers, backend if workers > 1 else "serial")) as run:
            for _ in run.stream(evaluator, rows, probes, (1.0, -1.0)):
                pass

    return lambda: measure(1), lambda: measure(2)


def rows_for(evaluator):
    """Return how many rows one worker needs at least SECONDS for."""
    evaluator.on_grid(np.zeros(1, np.int64), np.full(1, 1e-6), (1.0, -1.0))  # compiled
    rows, spent = 16, 0.0
    while spent < 1.0:
        rows *= 2
        places = np.arange(rows) % evaluator.layout.size
        began = time.perf_counter()
        evaluator.on_grid(places, np.full(rows, 1e-6), (1.0, -1.0))
        spent = time.perf_counter() - began
    return int(1.3 * SECONDS * rows / spent)


def burn(count):
    total = 0
    for i in range(count):
        total += i * i
    return total


def test_the_machine_itself(ratio):
    """What two busy processes get done together against one alone: 2 on two idle cores; the others are under it."""
    with multiprocessing.Pool(2) as pool:
        ratio(
            "two plain busy processes vs one (what the machine gives now)",
            lambda: pool.map(burn, [10**7] * 2),
            lambda: pool.apply(burn, (10**7,)),
            0,
            units=(2, 1),
            unit="process",
        )


def test_compiled(ratio):
    net = compiled_mlp((64, 100, 10), batch=128)
    one, two = with_workers(net.loss, net.params, net.args, "threads")
    ratio("compiled loss, 2 workers vs 1", two, one, 1.7, rounds=3, unit="run")


def test_python(ratio):
    one, two = with_workers(interpreted, {"W": np.linspace(0, 1, 40)}, (), "processes")
    ratio("Python loss, 2 workers vs 1", two, one, 1.6, rounds=3, unit="run")


def test_own_cost_of_an_evaluation(ratio):
    theta = np.linspace(0, 1, 1000)
    evaluator = PythonLoss(lambda theta: 1.0, Parameters.of(theta), theta)
    places, steps = np.tile(np.arange(1000), 50), np.full(50_000, 1e-6)
    limit = 5e-6  # seconds, a loss that costs nothing: all of it is fastcheck's
    what = "fastcheck's own time in one evaluation of a Python loss, vs 5 µs"
    ratio(
        what,
        lambda: evaluator.on_grid(places, steps, (1.0, -1.0)),
        lambda: time.sleep(limit * 100_000),
        1,
        units=(100_000, 100_000),
        unit="evaluation",
    )
