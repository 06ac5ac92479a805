"""Gradients of jax: pytrees, custom derivatives, either precision, and what can't be traced."""

from __future__ import annotations

import sys
from collections import OrderedDict
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest

import fastcheck
from fastcheck.errors import GradientError, InputError, LossError, MissingDependencyError
from fastcheck.judge.verdict import Verdict
from tests.adapters.processes import printed

jax = pytest.importorskip("jax")
jnp = jax.numpy


class Dense(NamedTuple):
    W: object
    b: object


@jax.tree_util.register_pytree_with_keys_class
class Node:
    """A node of the user's own, with something that is no array in it."""

    def __init__(self, scale, shift, name="node"):
        self.scale, self.shift, self.name = scale, shift, name

    def tree_flatten_with_keys(self):
        key = jax.tree_util.GetAttrKey
        return ((key("scale"), self.scale), (key("shift"), self.shift)), self.name

    @classmethod
    def tree_unflatten(cls, name, children):
        return cls(*children, name)


@jax.custom_vjp
def wrong_sine(x, w):
    return jnp.sin(x) * w


def _forward(x, w):
    return wrong_sine(x, w), (x, w)


def _backward(kept, g):
    x, w = kept
    return (jnp.cos(x) * w * g).at[3].multiply(-1), jnp.sin(x) * g


wrong_sine.defvjp(_forward, _backward)


@jax.custom_vjp
def right_sine(x, w):
    return jnp.sin(x) * w


right_sine.defvjp(
    lambda x, w: (right_sine(x, w), (x, w)), lambda kept, g: (jnp.cos(kept[0]) * kept[1] * g, jnp.sin(kept[0]) * g)
)


def net(dims, seed=0):
    rng = np.random.default_rng(seed)
    return [
        Dense(jnp.asarray(rng.normal(size=(a, b)) / np.sqrt(a)), jnp.asarray(0.1 * rng.normal(size=b)))
        for a, b in pairwise(dims)
    ]


def batch(n, width, classes, seed=1):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=(n, width))), jnp.asarray(rng.integers(0, classes, n))


def cross_entropy(layers, X, y, activation=jnp.tanh):
    for layer in layers[:-1]:
        X = activation(X @ layer.W + layer.b)
    scores = X @ layers[-1].W + layers[-1].b
    return jnp.mean(jax.nn.logsumexp(scores, axis=1) - scores[jnp.arange(len(y)), y])


def kinds(report):
    return [finding.kind for finding in report.findings]


# Pytrees


@pytest.mark.parametrize("mode", ["full", "screen"])
def test_a_right_gradient_passes_at_any_size(mode):
    for dims in ((6, 5, 3), (200, 300, 3)):  # side by side, and one by one
        if mode == "full" and dims[0] > 6:
            continue
        params, args = net(dims), batch(16, dims[0], 3)
        report = fastcheck.jax.check(cross_entropy, params, args=args, mode=mode)
        assert report.verdict is Verdict.CORRECT, str(report)
        assert list(report.blocks) == ["0.W", "0.b", "1.W", "1.b"]
        assert "own_precision" in kinds(report)
        if mode == "full":
            np.testing.assert_allclose(report.numerical["1.W"], jax.grad(cross_entropy)(params, *args)[1].W, atol=1e-6)


def test_every_kind_of_pytree():
    tree = {
        "list": [jnp.ones(2), (jnp.float32(2.0), None)],
        "named": Dense(jnp.ones((2, 2)), None),
        "ordered": OrderedDict(z=jnp.ones(1), a=jnp.ones(1)),
        "node": Node(jnp.ones(2), 0.5),
        "count": 3,
        "mask": jnp.array([1, 0]),
        "activation": jnp.tanh,
    }

    def loss(p):
        x = p["list"][0] * p["list"][1][0] @ p["named"].W * p["mask"]
        x = p["activation"](x * p["node"].scale + p["node"].shift) ** p["count"]
        return jnp.sum(x * p["ordered"]["z"] + p["ordered"]["a"])

    report = fastcheck.jax.check(loss, tree)
    assert report.verdict is Verdict.CORRECT, str(report)
    assert set(report.blocks) == {
        "list.0", "list.1.0", "named.W", "ordered.z", "ordered.a", "node.scale", "node.shift"
    }  # fmt: skip
    assert fastcheck.jax.check(lambda w: jnp.sum(w**3), jnp.arange(1.0, 4.0)).blocks.keys() == {"theta"}


