"""Kernels of low precision beside a reference: what is found, and that right ones pass in every precision."""

from __future__ import annotations

import numpy as np
import pytest

import fastcheck
from fastcheck.errors import InputError, LossError
from fastcheck.judge.verdict import Verdict

torch = pytest.importorskip("torch")
F = torch.nn.functional
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def kinds(report):
    return [finding.kind for finding in report.findings]


def plain(x, w):
    """A normalised layer: rows of x to zero mean and unit variance, times w."""
    x = x - x.mean(-1, keepdim=True)
    return x * torch.rsqrt((x**2).mean(-1, keepdim=True) + 1e-5) * w


def kernel(forward_bug=lambda y: y, by_x_bug=lambda g: g, by_w_bug=lambda g: g, low=False):
    """Return the layer as a kernel that refuses float64, sums in float32, and rounds once; with bugs."""

    class Norm(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, w):
            if x.dtype == torch.float64:
                raise TypeError("no float64")
            wide = x.float()
            centred = wide - wide.mean(-1, keepdim=True)
            ctx.save_for_backward(x, w)
            scale = torch.rsqrt((centred**2).mean(-1, keepdim=True) + 1e-5)
            return forward_bug((centred * scale * w.float()).to(x.dtype))

        @staticmethod
        def backward(ctx, g):
            x, w = ctx.saved_tensors
            wide, g32, w32 = x.float(), g.float(), w.float()
            centred = wide - wide.mean(-1, keepdim=True)
            scale = torch.rsqrt((centred**2).mean(-1, keepdim=True) + 1e-5)
            hat, gw = centred * scale, g32 * w32
            by_x = scale * (gw - gw.mean(-1, keepdim=True) - hat * (gw * hat).mean(-1, keepdim=True))
            if low:
                total = torch.zeros_like(w)
                for row in (g32 * hat).to(x.dtype):
                    total = total + row
                by_w = total
            else:
                by_w = (g32 * hat).sum(0).to(w.dtype)
            return by_x_bug(by_x.to(x.dtype)), by_w_bug(by_w)

    return Norm.apply


def inputs(dtype, rows=64, columns=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, columns, generator=generator)
    w = 1 + 0.5 * torch.randn(columns, generator=generator)
    return x.to(dtype).requires_grad_(), w.to(dtype).requires_grad_()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(4))
def test_a_right_kernel_passes(dtype, seed):
    report = fastcheck.torch.check_function(kernel(), inputs(dtype, seed=seed), reference=plain, seed=seed)
    assert report.verdict is Verdict.CORRECT, str(report)
    assert list(report.blocks) == ["x", "w"]
    assert "reference=plain" in report.settings["call"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(3))
def test_other_right_kernels_pass(dtype, seed):
    """The same formulas, composed otherwise: in another order, or rounded at every step."""
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(48, 48, generator=generator).to(dtype).requires_grad_() for _ in range(2))
    pairs = [
        (lambda x, y: torch.einsum("ij,jk->ik", x, y), lambda x, y: x @ y),
        (lambda x, y: F.softmax(x, -1) * y, lambda x, y: x.exp() / x.exp().sum(-1, keepdim=True) * y),
        (lambda x, y: F.silu(x) + y, lambda x, y: x * torch.sigmoid(x) + y),
        (lambda x, y: F.relu(x) * y.sum(0), lambda x, y: x.clamp(min=0) * y.sum(0)),
        (lambda x, y: F.layer_norm(x, (48,), y[0]), lambda x, y: plain(x, y[0])),
        (lambda x, y: torch.logsumexp(x * y, -1), lambda x, y: (x * y).exp().sum(-1).log()),
    ]
    for right, reference in pairs:
        report = fastcheck.torch.check_function(right, (a, b), reference=reference, seed=seed)
        assert report.passed, str(report)


def unwritten(y):
    y = y.clone()
    y[(-1,) * y.ndim] = 0
    return y


def swapped(y):
    return y[[0, 2, 1, *range(3, len(y))]]


def column(y):
    y = y.clone()
    y[..., 5] *= 1.05
    return y


