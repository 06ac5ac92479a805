"""The kernels of pools, alone and fused with what is below them, against the slow obvious loop."""

import numpy as np
import pytest

from fastcheck.kernels import network
from fastcheck.kernels.network import REACH

B = 3
GEOMETRIES = [(2, 2, 0), (3, 2, 1), (2, 3, 0), (3, 1, 1)]  # size, stride, padding
SLOPES = {"relu": 0.0, "leaky": -2.0}


def cells(shape, size, stride, padding):
    """Yield each cell (i, j) of a map (H, W) and its places in the map, {(u, v): (y, x)}."""
    counts = ((n + 2 * padding - size) // stride + 1 for n in shape)
    for i, j in np.ndindex(*counts):
        at = {(u, v): (i * stride + u - padding, j * stride + v - padding) for u, v in np.ndindex(size, size)}
        yield (i, j), {k: (y, x) for k, (y, x) in at.items() if 0 <= y < shape[0] and 0 <= x < shape[1]}


def grid(x, size, stride, padding):
    """Return an empty array with a place for each position of each cell, (k, k, C, H', W', B)."""
    counts = ((n + 2 * padding - size) // stride + 1 for n in x.shape[1:3])
    return np.full((size, size, len(x), *counts, x.shape[3]), np.nan)


def gaps(x, geometry, labels=None):
    is_argmax, half_gap = grid(x, *geometry), grid(x, *geometry)
    network.gaps(x, np.empty((0, 0, 0), np.uint64) if labels is None else labels, geometry[1:], is_argmax, half_gap)
    return is_argmax, half_gap


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_argmax_and_gaps(rng, geometry):
    x = rng.integers(0, 4, (2, 7, 6, B)).astype(float)  # many ties
    labels = rng.integers(0, 3, (7, 6, B)).astype(np.uint64)
    is_argmax, half_gap = gaps(x, geometry, labels)
    for (i, j), places in cells(x.shape[1:3], *geometry):
        for c, b in np.ndindex(2, B):
            value = {at: x[c, y, z, b] for at, (y, z) in places.items()}
            label = {at: labels[y, z, b] for at, (y, z) in places.items()}
            best = max(value, key=value.get)
            rivals = {at: value[best] - value[at] for at in value if label[at] != label[best]}
            for at in np.ndindex(*geometry[:1] * 2):
                gap = min(rivals.values(), default=np.inf) if at == best else rivals.get(at, np.inf)
                assert is_argmax[(*at, c, i, j, b)] == (at == best)
                assert 2 * half_gap[(*at, c, i, j, b)] == gap


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_pool_adds_up_the_shares_of_a_window(rng, geometry):
    _, stride, padding = geometry
    d, (y0, x0) = rng.normal(size=(2, 4, 3, 2, B)), (2, 1)  # a window of a map of 8 x 7
    share = np.ascontiguousarray(np.nan_to_num(grid(np.empty((2, 8, 7, B)), *geometry)) + rng.random())
    rho = rng.uniform(0.5, 3.0, share.shape)
    expected, too_far = np.zeros((*share.shape[2:5], 2, B)), np.zeros((2, B), bool)
    for (i, j), places in cells((8, 7), *geometry):
        for at, (y, x) in places.items():
            if y0 <= y < y0 + 4 and x0 <= x < x0 + 3:
                expected[:, i, j] += share[at][:, i, j, None] * d[:, y - y0, x - x0]
                too_far |= (np.abs(d[:, y - y0, x - x0]) > rho[at][:, i, j, None]).any(axis=0)
    out, far = np.zeros_like(expected), np.zeros((2, B), np.uint8)
    network.pool(d, share, rho, (y0, x0, 0, 0), stride, padding, out, far)
    np.testing.assert_allclose(out, expected, rtol=1e-13)
    assert np.array_equal(far, too_far)


def activated(z, slope):
    return np.where(z > 0, z, slope * z)


def pooled(a, geometry):
    out = np.empty(grid(a, *geometry).shape[2:])
    for (i, j), places in cells(a.shape[1:3], *geometry):
        out[:, i, j] = np.max([a[:, y, x] for y, x in places.values()], axis=0)
    return out


def merged(z, slope, geometry):
    """Return slope, joint and single reach of a leaky relu under a max pool."""
    is_argmax, half_gap = gaps(activated(z, slope), geometry)
    slopes, joint, single = np.empty_like(is_argmax), np.empty(is_argmax.shape[2:-1]), np.empty(is_argmax.shape[2:])
    tables, bounds = (np.where(z > 0, 1.0, slope), np.abs(z)), (max(1.0, abs(slope)), 0.0)
    network.activate_and_pool(*tables, bounds, is_argmax, half_gap, geometry[1:], slopes, joint, single)
    return slopes, joint, single


@pytest.mark.parametrize("slope", SLOPES.values(), ids=SLOPES)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_an_activation_and_a_pool_are_linear_as_far_as_they_say(rng, geometry, slope):
    z = rng.normal(size=(2, 6, 5, B))
    slopes, joint, single = merged(z, slope, geometry)
    before = pooled(activated(z, slope), geometry)
    for (i, j), places in cells(z.shape[1:3], *geometry):
        for c in range(2):
            d = {at: 0.99 * joint[c, i, j] * rng.uniform(-1, 1, B) for at in places}  # all positions at once
            moved = z.copy()
            for at, (y, x) in places.items():
                moved[c, y, x] += d[at]
            change = pooled(activated(moved, slope), geometry)[c, i, j] - before[c, i, j]
            expected = sum(slopes[at][c, i, j] * d[at] for at in places)
            np.testing.assert_allclose(change, expected, rtol=0, atol=1e-13)
            for at, (y, x) in places.items():  # one of them, further
                for b in np.flatnonzero(np.isfinite(single[c, i, j])):
                    moved, step = z.copy(), 0.99 * single[c, i, j, b] * rng.choice([-1, 1])
                    moved[c, y, x, b] += step
                    change = pooled(activated(moved, slope), geometry)[c, i, j, b] - before[c, i, j, b]
                    assert abs(change - slopes[at][c, i, j, b] * step) <= 1e-13


Y, X = 3, 4  # the position of the convolution's input that is changed


def convolved(x, w):
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], axis=(1, 2))
    return np.einsum("cyxbuv,ocuv->oyxb", windows, w)


