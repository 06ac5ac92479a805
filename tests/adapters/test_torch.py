"""Gradients of torch: modules, closures, custom functions; and that everything is given back as it was."""

from __future__ import annotations

import copy
import sys
from contextlib import suppress

import numpy as np
import pytest

import fastcheck
from fastcheck.errors import GradientError, InputError, LossError, MissingDependencyError
from fastcheck.judge.verdict import Verdict
from tests.adapters.functions import square_off_in
from tests.adapters.processes import printed

torch = pytest.importorskip("torch")
nn, F = torch.nn, torch.nn.functional


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def cross_entropy(model, X, y):
    return F.cross_entropy(model(X), y)


def batch(n=16, width=6, classes=3, dtype=torch.float64):
    return torch.randn(n, width, dtype=dtype), torch.randint(0, classes, (n,))


def net(*, dtype=torch.float64, norm=nn.BatchNorm1d):
    return nn.Sequential(nn.Linear(6, 5), norm(5), nn.Tanh(), nn.Linear(5, 3)).to(dtype)


def kinds(report):
    return [finding.kind for finding in report.findings]


class Scaled(torch.autograd.Function):
    """sin(x) w, with a backward pass whose entry 7 by x is wrong."""

    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return torch.sin(x) * w

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        by_x = torch.cos(x) * w * g
        by_x[..., 7] *= -1
        return by_x, (torch.sin(x) * g).reshape(-1, 10).sum(0)


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(10, dtype=torch.float64))
        self.gain = nn.Parameter(torch.randn(10, dtype=torch.float64))

    def forward(self, x):
        return Scaled.apply(x * self.weight, self.gain)


def squares(model, x):
    return (model(x) ** 2).mean()


# Modules


@pytest.mark.parametrize("mode", ["full", "screen"])
def test_a_right_module_passes(mode):
    model, (X, y) = net(norm=nn.LayerNorm), batch()
    report = fastcheck.torch.check(cross_entropy, model, args=(X, y), mode=mode)
    assert report.verdict is Verdict.CORRECT, str(report)
    assert list(report.blocks) == [name for name, _ in model.named_parameters()]
    if mode == "full":
        cross_entropy(model, X, y).backward()
        for name, p in model.named_parameters():
            np.testing.assert_allclose(report.numerical[name], p.grad.numpy(), atol=1e-8)


@pytest.mark.parametrize("mode", ["full", "screen"])
def test_a_wrong_custom_function_is_found_and_named(mode):
    x = torch.randn(4, 10, dtype=torch.float64)
    report = fastcheck.torch.check(squares, Layer(), args=(x,), mode=mode)
    assert report.verdict is Verdict.WRONG
    assert [c.name for c in report.wrong] == ["weight[7]"]
    assert report.blocks["gain"].verdict is Verdict.CORRECT


def test_a_closure_and_parameters_it_got_hold_of_elsewhere():
    model, (X, y) = net(norm=nn.LayerNorm), batch()
    weights = [p for p in model.parameters() if p.ndim == 2]

    def loss():
        return cross_entropy(model, X, y) + 0.1 * sum((w**2).sum() for w in weights)

    report = fastcheck.torch.check(loss, model, mode="full")
    assert report.verdict is Verdict.CORRECT, str(report)
    without = fastcheck.torch.check(cross_entropy, model, args=(X, y), mode="full")
    expected = without.numerical["0.weight"] + 0.2 * model[0].weight.detach().numpy()
    np.testing.assert_allclose(report.numerical["0.weight"], expected, atol=1e-7)


def test_a_tree_of_tensors():
    tree = {"a": [torch.randn(3, 2), torch.randn(2)], "b": torch.randn((), requires_grad=True)}
    tree["a"][0].requires_grad_()
    report = fastcheck.torch.check(lambda p: (p["a"][0] @ p["a"][1]).sum().tanh() * p["b"], tree)
    assert report.verdict is Verdict.CORRECT
    assert list(report.blocks) == ["a.0", "b"]
    alone = torch.randn(4, dtype=torch.float64, requires_grad=True)
    assert fastcheck.torch.check(lambda w: w.sin().sum(), alone).verdict is Verdict.CORRECT


