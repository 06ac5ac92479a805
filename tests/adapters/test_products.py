"""check_jvp and check_hvp of torch and jax: products of the framework, and of one's own."""

from __future__ import annotations

import numpy as np
import pytest

import fastcheck
from fastcheck.errors import GradientError, InputError
from fastcheck.judge.verdict import Verdict
from tests.adapters.functions import EACH, functions, square_by

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")
jnp = jax.numpy
rng = np.random.default_rng(3)
X, W = rng.uniform(0.4, 1.6, (3, 2)), rng.uniform(0.5, 1.5, 2)
FACTORS = {"right": 1.0, "factor": 1.5, "sign": -1.0}


def kinds(report):
    return [finding.kind for finding in report.findings]


def squares(function):
    """Return a loss of a tree {"x", "w"} that is curved in all of it."""

    def loss(p, *scale):
        found = function(p["x"], p["w"])
        found = found if isinstance(found, tuple) else (found,)
        total = sum((y**2).sum() for y in found)
        return total * scale[0] if scale else total

    return loss


@pytest.mark.parametrize("name", EACH)
def test_hessian_products_of_torch(name):
    loss = squares(functions(torch)[name])
    params = {"x": torch.tensor(X, requires_grad=True), "w": torch.tensor(W, requires_grad=True)}
    scale = torch.tensor(2.0, dtype=torch.float64)
    report = fastcheck.torch.check_hvp(loss, params, args=(scale,))
    assert report.verdict is Verdict.CORRECT, str(report)
    assert list(report.blocks) == ["x", "w"]
    for planted, factor in FACTORS.items():

        def hvp(p, v, scale, factor=factor):
            slopes = torch.autograd.grad(loss(p, scale), list(p.values()), create_graph=True)
            by_x, by_w = torch.autograd.grad(slopes, list(p.values()), list(v.values()))
            return {"x": factor * by_x, "w": by_w}

        report = fastcheck.torch.check_hvp(loss, params, args=(scale,), hvp=hvp)
        assert report.verdict is (Verdict.CORRECT if planted == "right" else Verdict.WRONG), str(report)
        assert "hvp=hvp" in report.settings["call"]
    assert params["x"].grad is None


@pytest.mark.parametrize("name", EACH)
def test_hessian_products_of_jax(name):
    loss = squares(functions(jnp)[name])
    params = {"w": jnp.asarray(W), "x": jnp.asarray(X)}
    report = fastcheck.jax.check_hvp(loss, params, args=(jnp.asarray(2.0),))
    assert report.verdict is Verdict.CORRECT, str(report)
    for planted, factor in FACTORS.items():

        def hvp(p, v, *args, factor=factor):
            found = jax.jvp(jax.grad(lambda q: loss(q, *args)), (p,), (v,))[1]
            return {**found, "w": factor * found["w"]}

        report = fastcheck.jax.check_hvp(loss, params, args=(jnp.asarray(2.0),), hvp=hvp)
        assert report.verdict is (Verdict.CORRECT if planted == "right" else Verdict.WRONG), str(report)


@pytest.mark.parametrize("name", EACH)
def test_products_of_ones_own_with_a_jacobian(name):
    plain, other = functions(torch)[name], functions(jnp)[name]
    for planted, factor in FACTORS.items():

        def pushed(inputs, tangents, factor=factor):
            along = (tangents[0], factor * tangents[1])
            return torch.autograd.functional.jvp(plain, tuple(x.detach() for x in inputs), along)[1]

        def pushed_by_jax(inputs, tangents, factor=factor):
            return jax.jvp(other, inputs, (tangents[0], factor * tangents[1]))[1]

        right = Verdict.CORRECT if planted == "right" else Verdict.WRONG
        report = fastcheck.torch.check_jvp(plain, (torch.tensor(X), torch.tensor(W)), jvp=pushed)
        assert report.verdict is right, str(report)
        assert report.blocks["x"].verdict is Verdict.CORRECT
        report = fastcheck.jax.check_jvp(other, (jnp.asarray(X), jnp.asarray(W)), jvp=pushed_by_jax)
        assert report.verdict is right, str(report)
        assert report.blocks["x"].verdict is Verdict.CORRECT
    assert fastcheck.torch.check_jvp(plain, (torch.tensor(X), torch.tensor(W)), batched=True).passed
    assert fastcheck.jax.check_jvp(other, (jnp.asarray(X), jnp.asarray(W)), batched=True).passed


