"""Does a report keep what it states? Stated bounds against true errors, stated chances against simulated rates.

``python -m benchmarks.calibration`` writes ``benchmarks/results/calibration.json``; ``--quick`` prints a small part of
it. Then ``python -m benchmarks.pages`` and ``python -m benchmarks.pictures`` write what ``docs/calibration.md`` shows.

True derivatives are known formulas, or backward passes in extended precision. Every seed is fixed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.judgement import machine, versions
from fastcheck.context import prepared
from fastcheck.estimates import Status
from fastcheck.judge.bounds import wrong_count_bound
from fastcheck.parameters import Parameters
from fastcheck.run import Run
from fastcheck.settings import Settings
from fastcheck.strategies import full
from tests.quality.functions import families
from tests.quality.test_screen import exceeded, missed, shared
from tests.zoo import random_net

RESULTS = Path(__file__).parent / "results" / "calibration.json"
POINTS = 300  # of each group are kept, for the picture
FUNCTIONS, NETS, RUNS = 150, 60, 2000
EXTENDED = np.longdouble


class Case(NamedTuple):
    """A loss, its true gradient as one vector, and the rounding of that."""

    loss: Callable[..., float]
    truth: np.ndarray
    params: Any
    rounding: float


# -- stated bounds of derivatives ------------------------------------------------------------------------------------


def of_functions(count: int) -> Iterator[Case]:
    """Yield functions of a few variables whose derivatives are known formulas."""
    for seed in range(count):
        for _, loss, gradient, theta in families(np.random.default_rng(seed)):
            yield Case(loss, gradient, theta, 4 * np.finfo(float).eps)


def of_nets(count: int, change: Callable[[Callable[[Any], float]], Callable[[Any], float]]) -> Iterator[Case]:
    """Yield random nets with the gradient of their backward pass, computed in extended precision."""
    for seed in range(count):
        net = random_net(seed)
        layout = Parameters.of(net.params)
        wide = {name: block.astype(EXTENDED) for name, block in net.params.items()}
        found = net.gradient(wide, *(widened(one) for one in net.args))
        parts = [found[name if name in found else f"d{name}"] for name in net.params]
        assert all(part.dtype == EXTENDED for part in parts), net.name
        truth = layout.flatten(dict(zip(net.params, (part.astype(float) for part in parts), strict=True)))
        loss = change(lambda params, net=net: net.loss(params, *net.args))
        yield Case(loss, truth, net.params, np.finfo(float).eps)


def widened(value: Any) -> Any:
    return value.astype(EXTENDED) if isinstance(value, np.ndarray) and value.dtype == float else value


def coarse(loss: Callable[[Any], float]) -> Callable[[Any], float]:
    """Return the loss as if its value had been rounded to float32 on the way."""
    return lambda params: float(np.float32(loss(params)))


def noisy(loss: Callable[[Any], float]) -> Callable[[Any], float]:
    """Return the loss with a relative noise of 1e-10 that is the same whenever the parameters are the same."""

    def with_noise(params: Any) -> float:
        value = loss(params)
        seed = int.from_bytes(np.float64(value).tobytes(), "little")
        return value * (1 + 1e-10 * np.random.default_rng(seed).uniform(-1, 1))

    return with_noise


def errors(case: Case, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the true errors of the measured derivatives, and the uncertainties that are stated for them."""
    layout = Parameters.of(case.params)
    settings = Settings("full", seed=seed)
    with np.errstate(all="ignore"), Run() as run:
        gradient = layout.unflatten(case.truth)
        context = prepared(case.loss, gradient, (), settings, run, layout, layout.flatten(case.params))
        found = full.measure(context, [None] * len(layout.blocks)).estimates
    value = np.concatenate([one.value for one in found])
    stated = np.concatenate([one.rounding.astype(float) + one.truncation for one in found])
    error = np.abs(value - case.truth)
    for place, look in (pair for one in found for pair in one.looks.items() if pair[1].status is Status.KINK):
        low, high = look.interval  # of the slopes to both sides: no derivative is stated, or each of these
        error[place] = max(low - case.truth[place], case.truth[place] - high, 0.0)
    return error, stated + case.rounding * np.abs(case.truth)


def group(cases: Iterator[Case]) -> dict[str, Any]:
    """Return how true errors compare with stated ones over many derivatives, relative to the gradient's largest."""
    pairs = []
    for seed, case in enumerate(cases):
        error, stated = errors(case, seed)
        pairs.append(np.stack([error, stated]) / (np.abs(case.truth).max() or 1.0))
    error, stated = np.concatenate(pairs, axis=1)
    some = np.random.default_rng(0).choice(len(error), min(POINTS, len(error)), replace=False)
    apart = (error > 0) & (stated > 0)
    return {
        "derivatives": len(error),
        "larger": int(np.sum(error > stated)),
        "worst": brief(np.max(error[apart] / stated[apart])),
        "median": brief(np.median(stated[apart]) / np.median(error[apart])),
        "points": [[brief(e), brief(s)] for e, s in zip(error[some], stated[some], strict=True)],
    }


def brief(value: Any) -> float:
    return float(f"{value:.3g}")


GROUPS: dict[str, Callable[[int, int], Iterator[Case]]] = {
    "functions with known derivatives": lambda functions, _: of_functions(functions),
    "random nets": lambda _, nets: of_nets(nets, lambda loss: loss),
    "random nets, loss rounded to float32": lambda _, nets: of_nets(nets, coarse),
    "random nets, loss with a noise of 1e-10": lambda _, nets: of_nets(nets, noisy),
}

# -- stated chances ---------------------------------------------------------------------------------------------------

# What is stated, what happens at most that often, and how many runs of a chance tell it.
CHANCES: dict[str, Callable[[range, float], int]] = {
    "an error 5% above what a screen calls detectable is missed": lambda seeds, sure: missed(seeds, 1.05, sure),
    "an error is larger than the bound of a screen": exceeded,
    "a sample of 40 among 2,000 meets none of the fewest wrong ones that it rules out": lambda seeds, sure: shared(
        seeds, (wrong_count_bound(2000, 40, 0, sure) + 1) / 2000, sure
    ),
}


def chances(runs: int) -> Iterator[dict[str, Any]]:
    for what, happened in CHANCES.items():
        for sure in (0.9, 0.99):
            yield {
                "what": what,
                "stated": round(1 - sure, 6),
                "runs": runs,
                "happened": int(happened(range(runs), sure)),
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small part; prints, writes nothing")
    options = parser.parse_args()
    functions, nets, runs = (3, 2, 30) if options.quick else (FUNCTIONS, NETS, RUNS)
    with threadpool_limits(1):
        groups = {name: group(make(functions, nets)) for name, make in GROUPS.items()}
        for name, one in groups.items():
            print(name, {key: value for key, value in one.items() if key != "points"}, flush=True)
        rates = []
        for one in chances(runs):
            rates.append(one)
            print(one, flush=True)
    if not options.quick:
        head = {"date": date.today().isoformat(), "machine": machine(), "versions": versions()}
        RESULTS.write_text(json.dumps(head | {"groups": groups, "chances": rates}) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
