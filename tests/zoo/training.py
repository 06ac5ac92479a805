"""A tiny Adam, to bring an example where real training would: small losses, small gradients."""

from __future__ import annotations

import dataclasses
from typing import TypeVar

import numpy as np

from fastcheck.parameters import Parameters
from fastcheck.problem import Problem

__all__ = ["train"]

P = TypeVar("P", bound=Problem)


def train(problem: P, steps: int = 500, *, target: float = 1e-5, learning_rate: float = 5e-4) -> P:
    """Return the problem at parameters trained on its own batch.

    Parameters
    ----------
    problem : Problem
        With a callable gradient that returns a tree like its params.
    steps : int
        At most that many.
    target : float
        Stop at this loss, in units of the loss; it is looked at after every step.
    learning_rate : float
        Of Adam (Kingma & Ba 2015, algorithm 1, with their defaults beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8).
    """
    layout = Parameters.of(problem.params)
    theta = layout.flatten(problem.params)
    params = layout.unflatten(theta)  # views: they follow theta
    mean, square = np.zeros_like(theta), np.zeros_like(theta)
    for step in range(1, steps + 1):
        gradient = layout.flatten(problem.gradient(params, *problem.args))
        mean += 0.1 * (gradient - mean)
        square += 0.001 * (gradient * gradient - square)
        rate = learning_rate * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
        theta -= rate * mean / (np.sqrt(square) + 1e-8)
        if problem.loss(params, *problem.args) <= target:
            break
    return dataclasses.replace(problem, name=f"{problem.name}, trained", params=params)
