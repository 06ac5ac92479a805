"""Losses that behave badly, or not at all badly, in worker processes."""

from __future__ import annotations

import os
import signal
import sys
import time

import numpy as np

A = np.random.default_rng(0).standard_normal((40, 120))
THETA = np.linspace(0.1, 1.0, 120)
PARAMS = {"W": THETA.reshape(10, 12)}
BAD = 37  # the coordinate of theta, W[3, 1], at which the bad ones misbehave


def loss(params):
    return float(np.tanh(A @ params["W"].ravel()).sum())


def gradient(params):
    return {"W": (A.T @ (1 - np.tanh(A @ params["W"].ravel()) ** 2)).reshape(10, 12)}


class Bad:
    """The loss, but in another process than the one it was made in, BAD is its end."""

    def __init__(self, how, where=(BAD,)):
        self.how, self.where, self.home = how, where, os.getpid()

    def __call__(self, params):
        moved = np.flatnonzero(params["W"].ravel() != THETA)
        if os.getpid() != self.home and len(moved) == 1 and moved[0] in self.where:
            self.misbehave()
        return loss(params)

    def misbehave(self):
        if self.how == "exit":
            os._exit(3)
        if self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "sys.exit":
            sys.exit(3)
        raise ValueError("bad weather")


def slow(params):
    time.sleep(0.01)
    return loss(params)


RNG = np.random.default_rng(23)


def random_loss(p):
    """A loss of a module that draws from a generator of its module."""
    return float(np.sum(np.sin(p["W"]) * RNG.random(p["W"].shape)))


def random_gradient(p):
    return {"W": np.cos(p["W"]) * RNG.random(p["W"].shape)}
