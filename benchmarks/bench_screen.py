"""What a screen costs: evaluations, bounds, and seconds with one BLAS thread, of right gradients and of wrong ones."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import fastcheck
from fastcheck.examples import digits_net, mlp
from fastcheck.examples.digits import digits_batch
from fastcheck.gradients import match_gradient
from fastcheck.parameters import Parameters
from tests.zoo import train

SIZES = {
    "1e3": (20, 20, 20, 10),
    "1e4": (50, 100, 50, 10),
    "1e5": (200, 300, 200, 10),
    "1e6": (600, 800, 600, 10),
    "1.9e6": (784, 1024, 1024, 10),
    "1e7": (2000, 2500, 2000, 10),
}
MODES = ("tanh", "relu")
STEPS = 6000


@pytest.fixture(autouse=True)
def one_thread():
    with threadpool_limits(1):
        yield


def screened(net, gradient):
    return fastcheck.check(net.loss, gradient, net.params, args=net.args, mode="screen")


def right(table, what, net, most=None):
    report = screened(net, net.claimed())
    assert not report.verdict.refuted
    bounds = [block.bound for block in report.blocks.values()]
    detectable = max(block.detectable for block in report.blocks.values())
    passed = sum(block.verdict.passed for block in report.blocks.values())
    head = ["net", "blocks", "passed", "coordinates", "evaluations", "median bound", "worst bound", "detectable"]
    cells = [what, f"{len(bounds):,}", f"{passed:,}", f"{report.size:,}", f"{report.evaluations:,}"]
    cells += [f"{each:.1e}" for each in (statistics.median(bounds), max(bounds), detectable)]
    table("Screens of right gradients", [*head, "seconds"], [*cells, f"{report.seconds:.2g}"])
    assert most is None or report.evaluations <= most


@pytest.mark.parametrize("activation", MODES)
@pytest.mark.parametrize("size", SIZES)
def test_of_a_right_gradient(table, size, activation):
    right(table, f"{'-'.join(map(str, SIZES[size]))} {activation}", mlp(SIZES[size], activation=activation), 24)


class Blocks:
    """Many blocks, each in units of its own: the loss is a mean of tanh; gradients over so many decades."""

    args = ()

    def __init__(self, count, decades=0.0):
        rng = np.random.default_rng(0)
        self.params = {f"w{i}": rng.normal(size=(3, 4)) * 10.0 ** rng.integers(-2, 3) for i in range(count)}
        self.units = {name: np.abs(array).max() for name, array in self.params.items()}
        weights = {name: 10.0 ** rng.uniform(-decades, 0) / count for name in self.params}
        self.weights = {name: weight * rng.normal(size=(3, 4)) for name, weight in weights.items()}

    def loss(self, params):
        return math.fsum(float(np.vdot(self.weights[k], np.tanh(p / self.units[k]))) for k, p in params.items())

    def claimed(self):
        return {k: self.weights[k] / self.units[k] / np.cosh(p / self.units[k]) ** 2 for k, p in self.params.items()}


@pytest.mark.parametrize(("count", "decades"), [(1, 0), (6, 0), (100, 0), (1000, 0), (10_000, 0), (1000, 6)])
def test_of_many_blocks(table, count, decades):
    what = "blocks in units of their own" + (f", gradients over {decades} decades" if decades else "")
    right(table, what, Blocks(count, decades), None if decades else 24)


@pytest.mark.parametrize("count", [6, 100, 1000])
def test_of_one_wrong_block(table, count):
    net = Blocks(count)
    gradient, name = net.claimed(), f"w{count // 3}"
    gradient[name] *= 1.01
    report = screened(net, gradient)
    wrong = [name for name, block in report.blocks.items() if block.verdict.refuted]
    assert wrong == [name]
    head = ["blocks", "evaluations", "found", "seconds"]
    table("One block x1.01 among many", head, [f"{count:,}", str(report.evaluations), name, f"{report.seconds:.2g}"])


@pytest.mark.parametrize(("activation", "gain"), [("tanh", 1.0), ("relu", 2.0), ("relu", 1.0)])
def test_of_a_deep_net(table, activation, gain):
    """Weights of variance gain / n. With 1 the slopes of relu fade to 1e-7 on the way, kinks are as near as ever."""
    net = mlp((32,) * 41 + (10,), batch=32, activation=activation, seed=1)
    for name, array in net.params.items():
        array *= math.sqrt(gain) if name[0] == "W" else 1.0
    right(table, f"41 layers, {activation}, weights of variance {gain:g}/n", net)


def coordinates(count, factor):
    def change(tree, layout, g, rng):
        done = 0
        while done < count:
            place = int(rng.integers(layout.size))
            block = layout.block_at(place)
            if abs(g[place]) >= np.median(np.abs(g[block.slice])):
                tree[block.name][block.multi_index(place)] *= factor
                done += 1

    return change


def row(name, factor):
    return lambda tree, layout, g, rng: tree[name][17].__imul__(factor)


PLANTED = {
    "one coordinate x1.01": coordinates(1, 1.01),
    "five coordinates x1.01": coordinates(5, 1.01),
    "one coordinate flipped": coordinates(1, -1.0),
    "a row of W1 zeroed": row("W1", 0.0),
    "a row of W2 x1.1": row("W2", 1.1),
    "W2 transposed": lambda tree, layout, g, rng: tree["W2"].__setitem__(..., tree["W2"].T.copy()),
    "W2 x1.01": lambda tree, layout, g, rng: tree["W2"].__imul__(1.01),
}


@pytest.mark.parametrize("activation", MODES)
@pytest.mark.parametrize("trained", [False, True], ids=["untrained", "trained"])
def test_of_a_wrong_gradient(table, trained, activation):
    net = mlp(activation=activation)
    if trained:
        net = train(net, learning_rate=5e-4 if activation == "tanh" else 1e-3)
    layout = Parameters.of(net.params)
    g = match_gradient(net.claimed(), layout).flat
    clean = screened(net, layout.unflatten(g.copy()))
    head = ["planted", "found", "evaluations", "more than when right", "seconds"]
    title = f"Screens of wrong gradients: 784-1024-1024-10 {activation}, {'trained' if trained else 'untrained'}"
    table(title, head, ["nothing", clean.verdict.value, str(clean.evaluations), "", f"{clean.seconds:.2g}"])
    for name, change in PLANTED.items():
        wrong = g.copy()
        tree = layout.unflatten(wrong)
        change(tree, layout, g, np.random.default_rng(0))
        report = screened(net, tree)
        changed = set(np.flatnonzero(wrong != g).tolist())
        listed = {layout[c.block].coordinate(c.index) for c in report.wrong}
        patterns = [f.evidence["where"] for f in report.findings if "where" in f.evidence]
        found = f"{len(listed & changed)} of {len(changed)} measured, {len(listed - changed)} others"
        found = f"{report.findings[0].kind.value if report.findings else 'nothing'}: {', '.join(patterns) or found}"
        more = report.evaluations - clean.evaluations
        table(title, head, [name, found, str(report.evaluations), str(more), f"{report.seconds:.2g}"])
        errors = {k: np.linalg.norm((wrong - g)[layout[k].slice]) for k in report.blocks}
        sizes = {k: np.linalg.norm(wrong[layout[k].slice]) for k in report.blocks}
        visible = [k for k, block in report.blocks.items() if errors[k] > block.detectable * sizes[k]]
        assert report.verdict.refuted or not visible


@pytest.mark.parametrize("overhead", [0.02, 0.05, 0.1])
def test_of_a_monitor(table, overhead):
    net = digits_net((100,), batch=128)
    params = {name: array.copy() for name, array in net.params.items()}
    monitor = fastcheck.Monitor(net.loss, net.gradient, overhead=overhead)
    rng = np.random.default_rng(0)
    for _ in range(STEPS):
        args = (*digits_batch(128, rng), *net.args[2:])
        g = net.gradient(params, *args)
        for name in params:
            params[name] -= 0.05 * g[name]
        monitor.step(params, args)
    each = 1e3 * statistics.median(moment.report.seconds for moment in monitor.history)
    head = ["overhead asked", "measured", "checks", "of milliseconds"]
    cells = [f"{overhead:.0%}", f"{monitor.share:.2%}", str(len(monitor.history)), f"{each:.0f}"]
    table("What a monitor costs a training", head, cells)