def test_frozen_parameters_are_left_out_and_said_and_tied_ones_are_one_block():
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)).double()
    model[2].weight = model[0].weight
    model[0].bias.requires_grad_(False)
    X, y = batch(8, 4, 4)
    report = fastcheck.torch.check(cross_entropy, model, args=(X, y))
    assert report.verdict is Verdict.CORRECT
    assert list(report.blocks) == ["0.weight", "2.bias"]
    assert next(f for f in report.findings if f.kind == "frozen").evidence["names"] == ("0.bias",)


def test_a_parameter_the_loss_does_not_use_is_right_without_a_gradient():
    model = nn.ModuleDict({"used": nn.Linear(3, 1), "unused": nn.Linear(3, 1)}).double()
    report = fastcheck.torch.check(lambda m, x: m["used"](x).pow(2).mean(), model, args=(batch(5, 3)[0],))
    assert report.blocks["unused.weight"].verdict is Verdict.CORRECT
    assert "constant" in [finding.kind for finding in report.findings]
    assert report.blocks["used.weight"].verdict is Verdict.CORRECT


def test_recurrent_sparse_and_convolutional_modules():
    lstm, sequences = nn.LSTM(3, 4, batch_first=True), torch.randn(2, 5, 3)
    assert fastcheck.torch.check(lambda m, x: m(x)[0].pow(2).mean(), lstm, args=(sequences,), mode="screen").passed
    table, words = nn.Embedding(7, 3, sparse=True), torch.tensor([[1, 2], [2, 6]])
    assert fastcheck.torch.check(lambda m, x: m(x).sum(1).sin().mean(), table, args=(words,)).passed
    conv = nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)
    assert fastcheck.torch.check(lambda m, x: m(x).sin().mean(), conv, args=(torch.randn(2, 2, 5, 5),)).passed


def test_a_loss_that_differentiates_inside():
    model, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double(), torch.rand(6, 3).double()

    def residual(model, x):
        x = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        return ((slope.sum(dim=1) - 1) ** 2).mean()

    report = fastcheck.torch.check(residual, model, args=(x,))
    assert report.passed
    assert report.blocks["0.weight"].verdict is Verdict.CORRECT


def test_a_gradient_of_ones_own_and_its_diagnosis():
    model, (X, y) = net(norm=nn.LayerNorm), batch()

    def without_the_last(model, X, y):
        loss = F.cross_entropy(model(X[:-1]), y[:-1], reduction="sum") / len(y)
        return dict(zip(dict(model.named_parameters()), torch.autograd.grad(loss, model.parameters()), strict=True))

    report = fastcheck.torch.check(cross_entropy, model, args=(X, y), gradient=without_the_last, mode="full")
    assert report.verdict is Verdict.WRONG
    assert "sample_missing" in kinds(report)  # it took the batch apart


# Random draws, state


def test_dropout_is_reported_with_its_remedy_and_may_be_fixed():
    model, (X, y) = nn.Sequential(nn.Linear(6, 5), nn.Dropout(0.5), nn.Linear(5, 3)).double(), batch()
    report = fastcheck.torch.check(cross_entropy, model, args=(X, y))
    assert report.verdict is Verdict.CORRECT
    assert "torch's global generator" in report.findings[kinds(report).index("replayed")].message
    single = copy.deepcopy(model).float()  # its own precision has to be compared with the same draws
    report = fastcheck.torch.check(cross_entropy, single, args=(X.float(), y))
    assert report.verdict is Verdict.CORRECT
    assert {"replayed", "own_precision"} <= set(kinds(report))
    report = fastcheck.torch.check(cross_entropy, model, args=(X, y), replay=False)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert kinds(report) == ["random_loss", "dropout"]
    assert report.findings[1].evidence["modules"] == ["1"]
    assert "model.eval()" in report.findings[1].message
    assert fastcheck.torch.check(cross_entropy, model, args=(X, y), fixed_rng=True).verdict is Verdict.CORRECT
    assert fastcheck.torch.check(cross_entropy, model.eval(), args=(X, y)).verdict is Verdict.CORRECT


