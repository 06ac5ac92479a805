"""The contract of every container: what is flattened comes back, as views, in its own places and under its own name."""

from __future__ import annotations

import collections
import copy
import dataclasses
import types
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fastcheck.errors import InputError
from fastcheck.parameters import Parameters, leaves


class Pair(NamedTuple):
    left: Any
    right: Any


@dataclasses.dataclass
class Layer:
    weight: Any
    bias: Any


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    weight: Any
    scale: Any


@dataclasses.dataclass
class Strict:
    """Its __init__ must not be called again: it counts."""

    weight: Any
    built: list[Any] = dataclasses.field(default_factory=list)

    def __post_init__(self):
        assert isinstance(self.weight, np.ndarray)
        self.built = [np.zeros(1)]


@st.composite
def arrays(draw):
    """Draw a float array: any dtype, shape (0-d and empty too), memory order, view, writability; or a Python float."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.floats(-1e6, 1e6))
    dtype = draw(st.sampled_from([np.float64, np.float32, np.float16]))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    width = np.dtype(dtype).itemsize * 8
    array = draw(hnp.arrays(dtype, shape, elements=st.floats(-1000, 1000, width=width)))
    kind = draw(st.sampled_from(["C", "F", "strided", "reversed", "read-only"]))
    if kind == "F":
        array = np.asfortranarray(array)
    elif kind == "strided" and array.ndim:
        array = np.repeat(array, 2, axis=-1)[..., ::2]
    elif kind == "reversed" and array.ndim:
        array = array[::-1]
    elif kind == "read-only":
        array.flags.writeable = False
    return array


KEYS = st.text("abWxyz_0123456789", min_size=1, max_size=4)


def containers(children):
    return st.one_of(
        st.dictionaries(KEYS, children, max_size=3),
        st.dictionaries(KEYS, children, max_size=3).map(collections.OrderedDict),
        st.lists(children, max_size=3),
        st.lists(children, max_size=3).map(tuple),
        st.builds(Pair, children, children),
        st.builds(Layer, children, children),
        st.builds(Frozen, children, children),
    )


TREES = st.recursive(arrays(), containers, max_leaves=8)


def layout_of(tree):
    """Return the layout, or None where the tree has no coordinate (which is an error, tested apart)."""
    if sum(np.size(leaf) for _, leaf in leaves(tree)) == 0:
        return None
    return Parameters.of(tree)


def same_kind(a, b):
    """Say whether two trees have the same containers all the way down."""
    if dataclasses.is_dataclass(a):
        return type(a) is type(b) and all(
            same_kind(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a)
        )
    if isinstance(a, dict):
        return type(a) is type(b) and list(a) == list(b) and all(same_kind(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same_kind, a, b))
    return isinstance(b, np.ndarray) and np.shape(a) == b.shape


@given(TREES)
def test_round_trip(tree):
    before = copy.deepcopy([np.array(leaf) for _, leaf in leaves(tree)])
    layout = layout_of(tree)
    if layout is None:
        return
    theta = layout.flatten(tree)
    assert theta.dtype == np.float64
    assert theta.shape == (layout.size,)
    assert theta.flags.writeable
    again = layout.unflatten(theta)
    assert same_kind(tree, again)
    np.testing.assert_array_equal(layout.flatten(again), theta)
    for (path, leaf), (path_again, view), original in zip(leaves(tree), leaves(again), before, strict=True):
        assert path == path_again
        np.testing.assert_array_equal(np.asarray(leaf), original)  # the user's arrays are never changed
        np.testing.assert_array_equal(view, original.astype(np.float64))
        assert view.size == 0 or np.shares_memory(view, theta)


@given(TREES)
def test_theta_in_place_changes_the_tree(tree):
    layout = layout_of(tree)
    if layout is None:
        return
    theta = layout.flatten(tree)
    again = layout.unflatten(theta)
    for i in range(layout.size):
        block = layout.block_at(i)
        index = block.multi_index(i)
        assert block.coordinate(index) == i
        theta[i] = 12345.0 + i
        view = {".".join(path) or "theta": leaf for path, leaf in leaves(again)}[block.name]
        assert view[index] == 12345.0 + i


@given(TREES)
def test_blocks_tile_theta_and_have_distinct_names(tree):
    layout = layout_of(tree)
    if layout is None:
        return
    assert [b.start for b in layout.blocks] == [0, *[b.stop for b in layout.blocks][:-1]]
    assert layout.blocks[-1].stop == layout.size
    assert len({b.name for b in layout.blocks}) == len(layout.blocks)
    crumbs = [layout.breadcrumb(i) for i in range(layout.size)]
    assert len(set(crumbs)) == layout.size


@given(TREES)
def test_back_in_the_users_own_dtypes(tree):
    layout = layout_of(tree)
    if layout is None:
        return
    theta = layout.flatten(tree)
    for (_, leaf), (_, array) in zip(leaves(tree), leaves(layout.astype_user(theta)), strict=True):
        assert array.dtype == np.asarray(leaf).dtype
        np.testing.assert_array_equal(array, np.asarray(leaf))
        assert not np.shares_memory(array, theta)


def test_names_follow_the_path():
    tree = {"encoder": [Layer(np.zeros((2, 3)), np.zeros(2)), Layer(np.zeros((1, 2)), 0.5)], "scale": Pair(1.0, 2.0)}
    layout = Parameters.of(tree)
    assert [block.name for block in layout.blocks] == [
        "encoder.0.weight", "encoder.0.bias", "encoder.1.weight", "encoder.1.bias", "scale.left", "scale.right",
    ]  # fmt: skip
    assert layout["encoder.0.bias"].slice == slice(6, 8)
    assert layout.breadcrumb(0) == "encoder.0.weight[0, 0]"
    assert layout.breadcrumb(5) == "encoder.0.weight[1, 2]"
    assert layout.breadcrumb(10) == "encoder.1.bias"
    assert Parameters.of(np.zeros(3)).breadcrumb(2) == "theta[2]"
    assert Parameters.of({0: np.zeros(2), "0.": 1.0}).blocks[0].name == "0"


def test_fortran_blocks_keep_their_order_and_their_indices():
    W = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    layout = Parameters.of({"W": W})
    theta = layout.flatten({"W": W})
    assert layout.blocks[0].order == "F"
    assert theta.tolist() == [0, 3, 1, 4, 2, 5]
    assert layout.breadcrumb(1) == "W[1, 0]"
    assert layout.unflatten(theta)["W"].flags.f_contiguous


def test_a_dataclass_is_rebuilt_without_its_init():
    tree = Strict(np.ones(2))
    layout = Parameters.of(tree)
    theta = layout.flatten(tree)
    theta[:] = 7
    again = layout.unflatten(theta)
    assert again.weight.tolist() == [7, 7]
    assert again.built[0].tolist() == [7]


def test_other_mappings():
    proxy = types.MappingProxyType({"W": np.ones(2)})
    assert Parameters.of(proxy).unflatten(np.zeros(2))["W"].tolist() == [0, 0]
    default = collections.defaultdict(list, {"W": np.ones(2)})
    assert Parameters.of(default).unflatten(np.zeros(2))["W"].tolist() == [0, 0]


def test_a_layout_keeps_no_values_alive():
    layout = Parameters.of({"W": np.ones((3, 3)), "deep": [np.ones(2)]})
    assert [leaf for _, leaf in leaves(layout.template)] == [None, None]


def test_a_layout_of_many_blocks_is_quick_enough_to_be_built():
    layout = Parameters.of([np.zeros(1)] * 20_000)
    assert layout.size == 20_000
    assert layout.breadcrumb(19_999) == "19999[0]"


def test_select():
    layout = Parameters.of({"W1": np.zeros(2), "b1": np.zeros(1), "W2": np.zeros(2)})
    assert [b.name for b in layout.select(None)] == ["W1", "b1", "W2"]
    assert [b.name for b in layout.select("W*")] == ["W1", "W2"]
    assert [b.name for b in layout.select(["b1", "W2"])] == ["b1", "W2"]


def test_a_name_with_glob_characters_is_still_a_name():
    layout = Parameters.of({"W[0]": np.zeros(2), "W0": np.zeros(1)})
    assert "W[0]" in [b.name for b in layout.select("W[0]")]


@pytest.mark.parametrize(
    ("blocks", "said"),
    [
        ("V1", r"blocks='V1' matches no block; the blocks are: W1, b1"),
        (["W1", "c*"], r"blocks='c\*' matches no block"),
        ([], r"blocks=\[\] selects nothing"),
        (3, r"blocks=3 \(type=int\)"),
        ([0], r"blocks=\[0\]"),
    ],
)
def test_select_bad_input(blocks, said):
    layout = Parameters.of({"W1": np.zeros(2), "b1": np.zeros(1)})
    with pytest.raises(InputError, match=said):
        layout.select(blocks)


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"W": np.arange(3)}, r"params\['W'\] has dtype int64: adding a small step to integers does nothing"),
        ({"W": np.array([True])}, r"dtype bool"),
        (3, r"params has dtype int64"),
        (True, r"params=True \(type=bool\)"),
        ({"W": np.ones(2) * 1j}, r"complex128: split it"),
        ({"W": np.array([1.0, None])}, r"dtype object"),
        ({"W": np.array([[1.0], [2.0, 3.0]], dtype=object)}, r"dtype object"),
        ({"name": "net", "W": np.ones(1)}, r"params\['name'\]='net' \(type=str\)"),
        ({"W": None}, r"params\['W'\]=None"),
        ({"f": np.tanh}, r"is not a float array"),
        ({"W": {1.0, 2.0}}, r"params\['W'\]"),
        ({"t": np.array(["2020"], dtype="M8[Y]")}, r"datetime64"),
        ({"W": np.array([1.0, np.nan, np.inf])}, r"params\['W'\]\[1\]=nan is not finite"),
        (np.inf, r"params=inf is not finite"),
        ({}, r"params has no coordinate to check"),
        ([], r"params has no coordinate"),
        (np.zeros((0, 3)), r"params has no coordinate"),
        ({"a": [], "b": np.zeros(0)}, r"params has no coordinate"),
        ({"a": {"b": 1.0}, "a.b": 2.0}, r"two blocks called 'a\.b'"),
        ({1: 1.0, "1": 2.0}, r"two blocks called '1'"),
    ],
)
def test_bad_params(tree, said):
    with pytest.raises(InputError, match=said):
        Parameters.of(tree)


def test_wrong_coordinates():
    layout = Parameters.of({"W": np.zeros((2, 2))})
    with pytest.raises(IndexError):
        layout.block_at(4)
    with pytest.raises(IndexError):
        layout.blocks[0].multi_index(7)
    with pytest.raises(KeyError):
        layout["V"]


def test_an_object_that_refuses_to_become_an_array():
    class Device:
        def __array__(self, dtype=None, copy=None):
            raise RuntimeError("still on the device")

    with pytest.raises(
        InputError, match=r"params\['W'\] \(type=Device\) can't be read as an array: still on the device"
    ):
        Parameters.of({"W": Device()})


def test_theta_is_the_vector_itself_where_there_is_one_and_read_only():
    x = np.arange(6.0)
    theta = Parameters.of(x).theta_of(x)
    assert np.shares_memory(theta, x)
    assert x.flags.writeable
    assert not theta.flags.writeable


@pytest.mark.parametrize("tree", [np.arange(6.0)[::2], np.ones((2, 3)), np.ones(3, np.float32), {"x": np.ones(3)}])
def test_theta_is_a_copy_of_all_else(tree):
    layout = Parameters.of(tree)
    theta = layout.theta_of(tree)
    assert theta.tolist() == layout.flatten(tree).tolist()
    assert not np.shares_memory(theta, tree["x"] if isinstance(tree, dict) else tree)
