"""Ratios that must not get lost, in less than a minute: ``python -m benchmarks.guard``, a step of ``.ci/run``.

Evaluations are exact. Times are paired: both of a pair are measured in turns in one run, and the floor is a small part
of what is measured on a quiet machine, so that only a loss of a whole order of magnitude is a failure.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
from threadpoolctl import threadpool_limits

import fastcheck
from benchmarks import naive
from benchmarks.contenders import CONTENDERS
from benchmarks.judgement import RIGHT, dense, judged
from fastcheck.examples import course_net, mlp

ROUNDS = 5
NETS = ("course", "tanh", "relu")
OURS, LOOP = ("fastcheck, full", "fastcheck, screen", "fastcheck"), "textbook loop"


def judgement() -> Iterator[tuple[str, float, float]]:
    """Yield what share of the bugs is found, and evaluations of the textbook's loop over ours, of right gradients."""
    asked = tuple(one for one in CONTENDERS if one.name in (*OURS, LOOP))
    nets = list(judged(NETS, 1, asked))
    for name in OURS:
        answers = [(bug, row) for net in nets for bug, rows in net["answers"][name].items() for row in rows]
        said = [row[0] == ("pass" if bug == RIGHT else "alarm") for bug, row in answers]
        yield f"{name}: right answers of all", sum(said) / len(said), 1.0
    for net in nets[1:]:
        loop, screen, full = (net["answers"][name][RIGHT][0][3] for name in (LOOP, "fastcheck, screen", OURS[0]))
        yield f"{net['net']}: evaluations, textbook loop over a screen", loop / screen, 50
        yield f"{net['net']}: evaluations, textbook loop over a full check", loop / full, 0.8


def paired(theirs: Callable[[], object], ours: Callable[[], object]) -> float:
    """Return the median of theirs over ours, in processor time, of pairs measured in turns."""
    theirs(), ours()  # compiled and cached
    return statistics.median(seconds(theirs) / seconds(ours) for _ in range(ROUNDS))


def seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def speed() -> Iterator[tuple[str, float, float]]:
    """Yield times of the textbook's loop over ours."""
    small = course_net()
    gradient = small.gradient(small.params, *small.args)
    bare = {name: gradient[f"d{name}"] for name in small.params}
    yield (
        "47 parameters: time, textbook loop over a check",
        paired(
            lambda: [naive.gradient_check(small.loss, small.params, bare, small.args) for _ in range(3)],
            lambda: [fastcheck.check(small.loss, bare, small.params, args=small.args) for _ in range(3)],
        ),
        0.05,
    )
    net = mlp((784, 256, 128, 10), activation="relu")
    own = dense("", net)
    bound, claimed = own.network(), net.claimed()
    spots = np.random.default_rng(0).choice(own.size, 40, replace=False)
    loop = paired(
        lambda: naive.gradient_check(own.plain_loss, net.params, claimed, coordinates=spots),
        lambda: fastcheck.check(bound, claimed, net.params, mode="full", workers=1),
    )
    yield f"{own.size:,} parameters: time, textbook loop over a Network", loop / len(spots) * own.size, 300
    screen = paired(
        lambda: naive.gradient_check(own.plain_loss, net.params, claimed, coordinates=spots),
        lambda: fastcheck.check(own.plain_loss, claimed, net.params, mode="screen"),
    )
    yield f"{own.size:,} parameters: time, textbook loop over a screen", screen / len(spots) * own.size, 300


def main() -> int:
    lost = 0
    with threadpool_limits(1):
        for work in (judgement, speed):
            for what, ratio, floor in work():
                lost += ratio < floor
                print(f"{'' if ratio >= floor else 'LOST '}{what}: {ratio:,.3g}, at least {floor:,g}", flush=True)
    return int(lost > 0)


if __name__ == "__main__":
    sys.exit(main())
