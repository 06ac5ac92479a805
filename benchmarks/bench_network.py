"""Every coordinate of a network: `Network` against the textbook loop and against the in-place loop over joblib.

``pytest benchmarks/bench_network.py`` times `BoundNetwork.measure` and, in the same run, at least 200 random
coordinates of each loop, whose time for all coordinates is extrapolated; the ratios stand in ``extra_info``. Run as a
script, it measures how the cost grows with width, depth and batch, prints the table and draws
``docs/networks-growth.svg``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from joblib import Parallel, delayed
from threadpoolctl import threadpool_limits

from fastcheck.networks import Conv2D, Dense, MaxPool2D, Network
from fastcheck.parameters import Parameters

Params = dict[str, np.ndarray]
Loss = Callable[[Params], float]
WORKERS = 2
ACTIVATIONS = {"tanh": np.tanh, "relu": lambda z: np.maximum(z, 0.0)}


def textbook_seconds_per_coordinate(loss: Loss, params: Params, count: int = 200, seed: int = 0) -> float:
    """Time the loop of the course on random coordinates: theta is copied twice and the dict rebuilt, each time.

    Returns
    -------
    float
        Seconds for both evaluations of one coordinate: the fastest of all, with one BLAS thread or two, so that what
        else runs on the machine does not count against the loop. Every time in this file is the fastest of several.
    """
    names, shapes = list(params), [params[name].shape for name in params]
    theta = np.concatenate([params[name].reshape(-1) for name in names])
    ends = np.cumsum([0, *(int(np.prod(shape)) for shape in shapes)])

    def rebuilt(vector: np.ndarray) -> Params:
        parts = zip(names, shapes, pairwise(ends), strict=True)
        return {name: vector[a:b].reshape(shape) for name, shape, (a, b) in parts}

    def once(i: int) -> float:
        started = time.perf_counter()
        plus, minus = np.copy(theta), np.copy(theta)
        plus[i] += 1e-7
        minus[i] -= 1e-7
        _ = (loss(rebuilt(plus)) - loss(rebuilt(minus))) / 2e-7
        return time.perf_counter() - started

    found = []
    for threads in (1, WORKERS):
        with threadpool_limits(limits=threads, user_api="blas"):
            loss(params)
            coordinates = np.random.default_rng(seed).choice(theta.size, count, replace=False)
            found.append(min(once(i) for i in coordinates))
    return min(found)


def in_place_seconds_per_coordinate(loss: Loss, params: Params, count: int = 240, seed: int = 0) -> float:
    """Time the loop that changes one entry and puts it back, over joblib's threads with one BLAS thread each."""

    def share(coordinates: np.ndarray) -> list[float]:
        times = []
        own = {name: value.copy() for name, value in params.items()}
        flat = [value.reshape(-1) for value in own.values()]
        ends = np.cumsum([value.size for value in flat])
        for i in coordinates:
            block = int(np.searchsorted(ends, i, side="right"))
            part, k = flat[block], i - (ends[block] - flat[block].size)
            started = time.perf_counter()
            kept = part[k]
            part[k] = kept + 1e-5
            plus = loss(own)
            part[k] = kept - 1e-5
            _ = (plus - loss(own)) / 2e-5
            part[k] = kept
            times.append(time.perf_counter() - started)
        return times

    size = sum(value.size for value in params.values())
    coordinates = np.random.default_rng(seed).choice(size, count, replace=False)
    with threadpool_limits(limits=1, user_api="blas"), Parallel(WORKERS, backend="threading") as pool:
        pool(delayed(share)(part) for part in np.array_split(coordinates[:WORKERS], WORKERS))
        times = pool(delayed(share)(part) for part in np.array_split(coordinates, WORKERS))
        return float(np.quantile(np.concatenate(times), 0.05)) / WORKERS


def cross_entropy(z: np.ndarray, y: np.ndarray) -> float:
    z = z - z.max(axis=0)
    return float(np.mean(np.log(np.exp(z).sum(axis=0)) - z[y, np.arange(len(y))]))


def dense_problem(sizes: tuple[int, ...], activation: str, batch: int = 64) -> tuple[Network, Params, Loss, tuple]:
    """A dense net, its parameters, the plain NumPy loss of a course, and the data."""
    rng = np.random.default_rng(0)
    params: Params = {}
    for i, (n, o) in enumerate(pairwise(sizes), start=1):
        params[f"W{i}"], params[f"b{i}"] = rng.normal(size=(o, n)) / np.sqrt(n), rng.normal(size=(o, 1)) * 0.1
    depth = len(sizes) - 1
    x, y = rng.random((sizes[0], batch)), rng.integers(0, sizes[-1], batch)
    bend = ACTIVATIONS[activation]

    def loss(p: Params) -> float:
        a = x
        for i in range(1, depth):
            a = bend(p[f"W{i}"] @ a + p[f"b{i}"])
        return cross_entropy(p[f"W{depth}"] @ a + p[f"b{depth}"], y)

    layers = [Dense(f"W{i}", f"b{i}", activation if i < depth else None) for i in range(1, depth + 1)]
    return Network(layers), params, loss, (x, y)


