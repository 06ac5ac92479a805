"""Derivatives of backward passes (order=2), forward mode, and vmap: right ones pass, planted ones do not."""

from __future__ import annotations

import numpy as np
import pytest

import fastcheck
from fastcheck.errors import InputError, LossError
from fastcheck.judge.verdict import Verdict
from tests.adapters.functions import EACH, FEW, NAMES, functions

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")
jnp = jax.numpy
rng = np.random.default_rng(3)
X, W = rng.uniform(0.4, 1.6, (3, 2)), rng.uniform(0.5, 1.5, 2)
KINDS = ("right", "factor", "sign", "detach")


def kinds(report):
    return [finding.kind for finding in report.findings]


def in_torch(name, planted, where):
    """Return a torch.autograd.Function; the bug is in its backward pass's derivative by x, or in its jvp."""
    plain = functions(torch)[name]
    factor = {"right": 1.0, "factor": 1.5, "sign": -1.0, "detach": 0.0}[planted]

    class Planted(torch.autograd.Function):
        """The identity, with another derivative."""

        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            return factor * g

    class Made(torch.autograd.Function):
        @staticmethod
        def forward(x, w):
            return plain(x, w)

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(*inputs)
            ctx.save_for_forward(*inputs)

        @staticmethod
        def backward(ctx, *g):
            graph = torch.is_grad_enabled()
            with torch.enable_grad():
                inputs = [x if x.requires_grad else x.detach().requires_grad_() for x in ctx.saved_tensors]
                x, w = inputs
                if where == "second":
                    x = x.detach().requires_grad_() + 0 if planted == "detach" else Planted.apply(x)
                outputs = plain(x, w)
                outputs = outputs if isinstance(outputs, tuple) else (outputs,)
                return torch.autograd.grad(outputs, (x, w), g, create_graph=graph, allow_unused=True)

        @staticmethod
        def jvp(ctx, *tangents):
            by_x, by_w = (
                torch.zeros_like(x) if t is None else t for x, t in zip(ctx.saved_tensors, tangents, strict=True)
            )
            if where == "forward":
                by_x = factor * by_x
            return torch.autograd.functional.jvp(plain, tuple(x.detach() for x in ctx.saved_tensors), (by_x, by_w))[1]

    return Made.apply


@pytest.mark.parametrize("name", EACH)
@pytest.mark.parametrize("planted", KINDS)
def test_second_derivatives_of_torch(name, planted):
    x, w = torch.tensor(X, requires_grad=True), torch.tensor(W, requires_grad=True)
    function = in_torch(name, planted, "second")
    assert fastcheck.torch.check_function(function, (x, w)).verdict is Verdict.CORRECT
    report = fastcheck.torch.check_function(function, (x, w), order=2)
    assert report.verdict is (Verdict.CORRECT if planted == "right" else Verdict.WRONG), str(report)
    if planted == "right":
        assert torch.autograd.gradgradcheck(function, (x, w))
    else:
        assert report.blocks["x"].verdict is Verdict.WRONG
        assert report.blocks["w"].verdict is Verdict.CORRECT
    assert ("detached" in kinds(report)) == (planted == "detach")
    assert not x.grad


@pytest.mark.parametrize("name", EACH)
@pytest.mark.parametrize("planted", KINDS)
def test_forward_mode_of_torch(name, planted):
    function = in_torch(name, planted, "forward")
    report = fastcheck.torch.check_function(function, (torch.tensor(X), torch.tensor(W)), forward=True)
    assert report.verdict is (Verdict.CORRECT if planted == "right" else Verdict.WRONG), str(report)
    assert report.blocks["w"].verdict is Verdict.CORRECT
    assert "check_function(function, inputs, forward=True" in report.settings["call"]


def test_forward_mode_over_the_backward_pass():
    """As check_fwd_over_rev of gradgradcheck; a jvp of one's own is then part of it."""
    inputs = torch.tensor(X), torch.tensor(W)
    for name in NAMES:
        report = fastcheck.torch.check_function(functions(torch)[name], inputs, order=2, forward=True)
        assert report.verdict is Verdict.CORRECT, str(report)
    without = in_torch("power", "factor", "second")  # what it calls on the way back has no jvp
    with pytest.raises(LossError, match=r"can't be differentiated again: NotImplementedError: .*jvp"):
        fastcheck.torch.check_function(without, inputs, order=2, forward=True)


def in_jax(name, planted, where):
    plain = functions(jnp)[name]
    factor = {"right": 1.0, "factor": 1.5, "sign": -1.0, "detach": 0.0}[planted]

    @jax.custom_vjp
    def identity(x):
        return x

    identity.defvjp(lambda x: (x, None), lambda _, g: (factor * g,))
    if where == "forward":
        made = jax.custom_jvp(plain)
        made.defjvp(lambda p, t: (plain(*p), jax.jvp(plain, p, (factor * t[0], t[1]))[1]))
        return made

    made = jax.custom_vjp(plain)
    made.defvjp(
        lambda x, w: (plain(x, w), (x, w)),
        lambda kept, g: jax.vjp(lambda x, w: plain(x, w), identity(kept[0]), kept[1])[1](g),
    )
    return made


