import numpy as np
import pytest

import fastcheck
from fastcheck import examples


def regression(m=30, seed=0):
    rng = np.random.default_rng(seed)
    X, y = rng.standard_normal((m, 5)), rng.standard_normal(m)
    params = {"w": rng.standard_normal(5), "v": rng.standard_normal(4)}

    def loss(p, X, y):
        return float(np.mean(np.log(np.cosh(X @ p["w"] - y))) + 0.5 * np.sum(p["v"] * np.tanh(p["v"])))

    def slope(p, X, y):
        return X * np.tanh(X @ p["w"] - y)[:, None]

    def of_v(p):
        return 0.5 * (np.tanh(p["v"]) + p["v"] / np.cosh(p["v"]) ** 2)

    return loss, slope, of_v, params, (X, y)


def first(loss, gradient, params, args):
    report = fastcheck.check(loss, gradient, params, args=args)
    assert not report.passed
    return report.findings[0]


def weighted(weights):
    loss, slope, of_v, params, args = regression()
    gradient = {"w": weights @ slope(params, *args), "v": of_v(params)}
    return first(loss, gradient, params, args)


def test_the_right_weights_pass():
    loss, slope, of_v, params, args = regression()
    gradient = {"w": slope(params, *args).mean(axis=0), "v": of_v(params)}
    assert fastcheck.check(loss, gradient, params, args=args).passed


def test_a_sample_left_out():
    weights = np.full(30, 1 / 30)
    weights[17] = 0
    finding = weighted(weights)
    assert (finding.kind, finding.evidence["sample"]) == ("sample_missing", 17)


@pytest.mark.parametrize("share", [1.0, 1 / 30])
def test_one_sample_alone(share):
    finding = weighted(share * np.eye(30)[29])
    assert (finding.kind, finding.evidence["sample"]) == ("one_sample", 29)
    assert "the last sample" in finding.message


def test_the_first_samples_only():
    finding = weighted((np.arange(30) < 12) / 12)
    assert (finding.kind, finding.evidence["samples"]) == ("part_of_batch", 12)


def test_batches_averaged_alike():
    weights = np.concatenate([np.full(8, 1 / 8), np.full(8, 1 / 8), np.full(8, 1 / 8), np.full(6, 1 / 6)]) / 4
    finding = weighted(weights)
    assert (finding.kind, finding.evidence["size"]) == ("mean_of_means", 8)


def test_other_weights_stay_unexplained():
    assert weighted(np.random.default_rng(0).random(30) / 15).kind == "first_wrong_layer"


def test_a_gradient_that_remembers():
    net = examples.mlp((6, 5, 3), batch=8)
    kept = {"params": {name: 0.9 * value for name, value in net.params.items()}}

    def gradient(params, *args):
        used, kept["params"] = kept["params"], {name: value.copy() for name, value in params.items()}
        return net.gradient(used, *args)

    finding = first(net.loss, gradient, net.params, net.args)
    assert finding.kind == "stale"
    assert "cache" in finding.message


def test_a_gradient_that_does_not_look_at_its_parameters():
    net = examples.mlp((6, 5, 3), batch=8)
    other = {name: 0.9 * value for name, value in net.params.items()}
    finding = first(net.loss, lambda params, *args: net.gradient(other, *args), net.params, net.args)
    assert finding.kind == "stale"
    assert "same at other parameters" in finding.message


@pytest.mark.parametrize("rate", [1e-4, 0.05, 0.5])
def test_the_gradient_of_one_step_ago_and_its_rate(rate):
    net = examples.mlp((6, 5, 3), batch=8)
    old = net.gradient(net.params, *net.args)
    params = {name: net.params[name] - rate * old[name] for name in net.params}
    finding = first(net.loss, old, params, net.args)
    assert finding.kind == "stale"
    assert finding.evidence["rate"] == pytest.approx(rate, rel=1e-3)


def test_experiments_leave_the_evaluator_where_it_was():
    net = examples.mlp((6, 5, 3), batch=8)
    before = {name: value.copy() for name, value in net.params.items()}
    old = net.gradient({name: 0.8 * value for name, value in net.params.items()}, *net.args)
    report = fastcheck.check(net.loss, old, net.params, args=net.args)
    assert report.findings[0].kind == "first_wrong_layer"
    for name, value in net.params.items():
        np.testing.assert_array_equal(value, before[name])
    assert report.evaluations > fastcheck.check(net.loss, net.gradient, net.params, args=net.args).evaluations


def test_the_constant_gradient_of_a_linear_loss_is_not_called_stale():
    a = np.array([1.0, -2.0, 3.0, 0.5])
    report = fastcheck.check(lambda t: float(a @ t), lambda t: a[::-1].copy(), np.array([0.3, 0.2, -0.1, 0.7]))
    assert report.verdict is fastcheck.Verdict.WRONG
    assert "stale" not in [finding.kind for finding in report.findings]
