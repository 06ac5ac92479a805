"""Casts inside modules of torch, bfloat16, complex tensors, and what low precision leaves of a right gradient."""

from __future__ import annotations

import numpy as np
import pytest

import fastcheck
from fastcheck.judge.verdict import Verdict
from tests.adapters.functions import square_off_in

torch = pytest.importorskip("torch")
nn, F = torch.nn, torch.nn.functional


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def kinds(report):
    return [finding.kind for finding in report.findings]


class Gelu(torch.autograd.Function):
    """x Phi(x), computed in float32 whatever it is given; `factor` on its derivative."""

    factor = 1.0

    @classmethod
    def forward(cls, ctx, x):
        ctx.save_for_backward(x)
        return F.gelu(x.float()).to(x.dtype)

    @classmethod
    def backward(cls, ctx, g):
        wide = ctx.saved_tensors[0].float()
        phi = torch.exp(-0.5 * wide**2) / (2 * torch.pi) ** 0.5
        slope = 0.5 * (1 + torch.erf(wide / 2**0.5)) + wide * phi
        return (cls.factor * slope * g.float()).to(g.dtype)


class WrongGelu(Gelu):
    factor = 1.05


class Llama(nn.Module):
    """A block with the casts of every transformer: a norm, a rotation and a softmax in float32."""

    def __init__(self, gelu=Gelu, width=16):
        super().__init__()
        self.embed, self.norm = nn.Embedding(11, width), nn.Parameter(torch.ones(width))
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.head = nn.Linear(width, 2 * width), nn.Linear(2 * width, 11)
        self.gelu = gelu

    def rms(self, x):
        wide = x.to(torch.float32)
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)
        return self.norm * wide.to(x.dtype)

    def forward(self, tokens):
        x = self.embed(tokens)
        q, k, v = self.qkv(self.rms(x)).chunk(3, dim=-1)
        mask = torch.full((tokens.shape[1],) * 2, torch.finfo(torch.float32).min).triu(1)
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5 + mask
        x = x + self.out(F.softmax(scores, dim=-1, dtype=torch.float32).to(q.dtype) @ v)
        return self.head(self.gelu.apply(self.up(self.rms(x))))


def next_token(model, tokens):
    logits = model(tokens[:, :-1]).float()
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), tokens[:, 1:].reshape(-1))


@pytest.mark.parametrize("mode", ["full", "screen"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_casts_inside_are_left_out(mode, dtype):
    tokens = torch.randint(0, 11, (3, 7))
    blocks = "norm" if mode == "full" else None
    report = fastcheck.torch.check(next_token, Llama().to(dtype), args=(tokens,), mode=mode, blocks=blocks)
    assert report.verdict is Verdict.CORRECT, str(report)
    assert report.uncertainty < 1e-7
    (own,) = (finding for finding in report.findings if finding.kind == "own_precision")
    assert "float32" in own.evidence["dtype"]
    report = fastcheck.torch.check(next_token, Llama(WrongGelu).to(dtype), args=(tokens,), mode=mode, blocks=blocks)
    assert report.verdict in (Verdict.WRONG, Verdict.SUSPICIOUS)
    assert report.verdict is Verdict.WRONG or mode == "full"  # beyond a residual branch 5 % are less


def test_a_function_that_casts_inside():
    x = torch.randn(40, dtype=torch.float64, requires_grad=True)
    assert fastcheck.torch.check_function(Gelu.apply, x).verdict is Verdict.CORRECT
    assert fastcheck.torch.check_function(WrongGelu.apply, x).verdict is Verdict.WRONG


def test_what_is_cast_may_be_written_to():
    def loss(p):
        scaled = p["w"].float()
        scaled *= 2  # of a copy: p["w"] stays
        table = torch.zeros(3)
        table[:] = scaled
        return (table * p["w"].to(torch.float32)).sum()

    w = torch.rand(3, dtype=torch.float64, requires_grad=True)
    report = fastcheck.torch.check(loss, {"w": w}, mode="full")
    assert report.verdict is Verdict.CORRECT, str(report)
    np.testing.assert_allclose(report.numerical["w"], 4 * w.detach().numpy(), rtol=1e-9)


def test_a_loss_that_is_another_function_without_its_casts_keeps_them():
    """The digits that a cast drops may be what it is about."""

    def loss(p):
        return ((p["w"] - p["w"].detach().float().double()) * 1e8 * p["w"]).sum() + (p["w"] ** 2).sum()

    w = torch.rand(4, dtype=torch.float64, requires_grad=True)
    report = fastcheck.torch.check(loss, {"w": w})
    assert not report.verdict.passed or "own_precision" not in kinds(report)


@pytest.mark.parametrize("seed", range(3))
def test_bfloat16_modules(seed):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 3)).bfloat16()
    X, y = torch.randn(16, 6, dtype=torch.bfloat16), torch.randint(0, 3, (16,))
    report = fastcheck.torch.check(lambda m, X, y: F.cross_entropy(m(X), y), model, args=(X, y))
    assert report.verdict is Verdict.CORRECT, str(report)
    (own,) = (finding for finding in report.findings if finding.kind == "own_precision")
    assert own.evidence["dtype"] == "bfloat16"
    assert 1e-4 < max(own.evidence["errors"].values()) < 0.1
    assert model[0].weight.dtype is torch.bfloat16