def test_fixed_draws_in_float32_accuse_nobody():
    model, (X, y) = nn.Sequential(nn.Linear(6, 5), nn.Dropout(0.5), nn.Linear(5, 3)), batch(dtype=torch.float32)
    report = fastcheck.torch.check(cross_entropy, model, args=(X, y), fixed_rng=True)
    assert report.verdict not in (Verdict.WRONG, Verdict.SUSPICIOUS), str(report)

    def other(w):
        return ((w * torch.randn(32, dtype=w.dtype)) ** 2).sum()  # other draws in float64

    report = fastcheck.torch.check(other, torch.ones(32, requires_grad=True), fixed_rng=True)
    assert report.verdict not in (Verdict.WRONG, Verdict.SUSPICIOUS), str(report)
    assert "another function" in next(f.message for f in report.findings if f.kind == "low_precision")


@pytest.mark.parametrize("train", [True, False])
def test_batch_normalisation_starts_from_the_same_statistics(train):
    model, (X, y) = net().train(train), batch()
    model(X + 3)  # the statistics are no longer those of the start
    report = fastcheck.torch.check(cross_entropy, model, args=(X, y))
    assert report.blocks["1.weight"].verdict is Verdict.CORRECT
    assert report.blocks["0.weight"].verdict is Verdict.CORRECT
    assert not {"stateful_loss", "random_loss"} & set(kinds(report))
    # In front of a batch normalisation a bias does nothing, and its gradient is what rounding leaves of zero.
    assert report.blocks["0.bias"].verdict is Verdict.CORRECT
    assert ("constant" in kinds(report)) == train


@pytest.mark.parametrize(
    ("norm", "seed"), [("batch", 7), ("batch", 19), ("instance", 5), ("instance", 22), ("group", 3)]
)
@pytest.mark.parametrize("mode", ["full", "screen"])
def test_a_bias_that_a_normalisation_takes_out_is_told_also_where_the_loss_is_noisier_than_at_theta(seed, mode, norm):
    norms = {
        "batch": nn.BatchNorm2d,
        "instance": nn.InstanceNorm2d,
        "group": lambda channels: nn.GroupNorm(2, channels),
    }
    torch.manual_seed(seed)
    norm = norms[norm]
    layers = [nn.Conv2d(3, 2, 1), norm(2), nn.Tanh(), nn.Conv2d(2, 2, 1), norm(2), nn.Tanh(), nn.Flatten()]
    model = nn.Sequential(*layers, nn.Linear(200, 3)).double()
    X, y = torch.randn(2, 3, 10, 10).double(), torch.randint(3, (2,))
    report = fastcheck.torch.check(cross_entropy, model, args=(X, y), mode=mode)
    assert report.verdict is Verdict.CORRECT
    assert {"0.bias", "3.bias"} == set(next(f for f in report.findings if f.kind == "constant").evidence["constant"])
    cross_entropy(model, X, y).backward()
    wrong = {name: p.grad * (name != "7.bias") for name, p in model.named_parameters()}
    report = fastcheck.torch.check(cross_entropy, model, args=(X, y), gradient=wrong, mode=mode)
    assert report.blocks["7.bias"].verdict.refuted


@pytest.mark.parametrize("in_place", [True, False])
def test_buffers_that_the_loss_depends_on(in_place):
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3, dtype=torch.float64))
            self.register_buffer("seen", torch.zeros((), dtype=torch.float64))

        def forward(self):
            self.seen = self.seen.add_(1) if in_place else self.seen + 1
            return (self.weight**2).sum() * self.seen

    model = Counts()
    buffer = model.seen
    report = fastcheck.torch.check(lambda m: m(), model)
    assert report.verdict is Verdict.CORRECT
    assert model.seen is buffer
    assert buffer.item() == 0


