"""Who finds planted bugs, and who calls a right gradient wrong: gradient checkers beside each other.

``python -m benchmarks.judgement`` asks every contender that is installed about every net and writes
``benchmarks/results/judgement.json``; ``--quick`` asks about the small ones, once each, and prints. Then
``python -m benchmarks.pages`` writes the tables of the README and of ``docs/judgement.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.contenders import CONTENDERS, Contender, Gradient, Place, Subject, Tree
from fastcheck.examples import course_net, digits_net, mlp
from fastcheck.networks import Network
from tests.zoo import train

RESULTS = Path(__file__).parent / "results" / "judgement.json"
PACKAGES = ("numpy", "scipy", "torch", "jax", "autograd", "numdifftools", "derivcheck", "fastcheck")
RIGHT = "right"


# -- the nets ------------------------------------------------------------------------------------------------------


def subject(name: str, net: Any, **changes: Any) -> Subject:
    """Return a net of the examples as a subject; ``changes`` replace what is derived from it."""
    gradient = net.gradient
    names = list(net.params)

    def right(params: Tree) -> Tree:
        found = gradient(params, *net.args)
        return {one: found[one] if one in found else found[f"d{one}"] for one in names}

    weights = net.decay.values()
    derived = {
        "plain_loss": lambda params: net.loss(params, *net.args),
        "gradient": right,
        "params": net.params,
        "decay": next(iter(weights), 0.0),
    }
    return Subject(name, **(derived | changes))


def digits(activation: str = "tanh") -> Any:
    return digits_net((32,), activation=activation)


def single() -> Subject:
    """Parameters, data, loss and gradient in float32, all of which follow the dtype of the parameters."""
    net = digits()
    X, *others = net.args
    args = (X.astype(np.float32), *others)
    return subject(
        "64-32-10 tanh, float32",
        net,
        plain_loss=lambda params: net.loss(params, *args),
        gradient=lambda params: net.gradient(params, *args),
        params={name: value.astype(np.float32) for name, value in net.params.items()},
    )


def coarse() -> Subject:
    """A forward pass in float32 inside a loss of float64 parameters."""
    net = digits()
    X, *others = net.args
    args = (X.astype(np.float32), *others)

    def loss(params: Tree) -> float:
        return net.loss({name: value.astype(np.float32) for name, value in params.items()}, *args)

    return subject("64-32-10 tanh, coarse loss", net, plain_loss=loss)


def noisy() -> Subject:
    """A relative noise of 1e-10 that is the same whenever the parameters are the same, as an iterative solver's."""
    net = digits()

    def loss(params: Tree) -> float:
        seed = 0
        for value in params.values():
            seed = zlib.crc32(np.ascontiguousarray(value), seed)
        return net.loss(params, *net.args) * (1 + 1e-10 * (seed / 2**31 - 1))

    return subject("64-32-10 tanh, noisy loss", net, plain_loss=loss)


def dense(name: str, net: Any) -> Subject:
    """A `mlp`, which a `Network` can describe."""
    X, y, activation, l2 = net.args
    found = subject(name, net)
    described = Network.from_params(net.params, activation=activation, l2=l2, samples="columns")
    found.network = lambda: described.bind(X, y, like=found.plain_loss)
    return found


MEDIUM, LARGE = (784, 256, 128, 10), (784, 1024, 1024, 10)

# How each net is made, and how often each bug is planted in it.
NETS: dict[str, tuple[Callable[[], Subject], int]] = {
    "course": (lambda: subject("4-5-3-1 relu, the course's", course_net()), 5),
    "tanh": (lambda: subject("64-32-10 tanh", digits()), 3),
    "relu": (lambda: subject("64-32-10 relu", digits("relu")), 3),
    "trained": (
        lambda: subject("64-32-10 relu, trained", train(digits("relu"), 300, learning_rate=1e-2)),
        3,
    ),
    "float32": (single, 3),
    "coarse": (coarse, 3),
    "noisy": (noisy, 3),
    "medium": (lambda: dense("784-256-128-10 tanh", mlp(MEDIUM, l2=1e-4)), 2),
    "medium trained": (
        lambda: dense(
            "784-256-128-10 relu, trained", train(mlp(MEDIUM, activation="relu", l2=1e-4), 200, learning_rate=1e-3)
        ),
        2,
    ),
    "large": (lambda: dense("784-1024-1024-10 tanh", mlp(LARGE, l2=1e-4)), 1),
    "large trained": (lambda: dense("784-1024-1024-10 tanh, trained", train(mlp(LARGE))), 1),
    "large relu": (lambda: dense("784-1024-1024-10 relu", mlp(LARGE, activation="relu", l2=1e-4)), 1),
}
QUICK = ("course", "tanh", "relu", "trained", "float32", "coarse", "noisy")


# -- the bugs ------------------------------------------------------------------------------------------------------


class Plant(NamedTuple):
    """A planted bug: a gradient that has it, the blocks it is in, and the coordinate where it is a single one."""

    gradient: Gradient
    blocks: frozenset[str]
    coordinate: Place | None = None