def test_blocks_are_chosen_by_name_and_options_reach_the_check():
    report = fastcheck.jax.check(
        cross_entropy, net((6, 5, 3)), args=batch(16, 6, 3), blocks="1.*", mode="sample", samples=9, seed=3
    )
    assert [name for name, block in report.blocks.items() if block.checked] == ["1.W", "1.b"]
    assert (report.settings["mode"], report.settings["seed"]) == ("sample", 3)


# Wrong gradients


@pytest.mark.parametrize("width", [10, 40_000])
def test_a_wrong_custom_vjp_is_found_and_named(width):
    rng = np.random.default_rng(0)
    params = {"x": rng.normal(size=width), "w": rng.normal(size=width)}
    report = fastcheck.jax.check(lambda p: jnp.mean(wrong_sine(p["x"], p["w"])), params, mode="auto")
    assert report.verdict is Verdict.WRONG
    assert [c.name for c in report.wrong] == ["x[3]"]
    assert report.blocks["w"].verdict is Verdict.CORRECT
    right = fastcheck.jax.check(lambda p: jnp.mean(right_sine(p["x"], p["w"])), params)
    assert right.verdict is Verdict.CORRECT


def test_a_gradient_of_ones_own():
    params, args = net((6, 5, 3)), batch(16, 6, 3)
    gradient = jax.grad(cross_entropy)(params, *args)
    assert fastcheck.jax.check(cross_entropy, params, args=args, gradient=gradient).verdict is Verdict.CORRECT
    forward = jax.jit(jax.jacfwd(cross_entropy))
    assert fastcheck.jax.check(cross_entropy, params, args=args, gradient=forward).verdict is Verdict.CORRECT
    half = [gradient[0], gradient[1]._replace(b=0.5 * gradient[1].b)]
    report = fastcheck.jax.check(cross_entropy, params, args=args, gradient=half)
    assert report.verdict is Verdict.WRONG
    assert [name for name, block in report.blocks.items() if not block.verdict.passed] == ["1.b"]
    with pytest.raises(GradientError):
        fastcheck.jax.check(cross_entropy, params, args=args, gradient=half, throw=True)


def test_an_error_is_explained_from_the_batch():
    params, args = net((200, 300, 3)), batch(16, 200, 3)

    def without_the_last(layers, X, y):
        return jax.grad(lambda p: cross_entropy(p, X[:-1], y[:-1]) * (len(y) - 1) / len(y))(layers)

    report = fastcheck.jax.check(cross_entropy, params, args=args, gradient=without_the_last, mode="full", blocks="1.*")
    assert "sample_missing" in kinds(report)  # it took the batch apart


# Precision


def test_precisions():
    params, args = net((6, 5, 3)), batch(16, 6, 3)
    assert params[0].W.dtype == jnp.float32
    double = fastcheck.jax.check(cross_entropy, params, args=args, dtype="float64")
    assert double.verdict is Verdict.CORRECT
    assert "converted" in kinds(double)
    single = fastcheck.jax.check(cross_entropy, params, args=args, dtype=np.float32)
    assert single.verdict not in (Verdict.WRONG, Verdict.SUSPICIOUS)
    assert "low_precision" in kinds(single)
    assert jnp.ones(1).dtype == jnp.float32  # 64 bits were enabled for the time of the call alone


