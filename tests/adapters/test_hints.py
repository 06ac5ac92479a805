"""Modules that are right and do not pass: the report says why."""

from __future__ import annotations

import pytest

import fastcheck
from fastcheck.judge.verdict import Verdict

torch = pytest.importorskip("torch")
nn = torch.nn


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def kinds(report):
    return [finding.kind for finding in report.findings]


def squares(model, x):
    return (model(x) ** 2).mean()


@pytest.mark.parametrize("mode", ["full", "screen"])
def test_a_spectral_norm_in_training(mode):
    normed = nn.utils.parametrizations.spectral_norm(nn.Linear(20, 25))
    model = nn.Sequential(nn.Linear(6, 20), nn.BatchNorm1d(20), nn.Tanh(), normed)
    x = torch.randn(8, 6)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = fastcheck.torch.check(squares, model, args=(x,), mode=mode)
    assert not report.passed
    assert kinds(report)[0] == "moving_buffers"
    assert report.findings[0].evidence["buffers"] == ["3.parametrizations.weight.0._v"]  # the iteration starts with it
    assert "model.eval()" in report.findings[0].message
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    report = fastcheck.torch.check(squares, model.eval(), args=(x,), mode=mode)
    assert report.verdict is Verdict.CORRECT, str(report)
    assert "moving_buffers" not in kinds(report)


def test_running_statistics_are_no_reason():
    """They are written, and the loss in training does not depend on them."""

    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 3 * x

        @staticmethod
        def backward(ctx, g):
            return 2 * g

    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 1))
    report = fastcheck.torch.check(lambda m, x: (Wrong.apply(m(x)) ** 2).mean(), model, args=(torch.randn(8, 6),))
    assert report.verdict is Verdict.WRONG
    assert "moving_buffers" not in kinds(report)


@pytest.mark.parametrize("mode", ["full", "screen"])
def test_a_padding_row_that_is_used(mode):
    table = nn.Embedding(7, 3, padding_idx=2)
    with torch.no_grad():
        table.weight[2] = torch.tensor([0.4, -0.3, 0.2])
    model, words = nn.Sequential(table, nn.Flatten(), nn.Linear(12, 1)), torch.tensor([[1, 2, 0, 3], [2, 2, 5, 6]])
    report = fastcheck.torch.check(squares, model, args=(words,), mode=mode)
    assert not report.passed
    assert kinds(report)[0] == "padding_row"
    assert report.findings[0].block == "0.weight"
    assert report.findings[0].evidence == {"row": 2, "only": True}
    unused = torch.tensor([[1, 4, 0, 3], [0, 1, 5, 6]])
    assert "padding_row" not in kinds(fastcheck.torch.check(squares, model, args=(unused,), mode=mode))

    def masked(model, words):
        return (model[2](model[1](table(words) * (words != 2)[..., None])) ** 2).mean()

    assert fastcheck.torch.check(masked, model, args=(words,), mode=mode).passed


def test_bounds_go_through():
    """No evaluation leaves them, of tensors by name, also where it is converted to float64."""

    def loss(p):
        assert (p["rate"] >= 0).all()
        return (p["rate"] ** 2 + p["rate"]).sum() * p["other"]

    for dtype in (torch.float64, torch.float32):
        params = {"rate": torch.tensor([0.0, 0.5], dtype=dtype), "other": torch.tensor(2.0, dtype=dtype)}
        params = {name: value.requires_grad_() for name, value in params.items()}
        report = fastcheck.torch.check(loss, params, bounds=({"rate": 0}, None))
        assert report.verdict is Verdict.CORRECT, str(report)
        assert report.settings["call"].endswith("bounds=bounds")