def test_the_hessian_of_a_module():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Tanh(), torch.nn.Linear(3, 1))
    X = torch.randn(8, 4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = fastcheck.torch.check_hvp(lambda m, X: (m(X) ** 2).mean(), model, args=(X,))
    assert report.verdict is Verdict.CORRECT, str(report)
    assert list(report.blocks) == [name for name, _ in model.named_parameters()]
    assert "own_precision" in kinds(report)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())

    flat = square_by(lambda ctx, g: 2 * ctx.saved_tensors[0].detach() * g)  # its second derivative is cut off
    report = fastcheck.torch.check_hvp(lambda m, X: flat(m(X)).mean(), model, args=(X,))
    assert report.verdict is Verdict.WRONG
    with pytest.raises(GradientError):
        fastcheck.torch.check_hvp(lambda m, X: flat(m(X)).mean(), model, args=(X,), throw=True)


def test_a_wrong_gradient_has_no_hessian_to_check():
    wrong = square_by(lambda ctx, g: 3 * ctx.saved_tensors[0] * g)
    report = fastcheck.torch.check_hvp(lambda w: wrong(w).sum(), torch.tensor(W, requires_grad=True))
    assert report.verdict is Verdict.WRONG
    assert kinds(report)[0] == "first_derivative"
    cut = jax.custom_vjp(lambda x: x**2)
    cut.defvjp(lambda x: (x**2, x), lambda x, g: (2 * jax.lax.stop_gradient(x) * g,))
    assert fastcheck.jax.check_hvp(lambda w: cut(w).sum(), jnp.asarray(W)).verdict is Verdict.WRONG


def test_float32_and_complex():
    report = fastcheck.torch.check_jvp(lambda x: x.exp().sum(0), torch.tensor(X, dtype=torch.float32))
    assert report.verdict is Verdict.CORRECT
    assert kinds(report) == ["own_precision"]
    report = fastcheck.torch.check_jvp(lambda x: x.exp() * x.conj(), torch.tensor(X) + 0.2j)
    assert report.verdict is Verdict.CORRECT, str(report)
    report = fastcheck.jax.check_hvp(lambda w: jnp.sin(w).sum(), jnp.asarray(W, dtype=jnp.float32))
    assert kinds(report) == ["own_precision"]


def test_bad_input():
    w = torch.tensor(W, requires_grad=True)
    for call, message in (
        (lambda: fastcheck.torch.check_jvp(3, w), "function=3 .* is not callable"),
        (lambda: fastcheck.torch.check_jvp(torch.sin, w, jvp=3), "jvp=3 .* is not callable"),
        (lambda: fastcheck.torch.check_hvp(3, w), "loss=3 .* is not callable"),
        (lambda: fastcheck.torch.check_hvp(torch.sin, w, hvp=3), "hvp=3 .* is not callable"),
        (lambda: fastcheck.torch.check_hvp(lambda w: w.sum(), w, workers=2), "workers=2"),
        (lambda: fastcheck.torch.check_hvp(lambda w: (w**2).sum(), w, sample=2), "sample"),
        (lambda: fastcheck.torch.check_hvp(lambda w: (w**2).sum(), w, tangents=0), "tangents=0"),
        (lambda: fastcheck.jax.check_jvp(3, jnp.ones(2)), "function=3 .* is not callable"),
        (lambda: fastcheck.jax.check_jvp(jnp.sin, jnp.ones(2), jvp=3), "jvp=3 .* is not callable"),
        (lambda: fastcheck.jax.check_hvp(3, jnp.ones(2)), "loss=3 .* is not callable"),
        (lambda: fastcheck.jax.check_hvp(jnp.sum, jnp.ones(2), hvp=3), "hvp=3 .* is not callable"),
    ):
        with pytest.raises((InputError, TypeError), match=message):
            call()
