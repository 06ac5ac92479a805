"""How losses of jax are widened: closures, casts, control flow, bfloat16, complex leaves; and kept."""

from __future__ import annotations

import numpy as np
import pytest

import fastcheck
from fastcheck.adapters.traced import Traced
from fastcheck.adapters.wide import fingerprint
from fastcheck.judge.verdict import Verdict

jax = pytest.importorskip("jax")
jnp = jax.numpy

rng = np.random.default_rng(0)
Y = rng.normal(size=(5, 4))  # float64, in closures under the 32-bit default
X = jnp.asarray(rng.normal(size=(5, 4)))


def kinds(report):
    return [finding.kind for finding in report.findings]


def test_float64_arrays_of_numpy_in_a_closure():
    def loss(p):
        return jnp.sum((p - Y) ** 2)

    before = np.asarray(jax.jit(jax.grad(loss))(X))
    report = fastcheck.jax.check(loss, X, mode="full")
    assert report.verdict is Verdict.CORRECT, str(report)
    assert "low_precision" not in kinds(report)
    for derive in (jax.grad, lambda f: jax.jit(jax.grad(f))):
        after = derive(loss)(X)
        assert after.dtype == jnp.float32
        np.testing.assert_array_equal(np.asarray(after), before)
    wrong = fastcheck.jax.check(loss, X, gradient=1.001 * before)
    assert wrong.verdict is Verdict.SUSPICIOUS
    assert fastcheck.jax.check_function(lambda p: jnp.tanh(p * Y), X).verdict is Verdict.CORRECT


def test_jax_is_the_same_after_a_loss_that_cannot_be_traced():
    def loss(p):
        return jnp.sum((p - Y) ** 2) if p[0, 0] > -10 else jnp.sum(p)

    before = np.asarray(jax.grad(loss)(X))
    assert fastcheck.jax.check(loss, X).verdict is Verdict.CORRECT
    np.testing.assert_array_equal(np.asarray(jax.grad(loss)(X)), before)
    assert jnp.ones(1).dtype == jnp.float32


def attention(p):
    wide = p.astype(jnp.float32)
    q = (wide / jnp.sqrt(jnp.mean(wide**2, axis=-1, keepdims=True) + 1e-6)).astype(p.dtype)
    scores = jax.nn.softmax((q @ q.T).astype(jnp.float32), axis=-1).astype(p.dtype)
    return jnp.mean(jnp.tanh(scores @ p) ** 2)


@jax.custom_vjp
def gelu(x):
    return jax.nn.gelu(x.astype(jnp.float32)).astype(x.dtype)


gelu.defvjp(lambda x: (gelu(x), x), lambda x, g: (1.05 * jax.vjp(jax.nn.gelu, x)[1](g)[0],))


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_casts_inside_are_left_out(dtype):
    with jax.enable_x64(dtype == "float64"):
        p = jnp.asarray(Y, dtype)
        report = fastcheck.jax.check(attention, p)
        assert report.verdict is Verdict.CORRECT, str(report)
        assert report.uncertainty < 1e-7
        if dtype != "float32":
            (own,) = (finding for finding in report.findings if finding.kind == "own_precision")
            assert ("casts to float32" in own.message) is (dtype == "float64")
        wrong = fastcheck.jax.check(lambda p: jnp.sum(gelu(p) ** 2), p)
        assert wrong.verdict is Verdict.WRONG


def test_a_loss_computed_in_bfloat16():
    def loss(p):
        return jnp.mean(jnp.tanh(p["w"] * X.astype(jnp.bfloat16)) ** 2)

    report = fastcheck.jax.check(loss, {"w": jnp.ones(4, jnp.bfloat16)})
    assert report.verdict is Verdict.CORRECT, str(report)
    assert report.blocks["w"].shape == (4,)
    vector = fastcheck.jax.check_function(lambda w: jnp.tanh(w * 3), jnp.linspace(0, 1, 9, dtype=jnp.bfloat16))
    assert vector.verdict is Verdict.CORRECT, str(vector)


def solves(p):
    return jnp.sum(jnp.linalg.solve(5 * jnp.eye(4) + p[:4], p.T) ** 2) + jnp.linalg.norm(p)