def state_of(model):
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    grads = {name: p.grad for name, p in model.named_parameters()}
    return {
        "objects": {name: (id(t), t.data_ptr(), t.dtype, t.requires_grad) for name, t in tensors.items()},
        "bytes": {name: t.detach().numpy().tobytes() for name, t in tensors.items()},
        "grads": {name: None if g is None else (id(g), g.data_ptr(), g.numpy().tobytes()) for name, g in grads.items()},
        "modes": [module.training for module in model.modules()],
        "rng": torch.get_rng_state().numpy().tobytes(),
        "threads": torch.get_num_threads(),
        "default": torch.get_default_dtype(),
        "grad mode": torch.is_grad_enabled(),
    }


def raising(model, X, y):
    if not torch.equal(model[0].weight[0, 0], raising.at):
        raise RuntimeError("not here")
    return cross_entropy(model, X, y)


def changes_mode(model, X, y):
    loss = cross_entropy(model, X, y)
    model[1].train(False)
    return loss


def interrupted(model, X, y):
    interrupted.calls += 1
    if interrupted.calls > 20:
        raise KeyboardInterrupt
    return cross_entropy(model, X, y)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("loss", [cross_entropy, raising, changes_mode, interrupted])
def test_all_is_left_as_it_was(dtype, loss):
    model, (X, y) = net(dtype=dtype), batch(dtype=dtype)
    model.append(nn.Dropout(0.1).eval())
    model[1].requires_grad_(False)
    cross_entropy(model, X, y).backward()
    pending = cross_entropy(model, X, y)  # a graph that is still to be used
    before, X_before = state_of(model), X.clone()
    raising.at = model[0].weight.detach()[0, 0].to(torch.float64).clone()
    interrupted.calls = 0
    for options in ({}, {"dtype": torch.float64}, {"fixed_rng": True}, {"throw": True}, {"threads": 2}):
        with suppress(GradientError, LossError, KeyboardInterrupt):
            fastcheck.torch.check(loss, model, args=(X, y), mode="full", blocks="3.bias", **options)
        assert state_of(model) == before, options
    assert torch.equal(X, X_before)
    pending.backward()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_loss_that_changes_its_parameters_changes_none_of_the_owner(dtype):
    model, (X, y) = net(norm=nn.LayerNorm, dtype=dtype), batch(dtype=dtype)

    def loss(model, X, y):
        with torch.no_grad():
            model[0].weight.data.mul_(0.9)
        return cross_entropy(model, X, y)

    before = state_of(model)
    report = fastcheck.torch.check(loss, model, args=(X, y))
    assert report.verdict is Verdict.INCONCLUSIVE
    assert "loss_changes_params" in kinds(report)
    assert state_of(model) == before


def test_a_loss_that_changes_its_data_is_named():
    model, (X, y) = net(norm=nn.LayerNorm), batch()
    report = fastcheck.torch.check(lambda m, X, y: cross_entropy(m, X.add_(1e-3), y), model, args=(X, y))
    assert kinds(report)[0] == "loss_changes_args"


# Precision


def test_float32_is_checked_in_double_and_compared():
    model, (X, y) = net(dtype=torch.float32, norm=nn.LayerNorm), batch(dtype=torch.float32)
    report = fastcheck.torch.check(cross_entropy, model, args=(X, y))
    assert report.verdict is Verdict.CORRECT
    finding = next(f for f in report.findings if f.kind == "own_precision")
    assert "Checked in float64, on a copy of the float32 parameters" in finding.message
    assert 0 < max(finding.evidence["errors"].values()) < 1e-5
    double = fastcheck.torch.check(cross_entropy, model, args=(X, y), dtype="float64")
    assert "converted" in kinds(double)
    assert double.verdict is Verdict.CORRECT


