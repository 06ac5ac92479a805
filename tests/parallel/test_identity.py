"""The digest of a problem: one in every process, another for every other problem, or a refusal."""

from __future__ import annotations

import copy
import functools
import os
import subprocess
import sys
import threading
import types
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastcheck
from fastcheck.errors import CheckpointError, InputError
from fastcheck.parallel.digest import digest
from tests.parallel import losses, zoo

ROOT = Path(__file__).parents[2]


def elsewhere(seed):
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": str(seed)}
    command = [sys.executable, "-m", "tests.parallel.zoo"]
    return subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.parametrize("processes", [2, pytest.param(24, marks=pytest.mark.slow)])
def test_a_digest_is_the_same_in_every_process(processes):
    here = "".join(f"{name} {digest(thing)}\n" for name, thing in zoo.things().items())
    for seed in range(processes):
        assert elsewhere(seed) == here


def test_it_stays_the_same_when_what_it_names_is_used():
    before = {name: digest(thing) for name, thing in zoo.things().items()}
    np.linalg.norm(np.ones((3, 3)), 2)
    zoo.cached(4)
    zoo.compiled(np.ones(3))
    zoo.loss(np.ones(2))
    assert {name: digest(thing) for name, thing in zoo.things().items()} == before


class L:
    def __init__(self, p):
        self.p = p


class Slotted:
    __slots__ = ("p",)

    def __init__(self, p):
        self.p = p


def nested(value, depth):
    for _ in range(depth):
        value = [value]
    return value


def of_masks(mask):
    return np.ma.array([1.0, 2.0], mask=mask)


def table(value):
    found = np.zeros((3, 4))
    found[1, 2] = value
    return found


def with_attribute(value):
    def function(x):
        return x

    function.scale = value
    return function


def handler(kind):
    if kind:

        def f(x):
            try:
                return x()
            except ValueError:
                return 0

    else:

        def f(x):
            try:
                return x()
            except TypeError:
                return 0

    return f


class Base:
    def f(self, x):
        return x


def subclass(power):
    class Middle(Base):
        def g(self, x):
            return x**power

    class Last(Middle):
        pass

    return Last()


PAIRS = {
    "objects": lambda v: (L(1), L(v)),
    "many objects": lambda v: [L(k) for k in range(50)] + [L(v)],
    "slots": lambda v: Slotted(v),
    "deep": lambda v: nested(v, 200),
    "deep objects": lambda v: functools.reduce(lambda inner, _: L(inner), range(60), v),
    "type": lambda v: [1, 1.0][v > 2],
    "zero": lambda v: [0.0, -0.0][v > 2],
    "where a list ends": lambda v: [[[1], [2]], [[1, 2], []]][v > 2],
    "where a text ends": lambda v: [["a", "bc"], ["ab", "c"]][v > 2],
    "key and value": lambda v: [{"a": "b"}, {"b": "a"}][v > 2],
    "one twice": lambda v: (lambda a: [[a, a, [v]], [a, [v], a]][v > 2])([1]),
    "masks": lambda v: of_masks([False, v > 2]),
    "a number in an array": lambda v: table(v),
    "an integer of many digits": lambda v: 10**6000 + v,
    "closure": lambda v: lambda x: x * v,
    "default": lambda v: lambda x, y=v: x * y,
    "attribute of a function": with_attribute,
    "exception caught": lambda v: handler(v > 2),
    "method of a base class": subclass,
    "class attribute": lambda v: type("C", (), {"scale": v})(),
    "wrapped": lambda v: functools.lru_cache(lambda x: x * v),
    "partial": lambda v: functools.partial(pow, v),
    "bound method": lambda v: L(v).__eq__,
    "generator": lambda v: np.random.default_rng(v),
    "module of the user": lambda v: using(v),
    "module imported inside": lambda v: importing(v),
}


def module(value):
    found = types.ModuleType("my_data")
    found.X = value
    return found


def using(value):
    return types.FunctionType((lambda: my_data.X).__code__, {"my_data": module(value)})  # noqa: F821


def importing(value):
    def loss():
        import my_data

        return my_data.X

    sys.modules["my_data"] = module(value)
    return loss


@pytest.mark.parametrize("make", PAIRS.values(), ids=list(PAIRS))
def test_another_value_has_another_digest(make):
    try:
        assert digest(make(2)) == digest(make(2))
        two = digest(make(2))
        assert two != digest(make(5))
    finally:
        sys.modules.pop("my_data", None)


plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
trees = st.recursive(plain, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


@given(trees, trees)
def test_digests_are_equal_where_the_plain_data_are(one, two):
    assert digest(one) == digest(copy.deepcopy(one))
    assert (digest(one) == digest(two)) == (repr(one) == repr(two))


@pytest.mark.parametrize(
    "make",
    [
        lambda: (k for k in range(3)),
        lambda: np.frompyfunc(lambda x: x, 1, 1),
        threading.local,
        lambda: memoryview(b"abcd")[::2],
        lambda: nested(0, 20_000),
    ],
    ids=["generator", "ufunc", "local", "memory", "deep"],
)
def test_what_cannot_be_told_apart_is_refused_with_the_remedy(make, tmp_path):
    thing = make()
    loss = lambda params: losses.loss(params) + (thing is None)  # noqa: E731
    with pytest.raises(InputError, match=r"checkpoint: loss holds a .*can't be told.*__getstate__"):
        fastcheck.check(loss, losses.gradient, losses.PARAMS, checkpoint=tmp_path / "run", mode="full")
    assert fastcheck.check(loss, losses.gradient, losses.PARAMS, mode="full").passed


def test_a_checkpoint_of_other_data_is_refused(tmp_path):
    """The numbers of one loss do not pass for another's: away from theta they differ, at theta they do not."""
    params = {"w": np.array([2.0, 3.0])}

    def run(scales):
        loss = lambda p: float(sum(s.p * (w - at) for s, w, at in zip(scales, p["w"], (2.0, 3.0), strict=True)))  # noqa: E731
        return fastcheck.check(loss, {"w": np.array([1.0, 2.0])}, params, checkpoint=tmp_path / "run", mode="full")

    assert run((L(1.0), L(2.0))).passed
    with pytest.raises(CheckpointError, match="loss:"):
        run((L(1.0), L(5.0)))
    (tmp_path / "run").unlink()
    assert not run((L(1.0), L(5.0))).passed