def scans(p):
    return jnp.sum(jax.lax.scan(lambda c, x: (jnp.tanh(c + x), c * x), p[0], p)[1])


def loops(p):
    return jnp.sum(jax.lax.fori_loop(0, 3, lambda i, c: jnp.tanh(c) * (i + 1), p))


def branches(p):
    return jnp.sum(jax.lax.cond(p[0, 0] > 0, jnp.sin, jnp.cos, p))


def gathers(p):
    return jnp.sum(p[jnp.array([0, 2, 2])] ** 2) + jnp.sum(p.at[1].set(3.0).at[2].add(p[0]) ** 2) + jnp.sort(p)[0].sum()


def draws(p):
    key = jax.random.key(0)
    return jnp.sum(jax.random.normal(key, p.shape) * p * jax.random.bernoulli(key, 0.5, p.shape))


def convolves(p):
    pooled = jax.lax.reduce_window(p, -jnp.inf, jax.lax.max, (2, 2), (1, 1), "VALID")
    return jnp.sum(jax.lax.conv(p[None, None], p[None, None, :2, :2], (1, 1), "SAME") ** 2) + jnp.sum(pooled)


def remembers(p):
    return jnp.sum(jax.checkpoint(lambda x: jnp.sin(x) ** 2)(p)) + jnp.cumsum(p).std() + jnp.abs(jnp.fft.fft(p)).sum()


@pytest.mark.parametrize("loss", [solves, scans, loops, branches, gathers, draws, convolves, remembers])
def test_every_primitive_is_the_same_function_in_double(loss):
    report = fastcheck.jax.check(loss, X)
    assert not report.verdict.refuted, str(report)
    assert report.passed or loss is gathers, str(report)
    assert "low_precision" not in kinds(report)
    assert report.uncertainty < 1e-6
    wrong = fastcheck.jax.check(loss, X, gradient=jax.grad(loss)(X).at[1, 1].multiply(1.1).at[1, 1].add(0.1))
    assert wrong.verdict.refuted


def test_a_second_check_compiles_nothing():
    def made(y):
        return lambda p: jnp.mean(jnp.sin(p * 1.37 - y) ** 2)

    first = fastcheck.jax.check(made(1.0 * Y), X)
    counted = []
    jax.monitoring.register_event_duration_secs_listener(lambda name, *_, **__: counted.append(name))
    try:
        second = fastcheck.jax.check(made(1.0 * Y), X)
    finally:
        jax.monitoring.clear_event_listeners()
    assert not [name for name in counted if "backend_compile" in name]
    other = fastcheck.jax.check(made(2.0 * Y), X)  # the same program with other constants
    assert first.passed
    assert second.difference == first.difference
    assert other.passed
    assert other.difference != first.difference
    assert fastcheck.jax.check(made(Y), X, gradient=jax.grad(made(2.0 * Y))(X)).verdict is Verdict.WRONG
    assert 0 <= second.settings["compilation"] < first.settings["compilation"] < first.seconds


def test_a_scalar_in_a_closure_makes_another_program():
    for factor in (2.0, 2.0000002, 3):
        report = fastcheck.jax.check(lambda p, factor=factor: jnp.sum(jnp.sin(factor * p)), X, mode="full")
        expected = factor * np.cos(np.float64(np.float32(factor)) * np.asarray(X, np.float64))
        (measured,) = report.numerical.values()
        np.testing.assert_allclose(measured, np.float32(factor) / factor * expected, rtol=1e-7)


def scanned(c, factor=2.0):
    return lambda p: jax.lax.scan(lambda s, x: (s + jnp.sum(c * x) * factor, None), 0.0, p)[0]