def room(joint, w, channel, geometry, shape):
    """Return how far one channel may move at the position before it may meet a kink in any cell."""
    least = np.inf
    for (i, j), places in cells(shape, *geometry):
        taps = [(Y - y, X - x) for y, x in places.values() if 0 <= Y - y < 3 and 0 <= X - x < 3]
        for o in range(len(w)):
            least = min([least, *(joint[o, i, j] / abs(w[(o, channel, *tap)]) for tap in taps)])
    return least


@pytest.mark.parametrize("slope", SLOPES.values(), ids=SLOPES)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_a_convolution_an_activation_and_a_pool_in_one(rng, geometry, slope):
    """A change of one position, in one of two channels, by a 3 x 3 kernel, seen after the pool."""
    x, w, many = rng.normal(size=(2, 8, 7, B)), rng.normal(size=(2, 2, 3, 3)), (1, 2)
    z = convolved(x, w)
    slopes, joint, _ = merged(z, slope, geometry)
    before = pooled(activated(z, slope), geometry)
    for channel in range(2):
        limit = room(joint, w, channel, geometry, z.shape[1:3])
        d = limit * rng.uniform(-1, 1, (*many, B))
        d[0, 1, 2] = 0.999 * limit
        out = np.empty((*before.shape[:3], *many, B))
        given = (w, (channel, Y, X, 1), slopes, joint, geometry[1:], (0, 0), out)
        assert network.convolve_activate_and_pool(d, *given)
        for s in range(2):
            moved = x.copy()
            moved[channel, Y, X] += d[0, s]
            change = pooled(activated(convolved(moved, w), slope), geometry) - before
            np.testing.assert_allclose(out[:, :, :, 0, s], change, rtol=0, atol=1e-13)
        d[0, 1, 2] = -1.001 * limit
        assert not network.convolve_activate_and_pool(d, *given)


def test_a_curved_convolution_is_right_to_third_order(rng):
    """tanh under a mean: half the difference of both signs' changes, but for (1e-4)^3 times a few."""
    geometry, x, w = (2, 2, 0), rng.normal(size=(1, 8, 7, B)), rng.normal(size=(2, 1, 3, 3))
    z = convolved(x, w)
    share = np.full(grid(z, *geometry).shape, 0.25)
    slope, joint, single = np.empty_like(share), np.empty(share.shape[2:-1]), np.empty(share.shape[2:])
    tables = 1 - np.tanh(z) ** 2, np.full_like(z, 1.0)
    far_apart = np.full_like(share, np.inf)
    network.activate_and_pool(*tables, (1.0, 0.4), share, far_apart, geometry[1:], slope, joint, single)

    def mean(z):
        return np.tanh(z)[:, :6, :4].reshape(2, 3, 2, 2, 2, B).mean(axis=(2, 4))

    d, out = np.array([[[1e-4, -1e-4, 5e-5]]]), np.empty((*joint.shape, 1, 1, B))
    assert network.convolve_activate_and_pool(d, w, (0, Y, X, 1), slope, joint, geometry[1:], (0, 0), out)
    up, down = x.copy(), x.copy()
    up[0, Y, X] += d[0, 0]
    down[0, Y, X] -= d[0, 0]
    half = (mean(convolved(up, w)) - mean(convolved(down, w))) / 2
    np.testing.assert_allclose(out[:, :, :, 0, 0], half, rtol=0, atol=1e-11)
    assert np.abs(out).max() > 1e-6


def test_an_activation_has_its_slope_scaled_by_the_share(rng):
    geometry, share = (2, 2, 0), np.full((2, 2, 1, 2, 2, B), 0.25)
    c1 = rng.normal(size=(1, 4, 4, B))
    slope, joint, single = np.empty_like(share), np.empty((1, 2, 2)), np.empty((1, 2, 2, B))
    far_apart = np.full_like(share, np.inf)
    network.activate_and_pool(
        c1, np.full_like(c1, REACH), (1.0, 0.4), share, far_apart, geometry[1:], slope, joint, single
    )
    for (i, j), places in cells((4, 4), *geometry):
        for at, (y, x) in places.items():
            assert np.array_equal(slope[at][0, i, j], 0.25 * c1[0, y, x])
    assert (joint == REACH).all()
    assert (single == REACH).all()
