"""Ways in which autograd calls a backward pass: what only some of them show."""

from __future__ import annotations

import pytest

import fastcheck
from fastcheck.judge.verdict import Verdict

torch = pytest.importorskip("torch")


def kinds(report):
    return [finding.kind for finding in report.findings]


def made(forward, backward):
    return type(
        "Made", (torch.autograd.Function,), {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    )


def _square(ctx, x):
    ctx.save_for_backward(x)
    return x**2


def _as_contiguous(ctx, g):
    (x,) = ctx.saved_tensors
    return 2 * x * g.as_strided(g.shape, torch.empty(g.shape).stride()) if g.untyped_storage().nbytes() > 8 else 0 * x


@pytest.mark.parametrize("shape", [(4, 3), (6,)])
def test_a_backward_that_reads_memory_as_contiguous(shape):
    x = torch.rand(shape, dtype=torch.float64)
    report = fastcheck.torch.check_function(made(_square, _as_contiguous).apply, x)
    assert report.verdict is Verdict.WRONG
    assert kinds(report)[0] == "cotangent_layout"
    assert kinds(report).count("cotangent_layout") == 2  # transposed and expanded
    right = made(_square, lambda ctx, g: 2 * ctx.saved_tensors[0] * g)
    assert fastcheck.torch.check_function(right.apply, x).verdict is Verdict.CORRECT


@pytest.mark.parametrize("right", [True, False])
def test_gradients_that_are_none(right):
    def forward(ctx, x):
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x)
        return x**2, x**3

    def backward(ctx, g, h):
        (x,) = ctx.saved_tensors
        if right:
            return (0 if g is None else 2 * x * g) + (0 if h is None else 3 * x**2 * h)
        return 2 * x * g + 3 * x**2 * h

    report = fastcheck.torch.check_function(made(forward, backward).apply, torch.rand(4, dtype=torch.float64))
    assert report.passed is right
    if not right:
        assert kinds(report)[:2] == ["unused_output"] * 2
        assert "raises TypeError" in report.findings[0].message


@pytest.mark.parametrize("right", [True, False])
def test_one_input_alone_that_requires_a_gradient(right):
    def forward(ctx, x, w):
        ctx.save_for_backward(x if right or ctx.needs_input_grad[0] else w, w)
        return x * w

    def backward(ctx, g):
        x, w = ctx.saved_tensors
        return g * w, g * x

    x, w = (torch.rand(4, dtype=torch.float64) for _ in range(2))
    report = fastcheck.torch.check_function(made(forward, backward).apply, (x, w))
    assert report.passed is right
    if not right:
        assert kinds(report)[0] == "needs_input_grad"
        assert report.blocks["w"].verdict is Verdict.WRONG
        assert report.blocks["x"].verdict is Verdict.CORRECT


@pytest.mark.parametrize("marked", [True, False])
def test_an_input_that_is_written_to(marked):
    def forward(ctx, x):
        if marked:
            ctx.mark_dirty(x)
            return x.mul_(2)
        x.mul_(2)
        return x.clone()

    report = fastcheck.torch.check_function(
        made(forward, lambda ctx, g: 2 * g).apply, torch.rand(4, dtype=torch.float64)
    )
    assert report.passed is marked, str(report)
    assert ("not_marked_dirty" in kinds(report)) is not marked


def test_dict_outputs_and_inputs_left_out():
    x, c = torch.rand(4, dtype=torch.float64, requires_grad=True), torch.rand(4, dtype=torch.float64)
    report = fastcheck.torch.check_function(lambda x, c: {"y": x * c, "loss": (x**2).sum(), "n": 3}, (x, c))
    assert report.verdict is Verdict.CORRECT
    assert {"output loss", "output y"} <= set(report.settings["cotangents"]) or len(report.settings["cotangents"]) > 1
    (left,) = (finding for finding in report.findings if finding.kind == "frozen")
    assert left.evidence["names"] == ("c",)


def test_a_backward_pass_that_raises_without_a_word():
    def forward(ctx, x):
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x)
        return x**2, x**3

    def backward(ctx, g, h):
        if g is None or h is None:
            raise NotImplementedError
        (x,) = ctx.saved_tensors
        return 2 * x * g + 3 * x**2 * h

    report = fastcheck.torch.check_function(made(forward, backward).apply, torch.rand(4, dtype=torch.float64))
    assert kinds(report)[:2] == ["unused_output"] * 2
    assert "raises NotImplementedError when" in report.findings[0].message
