"""Things that a loss may hold, made anew by each call; and what a process of its own says of them."""

from __future__ import annotations

import collections
import dataclasses
import enum
import functools
import logging
import re
import threading
import types

import numba
import numpy as np
import scipy.sparse
from scipy.special import expit

from fastcheck.parallel.digest import digest
from tests.parallel import losses

LOCK = threading.Lock()
WORDS = {"a", "bb", "ccc", (1, 2), frozenset({1, "z"})}


@dataclasses.dataclass
class Layer:
    weight: object = 1.0
    names: list = dataclasses.field(default_factory=list)


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Model:
    scale = 3.0

    def __init__(self, weight):
        self.weight = weight

    @functools.cached_property
    def doubled(self):
        return 2 * self.weight

    @property
    def tripled(self):
        return self.scale * self.weight

    @staticmethod
    def squashed(x):
        return expit(x)

    def loss(self, x):
        return self.squashed(self.weight * x).sum()


@numba.njit
def compiled(x):
    return x.sum()


@functools.lru_cache
def cached(x):
    return x


def loss(x):
    import json

    with LOCK:
        return np.linalg.norm(x) + compiled(x) + cached(3) + len(WORDS) + len(json.dumps([])) + losses.THETA[0]


def loop():
    found = [1.0]
    found.append(found)
    return found


def things():
    rng = np.random.default_rng(0)
    return {
        "library": np.linalg.norm,
        "function": loss,
        "ufunc": expit,
        "set": WORDS,
        "dataclass": Layer(np.ones(3), ["a"]),
        "enum": Colour.RED,
        "model": Model(2.0),
        "method": Model(2.0).loss,
        "class": Model,
        "compiled": compiled,
        "cached": cached,
        "partial": functools.partial(loss, 3),
        "vectorized": np.vectorize(loss),
        "loop": loop(),
        "sparse": scipy.sparse.csr_array(np.eye(3)),
        "generator": rng,
        "masked": np.ma.array([1.0, 2.0], mask=[False, True]),
        "objects": np.array([1, "a", None], object),
        "records": np.zeros(2, [("a", "f8"), ("b", "i4")]),
        "ordered": collections.OrderedDict(a=1),
        "default": collections.defaultdict(list, a=[1]),
        "pattern": re.compile("a+"),
        "logger": logging.getLogger("zoo"),
        "namespace": types.SimpleNamespace(a=1, b=[2]),
        "long": 10**6000,
        "slice": [slice(1, 2), range(3), ..., 1j, b"x", np.float32(2)],
    }


if __name__ == "__main__":
    for name, thing in things().items():
        print(name, digest(thing))
