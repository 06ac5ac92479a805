"""What it costs to locate an error in a large net, and what a monitor costs: ``python -m benchmarks.bench_screen``."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

import fastcheck
from fastcheck.examples import digits_net, mlp
from fastcheck.examples.digits import digits_batch
from fastcheck.gradients import match_gradient
from fastcheck.parameters import Parameters
from tests.zoo import train


def plants(layout: Parameters, g: np.ndarray[Any, Any]) -> dict[str, Callable[[Any, np.random.Generator], None]]:
    def coordinates(count: int, factor: float) -> Callable[[Any, np.random.Generator], None]:
        def change(tree: Any, rng: np.random.Generator) -> None:
            done = 0
            while done < count:
                place = int(rng.integers(layout.size))
                block = layout.block_at(place)
                if abs(g[place]) >= np.median(np.abs(g[block.slice])):
                    tree[block.name][block.multi_index(place)] *= factor
                    done += 1

        return change

    def transpose(tree: Any, rng: np.random.Generator) -> None:
        tree["W2"][...] = tree["W2"].T.copy()

    return {
        "one coordinate x1.01": coordinates(1, 1.01),
        "five coordinates x1.01": coordinates(5, 1.01),
        "one coordinate flipped": coordinates(1, -1.0),
        "a row of W1 zeroed": lambda tree, rng: tree["W1"][17].fill(0),
        "a row of W2 x1.1": lambda tree, rng: tree["W2"][17].__imul__(1.1),
        "W2 transposed": transpose,
        "W2 x1.01": lambda tree, rng: tree["W2"].__imul__(1.01),
    }


def located(net: Any, title: str) -> None:
    layout = Parameters.of(net.params)
    g = match_gradient(net.claimed(), layout).flat
    clean = fastcheck.check(net.loss, layout.unflatten(g), net.params, args=net.args, mode="screen")
    print(f"\n{title}: a screen of the correct gradient takes {clean.evaluations} evaluations: {clean.verdict.value}\n")
    print("| planted | found | evaluations more | seconds in all |")
    print("|---|---|---|---|")
    for name, change in plants(layout, g).items():
        wrong = g.copy()
        tree = layout.unflatten(wrong)
        change(tree, np.random.default_rng(0))
        report = fastcheck.check(net.loss, tree, net.params, args=net.args, mode="screen")
        moved = set(np.flatnonzero(wrong != g).tolist())
        listed = {layout[c.block].coordinate(c.index) for c in report.wrong}
        patterns = [f.evidence["where"] for f in report.findings if "where" in f.evidence]
        if patterns:
            found = ", ".join(patterns)
        else:
            found = f"{len(listed & moved)} of {len(moved)}, {len(listed - moved)} others"
        more = report.evaluations - clean.evaluations
        print(f"| {name} | {found} | {more} | {report.seconds:.2f} |")


def monitored(steps: int = 6000) -> None:
    print("\n| overhead asked | measured | checks | of milliseconds |")
    print("|---|---|---|---|")
    net = digits_net((100,), batch=128)
    for overhead in (0.02, 0.05, 0.1):
        params = {name: array.copy() for name, array in net.params.items()}
        monitor = fastcheck.Monitor(net.loss, net.gradient, overhead=overhead)
        rng = np.random.default_rng(0)
        for _ in range(steps):
            args = (*digits_batch(128, rng), *net.args[2:])
            g = net.gradient(params, *args)
            for name in params:
                params[name] -= 0.05 * g[name]
            monitor.step(params, args)
        each = 1e3 * statistics.median(moment.report.seconds for moment in monitor.history)
        print(f"| {overhead:.0%} | {monitor.share:.2%} | {len(monitor.history)} | {each:.0f} |")


def main() -> None:
    with threadpool_limits(1):
        for activation in ("tanh", "relu"):
            located(mlp(activation=activation), f"784-1024-1024-10 {activation}, untrained")
        for activation, rate in (("tanh", 5e-4), ("relu", 1e-3)):
            located(train(mlp(activation=activation), learning_rate=rate), f"784-1024-1024-10 {activation}, trained")
        monitored()


if __name__ == "__main__":
    main()