BUGS = {
    "last output": ({"forward_bug": unwritten}, "kernel_entries"),
    "last gradient": ({"by_x_bug": unwritten}, "kernel_entries"),
    "last of w": ({"by_w_bug": unwritten}, "kernel_entries"),
    "row of the output": ({"forward_bug": swapped}, "kernel_entries"),
    "row of the gradient": ({"by_x_bug": swapped}, "kernel_entries"),
    "column": ({"by_x_bug": column}, None),
    "column of the output": ({"forward_bug": column}, None),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bug", BUGS)
def test_bugs_are_found_and_named(dtype, bug):
    given, kind = BUGS[bug]
    report = fastcheck.torch.check_function(kernel(**given), inputs(dtype), reference=plain)
    assert report.verdict is Verdict.WRONG, str(report)
    found = report.findings[0]
    assert kind in (None, found.kind)
    assert found.evidence["what"] == ("output" if "output" in bug else "gradient by")
    if bug.startswith("last"):
        assert "Never written?" in found.message
    if bug.startswith("row"):
        assert "row 1 is the reference's row 2" in found.message
    if bug == "last gradient":
        assert report.wrong[0].name == "x[63, 31]"
    if bug.startswith("column"):
        assert "index 5 of axis 1" in found.message or all(i[1] == 5 for i in found.evidence["indices"])


@pytest.mark.parametrize("where", ["forward_bug", "by_x_bug", "by_w_bug"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_factors_are_found(dtype, where):
    factor = 1.001 if dtype is torch.float32 else 1.01
    bug = {where: lambda y: (factor * y.float()).to(y.dtype)}
    report = fastcheck.torch.check_function(kernel(**bug), inputs(dtype, 128, 64), reference=plain)
    assert report.verdict.refuted, str(report)
    found = next(finding for finding in report.findings if finding.kind == "kernel_factor")
    assert found.evidence["factor"] == pytest.approx(factor, rel=2e-3)
    assert found.block == {"forward_bug": None, "by_x_bug": "x", "by_w_bug": "w"}[where]


def test_sums_accumulated_in_bfloat16_are_found():
    given = inputs(torch.bfloat16, 2048, 16)
    assert fastcheck.torch.check_function(kernel(), given, reference=plain).passed
    report = fastcheck.torch.check_function(kernel(low=True), given, reference=plain)
    assert report.verdict.refuted
    assert not report.blocks["w"].verdict.passed
    assert report.blocks["x"].verdict.passed


def test_a_kernel_of_float32_may_sum_one_by_one():
    report = fastcheck.torch.check_function(kernel(low=True), inputs(torch.float32, 2048, 16), reference=plain)
    assert report.passed, str(report)


def test_a_reference_that_is_wrong_is_said():
    report = fastcheck.torch.check_function(
        kernel(), inputs(torch.float32, 6, 5), reference=lambda x, w: plain(x.detach(), w) + 0 * x
    )
    assert report.verdict is Verdict.WRONG
    assert report.findings[0].kind == "reference"


def test_bad_input():
    x, w = inputs(torch.float32, 4, 4)
    for options, message in (
        ({"reference": 3}, "reference=3"),
        ({"reference": plain, "dtype": torch.float32}, "dtype=torch.float32"),
        ({"reference": lambda x, w: plain(x, w)[0]}, "same function"),
    ):
        with pytest.raises(InputError, match=message):
            fastcheck.torch.check_function(kernel(), (x, w), **options)

    def raises(x, w):
        if raises.calls:
            raise RuntimeError("out of registers")
        raises.calls += 1
        return plain(x, w)

    raises.calls = 0
    with pytest.raises(LossError, match="out of registers"):
        fastcheck.torch.check_function(raises, (x, w), reference=plain)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_kernels_of_jax(dtype):
    jax = pytest.importorskip("jax")
    jnp = jax.numpy
    factor = {"right": 1.0, "wrong": 1.01}

    def made(which):
        @jax.custom_vjp
        def swish(x, w):
            wide = x.astype(jnp.float32)
            return (wide * jax.nn.sigmoid(wide) * w.astype(jnp.float32)).astype(x.dtype)

        def backward(kept, g):
            x, w = (k.astype(jnp.float32) for k in kept)
            s, g = jax.nn.sigmoid(x), g.astype(jnp.float32)
            by_w = factor[which] * jnp.sum(g * x * s, axis=0)
            return (g * w * (s + x * s * (1 - s))).astype(kept[0].dtype), by_w.astype(kept[1].dtype)

        swish.defvjp(lambda x, w: (swish(x, w), (x, w)), backward)
        return swish

    def reference(x, w):
        return x * jax.nn.sigmoid(x) * w

    rng = np.random.default_rng(0)
    x, w = jnp.asarray(rng.normal(size=(64, 256)), dtype), jnp.asarray(rng.normal(size=256), dtype)
    right = fastcheck.jax.check_function(made("right"), (x, w), reference=reference)
    assert right.verdict is Verdict.CORRECT, str(right)
    wrong = fastcheck.jax.check_function(made("wrong"), (x, w), reference=reference)
    assert wrong.verdict.refuted, str(wrong)
    assert wrong.blocks["x"].verdict.passed
    assert "kernel_factor" in kinds(wrong)
