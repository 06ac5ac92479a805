"""Boxes of coordinates, and the directions over them."""

import numpy as np
import pytest

from fastcheck.measure.regions import Region, shape_of
from fastcheck.parameters import Parameters


def block(array):
    return Parameters.of({"first": np.zeros(3), "W": array}).blocks[1]


def drawn(region, *numbers):
    low, high = region.span
    values = np.full(high - low, np.nan)
    region.write(*numbers, values)
    return region.block.start + low, values


ARRAYS = [
    np.zeros((6, 5)),
    np.asfortranarray(np.zeros((6, 5))),
    np.zeros((4, 3, 2)),
    np.asfortranarray(np.zeros((4, 3, 2))),
    np.zeros(7),
    np.zeros((7, 1)),
    np.zeros((1, 7)),
]


@pytest.mark.parametrize("array", ARRAYS)
@pytest.mark.parametrize("axis", [0, 1])
def test_the_directions_of_two_halves_add_up_to_that_of_the_whole(array, axis):
    whole = Region.whole(1, block(array))
    if (whole.width if axis else whole.height) < 2:
        return
    total = np.zeros(whole.block.stop)
    for half in whole.halves(axis):
        start, values = drawn(half, 5, 2)
        total[start : start + len(values)] += values
        assert len(values) == half.span[1] - half.span[0]
    start, values = drawn(whole, 5, 2)
    assert np.array_equal(total[start:], values)


@pytest.mark.parametrize("array", ARRAYS)
def test_a_box_moves_its_own_coordinates_and_no_other(array):
    whole = Region.whole(1, block(array))
    box = whole.part(0, whole.height // 2, whole.height).part(1, whole.width // 3, whole.width - whole.width // 3)
    start, values = drawn(box, 0, 0)
    moved = {start + k for k in np.flatnonzero(values)}
    assert moved == {box.nth(k) for k in range(box.size)}
    assert all(box.holds(place) for place in moved)
    inside = box.inside()
    assert inside is None or set(np.flatnonzero(inside) + start) == moved
    ranges = [place for low, high in box.runs() for place in range(low, high)]
    assert sorted(ranges) == sorted(moved)


def test_the_matrix_of_a_block_is_in_its_memory_order():
    assert shape_of(block(np.zeros((4, 3, 2)))) == (4, 6)
    assert shape_of(block(np.asfortranarray(np.zeros((4, 3, 2))))) == (2, 12)
    assert shape_of(block(np.zeros(7))) == (7, 1)
    assert shape_of(block(np.float64(1.0))) == (1, 1)


def test_a_place_outside_is_not_held():
    region = Region.whole(1, block(np.zeros((6, 5)))).part(0, 2, 4).part(1, 1, 3)
    assert not region.holds(region.place(1, 1))
    assert not region.holds(region.place(2, 3))
    assert region.holds(region.place(3, 2))
