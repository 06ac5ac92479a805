"""A torch module that is a stack of known layers is measured as a Network, where that pays."""

from __future__ import annotations

import numpy as np
import pytest

import fastcheck
from fastcheck import Verdict

torch = pytest.importorskip("torch")

import torch.nn as nn  # noqa: E402
import torch.nn.functional as F  # noqa: E402

from fastcheck.adapters import described  # noqa: E402


@pytest.fixture(autouse=True)
def always(monkeypatch):
    """Let it pay for the smallest of nets."""
    monkeypatch.setattr(described, "PAYS", 0.0)


def cross_entropy(model, X, y):
    return F.cross_entropy(model(X), y)


def batch(features=6, classes=3, size=8):
    generator = torch.Generator().manual_seed(4)
    X = torch.randn(size, features, generator=generator, dtype=torch.float64)
    return X, torch.arange(size) % classes


def stack(*layers):
    torch.manual_seed(2)
    made = [layer() if callable(layer) and not isinstance(layer, nn.Module) else layer for layer in layers]
    return nn.Sequential(*made).double()


MLP = (lambda: nn.Linear(6, 5), nn.Tanh(), lambda: nn.Linear(5, 3))
IMAGES = (lambda: nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), lambda: nn.Linear(8, 3))
STACKS = {
    "tanh": (MLP, cross_entropy, batch()),
    "relu": ((lambda: nn.Linear(6, 9), nn.ReLU(), lambda: nn.Linear(9, 3)), cross_entropy, batch()),
    "sum": (MLP, lambda model, X, y: F.cross_entropy(model(X), y, reduction="sum"), batch()),
    "squares": (MLP, lambda model, X, y: F.mse_loss(model(X), y), (batch()[0], torch.randn(8, 3).double())),
    "norm": ((lambda: nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), lambda: nn.Linear(5, 3)), cross_entropy, batch()),
    "images": (IMAGES, cross_entropy, (batch(36)[0].view(-1, 1, 6, 6), batch()[1])),
}


def by_layers(report):
    return "described" in [finding.kind for finding in report.findings]


@pytest.mark.parametrize("name", STACKS)
def test_it_measures_what_evaluations_of_the_loss_do(name, monkeypatch):
    layers, loss, args = STACKS[name]
    model = stack(*layers)
    report = fastcheck.torch.check(loss, model, args=args, mode="full")
    assert by_layers(report)
    assert report.passed
    assert report.evaluations < 200
    monkeypatch.setattr(described, "PAYS", np.inf)
    evaluated = fastcheck.torch.check(loss, model, args=args, mode="full")
    assert not by_layers(evaluated)
    for name, n in report.numerical.items():
        apart = np.linalg.norm(n - evaluated.numerical[name])
        assert apart <= 1e-6 * np.linalg.norm(n) + 1e-9


def test_single_precision_is_measured_in_double():
    model = stack(*MLP).float()
    X, y = batch()
    report = fastcheck.torch.check(cross_entropy, model, args=(X.float(), y))
    assert by_layers(report)
    assert report.uncertainty < 1e-10
    assert "own_precision" in [finding.kind for finding in report.findings]


def test_a_wrong_gradient_is_accused_by_its_loss_alone():
    model, args = stack(*MLP), batch()
    model[2].weight.register_hook(lambda g: 1.05 * g)
    report = fastcheck.torch.check(cross_entropy, model, args=args, mode="full")
    assert report.verdict is Verdict.WRONG
    assert not by_layers(report)
    assert report.findings[0].kind == "factor"
    assert str(report).endswith("to repeat: fastcheck.torch.check(loss, model, args=args, mode='full', seed=0)")


def test_a_term_too_small_to_be_seen_makes_no_alarm():
    model, args = stack(lambda: nn.Linear(6, 5), nn.ReLU(), lambda: nn.Linear(5, 3)), batch()
    with torch.no_grad():
        model[0].bias[2] = -100.0  # a dead unit: the penalty is all of its gradient

    def penalised(model, X, y):
        return cross_entropy(model, X, y) + 1e-13 * sum(p.square().sum() for p in model.parameters())

    report = fastcheck.torch.check(penalised, model, args=args, mode="full")
    assert not report.verdict.refuted, str(report)


class Other(nn.Module):
    def forward(self, x):
        return torch.tanh(x)


def test_what_is_no_stack_of_known_layers_is_evaluated():
    args = batch()
    held = stack(*MLP)
    parameters = list(held.parameters())
    frozen = stack(*MLP)
    frozen[0].bias.requires_grad_(False)
    for model, loss, options in (
        (stack(lambda: nn.Linear(6, 5), Other(), lambda: nn.Linear(5, 3)), cross_entropy, {}),
        (held, lambda model, X, y: cross_entropy(model, X, y) + 0.1 * sum(p.square().sum() for p in parameters), {}),
        (stack(*MLP), lambda model, X, y: cross_entropy(model, X, y) * model(X).square().mean(), {}),
        (frozen, cross_entropy, {}),
        (stack(*MLP), cross_entropy, {"mode": "screen"}),
        (stack(*MLP), cross_entropy, {"mode": "full", "step": 1e-5}),
        (stack(*MLP), cross_entropy, {"scheme": "richardson"}),
    ):
        report = fastcheck.torch.check(loss, model, args=args, **options)
        assert report.passed, str(report)
        assert not by_layers(report)


def test_the_module_is_given_back_as_it_was():
    model, args = stack(*STACKS["norm"][0]), batch()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert by_layers(fastcheck.torch.check(cross_entropy, model, args=args))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
