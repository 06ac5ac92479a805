"""The kernels of dense layers and losses against the slow obvious loop; with the compiler and without it."""

import numpy as np
import pytest

from fastcheck.kernels import network as kernels
from fastcheck.kernels.network import REACH

N, M, S, B = 4, 3, 2, 5


@pytest.fixture
def tables(rng):
    """Return slope and reach of every unit and sample; some differences go too far."""
    return rng.normal(size=(N, B)), rng.uniform(0.2, 3.0, size=(N, B))


def bent(d, tables):
    """Return what `bend` makes of differences (N, M, B), and its marks."""
    slope, rho = (table[:, None] for table in tables)
    return d * slope, (np.abs(d) > rho).any(axis=0)


def test_bend(rng, tables):
    d = rng.normal(size=(N, M, B))
    expected, too_far = bent(d, tables)
    far = np.zeros((M, B), np.uint8)
    kernels.bend(d, *tables, far)
    np.testing.assert_allclose(d, expected, rtol=1e-14)
    assert np.array_equal(far, too_far)
    assert 0 < far.sum() < far.size


def test_outer_and_outer_bend(rng, tables):
    w, s = rng.normal(size=(N, M)), rng.normal(size=(M, S, B))
    expected = np.einsum("rk,ktb->rktb", w, s)
    out = np.empty((N, M, S, B))
    kernels.outer(w, s, out)
    assert np.array_equal(out, expected)
    far = np.zeros((M * S, B), np.uint8)
    kernels.outer_bend(w, s, *tables, out, far)
    moved, too_far = bent(expected.reshape(N, M * S, B), tables)
    np.testing.assert_allclose(out.reshape(N, M * S, B), moved, rtol=1e-14)
    assert np.array_equal(far, too_far)


def test_label_loss(rng, tables):
    d, label = REACH * rng.normal(size=(N, M, B)), rng.integers(0, N, B)
    slope = tables[0]
    v = d - d[label, :, np.arange(B)].T
    expected = (v * slope[:, None]).sum(axis=0)
    rho = np.full((N, B), REACH)
    far = np.zeros((M, B), np.uint8)
    found = kernels.label_loss(d, label, slope, rho, far)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-13 * np.abs(expected).max())
    assert np.array_equal(far, (np.abs(v) > REACH).any(axis=0))


def test_normalise_is_half_the_difference_of_two_normalisations(rng):
    x, d, eps = rng.normal(size=(N, B)), 1e-5 * rng.normal(size=(N, M, B)), 1e-3

    def normal(x):
        centred = x - x.mean(axis=-1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + eps)
        return centred / deviation, deviation

    expected = (normal(x[:, None] + d)[0] - normal(x[:, None] - d)[0]) / 2
    np.testing.assert_allclose(kernels.normalise(d, *normal(x)), expected, rtol=1e-7, atol=1e-13)
