"""Directions that are drawn again, in parts."""

import numpy as np
import pytest
from scipy import stats

from fastcheck.measure.directions import CHUNK, gaussian


@pytest.mark.parametrize("start, stop", [(0, 10), (5, 6), (CHUNK - 3, CHUNK + 3), (100, 3 * CHUNK), (7, 7)])
def test_a_part_is_the_same_numbers_as_in_the_whole(start, stop):
    whole = gaussian(3, 2, 1, 0, 3 * CHUNK + 17)
    assert np.array_equal(gaussian(3, 2, 1, start, stop), whole[start:stop])


@pytest.mark.parametrize("other", [(4, 2, 1), (3, 3, 1), (3, 2, 2), (3 + 2**63, 2, 1)])
def test_seed_block_and_probe_each_make_another_direction(other):
    a, b = gaussian(3, 2, 1, 0, 4000), gaussian(*other, 0, 4000)
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.08


def test_chunks_are_different_numbers():
    v = gaussian(0, 0, 0, 0, 2 * CHUNK)
    assert abs(np.corrcoef(v[:CHUNK], v[CHUNK:])[0, 1]) < 0.02


def test_they_are_standard_normal():
    v = gaussian(11, 5, 7, 0, 200_000)
    assert stats.kstest(v, "norm").pvalue > 1e-4
    assert v.dtype == np.float64


def test_a_seed_of_any_size_is_taken():
    assert np.array_equal(gaussian(2**64 + 5, 0, 0, 0, 9), gaussian(5, 0, 0, 0, 9))


def test_the_global_generator_is_not_used():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    gaussian(0, 0, 0, 0, 100)
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002