def test_with_64_bits_enabled():
    with jax.enable_x64(True):
        report = fastcheck.jax.check(cross_entropy, net((6, 5, 3)), args=batch(16, 6, 3))
    assert report.verdict is Verdict.CORRECT
    assert report.findings == ()


def test_a_gradient_that_is_wrong_in_float32_alone_is_wrong():
    """It is traced in float32, as it is used, and then widened."""

    @jax.custom_vjp
    def square(x):
        return x**2

    factor = {"float32": 2.1, "float64": 2.0}
    square.defvjp(lambda x: (x**2, x), lambda x, g: (factor[str(x.dtype)] * x * g,))
    report = fastcheck.jax.check(lambda x: jnp.sum(square(x)), jnp.linspace(0.5, 2, 8))
    assert report.verdict is Verdict.WRONG


@pytest.mark.parametrize("size", [8, 200])
def test_a_forward_mode_that_is_wrong_in_float32_alone_is_wrong(size):
    @jax.custom_jvp
    def square(x):
        return x**2

    factor = {"float32": 2.1, "float64": 2.0}
    square.defjvp(lambda primal, tangent: (primal[0] ** 2, factor[str(primal[0].dtype)] * primal[0] * tangent[0]))
    report = fastcheck.jax.check_function(square, jnp.linspace(0.5, 2, size), forward=True)
    assert report.verdict is Verdict.WRONG
    single = fastcheck.jax.check_function(square, jnp.linspace(0.5, 2, size), forward=True, dtype="float32")
    assert not single.passed
    assert "low_precision" in kinds(single)


@pytest.mark.parametrize("activation", [jnp.tanh, jax.nn.relu, jax.nn.gelu])
def test_no_right_gradient_is_called_wrong(activation):
    for seed, mode in ((0, "full"), (1, "screen")):
        args = batch(24, 8, 3, seed)
        report = fastcheck.jax.check(
            lambda p, X, y: cross_entropy(p, X, y, activation), net((8, 7, 6, 3), seed), args=args, mode=mode
        )
        assert report.verdict not in (Verdict.WRONG, Verdict.SUSPICIOUS), str(report)


# Losses that are not plain


def test_a_loss_that_branches_on_values_is_evaluated_step_by_step():
    def loss(w):
        return jnp.sum(w**2) if w[0] > 0 else jnp.sum(w)

    report = fastcheck.jax.check(loss, jnp.arange(1.0, 5.0))
    assert report.verdict is Verdict.CORRECT


def test_a_loss_that_is_another_under_vmap_is_evaluated_one_by_one():
    @jax.custom_batching.custom_vmap
    def cube(x):
        return x**3

    @cube.def_vmap
    def _many(size, batched, x):
        return 2 * x**3, batched[0]

    @jax.custom_jvp
    def twisted(x):
        return cube(x)

    twisted.defjvp(lambda primal, tangent: (twisted(primal[0]), 3 * primal[0] ** 2 * tangent[0]))
    report = fastcheck.jax.check(lambda w: jnp.sum(twisted(w)), jnp.arange(1.0, 5.0))
    assert report.verdict is Verdict.CORRECT, str(report)


@pytest.mark.parametrize("new_key", [jax.random.key, jax.random.PRNGKey])
def test_auxiliary_outputs_keys_and_static_arguments(new_key):
    def loss(w, key, power, spec):
        noise = jax.random.normal(key, w.shape, jnp.float32)
        return jnp.sum(w**power * noise) * spec["scale"], {"seen": w}

    args = (new_key(0), 3, {"scale": 2.0, "name": "x"})
    assert fastcheck.jax.check(loss, jnp.arange(1.0, 4.0), args=args, has_aux=True).verdict is Verdict.CORRECT


def test_a_loss_that_draws_has_the_same_draws_in_double():
    def loss(w, key):
        return jnp.sum((w * jax.random.normal(key, w.shape)) ** 2)  # in the default precision, which 64 bits change

    report = fastcheck.jax.check(loss, jnp.arange(1.0, 5.0), args=(jax.random.key(0),))
    assert report.verdict is Verdict.CORRECT
    draw = fastcheck.jax.check_function(lambda w: w * jax.random.normal(jax.random.key(0), w.shape), jnp.ones(8))
    assert draw.verdict is Verdict.CORRECT