def test_bfloat16_functions():
    x = torch.linspace(0.5, 2, 16, dtype=torch.bfloat16)
    assert fastcheck.torch.check_function(torch.tanh, x).verdict is Verdict.CORRECT
    report = fastcheck.torch.check_function(square_off_in(torch.bfloat16, 1.5), x)
    assert report.verdict is Verdict.SUSPICIOUS
    assert kinds(report)[0] == "own_precision"


def test_a_right_gradient_that_cancels_in_float32_is_excused():
    """Two samples under a batch normalisation: what is left of the gradient is 1e-5 of what cancels."""
    model, X = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5, affine=False)), 30 * torch.randn(2, 4)
    c = torch.randn(2, 5)
    report = fastcheck.torch.check(lambda m, X: (m(X) * c).sum(), model, args=(X,))
    (own,) = (finding for finding in report.findings if finding.kind == "own_precision")
    assert max(own.evidence["errors"].values()) > 1e-2
    assert own.evidence["by_chance"]
    assert "more samples" in own.message
    assert report.blocks["0.weight"].verdict.passed, str(report)
    assert not report.verdict.refuted


@pytest.mark.parametrize("seed", range(8))
def test_rounding_is_told_from_an_error_that_low_precision_always_has(seed):
    """What is squared has unit variance: in float32 the gradient is rounding all over, of any sign."""
    torch.manual_seed(seed)
    model, X = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, affine=False)), torch.randn(6, 4)
    report = fastcheck.torch.check(lambda m, X: m(X).square().mean(), model, args=(X,))
    assert report.verdict is Verdict.CORRECT, str(report)
    off = square_off_in(torch.float32, 1.5)
    report = fastcheck.torch.check(lambda m, X: (off(m(X)) * X[:, :3]).mean(), model, args=(X,))
    assert report.verdict is Verdict.SUSPICIOUS, str(report)
    assert kinds(report)[0] == "own_precision"


# Complex tensors


class WrongConjugate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z, w):
        ctx.save_for_backward(z, w)
        return z * w

    @staticmethod
    def backward(ctx, g):
        z, w = ctx.saved_tensors
        return g * w, g * z.conj()  # the first is not conjugated


@pytest.mark.parametrize("dtype", [torch.complex128, torch.complex64])
def test_complex_inputs_and_outputs(dtype):
    z, w = (torch.randn(4, dtype=dtype) for _ in range(2))
    for function in (lambda z, w: z * w, lambda z, w: torch.fft.fft(z) / w, lambda z, w: (z.abs() ** 2 * w.real).sum()):
        report = fastcheck.torch.check_function(function, (z, w))
        assert report.verdict is Verdict.CORRECT, str(report)
    assert report.blocks["z"].shape == (4, 2)
    report = fastcheck.torch.check_function(WrongConjugate.apply, (z, w))
    assert report.blocks["z"].verdict is Verdict.WRONG
    assert report.blocks["w"].verdict is Verdict.CORRECT


@pytest.mark.parametrize("dtype", [torch.complex128, torch.complex64])
def test_complex_parameters(dtype):
    model = nn.Linear(4, 3, dtype=dtype)
    X = torch.randn(5, 4, dtype=dtype)
    report = fastcheck.torch.check(lambda m, X: (m(X).abs() ** 2).mean(), model, args=(X,))
    assert report.verdict is Verdict.CORRECT, str(report)
    gradient = {name: p.detach() for name, p in model.named_parameters()}
    report = fastcheck.torch.check(lambda m, X: (m(X).abs() ** 2).mean(), model, args=(X,), gradient=gradient)
    assert report.verdict is Verdict.WRONG
    assert model.weight.dtype is dtype


def test_casts_to_complex_inside():
    model, X = nn.Linear(4, 3, dtype=torch.complex64), torch.randn(6, 4)
    for cast in (lambda X: X.to(torch.complex64), lambda X: X.cfloat(), lambda X: torch.complex(X, 0 * X).cfloat()):
        report = fastcheck.torch.check(lambda m, X, cast=cast: (m(cast(X)).abs() ** 2).mean(), model, args=(X,))
        assert report.verdict is Verdict.CORRECT, str(report)
