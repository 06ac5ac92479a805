"""Functions and losses of jax whose gradients are right or wrong, and how each checker is asked about them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.test_util import check_grads

import fastcheck
from benchmarks.peers import RIGHT, WRONG, Subject

SUBJECTS: list[Subject] = []
RULES, LOSSES = "Rules of jax", "Losses of jax"


def draw(*shape: int, seed: int = 0) -> Any:
    return jnp.asarray(np.random.default_rng((seed, *shape)).normal(size=shape))


def wide() -> AbstractContextManager[Any]:
    return jax.enable_x64(True)


# -- how they are asked --------------------------------------------------------------------------------------------


def of_function(
    name: str,
    wrong: Sequence[str] | None,
    made: Callable[[], tuple[Any, tuple[Any, ...]]],
    order: int = 1,
    forward: bool = False,
    within: Callable[[], AbstractContextManager[Any]] = wide,
    reference: Any = None,
) -> None:
    """Add a function of arrays; `wrong` are the inputs whose derivative is."""

    def make() -> dict[str, Callable[[], Any]]:
        jax.clear_caches()
        function, inputs = made()
        return {
            "fastcheck": lambda: fastcheck.jax.check_function(
                function, inputs, order=order, forward=forward, reference=reference
            ),
            "check_grads": lambda: check_grads(function, inputs, order=order, modes=["fwd" if forward else "rev"]),
        }

    _add(name, RULES, wrong, make, within)


def of_loss(
    name: str,
    wrong: Sequence[str] | None,
    made: Callable[[], tuple[Any, Any, tuple[Any, ...]]],
    within: Callable[[], AbstractContextManager[Any]] = wide,
) -> None:
    """Add a loss of (params, *args)."""

    def make() -> dict[str, Callable[[], Any]]:
        jax.clear_caches()
        loss, params, args = made()
        return {
            "fastcheck": lambda: fastcheck.jax.check(loss, params, args=args),
            "check_grads": lambda: check_grads(lambda p: loss(p, *args), (params,), order=1, modes=["rev"]),
        }

    _add(name, LOSSES, wrong, make, within)


def _add(name: str, group: str, wrong: Sequence[str] | None, make: Any, within: Any) -> None:
    SUBJECTS.append(Subject(name, group, RIGHT if wrong is None else WRONG, frozenset(wrong or ()), make, within))


def ruled(forward: Callable[..., Any], backward: Callable[..., Any]) -> Any:
    """Return a custom_vjp; ``backward(inputs, upstream)``."""
    made = jax.custom_vjp(forward)
    made.defvjp(lambda *inputs: (forward(*inputs), inputs), lambda inputs, g: tuple(backward(inputs, g)))
    return made


# -- rules ---------------------------------------------------------------------------------------------------------


def swish(by_x: Callable[[Any], Any] = lambda g: g) -> Any:
    def backward(inputs: Any, g: Any) -> Any:
        (x,) = inputs
        s = jax.nn.sigmoid(x)
        return [by_x(g * (s + x * s * (1 - s)))]

    return ruled(lambda x: x * jax.nn.sigmoid(x), backward)


of_function("swish", None, lambda: (swish(), (draw(6, 8),)))
of_function("swish, a factor of 1.01", ["x"], lambda: (swish(lambda g: 1.01 * g), (draw(6, 8),)))
of_function("swish, a factor of 1.0005", ["x"], lambda: (swish(lambda g: 1.0005 * g), (draw(6, 8),)))
of_function("swish, the sign", ["x"], lambda: (swish(lambda g: -g), (draw(6, 8),)))
of_function("swish, zeros", ["x"], lambda: (swish(jnp.zeros_like), (draw(6, 8),)))
of_function("swish, the last entry is lost", ["x"], lambda: (swish(lambda g: g.at[-1, -1].set(0)), (draw(6, 8),)))
of_function("swish, one entry times 1.01", ["x"], lambda: (swish(lambda g: g.at[2, 3].mul(1.01)), (draw(6, 8),)))
of_function("swish, float32", None, lambda: (swish(), (draw(6, 8),)), within=nullcontext)
of_function(
    "swish, the last entry is lost, float32",
    ["x"],
    lambda: (swish(lambda g: g.at[-1, -1].set(0)), (draw(6, 8),)),
    within=nullcontext,
)
of_function("swish, times 1.01, float32", ["x"], lambda: (swish(lambda g: 1.01 * g), (draw(6, 8),)), within=nullcontext)


def linear(by_w: Any = lambda x, g: x.T @ g, by_x: Any = lambda w, g: g @ w.T, by_b: Any = lambda g: g.sum(0)) -> Any:
    return ruled(lambda x, w, b: x @ w + b, lambda inputs, g: [by_x(inputs[1], g), by_w(inputs[0], g), by_b(g)])


def square() -> tuple[Any, ...]:
    return draw(5, 5), draw(5, 5, seed=1), draw(5)


of_function("linear", None, lambda: (linear(), square()))
of_function("linear, W in the place of its transpose", ["x"], lambda: (linear(by_x=lambda w, g: g @ w), square()))
of_function("linear, the transpose of dW", ["w"], lambda: (linear(by_w=lambda x, g: g.T @ x), square()))
of_function("linear, db summed over the wrong axis", ["b"], lambda: (linear(by_b=lambda g: g.sum(1)), square()))
of_function(
    "mean of 1,000, one sign",
    ["x"],
    lambda: (
        ruled(lambda x: jnp.sin(x).mean(), lambda i, g: [(g * jnp.cos(i[0]) / 1000).at[123].mul(-1)]),
        (draw(1000),),
    ),
)
of_function(
    "complex product",
    None,
    lambda: (ruled(lambda x, w: x * w, lambda i, g: [g * i[1], g * i[0]]), (draw(6) + 1j, draw(6) - 2j)),
)
of_function(
    "complex product, conjugated",
    ["x", "w"],
    lambda: (
        ruled(lambda x, w: x * w, lambda i, g: [g * i[1].conj(), g * i[0].conj()]),
        (draw(6) + 1j, draw(6) - 2j),
    ),
)
of_function(
    "clipped on the way back",
    ["x"],
    lambda: (ruled(jnp.sin, lambda i, g: [jnp.clip(g * jnp.cos(i[0]), -0.1, 0.1)]), (draw(6),)),
)
of_function("plain: relu, max, abs", None, lambda: (lambda x, w: (jax.nn.relu(x @ w).max(1), jnp.abs(w)), square()[:2]))


def pushed(factor: float) -> Any:
    made = jax.custom_jvp(jnp.tanh)
    made.defjvp(lambda inputs, along: (jnp.tanh(inputs[0]), factor * (1 - jnp.tanh(inputs[0]) ** 2) * along[0]))
    return made


of_function("custom_jvp of tanh", None, lambda: (pushed(1.0), (draw(6),)), forward=True)
of_function("custom_jvp of tanh, times 1.01", ["x"], lambda: (pushed(1.01), (draw(6),)), forward=True)
of_function("custom_jvp of tanh, times 1.01, transposed", ["x"], lambda: (pushed(1.01), (draw(6),)))


def cube(second: Any = lambda x: x) -> Any:
    return ruled(lambda x: x**3, lambda inputs, g: [3 * second(inputs[0]) ** 2 * g])


of_function("cube, second derivative", None, lambda: (cube(), (draw(6),)), order=2)
of_function("cube, second derivative, stop_gradient", ["x"], lambda: (cube(jax.lax.stop_gradient), (draw(6),)), order=2)
of_function(
    "cube, second derivative, times 1.01",
    ["x"],
    lambda: (cube(ruled(lambda x: x, lambda inputs, g: [1.01 * g])), (draw(6),)),
    order=2,
)


# -- losses --------------------------------------------------------------------------------------------------------


def layers(*dims: int) -> Any:
    pairs = pairwise(dims)
    return [(draw(a, b) / np.sqrt(a), 0.1 * draw(b)) for a, b in pairs]


def net(act: Any, dims: tuple[int, ...] = (10, 32, 16, 3)) -> tuple[Any, Any, tuple[Any, ...]]:
    y = np.random.default_rng(3).integers(0, dims[-1], 32)

    def loss(params: Any, x: Any) -> Any:
        for w, b in params[:-1]:
            x = act(x @ w + b)
        scores = x @ params[-1][0] + params[-1][1]
        return jnp.mean(jax.nn.logsumexp(scores, axis=1) - scores[jnp.arange(32), y])

    return loss, layers(*dims), (draw(32, dims[0]),)


HIDDEN = ["0.0", "0.1", "1.0", "1.1"]
of_loss("tanh net", None, lambda: net(jnp.tanh))
of_loss("relu net", None, lambda: net(jax.nn.relu))
of_loss("relu net, float32", None, lambda: net(jax.nn.relu), nullcontext)
of_loss("relu net 64-100-10", None, lambda: net(jax.nn.relu, (64, 100, 10)))
of_loss("a custom swish", None, lambda: net(swish()))
of_loss("a custom swish, times 1.01", HIDDEN, lambda: net(swish(lambda g: 1.01 * g)))
of_loss("a custom swish, times 1.05, float32", HIDDEN, lambda: net(swish(lambda g: 1.05 * g)), nullcontext)
of_loss("a custom swish, one column is lost", HIDDEN, lambda: net(swish(lambda g: g.at[:, 3].set(0))))


def recurrent() -> tuple[Any, Any, tuple[Any, ...]]:
    def loss(params: Any, x: Any) -> Any:
        def step(h: Any, x: Any) -> Any:
            h = jnp.tanh(x @ params["W"] + h @ params["U"] + params["b"])
            return h, h

        return jnp.mean(jax.lax.scan(step, jnp.zeros((3, 8)), x)[1] ** 2)

    return loss, {"W": draw(4, 8), "U": draw(8, 8) / 3, "b": draw(8)}, (draw(6, 3, 4),)


def normed(act: Any = jax.nn.gelu) -> tuple[Any, Any, tuple[Any, ...]]:
    def loss(params: Any, x: Any) -> Any:
        x = x @ params["in"]
        low = x.astype(jnp.float32)
        x = (low * jax.lax.rsqrt((low**2).mean(-1, keepdims=True) + 1e-6)).astype(x.dtype) * params["scale"]
        return jnp.mean(jax.nn.softmax((act(x) @ params["out"]).astype(jnp.float32))[:, 0])

    return loss, {"in": draw(6, 8), "scale": jnp.ones(8), "out": draw(8, 3)}, (draw(16, 6),)


def wrong_gelu() -> Any:
    return ruled(lambda x: jax.nn.gelu(x), lambda inputs, g: [1.05 * jax.vjp(jax.nn.gelu, inputs[0])[1](g)[0]])


of_loss("recurrent net (scan)", None, recurrent)
of_loss("casts to float32 inside", None, normed)
of_loss("casts to float32 inside, gelu times 1.05", ["in", "scale"], lambda: normed(wrong_gelu()))


def closed() -> tuple[Any, Any, tuple[Any, ...]]:
    y = np.random.default_rng(0).normal(size=3)
    return lambda p: jnp.sum((p - y) ** 2), jnp.ones(3), ()


of_loss("NumPy float64 in the closure, float32", None, closed, nullcontext)


def detached() -> tuple[Any, Any, tuple[Any, ...]]:
    return net(lambda x: x * jax.nn.sigmoid(jax.lax.stop_gradient(x)))


of_loss("a branch under stop_gradient", HIDDEN, detached)
of_loss("rounding, straight through", HIDDEN, lambda: net(ruled(lambda x: jnp.round(x), lambda inputs, g: [g])))
