"""How the cost of a check grows with parameters, blocks, batch, depth and workers.

``python -m benchmarks.growth`` writes ``benchmarks/results/growth.json``; ``--quick`` prints the smallest of each
series. Then ``python -m benchmarks.pages`` and ``python -m benchmarks.pictures`` write what ``docs/growth.md`` shows.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

import fastcheck
from benchmarks import naive
from benchmarks.judgement import dense, machine, versions
from fastcheck.examples import digits_net, mlp
from tests.zoo.compiled import compiled_mlp

RESULTS = Path(__file__).parent / "results" / "growth.json"
REPEATS = 5
COORDINATES = 40  # of the textbook's loop; its time for all of them is extrapolated

# Series of dense nets: what grows, and the units of the layers and the batch at each size.
NETS: dict[str, list[tuple[int, tuple[int, ...], int]]] = {
    "parameters": [
        (0, (20, 20, 20, 10), 64),
        (0, (50, 100, 50, 10), 64),
        (0, (200, 300, 200, 10), 64),
        (0, (600, 800, 600, 10), 64),
        (0, (784, 1024, 1024, 10), 64),
        (0, (2000, 2500, 2000, 10), 64),
    ],
    "batch": [(batch, (784, 256, 128, 10), batch) for batch in (16, 32, 64, 128, 256, 512)],
    "layers": [(depth, (256,) * (depth + 1) + (10,), 64) for depth in (1, 2, 4, 6, 8, 10)],
}
BLOCKS = (1, 10, 100, 1000, 10_000)


def fastest(
    work: Callable[[], object], clock: Callable[[], float] = time.process_time, repeats: int = REPEATS
) -> float:
    """Return the shortest of some times, after a first run for what is compiled and cached."""
    work()
    times = []
    for _ in range(repeats):
        began = clock()
        work()
        times.append(clock() - began)
    return min(times)


def of_net(size: int, sizes: tuple[int, ...], batch: int, activation: Any) -> dict[str, Any]:
    """Return evaluations of a screen, and processor seconds of a loss, a screen, a `Network` and the textbook loop."""
    net = mlp(sizes, batch=batch, activation=activation)
    own = dense("", net)
    gradient, network = net.claimed(), own.network()
    spots = np.random.default_rng(0).choice(own.size, COORDINATES, replace=False)
    report = fastcheck.check(own.plain_loss, gradient, net.params, mode="screen")
    whole = fastcheck.check(network, gradient, net.params, mode="full", workers=1)
    loop = fastest(lambda: naive.gradient_check(own.plain_loss, net.params, gradient, coordinates=spots), repeats=2)
    return {
        "size": size or own.size,
        "parameters": own.size,
        "activation": activation,
        "evaluations": report.evaluations,
        "bound": max(block.bound for block in report.blocks.values()),
        "passed": report.passed and whole.passed,
        "loss": fastest(lambda: own.plain_loss(net.params)),
        "screen": fastest(lambda: fastcheck.check(own.plain_loss, gradient, net.params, mode="screen"), repeats=3),
        "network": fastest(lambda: fastcheck.check(network, gradient, net.params, mode="full", workers=1), repeats=3),
        "loop": loop / COORDINATES * own.size,
    }


def of_blocks(count: int, total: int = 20_000) -> dict[str, Any]:
    """Return the same of a loss of so many blocks, of as many parameters in all."""
    rng = np.random.default_rng(0)
    params = {f"w{k}": rng.standard_normal(total // count) for k in range(count)}

    def loss(p: dict[str, np.ndarray]) -> float:
        return float(np.tanh(np.concatenate(list(p.values()))).sum())

    gradient = {name: 1 / np.cosh(value) ** 2 for name, value in params.items()}

    def screen() -> fastcheck.Report:
        return fastcheck.check(loss, gradient, params, mode="screen")

    report = screen()
    return {
        "size": count,
        "parameters": total,
        "evaluations": report.evaluations,
        "bound": max(block.bound for block in report.blocks.values()),
        "passed": report.passed,
        "loss": fastest(lambda: loss(params)),
        "screen": fastest(screen, repeats=2),
    }


def of_workers(count: int) -> dict[str, Any]:
    """Return wall seconds of full checks with so many workers."""
    python, compiled = digits_net((128, 64), batch=256), compiled_mlp((64, 100, 10), batch=128)
    network = dense("", mlp((784, 1024, 1024, 10), batch=256))
    bound, gradient = network.network(), network.gradient(network.params)

    def seconds(loss: Any, gradient: Any, params: Any, args: Any = (), **options: Any) -> float:
        def work() -> fastcheck.Report:
            return fastcheck.check(loss, gradient, params, args=args, mode="full", workers=count, **options)

        return fastest(work, time.perf_counter, 1)

    processes = "processes" if count > 1 else "serial"
    return {
        "size": count,
        "Python loss, processes": seconds(python.loss, python.gradient, python.params, python.args, backend=processes),
        "compiled loss, threads": seconds(compiled.loss, compiled.gradient, compiled.params, compiled.args),
        "Network, threads": seconds(bound, gradient, network.params),
    }


def exponent(sizes: Iterable[float], costs: Iterable[float]) -> float:
    """Return the power of the size with which the cost grows over the larger half of the sizes (least squares)."""
    points = sorted(zip(sizes, costs, strict=True))
    x, y = np.log(np.array(points[len(points) // 2 - (len(points) < 4) :])).T
    return float(np.polyfit(x, y, 1)[0]) if len(x) > 1 else math.nan


def series(quick: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, points in NETS.items():
        for activation in ("tanh", "relu"):
            for point in points[: 2 if quick else None]:
                yield name, of_net(*point, activation)
    for count in BLOCKS[: 2 if quick else None]:
        yield "blocks", of_blocks(count)
    workers = [1]
    while workers[-1] * 2 <= (os.cpu_count() or 1):
        workers.append(workers[-1] * 2)
    for count in [] if quick else workers:
        yield "workers", of_workers(count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the smallest of each series; prints, writes nothing")
    options = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {}
    with threadpool_limits(1):
        for name, one in series(options.quick):
            found.setdefault(name, []).append({k: float(f"{v:.3g}") if type(v) is float else v for k, v in one.items()})
            print(name, found[name][-1], flush=True)
    if not options.quick:
        head = {"date": date.today().isoformat(), "machine": machine(), "versions": versions()}
        RESULTS.write_text(json.dumps(head | {"series": found}) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
