"""Where inputs are odd: an error that says what to do, never a raw one, and never a pass for what was not seen."""

from __future__ import annotations

import collections
import multiprocessing
import sys
from types import MappingProxyType

import numpy as np
import pytest

import fastcheck
from fastcheck.errors import FastcheckError, InputError, LossError
from tests.parallel import losses

PARAMS = {"w": np.array([0.3, -0.7, 1.1])}


def loss(p):
    return float(np.sin(p["w"]).sum())


def gradient(p):
    return {"w": np.cos(p["w"])}


class Unsaid(Exception):
    def __str__(self):
        raise RuntimeError("no words")


def raising(*_):
    raise Unsaid


class NoArray:
    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("no array")


class NoItems(dict):
    def items(self):
        raise RuntimeError("no items")


class NoIteration(list):
    def __iter__(self):
        raise RuntimeError("no iteration")


def itself(kind):
    if kind is dict:
        found = {"w": np.ones(3)}
        found["more"] = found
        return found
    found = [np.ones(3)]
    found += [found, found]
    return found


def through_each_other():
    one, two = {}, []
    one["a"], two[:] = two, [one]
    return one


def deep(levels):
    found = np.ones(3)
    for _ in range(levels):
        found = [found]
    return found


def masked(mask, values=(0.3, -0.7, 1.1)):
    return np.ma.array(values, mask=mask)


PLACES = {
    "params contain themselves": lambda: (loss, gradient, itself(dict)),
    "a list of params contains itself twice": lambda: (loss, gradient, itself(list)),
    "params contain each other": lambda: (loss, gradient, through_each_other()),
    "params are 5,000 deep": lambda: (loss, gradient, deep(5000)),
    "the gradient contains itself": lambda: (loss, itself(dict), PARAMS),
    "the gradient function returns what contains itself": lambda: (loss, lambda p: itself(list), PARAMS),
    "params without an array": lambda: (loss, gradient, {"w": NoArray()}),
    "params whose items raise": lambda: (loss, gradient, NoItems(PARAMS)),
    "params whose iteration raises": lambda: (loss, gradient, NoIteration([np.ones(3)])),
    "a gradient without an array": lambda: (loss, {"w": NoArray()}, PARAMS),
    "a gradient whose items raise": lambda: (loss, NoItems(PARAMS), PARAMS),
    "a gradient function whose items raise": lambda: (loss, lambda p: NoItems(p), PARAMS),
    "a loss that can't say why": lambda: (raising, gradient, PARAMS),
    "a gradient that can't say why": lambda: (loss, raising, PARAMS),
    "masked params": lambda: (loss, gradient, {"w": masked([0, 1, 0])}),
    "params with a mask that hides nothing": lambda: (loss, gradient, {"w": masked(False)}),
    "a gradient that is masked": lambda: (loss, {"w": masked([1, 1, 1])}, PARAMS),
    "a gradient function that masks": lambda: (loss, lambda p: {"w": masked([1, 1, 1])}, PARAMS),
    "a loss that is masked": lambda: (lambda p: np.ma.masked, gradient, PARAMS),
    "a loss of a masked scalar": lambda: (lambda p: np.ma.array(1.0, mask=True), gradient, PARAMS),
}
SAID = {
    "masked params": "its mask would be lost. Pass .filled",
    "a gradient that is masked": "its mask would be lost. Pass .filled",
    "a gradient function that masks": "its mask would be lost. Pass .filled",
    "a loss that is masked": "masked value",
    "params contain themselves": "contains itself, as at params",
    "the gradient contains itself": "contains itself, as at gradient",
    "params without an array": "can't be read as an array: no array",
    "params whose items raise": "its items raised RuntimeError: no items",
    "a loss that can't say why": r"loss raised Unsaid at theta itself: \(its message raised RuntimeError\)",
}


@pytest.mark.parametrize("place", PLACES)
def test_an_odd_input_is_refused_with_the_remedy(place):
    with pytest.raises((InputError, LossError), match=SAID.get(place, ".")):
        fastcheck.check(*PLACES[place]())


def test_tensors_that_require_their_gradient():
    torch = pytest.importorskip("torch")
    tensor = torch.ones(3, requires_grad=True)
    with pytest.raises(InputError, match=r"can't be read as an array.*\.detach"):
        fastcheck.check(loss, {"w": tensor}, PARAMS)
    with pytest.raises(InputError, match=r"can't be read as an array.*\.detach"):
        fastcheck.check(loss, lambda p: {"w": tensor}, PARAMS)


class Pair(collections.namedtuple("Pair", "w b")):
    def __new__(cls, w, b):
        return super().__new__(cls, w + 0.0, b * 1.0)


class Total(list):
    def __init__(self, items=()):
        super().__init__(items)
        self.total = sum(float(np.sum(item)) for item in items)


class Strict(dict):
    def __init__(self, items=()):
        super().__init__(items)
        if any(np.asarray(value).dtype != np.float64 for value in self.values()):
            raise ValueError("arrays only")


@pytest.mark.parametrize(
    "params",
    [
        Pair(np.array([0.3, -0.7]), np.array([1.1])),
        Total([np.array([0.3, -0.7]), np.array([1.1])]),
        Strict({"w": np.array([0.3, -0.7]), "b": np.array([1.1])}),
        MappingProxyType({"w": np.array([0.3, -0.7]), "b": np.array([1.1])}),
        collections.ChainMap({"w": np.array([0.3, -0.7])}, {"b": np.array([1.1])}),
    ],
    ids=lambda p: type(p).__name__,
)
def test_containers_that_compute(params):
    def of(p):
        return list(p.values()) if hasattr(p, "values") else list(p)

    def like(p, arrays):
        names = p if hasattr(p, "values") else getattr(p, "_fields", None)
        return arrays if names is None else dict(zip(names, arrays, strict=True))

    report = fastcheck.check(
        lambda p: float(sum(np.sin(a).sum() for a in of(p))), lambda p: like(p, [np.cos(a) for a in of(p)]), params
    )
    assert report.passed, report


def test_a_loss_that_cannot_say_why_it_fails_away_from_theta():
    def fails(p):
        if p["w"][1] != PARAMS["w"][1]:
            raise Unsaid
        return loss(p)

    report = fastcheck.check(fails, gradient, PARAMS, mode="full")
    assert not report.passed
    assert any("its message raised RuntimeError" in finding.message for finding in report.findings)


def test_data_that_contains_itself_is_the_users_business():
    data = itself(list)
    assert fastcheck.check(lambda p, d: loss(p), lambda p, d: gradient(p), PARAMS, args=(data,)).passed


def in_a_daemon(backend, answers):
    try:
        fastcheck.check(losses.loss, losses.gradient, losses.PARAMS, backend=backend, workers=2, mode="full")
        answers.put("passed")
    except FastcheckError as error:
        answers.put(f"{type(error).__name__}: {error}")
    except BaseException as error:
        answers.put(f"raw {type(error).__name__}: {error}")


@pytest.mark.parametrize("backend", ["processes", "multiprocessing", "threads", "auto"])
def test_a_daemonic_process_may_have_no_children(backend):
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
    answers = context.Queue()
    child = context.Process(target=in_a_daemon, args=(backend, answers), daemon=True)
    child.start()
    said = answers.get(timeout=60)
    child.join()
    if backend in ("threads", "auto"):
        assert said == "passed"
    else:
        assert said.startswith(f"InputError: backend='{backend}': this is a daemonic process")
        assert "backend='threads'" in said