def test_a_function_that_takes_float32_alone_is_checked_in_it():
    class Single(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            if x.dtype != torch.float32:
                raise TypeError("this kernel has float32 only")
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx, g):
            return -3 * ctx.saved_tensors[0] ** 2 * g

    w = torch.linspace(0.5, 2, 8).requires_grad_()
    report = fastcheck.torch.check(lambda w: Single.apply(w).sum(), w)
    assert report.verdict is Verdict.WRONG
    assert "low_precision" in kinds(report)
    with pytest.raises(LossError, match="float32 only"):
        fastcheck.torch.check(lambda w: Single.apply(w).sum(), w, dtype=torch.float64)


def test_a_gradient_that_is_wrong_in_float32_alone_does_not_pass():
    w = torch.linspace(0.5, 2, 8).requires_grad_()
    report = fastcheck.torch.check(lambda w: square_off_in(torch.float32, 1.05)(w).sum(), w)
    assert report.verdict is Verdict.SUSPICIOUS
    assert kinds(report)[0] == "own_precision"


@pytest.mark.parametrize("factor", [1.0, 1.001])
def test_the_grad_that_is_there(factor):
    """After a bias that a batch normalisation cancels, float32 leaves a rounding in .grad, which is no error."""
    model, (X, y) = net(dtype=torch.float32), batch(64, dtype=torch.float32)
    cross_entropy(model, X, y).backward()
    gradient = {name: p.grad for name, p in model.named_parameters()}
    assert gradient["0.bias"].abs().max() > 0
    gradient["3.weight"] = factor * gradient["3.weight"]
    report = fastcheck.torch.check(cross_entropy, model, args=(X, y), gradient=gradient)
    assert report.verdict is (Verdict.SUSPICIOUS if factor > 1 else Verdict.CORRECT), str(report)
    gradient["3.bias"] = None
    report = fastcheck.torch.check(cross_entropy, model, args=(X, y), gradient=gradient)
    assert report.blocks["3.bias"].verdict is Verdict.WRONG


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("mode", ["full", "screen"])
def test_no_right_gradient_is_called_wrong(seed, mode):
    torch.manual_seed(seed)
    activation = [nn.Tanh, nn.ReLU, nn.GELU, nn.SiLU][seed % 4]
    norm = [nn.BatchNorm1d(12), nn.LayerNorm(12), nn.Identity()][seed % 3]
    model = nn.Sequential(nn.Linear(6, 12), norm, activation(), nn.Linear(12, 8), activation(), nn.Linear(8, 3))
    X, y = batch(32, dtype=torch.float32)
    report = fastcheck.torch.check(cross_entropy, model, args=(X, y), mode=mode)
    assert report.verdict not in (Verdict.WRONG, Verdict.SUSPICIOUS), str(report)


# What gradcheck's fast mode does not see


def flipped(index):
    class Mean(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, c):
            ctx.save_for_backward(x, c)
            return (torch.sin(x) * c).mean()

        @staticmethod
        def backward(ctx, g):
            x, c = ctx.saved_tensors
            by_x = g * torch.cos(x) * c / len(x)
            by_x[index] *= -1
            return by_x, None

    return Mean


def test_one_flipped_coordinate_of_a_mean_passes_gradcheck_fast_but_not_here():
    x = torch.randn(1000, dtype=torch.float64, requires_grad=True)
    c = torch.randn(1000, dtype=torch.float64)
    mean = flipped(123).apply
    assert torch.autograd.gradcheck(mean, (x, c), fast_mode=True)
    for mode in ("full", "screen"):
        report = fastcheck.torch.check_function(mean, (x, c), mode=mode)
        assert report.verdict is Verdict.WRONG
        assert [wrong.name for wrong in report.wrong] == ["x[123]"]


