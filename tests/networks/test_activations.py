"""Every activation against mpmath: the exact difference at steps of all sizes, the slope, the largest curvature."""

from __future__ import annotations

import mpmath as mp
import numpy as np
import pytest

from fastcheck.networks import elu, leaky_relu
from fastcheck.networks.activations import ACTIVATIONS
from fastcheck.networks.operators import Softmax

from . import naive

POINTS = np.array([-30.0, -4.0, -1.0, -0.3, -1e-9, 1e-9, 0.1, 0.7, 2.0, 9.0, 25.0])
STEPS = np.array([2.0**-70, 1e-12, 1e-7, 1e-3, 0.3])
EXTRA = {
    "leaky_relu(0.2)": (leaky_relu(0.2), lambda z: z if z > 0 else z * mp.mpf(0.2)),
    "abs": (leaky_relu(-1.0), abs),
    "elu(0.5)": (elu(0.5), lambda z: z if z > 0 else mp.expm1(z) / 2),
}
ALL = {name: (ACTIVATIONS[name], naive.SCALARS.get(name, lambda z: z)) for name in ACTIVATIONS} | EXTRA


@pytest.mark.parametrize("name", ALL)
def test_the_exact_difference(name):
    activation, twin = ALL[name]
    z, d = (a.ravel() for a in np.meshgrid(POINTS, np.concatenate([STEPS, -STEPS])))
    found = activation.difference(z, d)
    with mp.workdps(80):
        truth = np.array([float(twin(mp.mpf(a) + mp.mpf(b)) - twin(mp.mpf(a))) for a, b in zip(z, d, strict=True)])
        slope = np.array([float(mp.diff(twin, mp.mpf(a))) for a in z])
    # Relative to the change; where the function turns (gelu, silu), to what its argument's rounding allows.
    scale = np.abs(truth) + 2e-2 * np.abs(d) * (np.abs(slope) + 1e-16 if name in ("gelu", "gelu_tanh", "silu") else 0.0)
    tail = 1e-300 if name not in ("gelu", "gelu_tanh") else 1e-13 * np.abs(d)
    assert (np.abs(found - truth) <= 3e-14 * scale + tail).all()


@pytest.mark.parametrize("name", ALL)
def test_value_slope_and_largest_curvature(name):
    activation, twin = ALL[name]
    value = activation.value(POINTS)
    with mp.workdps(60):
        points = [mp.mpf(z) for z in POINTS]
        h = mp.mpf(10) ** -15
        np.testing.assert_allclose(value, [float(twin(z)) for z in points], rtol=1e-14, atol=1e-17)
        slope = [float((twin(z + h) - twin(z - h)) / (2 * h)) for z in points]
        dense = [mp.mpf(z) for z in np.linspace(-6.01, 6.0, 400)]
        curve = max(abs(float((twin(z + h) - 2 * twin(z) + twin(z - h)) / (2 * h * h))) for z in dense)
    np.testing.assert_allclose(activation.slope(POINTS), slope, rtol=1e-13, atol=1e-17)
    assert 0.9 * activation.curvature - 1e-9 <= curve <= activation.curvature + 1e-9


def test_softmax_difference():
    rng = np.random.default_rng(0)
    z, d = rng.normal(size=(4, 3)), rng.normal(size=(4, 2, 3)) * np.array([1e-9, 0.3])[:, None]
    found = Softmax(z).exact(d, np.zeros((2, 3), np.uint8))
    with mp.workdps(50):
        for k in range(2):
            before, after = (naive.activate(naive.exact(z) + move, "softmax") for move in (0, naive.exact(d[:, k])))
            np.testing.assert_allclose(found[:, k], (after - before).astype(float), rtol=1e-12)
