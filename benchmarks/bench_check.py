"""`check()` whole, from the call to the report, against the textbook loop; elsewhere the measurement alone is timed."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import fastcheck
from benchmarks.bench_kernels import textbook as loop_of
from benchmarks.bench_network import CASES, WORKERS, textbook
from fastcheck.examples import mlp
from fastcheck.examples.course import course_net
from fastcheck.parameters import Parameters
from tests.zoo.compiled import compiled_course_net

NETS = 500
ROUNDS = 50


def checked(net, **options):
    return partial(fastcheck.check, net.loss, net.gradient, net.params, args=net.args, **options)


def bare(net):
    """Return the evaluations of the textbook loop and nothing else."""
    count = 2 * Parameters.of(net.params).size

    def evaluate():
        for _ in range(count):
            net.loss(net.params, *net.args)

    return evaluate


AGAINST = {"the textbook loop": lambda net: loop_of(net, np.arange(47)), "that loop's bare evaluations": bare}


@pytest.mark.parametrize("against", AGAINST)
@pytest.mark.parametrize(("mode", "floor"), [("full", 1 / 2), ("screen", 2 / 3)])
def test_the_course_net(ratio, mode, floor, against):
    net = course_net()
    ours, theirs = checked(net, mode=mode), AGAINST[against](net)
    floor *= against == "the textbook loop"
    ratio(f"4-5-3-1 net, {mode}, vs {against}", ours, theirs, floor, rounds=ROUNDS, unit="check")


@pytest.mark.parametrize("against", AGAINST)
def test_the_numerical_gradient_of_the_course_net(ratio, against):
    net = course_net()
    ours = partial(fastcheck.numerical_gradient, net.loss, net.params, args=net.args)
    what = f"4-5-3-1 net, `numerical_gradient`, vs {against}"
    floor = 2 / 3 * (against == "the textbook loop")
    ratio(what, ours, AGAINST[against](net), floor, rounds=ROUNDS, unit="call")


@pytest.mark.parametrize("mode", ["full", "screen"])
def test_the_compiled_course_net(ratio, mode):
    ours, theirs = checked(compiled_course_net(), mode=mode), loop_of(course_net(), np.arange(47))
    what = f"4-5-3-1 net, compiled, {mode}, vs the textbook loop of the NumPy one"
    ratio(what, ours, theirs, 1, rounds=ROUNDS, unit="check")


def small_nets(count=NETS):
    """Return nets of 20 to 500 parameters."""
    rng, nets = np.random.default_rng(0), []
    while len(nets) < count:
        sizes = tuple(int(size) for size in rng.integers(2, 17, int(rng.integers(2, 5))))
        net = mlp(sizes, batch=8, activation="tanh" if len(nets) % 2 else "relu", seed=len(nets))
        if 20 <= Parameters.of(net.params).size <= 500:
            nets.append(net)
    return nets


def test_many_small_nets(ratio):
    nets = small_nets()
    loops = [loop_of(net, np.arange(Parameters.of(net.params).size)) for net in nets]

    def ours():
        for net in nets:
            assert checked(net)().passed

    def theirs():
        for loop in loops:
            loop()

    ratio(
        f"{NETS} nets of 20-500 parameters, vs their textbook loops", ours, theirs, 0, units=(NETS, NETS), unit="check"
    )


WHOLE = {"784-256-128-10": 8000, "784-1024-1024-10": 40_000, "LeNet-like": 4000, "10 layers of 256": 2000}


@pytest.mark.parametrize("case", CASES)
def test_a_network(case, ratio):
    make, _, _ = CASES[case]
    network, params, loss, (x, y) = make()
    layout, bound = Parameters.of(params), network.bind(x, y)
    gradient = layout.unflatten(bound.measure(layout.flatten(params), layout, workers=WORKERS).value)
    loop, floor = textbook(loss, params), WHOLE[case.partition(",")[0]]
    ours = partial(fastcheck.check, bound, gradient, params, mode="full")
    assert ours().coverage == 1.0
    units = (1, 200 / layout.size)
    ratio(
        f"{case} ({layout.size:,} coordinates), `Network` vs the textbook loop",
        ours,
        loop,
        floor,
        units=units,
        unit="check",
    )


PEAK = """
import sys, tracemalloc
import numpy as np
import fastcheck
from fastcheck.examples import mlp

net = mlp(tuple(map(int, sys.argv[1].split("-"))), activation=sys.argv[2])
gradient = net.gradient if sys.argv[3] == "function" else net.claimed()
theta = sum(array.nbytes for array in net.params.values())

def peak(work):
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    result = work()
    return (tracemalloc.get_traced_memory()[1] - before) / theta, result

fastcheck.check(net.loss, gradient, net.params, args=net.args, mode="screen")
tracemalloc.start()
loss, _ = peak(lambda: net.loss(net.params, *net.args))
own, _ = peak(lambda: net.gradient(net.params, *net.args)) if callable(gradient) else (0.0, None)
whole, report = peak(lambda: fastcheck.check(net.loss, gradient, net.params, args=net.args, mode="screen"))
assert report.passed
print(whole, loss, own)
"""


@pytest.mark.parametrize("form", ["function", "tree"])
@pytest.mark.parametrize("net", [("784-1024-1024-10", "tanh"), ("784-1024-1024-10", "relu")])
def test_peak_memory_of_a_screen(table, net, form):
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *net, form], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    whole, loss, own = map(float, done.stdout.split())
    over = whole - max(loss, own)
    head = ["net", "gradient", "peak of a screen", "of one loss", "of one gradient", "over them"]
    cells = [" ".join(net), f"a {form}", *(f"{each:.2f}" for each in (whole, loss, own, over))]
    table("Peak memory of a screen of a right gradient, in vectors like theta", head, cells)
    assert over <= 3.1


@pytest.fixture(autouse=True)
def one_thread():
    with threadpool_limits(1):
        yield