def changed(right: Gradient, block: str, index: Any, factor: float) -> Gradient:
    def gradient(params: Tree) -> Tree:
        found = {name: value.copy() for name, value in right(params).items()}
        found[block][index] *= factor
        return found

    return gradient


def plants(subject: Subject, seed: int) -> Iterator[tuple[str, Plant]]:
    """Yield the bugs, each in a place of its own; what is zero already gets none."""
    rng = np.random.default_rng(seed)
    right, g = subject.gradient, subject.gradient(subject.params)
    weights = [name for name in subject.params if name[0] == "W" and g[name].any()]

    def coordinate() -> Place:
        """Return a random one whose gradient is at least the median of those of its block that are not zero."""
        while True:
            block = subject.layout.block_at(int(rng.integers(subject.size)))
            sizes = np.abs(g[block.name])
            index = tuple(int(rng.integers(n)) for n in block.shape)
            if sizes[index] > 0 and sizes[index] >= np.median(sizes[sizes > 0]):
                return block.name, index

    for kind, factor in (("one sign", -1.0), ("one entry x1.01", 1.01)):
        block, index = coordinate()
        yield kind, Plant(changed(right, block, index, factor), frozenset([block]), (block, index))
    block = weights[rng.integers(len(weights))]
    rows = np.linalg.norm(g[block], axis=1)
    row = int(rng.choice(np.flatnonzero(rows >= np.median(rows[rows > 0]))))
    yield "a row zeroed", Plant(changed(right, block, row, 0.0), frozenset([block]))
    block = weights[rng.integers(len(weights))]
    yield "a block x1.01", Plant(changed(right, block, ..., 1.01), frozenset([block]))
    if subject.decay:

        def without(params: Tree) -> Tree:
            return {n: v - subject.decay * params[n] if n in weights else v for n, v in right(params).items()}

        yield "a term missing", Plant(without, frozenset(weights))


# -- the run -------------------------------------------------------------------------------------------------------


def asked(contender: Contender, subject: Subject, plant: Plant, seed: int) -> list[Any]:
    """Return [verdict, is the block named, is the coordinate named (None: it is not one), evaluations, seconds]."""
    subject.evaluations, subject.remembered_seconds = 0, 0.0
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        began = time.perf_counter()
        said = contender.ask(subject, plant.gradient, seed)
        seconds = time.perf_counter() - began + subject.remembered_seconds
    verdict = {True: "alarm", False: "pass", None: "cannot tell"}[said.alarm]
    block = bool(said.blocks) and said.blocks <= plant.blocks
    coordinate = None if plant.coordinate is None else said.coordinates == {plant.coordinate}
    evaluations = subject.evaluations if said.evaluations is None else said.evaluations
    return [verdict, block, coordinate, evaluations, float(f"{seconds:.3g}")]


def judged(
    nets: tuple[str, ...] = tuple(NETS), tries: int | None = None, contenders: tuple[Contender, ...] = CONTENDERS
) -> Iterator[dict[str, Any]]:
    """Yield one net's results after the other: answers[contender][bug] lists what `asked` returned, try by try."""
    for name in nets:
        make, count = NETS[name]
        own = make()
        answers: dict[str, dict[str, list[Any]]] = {}
        for contender in contenders:
            if not (contender.installed and contender.suits(own)):
                continue
            rows = answers[contender.name] = {}
            for seed in range(tries or count):
                for kind, plant in ((RIGHT, Plant(own.gradient, frozenset())), *plants(own, seed)):
                    rows.setdefault(kind, []).append(asked(contender, own, plant, seed))
        yield {"net": own.name, "parameters": own.size, "answers": answers}


def machine() -> dict[str, Any]:
    listed = Path("/proc/cpuinfo")
    model = re.search(r"^model name\s*: (.*)$", listed.read_text() if listed.exists() else "", flags=re.MULTILINE)
    return {
        "processor": model[1] if model else platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }


def versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the small nets, each bug once; prints, writes nothing")
    options = parser.parse_args()
    results = []
    with threadpool_limits(1):
        for one in judged(QUICK, 1) if options.quick else judged():
            results.append(one)
            print(f"{one['net']}, {one['parameters']:,} parameters", flush=True)
            for contender, rows in one["answers"].items():
                said = {kind: "/".join(row[0] for row in tries) for kind, tries in rows.items()}
                spent = sum(row[4] for tries in rows.values() for row in tries)
                print(f"  {contender:25} {spent:7.1f} s  {said}", flush=True)
    if not options.quick:
        head = {"date": date.today().isoformat(), "machine": machine(), "versions": versions()}
        calls = {one.name: one.call for one in CONTENDERS if one.installed}
        missing = [one.name for one in CONTENDERS if not one.installed]
        RESULTS.write_text(json.dumps(head | {"contenders": calls, "missing": missing, "nets": results}) + "\n")


if __name__ == "__main__":
    sys.exit(main())