@pytest.mark.parametrize("name", EACH)
@pytest.mark.parametrize("planted", KINDS)
def test_second_derivatives_of_jax(name, planted):
    function = in_jax(name, planted, "second")
    report = fastcheck.jax.check_function(function, (jnp.asarray(X), jnp.asarray(W)), order=2)
    assert report.verdict is (Verdict.CORRECT if planted == "right" else Verdict.WRONG), str(report)
    assert report.blocks["w"].verdict is Verdict.CORRECT
    assert report.blocks["cotangent" if name != "two outputs" else "cotangent.0"].verdict is Verdict.CORRECT
    assert ("detached" in kinds(report)) == (planted == "detach")


@pytest.mark.parametrize("name", EACH)
@pytest.mark.parametrize("planted", KINDS)
def test_forward_mode_of_jax(name, planted):
    function = in_jax(name, planted, "forward")
    report = fastcheck.jax.check_function(function, (jnp.asarray(X), jnp.asarray(W)), forward=True)
    assert report.verdict is (Verdict.CORRECT if planted == "right" else Verdict.WRONG), str(report)
    assert report.blocks["w"].verdict is Verdict.CORRECT


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex128])
def test_second_derivatives_in_other_precisions(dtype):
    x = torch.tensor(X).to(dtype) + (0.3j if dtype.is_complex else 0)
    report = fastcheck.torch.check_function(lambda x: (x.exp() * x).sum(0), x, order=2)
    assert report.verdict is Verdict.CORRECT, str(report)
    assert ("own_precision" in kinds(report)) == (dtype is torch.float32)


def test_a_second_derivative_in_low_precision_that_casts():
    def norm(x):
        return (x.float() / (x.float() ** 2).sum(-1, keepdim=True).sqrt()).to(x.dtype)

    report = fastcheck.torch.check_function(norm, torch.tensor(X).bfloat16(), order=2)
    assert report.verdict is Verdict.CORRECT, str(report)


def test_what_has_no_curvature_passes():
    for function in (lambda x, w: x + w, lambda x, w: 2 * x.sum(0) - w, lambda x, w: (x @ torch.eye(2).double(), w)):
        report = fastcheck.torch.check_function(function, (torch.tensor(X), torch.tensor(W)), order=2)
        assert report.verdict is Verdict.CORRECT, str(report)


def test_a_backward_pass_that_has_no_derivative_is_named():
    class Numpy(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx, g):
            return torch.from_numpy(3 * ctx.saved_tensors[0].detach().numpy() ** 2 * g.detach().numpy())

    class Once(Numpy):
        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, g):
            return 3 * ctx.saved_tensors[0] ** 2 * g

    class Kept(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            slope = 3 * x**2
            ctx.save_for_backward(slope)
            return x**3

        @staticmethod
        def backward(ctx, g):
            return ctx.saved_tensors[0] * g

    for made in (Numpy, Once, Kept):
        assert fastcheck.torch.check_function(made.apply, torch.tensor(X)).verdict is Verdict.CORRECT
        report = fastcheck.torch.check_function(made.apply, torch.tensor(X), order=2)
        assert report.verdict is Verdict.WRONG
        assert kinds(report)[0] == "detached"
        assert str(report).startswith("WRONG: x")


def test_the_first_derivative_comes_first():
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx, g):
            return 2 * ctx.saved_tensors[0] ** 2 * g

    report = fastcheck.torch.check_function(Wrong.apply, torch.tensor(X), order=2)
    assert report.verdict is Verdict.WRONG
    assert kinds(report)[0] == "first_derivative"
    assert list(report.blocks) == ["x"]


def test_draws_names_and_other_inputs():
    x, index = torch.tensor(X), torch.tensor([0, 2])
    report = fastcheck.torch.check_function(
        lambda x, index: torch.nn.functional.dropout(x[index] ** 3), (x, index), order=2, fixed_rng=True
    )
    assert report.verdict is Verdict.CORRECT, str(report)
    for adapter, value in ((fastcheck.torch, x), (fastcheck.jax, jnp.asarray(X))):
        report = adapter.check_function(lambda x, cotangent: x**2 * cotangent, (value, value + 1), order=2)
        assert report.verdict is Verdict.CORRECT, str(report)
        assert list(report.blocks) == ["x", "cotangent", "cotangent_"]
    report = fastcheck.torch.check_function(torch.nn.functional.dropout, (x,), order=2)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert str(report).startswith("INCONCLUSIVE: The loss is random")


def test_bad_orders():
    for adapter, x in ((fastcheck.torch, torch.tensor(X)), (fastcheck.jax, jnp.asarray(X))):
        for order in (0, 3, True, "2", 1.5):
            with pytest.raises(InputError, match=f"order={order!r} must be 1 or 2"):
                adapter.check_function(lambda x: x**2, (x,), order=order)
        with pytest.raises(InputError, match="order=2: with a reference"):
            adapter.check_function(lambda x: x**2, (x,), order=2, reference=lambda x: x**2)
        with pytest.raises(InputError, match="forward=True: with a reference"):
            adapter.check_function(lambda x: x**2, (x,), forward=True, reference=lambda x: x**2)


