"""The rounding that a network states: that of the terms its slopes are sums of, however little is left of them."""

from __future__ import annotations

import numpy as np
import pytest

import fastcheck
from fastcheck.networks import BatchNorm, Dense, LayerNorm, Network
from fastcheck.networks.losses import LOSSES
from fastcheck.networks.operators import Change, Softmax
from fastcheck.networks.unweighted import Normalise
from fastcheck.networks.windows import mark_duplicates
from fastcheck.parameters import Parameters

from . import naive
from .nets import Case, smooth_cases

TERMS = (Softmax, Normalise)  # whose slopes are sums even where one input moves one output


def forward_of(case: Case):
    layout, bound = Parameters.of(case.params), case.net.bind(case.x, case.y)
    forward = case.net.forward(layout.flatten(case.params), layout, bound.x, bound.y)
    mark_duplicates(forward.operators, bound.x)
    return forward


def slopes(operator, samples):
    """Return the slopes of every output by every input, of each sample by itself: (outputs, inputs, samples)."""
    n, far = int(np.prod(operator.inputs)), np.zeros((1, samples), np.uint8)
    found = []
    for k in range(n):
        d = np.zeros((n, 1, 1, samples))
        d[k] = 2.0**-40
        moved = operator.fast(Change(d.reshape(*operator.inputs, 1, 1, samples)), far)
        found.append(moved.everywhere(operator.out.shape[:-1]).reshape(-1, samples) * 2.0**40)
    return np.stack(found, axis=1)


@pytest.mark.parametrize("case", list(smooth_cases()), ids=str)
def test_squares_below_are_of_all_terms(case):
    rng, forward = np.random.default_rng(0), forward_of(case)
    for operator in forward.operators[1:]:
        squares = rng.random(operator.out.shape)
        if getattr(operator, "inner", ()):
            continue  # a residual connection has no terms of its own: its inner operators' are added
        if isinstance(operator, TERMS):
            expected = sum_of_terms(operator, squares)
        else:
            by = slopes(operator, squares.shape[-1])
            expected = np.einsum("kib,kb->ib", by**2, squares.reshape(len(by), -1)).reshape(*operator.inputs, -1)
        np.testing.assert_allclose(operator.squares_below(squares), expected, rtol=1e-9, atol=1e-30)
    loss, (outputs, samples) = forward.loss, forward.loss.slopes().shape
    d = 2.0**-40 * np.eye(outputs)[:, :, None] * np.ones(samples)
    np.testing.assert_allclose(
        loss.fast(d, np.zeros((outputs, samples), np.uint8)) * 2.0**40, loss.slopes(), rtol=1e-9, atol=1e-12
    )


def sum_of_terms(operator, squares):
    """Add up the squares of the terms of p (g - sum p g), and of (g - mean g - x mean x g) / deviation, by loops."""
    found = np.zeros(squares.shape)
    if isinstance(operator, Softmax):
        for i in range(len(found)):
            others = sum(operator.out[k] ** 2 * squares[k] for k in range(len(found)))
            found[i] = operator.out[i] ** 2 * (squares[i] + others)
        return found
    groups = np.broadcast_to(np.arange(operator.deviation.size).reshape(operator.deviation.shape), squares.shape)
    deviation = np.broadcast_to(operator.deviation, squares.shape)
    for at in np.ndindex(squares.shape):
        together = [j for j in np.ndindex(squares.shape) if groups[j] == groups[at]]
        terms = [squares[at]]
        terms += [squares[j] / len(together) ** 2 for j in together]
        terms += [(operator.out[at] * operator.out[j] / len(together)) ** 2 * squares[j] for j in together]
        found[at] = sum(terms) / deviation[at] ** 2
    return found


def of_two(kind, size, seed):
    """Return a net with a normalisation over two numbers, or a softmax that is sure, and its gradient by hand."""
    rng = np.random.default_rng(seed)
    samples, units = (2, 5) if kind == "batch" else (6, 2) if kind == "layer" else (6, 5)
    x, w, b = rng.normal(size=(samples, 4)), size * rng.normal(size=(units, 4)), rng.normal(size=units)
    z = x @ w.T + b
    if kind == "softmax":
        y = np.eye(units)[rng.integers(0, units, samples)]
        p = np.exp(z - z.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        g = (p - y) / samples
        dz = p * (g - (p * g).sum(axis=1, keepdims=True))
        net, params, gradient = [Dense("W1", "b1", "softmax")], {}, {}
    else:
        axis, layer = (0, BatchNorm) if kind == "batch" else (1, LayerNorm)
        v, c, y = rng.normal(size=(3, units)), rng.normal(size=3), rng.normal(size=(samples, 3))
        centred = z - z.mean(axis=axis, keepdims=True)
        deviation = np.sqrt((centred**2).mean(axis=axis, keepdims=True) + 1e-5)
        out = centred / deviation
        da = (out @ v.T + c - y) / samples
        g = da @ v
        dz = (g - g.mean(axis=axis, keepdims=True) - out * (g * out).mean(axis=axis, keepdims=True)) / deviation
        net = [Dense("W1", "b1"), layer(None, None), Dense("W2", "b2")]
        params, gradient = {"W2": v, "b2": c}, {"W2": da.T @ out, "b2": da.sum(axis=0)}
    params |= {"W1": w, "b1": b}
    gradient |= {"W1": dz.T @ x, "b1": dz.sum(axis=0)}
    return Case(kind, Network(net, "squared_error", samples="rows"), params, x, y), gradient


KINDS = ("batch", "layer", "softmax")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1.0, 10.0, 100.0])
def test_what_cancels_is_no_false_alarm(kind, size):
    for seed in range(10):
        case, gradient = of_two(kind, size, seed)
        bound = case.net.bind(case.x, case.y)
        report = fastcheck.check(bound, gradient, case.params, mode="full")
        assert not report.verdict.refuted, (seed, report)
        name = "W1" if kind == "softmax" else "W2"
        wrong = gradient | {name: gradient[name] * 1.01}
        if report.blocks[name].uncertainty < 1e-4:
            assert fastcheck.check(bound, wrong, case.params, mode="full").verdict.refuted, seed


@pytest.mark.parametrize("engine", ["unit", "coordinate"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_cancels_against_sixty_digits(kind, engine):
    case, _ = of_two(kind, 3.0, 0)
    layout = Parameters.of(case.params)
    found = case.net.bind(case.x, case.y).measure(layout.flatten(case.params), layout, engine=engine)
    truth = layout.flatten(naive.gradient(case.net, case.params, case.x, case.y))
    assert (np.abs(found.value - truth) <= found.uncertainty + 1e-300).all()


def test_every_loss_has_its_slopes():
    assert {case.net.loss for case in smooth_cases()} == set(LOSSES)