def lenet_problem(activation: str = "relu", batch: int = 32) -> tuple[Network, Params, Loss, tuple]:
    """conv 16 of 5 x 5, pool, conv 32 of 5 x 5, pool, dense 10, on 28 x 28."""
    rng = np.random.default_rng(0)
    shapes = {"K1": (16, 1, 5, 5), "k1": (16,), "K2": (32, 16, 5, 5), "k2": (32,), "W": (10, 512), "b": (10,)}
    params = {name: rng.normal(size=shape) / np.sqrt(np.prod(shape[1:])) for name, shape in shapes.items()}
    x, y = rng.random((batch, 1, 28, 28)), rng.integers(0, 10, batch)
    bend = ACTIVATIONS[activation]

    def conv(a: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
        windows = np.lib.stride_tricks.sliding_window_view(a, kernel.shape[2:], axis=(2, 3)).transpose(0, 2, 3, 1, 4, 5)
        flat = windows.reshape(*windows.shape[:3], -1) @ kernel.reshape(len(kernel), -1).T + bias
        return flat.transpose(0, 3, 1, 2)

    def pool(a: np.ndarray) -> np.ndarray:
        return a.reshape(*a.shape[:2], a.shape[2] // 2, 2, a.shape[3] // 2, 2).max(axis=(3, 5))

    def loss(p: Params) -> float:
        a = pool(bend(conv(x, p["K1"], p["k1"])))
        a = pool(bend(conv(a, p["K2"], p["k2"])))
        return cross_entropy(p["W"] @ a.reshape(batch, -1).T + p["b"][:, None], y)

    layers = [
        Conv2D("K1", "k1", activation),
        MaxPool2D(2),
        Conv2D("K2", "k2", activation),
        MaxPool2D(2),
        Dense("W", "b"),
    ]
    return Network(layers, samples="rows"), params, loss, (x, y)


PROBLEMS = {
    "784-256-128-10 tanh": lambda: dense_problem((784, 256, 128, 10), "tanh"),
    "784-256-128-10 relu": lambda: dense_problem((784, 256, 128, 10), "relu"),
    "784-1024-1024-10 tanh": lambda: dense_problem((784, 1024, 1024, 10), "tanh"),
    "784-1024-1024-10 relu": lambda: dense_problem((784, 1024, 1024, 10), "relu"),
    "10 layers of 256 tanh": lambda: dense_problem((256,) * 10 + (10,), "tanh"),
    "lenet relu": lenet_problem,
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_every_coordinate(benchmark, name):
    network, params, loss, (x, y) = PROBLEMS[name]()
    layout = Parameters.of(params)
    theta = layout.flatten(params)
    bound = network.bind(x, y, like=loss, params=params)
    rounds = 3 if name.startswith("10 layers") else 10
    benchmark.pedantic(bound.measure, (theta, layout), {"workers": WORKERS}, rounds=rounds, warmup_rounds=1)
    seconds = benchmark.stats.stats.min if benchmark.stats else float("nan")
    textbook = textbook_seconds_per_coordinate(loss, params) * layout.size
    in_place = in_place_seconds_per_coordinate(loss, params) * layout.size
    benchmark.extra_info.update(
        coordinates=layout.size,
        seconds=round(seconds, 4),
        textbook_seconds=round(textbook),
        in_place_joblib_seconds=round(in_place),
        times_the_textbook=round(textbook / seconds),
        times_in_place_joblib=round(in_place / seconds),
    )


def growth() -> dict[str, list[tuple[int, float, float]]]:
    """Return (size, seconds of `Network`, seconds of the textbook loop) over width, depth and batch; relu."""
    series = {
        "width of two hidden layers": [(w, (784, w, w, 10), 64) for w in (64, 128, 256, 512, 1024, 2048)],
        "layers of 256": [(d, (256,) * d + (10,), 64) for d in (2, 4, 6, 8, 10)],
        "batch, 784-256-256-10": [(b, (784, 256, 256, 10), b) for b in (16, 32, 64, 128, 256, 512)],
    }
    found: dict[str, list[tuple[int, float, float]]] = {}
    for name, points in series.items():
        found[name] = []
        for size, sizes, batch in points:
            network, params, loss, (x, y) = dense_problem(sizes, "relu", batch)
            layout = Parameters.of(params)
            theta = layout.flatten(params)
            bound = network.bind(x, y)
            times = []
            for _ in range(5):
                started = time.perf_counter()
                bound.measure(theta, layout, workers=WORKERS)
                times.append(time.perf_counter() - started)
            found[name].append((size, min(times), textbook_seconds_per_coordinate(loss, params, 40) * layout.size))
    return found


def draw(found: dict[str, list[tuple[int, float, float]]], path: Path) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(found), figsize=(11, 3.4), sharey=True)
    for axis, (name, points) in zip(axes, found.items(), strict=True):
        sizes, ours, textbook = zip(*points, strict=True)
        axis.loglog(sizes, textbook, "s--", label="textbook loop (extrapolated)")
        axis.loglog(sizes, ours, "o-", label="Network")
        axis.set_xlabel(name)
        axis.set_xticks(sizes, [str(size) for size in sizes], minor=False)
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("seconds for every coordinate")
    axes[0].legend(loc="center left", fontsize=8)
    figure.tight_layout()
    figure.savefig(path)


if __name__ == "__main__":
    table = growth()
    for series, rows in table.items():
        sys.stdout.write(f"\n| {series} | Network, s | textbook loop, s | ratio |\n|---|---|---|---|\n")
        for size, ours, textbook in rows:
            sys.stdout.write(f"| {size} | {ours:.3f} | {textbook:,.0f} | {textbook / ours:,.0f} |\n")
    draw(table, Path(__file__).parent.parent / "docs" / "networks-growth.svg")