@pytest.mark.parametrize(
    ("make", "one", "other"),
    [
        (lambda c: lambda p: jnp.sum(p * c), 0.0, -0.0),
        (lambda c: lambda p: jnp.sum(p**c), 2, 3),
        (lambda c: jax.jit(lambda p: jnp.sum(p * c)), X, 1.0001 * X),
        (lambda c: jax.jit(lambda p: jnp.sum(p * c)), np.arange(4.0), np.arange(4.0)[::-1]),
        (lambda c: lambda p: jnp.sum(p * c), jnp.ones(4), jnp.ones(4, int)),
        (lambda c: scanned(X[0], c), 2.0, 3.0),
        (lambda c: jax.jit(scanned(c)), X[0], X[1]),
        (lambda c: lambda p: jnp.sum(p[:c] - p[1 : c + 1]), 2, 3),
        (lambda c: lambda p: jnp.sum(c(p[0], p[1])), lambda a, b: a - 2 * b, lambda a, b: b - 2 * a),
        (lambda c: lambda p: (jnp.sum(p), jnp.max(p))[c], 0, 1),
        (lambda c: lambda p: jax.lax.cond(p[0, 0] > 0, lambda x: x * c, jnp.cos, p[1, 1]), 2.0, 3.0),
        (lambda c: lambda p: jnp.sum(gelu(p) * c), 2.0, 3.0),
        (lambda c: lambda p: jnp.sum(jax.nn.relu(p) * c), 2.0, 3.0),
        (lambda c: lambda p: p.astype(c).sum(), jnp.float16, jnp.bfloat16),
    ],
)
@pytest.mark.parametrize("derive", [lambda f: f, jax.grad])
def test_what_tells_programs_from_each_other(make, one, other, derive):
    first, again, changed = (jax.make_jaxpr(derive(make(c)))(X) for c in (one, one, other))
    assert fingerprint(first) is not None
    assert fingerprint(first) == fingerprint(again)
    alike = len(first.consts) == len(changed.consts) and all(map(np.array_equal, first.consts, changed.consts))
    assert fingerprint(first) != fingerprint(changed) or not alike


def test_what_python_computes_inside_is_told_from_nothing():
    def calls_back(p):
        return jnp.sum(jax.pure_callback(np.sin, jax.ShapeDtypeStruct(p.shape, p.dtype), p))

    assert fingerprint(jax.make_jaxpr(calls_back)(X)) is None
    kept = jax.checkpoint(lambda p: jnp.sum(jnp.sin(p)), policy=lambda *_, **__: True)
    assert fingerprint(jax.make_jaxpr(kept)(X)) is None


def test_complex_leaves_and_outputs():
    z = jnp.asarray(rng.normal(size=3) + 1j * rng.normal(size=3))
    params = {"z": z, "w": jnp.arange(1.0, 4.0)}

    def loss(p):
        return jnp.sum(jnp.abs(jnp.fft.fft(p["z"] * p["w"])) ** 2).real

    report = fastcheck.jax.check(loss, params)
    assert report.verdict is Verdict.CORRECT, str(report)
    assert report.blocks["z"].shape == (3, 2)
    gradient = jax.grad(loss)(params)
    assert fastcheck.jax.check(loss, params, gradient=gradient).verdict is Verdict.CORRECT
    report = fastcheck.jax.check(loss, params, gradient={**gradient, "z": gradient["z"].conj()})
    assert report.blocks["z"].verdict is Verdict.WRONG
    assert report.blocks["w"].verdict is Verdict.CORRECT
    assert fastcheck.jax.check_function(lambda z, w: jnp.exp(z * w), (z, z)).verdict is Verdict.CORRECT

    @jax.custom_vjp
    def product(z, w):
        return z * w

    product.defvjp(lambda z, w: (z * w, (z, w)), lambda kept, g: (g * kept[1].conj(), g * kept[0]))
    report = fastcheck.jax.check_function(product, (z, z))
    assert report.blocks["z"].verdict is Verdict.WRONG
    assert report.blocks["w"].verdict is Verdict.CORRECT


@pytest.mark.parametrize("kind", [jnp.asarray, np.asarray, lambda X: np.float64(X)])
def test_a_program_is_traced_with_arguments_as_its_owner_passes_them(kind, monkeypatch):
    """Arrays of args in double precision would mix with float32 parameters, of which jax warns: an error here."""
    monkeypatch.setattr(Traced, "_retracing", None)
    rng = np.random.default_rng(0)
    X, w = kind(jnp.asarray(rng.normal(size=(8, 4)))), jnp.asarray(rng.normal(size=(4, 3)))
    assert fastcheck.jax.check(lambda w, X: jnp.mean(jnp.tanh(X @ w) ** 2), w, args=(X,)).verdict is Verdict.CORRECT
