"""Random programs of a few array operations over parameters of many units; jax differentiates what numpy runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

LARGEST = 1e4  # magnitude of an intermediate value that a program goes on with


def largest(xp, x):
    """Return the largest along the last axis, by its place.

    A compiled ``max`` compares values that it computes twice, with other roundings, and may find no one the largest.
    """
    return xp.take_along_axis(x, xp.expand_dims(xp.argmax(x, axis=-1), -1), axis=-1)[..., 0]


ELEMENTWISE: dict[str, Callable[..., Any]] = {
    # smooth
    "tanh": lambda xp, x: xp.tanh(x),
    "sin": lambda xp, x: xp.sin(x),
    "exp": lambda xp, x: xp.exp(x),
    "log": lambda xp, x: xp.log(1.5 + x * x),
    "sqrt": lambda xp, x: xp.sqrt(0.1 + x * x),
    "square": lambda xp, x: x * x,
    "cube": lambda xp, x: x**3,
    "reciprocal": lambda xp, x: 1 / (0.5 + x * x),
    "softplus": lambda xp, x: xp.logaddexp(x, 0.0),
    # kinked
    "relu": lambda xp, x: xp.maximum(x, 0.0),
    "leaky_relu": lambda xp, x: xp.where(x > 0, x, 0.1 * x),
    "abs": lambda xp, x: xp.abs(x),
    "clip": lambda xp, x: xp.clip(x, -1.0, 1.0),
    "root": lambda xp, x: xp.sqrt(xp.abs(x) + 0.01),
    "where": lambda xp, x: xp.where(x > 0.5, x * x, 0.5 * x),
}
ALONG: dict[str, Callable[..., Any]] = {  # the last axis
    "sum": lambda xp, x: xp.sum(x, axis=-1),
    "mean": lambda xp, x: xp.mean(x, axis=-1),
    "max": lambda xp, x: largest(xp, x),
    "min": lambda xp, x: -largest(xp, -x),
    "prod": lambda xp, x: xp.prod(xp.tanh(x), axis=-1),
    "norm": lambda xp, x: xp.sqrt(xp.sum(x * x, axis=-1) + 1e-3),
    "logsumexp": lambda xp, x: xp.log(xp.sum(xp.exp(x), axis=-1)),
    "softmax": lambda xp, x: xp.exp(x) / xp.sum(xp.exp(x), axis=-1, keepdims=True),
    "cumsum": lambda xp, x: xp.cumsum(x, axis=-1),
    "sort": lambda xp, x: xp.sort(x, axis=-1),
    "centre": lambda xp, x: x - xp.mean(x, axis=-1, keepdims=True),
}
TWO: dict[str, Callable[..., Any]] = {
    "add": lambda xp, a, b: a + b,
    "subtract": lambda xp, a, b: a - b,
    "multiply": lambda xp, a, b: a * b,
    "divide": lambda xp, a, b: a / (0.5 + b * b),
    "maximum": lambda xp, a, b: xp.maximum(a, b),
    "minimum": lambda xp, a, b: xp.minimum(a, b),
    "where_larger": lambda xp, a, b: xp.where(a > b, a * b, b * b),
    "hypot": lambda xp, a, b: xp.sqrt(a * a + b * b + 0.01),
    "matmul": lambda xp, a, b: a @ b,
    "outer": lambda xp, a, b: xp.tensordot(a, b, 0),
}
NAMES = ("dense", *ELEMENTWISE, *ALONG, *TWO)


@dataclass(frozen=True)
class Program:
    """A loss made of a few operations, each with the values it reads and, for a dense layer, its constant matrix.

    `read` are the numbers of values: first the blocks, then the results of the operations. The loss is a weighted sum
    of those that no operation reads.
    """

    seed: int
    units: dict[str, float]
    params: dict[str, np.ndarray]
    steps: list[tuple[str, tuple[int, ...], Any]] = field(default_factory=list)
    weights: dict[int, np.ndarray] = field(default_factory=dict)
    scale: float = 1.0
    offset: float = 0.0

    def run(self, xp, params):
        """Return all values of the program, over numpy or jax.numpy."""
        values = [params[name] / unit for name, unit in self.units.items()]
        for name, read, matrix in self.steps:
            values.append(apply(xp, name, [values[k] for k in read], matrix))
        return values

    def result(self, xp, params):
        values = self.run(xp, params)
        total = sum(xp.sum(weight * values[k]) for k, weight in self.weights.items())
        return self.scale * (self.offset + total)

    def loss(self, params) -> float:
        return float(self.result(np, params))

    def gradient(self, params):
        """Return the gradient of the same program by jax, in float64."""
        import jax

        with jax.enable_x64(True):
            return {name: np.asarray(value) for name, value in self._compiled(params).items()}

    @cached_property
    def _compiled(self):
        import jax

        return jax.jit(jax.grad(lambda p: self.result(jax.numpy, p)))


def apply(xp, name, operands, matrix):
    if name == "dense":
        return operands[0] @ matrix
    return (ELEMENTWISE | ALONG | TWO)[name](xp, *operands)


def random_program(seed: int) -> Program:
    """Draw a program of 2 to 12 operations over 1 to 4 blocks with units from 1e-8 to 1e8."""
    rng = np.random.default_rng(seed)
    units, params = {}, {}
    for k in range(int(rng.integers(1, 5))):
        shape = tuple(int(n) for n in rng.integers(1, 6, size=rng.integers(1, 3)))
        units[f"p{k}"] = float(10 ** rng.uniform(-8, 8))
        params[f"p{k}"] = units[f"p{k}"] * rng.normal(size=shape)
    scale = float(10 ** rng.uniform(-6, 6)) if rng.random() < 0.3 else 1.0
    offset = float(10 ** rng.uniform(-1, 3)) if rng.random() < 0.3 else 0.0
    program = Program(seed, units, params, scale=scale, offset=offset)
    values = [params[name] / unit for name, unit in units.items()]
    wanted = int(rng.integers(2, 13))
    while len(program.steps) < wanted:
        step = _drawn(rng, values)
        with np.errstate(all="ignore"):
            value = None if step is None else apply(np, step[0], [values[k] for k in step[1]], step[2])
        if value is not None and np.isfinite(value).all() and np.abs(value).max() < LARGEST and value.size <= 64:
            program.steps.append(step)
            values.append(value)
    used = {k for _, read, _ in program.steps for k in read}
    program.weights.update({k: rng.normal(size=np.shape(v)) for k, v in enumerate(values) if k not in used})
    return program


def _drawn(rng, values):
    """Draw an operation and what it reads, mostly what was computed last; None where shapes do not fit."""
    name = str(rng.choice(NAMES))
    recent = [min(len(values) - 1, int(rng.geometric(0.4)) - 1) for _ in range(2)]
    a, b = (len(values) - 1 - k for k in recent)
    first, second = np.shape(values[a]), np.shape(values[b])
    if name == "dense":
        return (name, (a,), rng.normal(size=(first[-1], int(rng.integers(1, 6)))) / first[-1] ** 0.5) if first else None
    if name in ELEMENTWISE or (name in ALONG and first):
        return name, (a,), None
    if name == "matmul":
        return (name, (a, b), None) if first and second and first[-1] == second[0] else None
    if name == "outer":
        return (name, (a, b), None) if len(first) == len(second) == 1 else None
    fits = name in TWO and (first == second or first == () or second == () or second == first[-1:])
    return (name, (a, b), None) if fits and a != b else None