def test_a_block_of_half_its_size_passes_gradcheck_fast_but_not_here():
    class Halved(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, w):
            ctx.save_for_backward(x, w)
            return (torch.sin(x) * w).mean()

        @staticmethod
        def backward(ctx, g):
            x, w = ctx.saved_tensors
            return g * torch.cos(x) * w / len(x), 0.5 * g * torch.sin(x) / len(x)

    x, w = (torch.randn(10_000, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(Halved.apply, (x, w), fast_mode=True)
    report = fastcheck.torch.check_function(Halved.apply, (x, w), mode="screen")
    assert report.verdict is Verdict.WRONG
    assert report.blocks["w"].verdict is Verdict.WRONG
    assert report.blocks["x"].verdict is Verdict.CORRECT
    assert "factor" in kinds(report)


# Functions


def test_functions_of_several_outputs():
    x, w = (torch.randn(10, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert fastcheck.torch.check_function(lambda x, w: (x * w, (x / (1 + w**2)).sum(), x.argmax()), (x, w)).passed
    report = fastcheck.torch.check_function(Scaled.apply, (x, w))
    assert report.verdict is Verdict.WRONG
    assert [c.name for c in report.wrong] == ["x[7]"]
    assert report.blocks["w"].verdict is Verdict.CORRECT
    with pytest.raises(GradientError):
        fastcheck.torch.check_function(Scaled.apply, (x, w), throw=True)


def test_the_output_that_is_wrong_is_named():
    class Two(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.sum(), (x**2).sum()

        @staticmethod
        def backward(ctx, g, h):
            (x,) = ctx.saved_tensors
            return g * torch.ones_like(x) + h * x

    report = fastcheck.torch.check_function(Two.apply, torch.rand(5, dtype=torch.float64))
    assert report.verdict is Verdict.WRONG
    assert report.findings[0].kind == "outputs"
    assert report.findings[0].evidence == {"outputs": ["output 1"], "others_agree": True}


def test_a_backward_pass_that_ignores_what_it_is_given():
    class Ignores(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return (x**2).sum()

        @staticmethod
        def backward(ctx, g):
            return 2 * ctx.saved_tensors[0]

    report = fastcheck.torch.check_function(Ignores.apply, torch.rand(5, dtype=torch.float64))
    assert report.verdict is Verdict.WRONG
    assert kinds(report)[0] == "vector_ignored"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_backward_pass_that_writes_to_what_it_is_given(dtype):
    class InPlace(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.sin()

        @staticmethod
        def backward(ctx, g):
            return g.mul_(ctx.saved_tensors[0].cos())

    def branches(x):
        return (x.cos() + InPlace.apply(x)) * x  # an addition hands the same upstream gradient to both

    x = torch.rand(12, dtype=dtype)
    report = fastcheck.torch.check_function(InPlace.apply, x)
    assert report.verdict is Verdict.WRONG
    assert kinds(report).count("vector_changed") == 1
    assert report.findings[0].kind == "vector_changed"
    assert report.findings[0].evidence["blocks"] == ["x"]
    assert "same upstream gradient" in report.findings[0].message
    assert fastcheck.torch.check_function(branches, x).verdict is Verdict.WRONG  # that it is, elsewhere


def test_a_function_that_draws_is_not_called_wrong_and_may_be_fixed():
    before = torch.get_rng_state()
    for size in (1, 2, 30):
        x = torch.randn(size, dtype=torch.float64)
        for _ in range(4):
            report = fastcheck.torch.check_function(F.dropout, x)
            assert report.verdict is Verdict.INCONCLUSIVE, str(report)
    assert "random_loss" in kinds(report)
    torch.set_rng_state(before)
    assert fastcheck.torch.check_function(F.dropout, x, fixed_rng=True).verdict is Verdict.CORRECT
    assert torch.equal(torch.get_rng_state(), before)


def test_the_report_says_how_a_function_was_called(tmp_path):
    x = torch.rand(3, dtype=torch.float32)
    report = fastcheck.torch.check_function(torch.sin, x, dtype="float64", fixed_rng=True, seed=5)
    said = report.save(tmp_path / "r.html").read_text()
    assert "fastcheck.torch.check_function(function, inputs, dtype=&#39;float64&#39;, fixed_rng=True, seed=5)" in said


def test_functions_in_float32_and_with_other_arguments():
    x, index = torch.randn(4, 3), torch.tensor([0, 2, 2])
    report = fastcheck.torch.check_function(lambda x, index, power: x[index] ** power, (x, index, 2))
    assert report.verdict is Verdict.CORRECT
    assert list(report.blocks) == ["x"]
    assert "own_precision" in kinds(report)
    assert not x.requires_grad


CHECKPOINTED = """
import sys, torch, fastcheck
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.BatchNorm1d(5), torch.nn.Linear(5, 3)).double()
args = torch.randn(16, 6, dtype=torch.float64), torch.randint(0, 3, (16,))
loss = lambda model, X, y: torch.nn.functional.cross_entropy(model(X), y)
report = fastcheck.torch.check(loss, model, args=args, mode="full", checkpoint=sys.argv[1])
print(report.verdict.value, report.evaluations)
"""


@pytest.mark.slow
def test_a_checkpoint_is_resumed_in_another_process(tmp_path):
    path = tmp_path / "run"
    assert printed(CHECKPOINTED, path) == printed(CHECKPOINTED, path)


# Refusals


def test_bad_input():
    model, (X, y) = net(), batch()
    frozen = copy.deepcopy(model).requires_grad_(False)
    for call, message in (
        (lambda: fastcheck.torch.check(model, cross_entropy, args=(X, y)), "the loss first"),
        (lambda: fastcheck.torch.check(cross_entropy, frozen, args=(X, y)), "no parameter with requires_grad=True"),
        (lambda: fastcheck.torch.check(cross_entropy, model, args=(X, y), workers=2), "workers=2"),
        (lambda: fastcheck.torch.check(cross_entropy, model, args=X), "must be a tuple"),
        (lambda: fastcheck.torch.check(cross_entropy, model, args=(X,)), "can be called neither"),
        (lambda: fastcheck.torch.check(cross_entropy, model, args=(X, y), dtype="int64"), "dtype='int64'"),
        (lambda: fastcheck.torch.check(cross_entropy, model, args=(X, y), threads=0), "threads=0"),
        (lambda: fastcheck.torch.check(cross_entropy, model, args=(X, y), mode="all"), "mode='all'"),
        (lambda: fastcheck.torch.check(lambda p: p["a"].sum(), {"a": np.ones(3)}), "is no tensor"),
        (lambda: fastcheck.torch.check(cross_entropy, model, args=(X, y), dtype=torch.bfloat16), "reference=plain"),
        (lambda: fastcheck.torch.check(cross_entropy, copy.deepcopy(model).to("meta"), args=(X, y)), "meta device"),
        (lambda: fastcheck.torch.check_function(torch.sin, torch.ones(3, device="meta")), "x is on|input.* is on"),
        (lambda: fastcheck.torch.check_function(3, X), "is not callable"),
        (lambda: fastcheck.torch.check_function(torch.sin, X, checkpoint="run"), "checkpoint"),
        (lambda: fastcheck.torch.check_function(torch.sin, X, workers=2), "workers=2"),
        (lambda: fastcheck.torch.check_function(torch.sin, X, args=(2,)), r"args=\(2,\)"),
        (lambda: fastcheck.torch.check_function(torch.sin, X, sample=3), "no option 'sample'"),
        (lambda: fastcheck.torch.check_function(torch.sin, torch.arange(3)), "no floating tensor"),
        (lambda: fastcheck.torch.check_function(lambda x: x["a"], {"a": X}), "only dict"),
        (
            lambda: fastcheck.torch.check_function(lambda x, ws: x * ws[0], (X, [X.clone().requires_grad_()])),
            r"ws \(type=list\) holds tensors that require a gradient",
        ),
        (lambda: fastcheck.torch.check_function(lambda x: x.argmax(), X), "no tensor that depends"),
    ):
        with pytest.raises(InputError, match=message):
            call()
    with pytest.raises(LossError, match="shape"):
        fastcheck.torch.check(lambda m, X, y: m(X), model, args=(X, y))
    for made in (lambda loss: loss.item(), lambda loss: loss.detach(), lambda loss: [loss], lambda loss: loss > 0):
        for check in (fastcheck.torch.check, fastcheck.torch.check_hvp):
            with pytest.raises(LossError, match=r"which autograd can't differentiate.*gradient="):
                check(lambda m, X, y, made=made: made(cross_entropy(m, X, y)), model, args=(X, y))


def test_a_function_that_differentiates_inside():
    def slope(x):
        return torch.autograd.grad((x**3).sum(), x, create_graph=True)[0]

    for x in (torch.randn(4, dtype=torch.float64), torch.randn(4), torch.randn(4, requires_grad=True)):
        assert fastcheck.torch.check_function(slope, x).verdict is Verdict.CORRECT
    report = fastcheck.torch.check_function(lambda x: slope(x) * x.detach(), torch.randn(4, dtype=torch.float64))
    assert report.verdict is Verdict.WRONG


@pytest.mark.skipif(not hasattr(torch, "float8_e4m3fn"), reason="this torch has no float8")
def test_inputs_of_eight_bits():
    x = torch.randn(5).to(torch.float8_e4m3fn)
    assert fastcheck.torch.check_function(lambda x: x.float().sin(), x).verdict is Verdict.CORRECT
    assert fastcheck.torch.check_function(lambda x: x.float() * x.detach().float(), x).verdict is Verdict.WRONG


@pytest.mark.parametrize("params", [torch.ones(3), {"w": torch.ones(2, requires_grad=True)}, nn.Linear(2, 2)])
def test_the_check_of_numpy_points_here(params):
    with pytest.raises(InputError, match=r"fastcheck\.torch\.check\(loss, params\)"):
        fastcheck.check(lambda p: 0.0, lambda p: p, params)


def test_without_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'fastcheck\[torch\]'"):
        fastcheck.torch.check(lambda m: 0.0, object())
    with pytest.raises(MissingDependencyError, match=r"pip install 'fastcheck\[torch\]'"):
        fastcheck.torch.check_function(lambda x: x, ())


class Cosine(torch.autograd.Function):
    """A layer with a matrix of float32 of its own, used in its forward and its backward pass."""

    mix = torch.linspace(-1, 1, 9).reshape(3, 3)

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.sin(x) @ Cosine.mix

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g @ Cosine.mix.T * torch.cos(x)


@pytest.mark.parametrize("custom", [False, True])
def test_data_of_a_closure_is_widened_in_forward_and_backward(custom):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 3), torch.nn.Tanh())
    X, y = torch.randn(7, 5), torch.randn(7, 3)
    before = X.clone()
    last = Cosine.apply if custom else torch.nn.Identity()

    def loss(m):
        total = torch.zeros(())  # in-place, into a narrower tensor, as torch itself allows
        total += ((last(m(X)) - y) ** 2).mean().float()
        return ((last(m(X)) - y) ** 2).mean() + 0 * total

    report = fastcheck.torch.check(loss, model)
    assert report.verdict is Verdict.CORRECT, str(report)
    assert kinds(report) == ["own_precision"]
    assert report.uncertainty < 1e-7
    assert torch.equal(X, before)
    assert X.dtype is torch.float32


def test_a_loss_that_fails_in_every_way_says_why():
    model = torch.nn.Linear(5, 3)
    X = torch.randn(7, 4)
    with pytest.raises(fastcheck.LossError, match="shapes cannot be multiplied"):
        fastcheck.torch.check(lambda m: m(X).sum(), model)
