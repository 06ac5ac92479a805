"""Peak memory of a full check beside what the loss and its caller hold."""

from __future__ import annotations

import subprocess
import sys

import pytest

CHECKED = """
import resource, sys, threading, time
import numpy as np
from numba import njit
import fastcheck

@njit
def loss(theta, few):
    total = 0.0
    for i in few:
        total += theta[i] * theta[i]
    return total

size, backend = int(sys.argv[1]), sys.argv[2]
few = np.arange(0, 20, 2)

def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) * 1024

options = {"args": (few,), "backend": backend, "workers": 2, "mode": "full"}
fastcheck.check(loss, np.zeros(50_000), np.ones(50_000), **options)  # loads and compiles all
theta = np.ones(size)
gradient = np.zeros(size)
gradient[few] = 2.0
before = peak()
report = fastcheck.check(loss, gradient, theta, **options)
assert report.coverage == 1.0, report.coverage
print((peak() - before) / theta.nbytes)
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["serial", "threads"])
def test_a_full_check_of_two_million_parameters_holds_six_vectors(backend):
    done = subprocess.run(
        [sys.executable, "-c", CHECKED, str(2_000_000), backend], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) <= 6