def test_what_is_traced_anew_with_64_bits_must_be_the_same_function():
    def loss(w):
        if w[0] > 0:  # can't be traced
            return jnp.sum((w * jax.random.normal(jax.random.key(0), w.shape)) ** 2)
        return jnp.sum(w)

    report = fastcheck.jax.check(loss, jnp.arange(1.0, 5.0))
    assert report.verdict not in (Verdict.WRONG, Verdict.SUSPICIOUS)
    assert "another function" in next(f.message for f in report.findings if f.kind == "low_precision")


# Functions


def test_functions():
    x, w = jnp.linspace(0.1, 1, 10), jnp.linspace(1, 2, 10)
    report = fastcheck.jax.check_function(wrong_sine, (x, w))
    assert report.verdict is Verdict.WRONG
    assert [c.name for c in report.wrong] == ["x[3]"]
    assert fastcheck.jax.check_function(right_sine, (x, w)).verdict is Verdict.CORRECT


def test_functions_of_pytrees_with_several_outputs():
    def function(layer, x, count):
        y = jnp.tanh(x @ layer.W + layer.b)
        return {"y": y, "largest": jnp.argmax(y), "norm": jnp.sum(y**count)}

    (layer,), X = net((4, 3)), batch(5, 4, 2)[0]
    report = fastcheck.jax.check_function(function, (layer, X, 2))
    assert report.verdict is Verdict.CORRECT
    assert list(report.blocks) == ["layer.W", "layer.b", "x"]


def test_the_output_that_is_wrong_is_named():
    @jax.custom_vjp
    def two(x):
        return jnp.sum(x), jnp.sum(x**2)

    two.defvjp(lambda x: (two(x), x), lambda x, g: (g[0] * jnp.ones_like(x) + g[1] * x,))
    report = fastcheck.jax.check_function(two, (jnp.linspace(1, 2, 5),))
    assert report.verdict is Verdict.WRONG
    assert report.findings[0].evidence == {"outputs": ["output 1"], "others_agree": True}


def test_forward_mode():
    @jax.custom_jvp
    def sine(x):
        return jnp.sin(x)

    sine.defjvp(lambda primal, tangent: (sine(primal[0]), (jnp.cos(primal[0]) * tangent[0]).at[2].multiply(-1)))
    x = jnp.linspace(0.1, 1, 10)
    for forward in (True, False):
        report = fastcheck.jax.check_function(sine, x, forward=forward)
        assert [c.name for c in report.wrong] == ["x[2]"]
    assert fastcheck.jax.check_function(jnp.cumsum, x, forward=True).verdict is Verdict.CORRECT
    many = jnp.linspace(0.1, 1, 200)
    assert [c.name for c in fastcheck.jax.check_function(sine, many, forward=True).wrong] == ["x[2]"]
    right = fastcheck.jax.check_function(lambda x, w: {"y": jnp.sin(x) * w.sum(), "w": w[:0]}, (many, x), forward=True)
    assert right.verdict is Verdict.CORRECT
    assert right.settings["call"] == "jax.check_function(function, inputs, forward=True"
    (own,) = (finding for finding in right.findings if finding.kind == "own_precision")
    assert set(own.evidence["errors"]) == {"x", "w"}
    assert 0 < max(own.evidence["errors"].values()) < 1e-5
    with pytest.raises(LossError, match="custom_vjp"):
        fastcheck.jax.check_function(right_sine, (x, x), forward=True)