def test_a_jvp_that_is_not_there_is_said():
    class None_(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x

        @staticmethod
        def backward(ctx, g):
            return 2 * g

    with pytest.raises(LossError, match="jvp raised NotImplementedError"):
        fastcheck.torch.check_function(None_.apply, torch.tensor(X), forward=True)
    assert fastcheck.torch.check_function(None_.apply, torch.tensor(X)).passed


# vmap


def stacked(x):
    return torch._C._functorch.is_legacy_batchedtensor(x) or torch._C._functorch.is_batchedtensor(x)


def summed(right):
    """A row sum; its derivatives are wrong for stacked vectors: they count on the number of axes."""

    class Rows(torch.autograd.Function):
        @staticmethod
        def forward(x):
            return (x**2).sum(-1)

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(*inputs)
            ctx.save_for_forward(*inputs)

        @staticmethod
        def backward(ctx, g):
            x = ctx.saved_tensors[0]
            if not right and stacked(g):
                return g[..., None] * x
            return 2 * g[..., None] * x

        @staticmethod
        def jvp(ctx, t):
            x = ctx.saved_tensors[0]
            return ((1 if not right and stacked(t) else 2) * x * t).sum(-1)

    return Rows.apply


@pytest.mark.parametrize("forward", [False, True])
def test_vectors_under_vmap_in_torch(forward):
    for name in NAMES:
        report = fastcheck.torch.check_function(
            functions(torch)[name], (torch.tensor(X), torch.tensor(W)), batched=True, forward=forward
        )
        assert report.verdict is Verdict.CORRECT, str(report)
    right, wrong = (
        fastcheck.torch.check_function(summed(one), torch.tensor(X), batched=True, forward=forward)
        for one in (True, False)
    )
    assert right.verdict is Verdict.CORRECT
    assert wrong.verdict is Verdict.WRONG
    assert kinds(wrong)[0] == "batched"
    assert fastcheck.torch.check_function(summed(False), torch.tensor(X), forward=forward).passed


def test_a_backward_pass_that_vmap_can_not_run():
    class Item(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x

        @staticmethod
        def backward(ctx, g):
            return 2 * g if g.norm().item() > 0 else 0 * g

    assert fastcheck.torch.check_function(Item.apply, torch.tensor(X)).passed
    report = fastcheck.torch.check_function(Item.apply, torch.tensor(X), batched=True)
    assert report.verdict is Verdict.INCONCLUSIVE  # it is not wrong
    assert kinds(report)[0] == "batched"
    assert "Under vmap the derivative raises RuntimeError" in report.findings[0].message


@pytest.mark.parametrize("forward", [False, True])
def test_vectors_under_vmap_in_jax(forward):
    for name in FEW:
        report = fastcheck.jax.check_function(
            functions(jnp)[name], (jnp.asarray(X), jnp.asarray(W)), batched=True, forward=forward
        )
        assert report.verdict is Verdict.CORRECT, str(report)

    @jax.custom_batching.custom_vmap
    def scaled(g):
        return 2 * g

    @scaled.def_vmap
    def _(size, batched, g):
        return 3 * g, True  # the bug: another number for stacked ones

    made = jax.custom_vjp(lambda x: 2 * x)
    made.defvjp(lambda x: (2 * x, None), lambda _, g: (scaled(g),))
    pushed = jax.custom_jvp(lambda x: 2 * x)
    pushed.defjvp(lambda p, t: (2 * p[0], scaled(t[0])))
    function = pushed if forward else made
    report = fastcheck.jax.check_function(function, (jnp.asarray(X),), batched=True, forward=forward)
    assert report.verdict is Verdict.WRONG
    assert kinds(report)[0] == "batched"
    assert fastcheck.jax.check_function(function, (jnp.asarray(X),), forward=forward).passed


TORCHS = {
    "relu": lambda x: torch.relu(x - 1),
    "abs": torch.abs,  # whose second derivative torch does not store
    "softmax": lambda x: torch.softmax(x, -1),
    "layer norm": lambda x: torch.nn.functional.layer_norm(x, (2,)),
    "norm": lambda x: x.norm(dim=1),
    "sorted": lambda x: x.sort(0)[0],
    "indexed": lambda x: x[[0, 0, 2]],
    "pooled": lambda x: torch.nn.functional.max_pool1d(x.T[None], 2),
    "singular values": torch.linalg.svdvals,
    "spectrum": lambda x: torch.fft.rfft(x, dim=0).abs(),
    "attention": lambda x: torch.nn.functional.scaled_dot_product_attention(x[None], x[None], x[None]),
    "in place": lambda x: x.mul_(2).sin_(),
    "empty": lambda x: (x**2, x[:0]),
}


@pytest.mark.parametrize("name", TORCHS)
def test_torchs_own_functions_pass(name):
    both = {"order": 2, "forward": True}  # for which vmap of torch lacks some rules
    for options in ({"order": 2, "batched": True}, {"forward": True, "batched": True}, both):
        report = fastcheck.torch.check_function(TORCHS[name], torch.tensor(X), **options)
        assert report.passed, str(report)
