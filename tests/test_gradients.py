"""How a gradient finds its parameters: by name, by the course's spelling, through every container."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import pytest

from fastcheck.errors import InputError, LossError
from fastcheck.gradients import SPELLINGS, match_gradient
from fastcheck.parameters import Parameters

W, B = np.arange(6.0).reshape(2, 3), np.array([7.0, 8.0])
LAYOUT = Parameters.of({"W": np.ones((2, 3)), "b": np.ones(2)})
FLAT = [*range(6), 7, 8]


class Pair(NamedTuple):
    W: Any
    b: Any


@dataclasses.dataclass
class Layer:
    W: Any
    b: Any


@pytest.mark.parametrize(
    "gradient",
    [
        {"W": W, "b": B},
        {"b": B, "W": W},  # the order does not matter
        {"dW": W, "db": B},
        {"db": B, "dZ": 1.0, "dW": W},
        {"W": W, "db": B},
        Pair(W, B),
        Layer(W, B),
        {"W": W.tolist(), "b": B} | {"W": W},
        {"W": np.asfortranarray(W), "b": B[::-1][::-1]},
        {"W": W.astype(int), "b": B.astype(np.float32)},
    ],
)
def test_matched_by_name(gradient):
    assert match_gradient(gradient, LAYOUT).flat.tolist() == FLAT


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling(spelling):
    found = match_gradient({spelling.format("W"): W, spelling.format("b"): B}, LAYOUT)
    assert found.flat.tolist() == FLAT
    assert found.extras == ()


def test_spellings_within_a_nested_tree():
    layout = Parameters.of({"net": [{"W": np.ones(2)}, {"W": np.ones(2)}]})
    found = match_gradient({"net": [{"dW": np.array([1.0, 2])}, {"W": np.array([3.0, 4]), "dZ": 0.0}]}, layout)
    assert found.flat.tolist() == [1, 2, 3, 4]
    assert found.extras == ("net.1.dZ",)


def test_the_exact_name_comes_first():
    assert match_gradient({"W": W, "b": B, "dW": 9 * W}, LAYOUT).flat.tolist() == FLAT
    assert match_gradient({"W": W, "b": B, "dW": 9 * W}, LAYOUT).extras == ("dW",)


def test_a_parameter_called_like_a_derivative():
    layout = Parameters.of({"W": np.ones(1), "dW": np.ones(1)})
    assert match_gradient({"W": np.array([1.0]), "dW": np.array([2.0])}, layout).flat.tolist() == [1, 2]
    with pytest.raises(InputError, match="gradient has no block 'dW'"):
        match_gradient({"W": np.array([1.0])}, layout)


def test_one_entry_serves_one_parameter():
    layout = Parameters.of({"W": np.ones(1), "dW": np.ones(1)})
    with pytest.raises(InputError, match="gradient has no block 'W'"):
        match_gradient({"dW": np.array([2.0])}, layout)


@pytest.mark.parametrize("gradient", [np.arange(3.0), {"theta": np.arange(3.0)}, {"dtheta": np.arange(3.0)}])
def test_a_bare_array(gradient):
    assert match_gradient(gradient, Parameters.of(np.ones(3))).flat.tolist() == [0, 1, 2]


@pytest.mark.parametrize("container", [list, tuple])
def test_sequences_match_by_position(container):
    layout = Parameters.of(container([np.ones((2, 3)), np.ones(2)]))
    assert match_gradient([W, B], layout).flat.tolist() == FLAT
    assert match_gradient((W, B, 3.0), layout).extras == ("2",)


def test_fortran_blocks_are_laid_out_alike():
    layout = Parameters.of({"W": np.asfortranarray(W)})
    assert match_gradient({"W": W}, layout).flat.tolist() == layout.flatten({"W": W}).tolist() == [0, 3, 1, 4, 2, 5]


def test_the_gradient_is_copied():
    W2 = W.copy()
    found = match_gradient({"W": W2, "b": B}, LAYOUT)
    W2[:] = 0
    assert found.flat.tolist() == FLAT


def test_each_block_brings_the_rounding_of_its_own_arithmetic():
    found = match_gradient({"W": W.astype(np.float32), "b": B.astype(int)}, LAYOUT)
    depth = 2  # blocks: rounding errors grow with depth
    assert found.eps.tolist() == [depth * float(np.finfo(np.float32).eps), depth * np.finfo(float).eps]


def test_scalars_and_empty_blocks():
    layout = Parameters.of({"s": 1.0, "none": np.zeros((0, 2)), "t": np.array(2.0)})
    assert match_gradient({"s": 3.0, "none": np.zeros((0, 2)), "t": np.float64(4)}, layout).flat.tolist() == [3, 4]


def test_nan_is_located():
    bad = W.copy()
    bad[1, 0] = bad[1, 2] = np.nan
    with pytest.raises(LossError, match=r"gradient\['W'\] is nan at index \[1, 0\] \(2 of 6 entries are not finite\)"):
        match_gradient({"W": bad, "b": B}, LAYOUT)