def test_a_loop_of_unknown_length_has_forward_mode_alone():
    def halved(x):
        return jax.lax.while_loop(lambda y: jnp.max(y) > 1, lambda y: y * jnp.cos(y) / 2, x)

    x = jnp.linspace(3, 4, 5)
    report = fastcheck.jax.check_function(halved, x, forward=True)
    assert report.verdict is Verdict.CORRECT, str(report)
    assert "own_precision" in kinds(report)
    with pytest.raises(LossError, match=r"while_loop|Reverse-mode"):
        fastcheck.jax.check_function(halved, x)


CHECKPOINTED = """
import sys, numpy as np, jax.numpy as jnp, fastcheck
draw = np.random.default_rng(0).normal
params, X = {"W": jnp.asarray(draw(size=(4, 3)))}, jnp.asarray(draw(size=(5, 4)))
loss = lambda params, X: jnp.mean(jnp.tanh(X @ params["W"]) ** 2)
report = fastcheck.jax.check(loss, params, args=(X,), mode="full", checkpoint=sys.argv[1])
print(report.verdict.value, report.evaluations)
"""


@pytest.mark.slow
def test_a_checkpoint_is_resumed_in_another_process(tmp_path):
    path = tmp_path / "run"
    assert printed(CHECKPOINTED, path) == printed(CHECKPOINTED, path)


# Refusals


def test_bad_input():
    w = jnp.ones(3)
    for call, message in (
        (lambda: fastcheck.jax.check(3, w), "is not callable"),
        (lambda: fastcheck.jax.check(jnp.sum, jnp.arange(3)), "no floating leaf"),
        (lambda: fastcheck.jax.check(jnp.sum, w, dtype="int32"), "dtype='int32'"),
        (lambda: fastcheck.jax.check(jnp.sum, w, args=w), "must be a tuple"),
        (lambda: fastcheck.jax.check(jnp.sum, w, backend="threads"), "backend='threads'"),
        (lambda: fastcheck.jax.check(jnp.sum, w.at[1].set(jnp.nan)), "not finite"),
        (lambda: fastcheck.jax.check(jnp.sum, w, gradient={"w": w}), "has no block"),
        (lambda: fastcheck.jax.check_function(3, w), "is not callable"),
        (lambda: fastcheck.jax.check_function(jnp.argmax, w), "no floating array"),
        (lambda: fastcheck.jax.check_function(jnp.sin, w, backend="threads"), "backend='threads'"),
        (lambda: fastcheck.jax.check_function(jnp.sin, w, checkpoint="run"), "checkpoint='run'"),
        (lambda: fastcheck.jax.check(jnp.sum, {"a.b": w, "a": {"b": w}}), "two leaves called 'a.b'"),
        (lambda: fastcheck.jax.check_function(lambda w: {"a.b": w, "a": {"b": w}}, w), "two leaves called 'a.b'"),
    ):
        with pytest.raises(InputError, match=message):
            call()
    with pytest.raises(LossError, match="shape"):
        fastcheck.jax.check(lambda w: w, w)
    for loss, message in (
        (lambda w: w.sum() > 0, r"returned np.True_ \(type=bool\)"),
        (lambda w: w.sum() + 1j, r"Return J\.real"),
        (lambda w: {"loss": w.sum()}, r"type=dict"),
        (lambda w: (w.sum(), 0), r"has_aux|of 2"),
        (lambda w: _raise(), "not today"),
    ):
        with pytest.raises(LossError, match=message):
            fastcheck.jax.check(loss, w)


def _raise():
    raise ValueError("not today")


@pytest.mark.parametrize("params", [jnp.ones(3), {"w": [jnp.ones(2)]}])
def test_the_check_of_numpy_points_here(params):
    with pytest.raises(InputError, match=r"fastcheck\.jax\.check\(loss, params\)"):
        fastcheck.check(lambda p: 0.0, lambda p: p, params)


def test_without_jax(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'fastcheck\[jax\]'"):
        fastcheck.jax.check(lambda w: 0.0, object())
    with pytest.raises(MissingDependencyError, match=r"pip install 'fastcheck\[jax\]'"):
        fastcheck.jax.check_function(lambda w: w, ())
