import functools

import numpy as np
import pytest

from fastcheck import examples
from fastcheck.diagnosis import derivative_along, facts_of, from_probes
from fastcheck.examples.mutations import MUTATIONS
from fastcheck.losses import evaluator_for
from fastcheck.parameters import Parameters

BY_KIND = {mutation.kind: mutation for mutation in MUTATIONS}
ACTIVATIONS = ("tanh", "relu")
# Kinds that a few directions must tell apart, and the finding each must get first.
REQUIRED = {
    "factor_m": "factor",
    "factor_1/2": "factor",
    "sign": "sign",
    "transpose": "transpose",
    "fortran_order": "order",
    "zero": "zero",
    "l2_missing": "l2",
    "l2_averaged": "l2",
    "swapped": "swapped",
    "reversed": "reversed",
    "shifted": "shifted",
    "sum_over_batch": ("sum_over_batch", "factor"),
    "accumulated": "accumulated",
}


@functools.cache
def big(activation):
    net = examples.mlp((784, 1024, 1024, 10), activation=activation, l2=1e-3)
    layout = Parameters.of(net.params)
    return net, layout, layout.flatten(net.params), layout.flatten(net.claimed())


def named(net, layout, theta, wrong_gradient, wrong, probes=10):
    evaluator = evaluator_for(net.loss, layout, theta.copy(), net.args)
    probe = derivative_along(evaluator, 1e-14 * abs(evaluator.base()))
    facts = facts_of(net.loss, net.args, [block.shape for block in layout.blocks])
    before = evaluator.evaluations
    findings = from_probes(layout, theta, wrong_gradient, wrong, probe, facts=facts, probes=probes)
    return findings, evaluator.evaluations - before


def check_kind(kind, activation, seed):
    net, layout, theta, _ = big(activation)
    mutated = BY_KIND[kind].apply(net, np.random.default_rng(seed))
    findings, spent = named(net, layout, theta, layout.flatten(mutated.problem.gradient), list(mutated.blocks))
    assert spent <= 40
    assert findings[0].kind in REQUIRED[kind], (mutated.blocks, findings[0].message)


@pytest.mark.parametrize("kind", ["transpose", "l2_missing", "swapped"])
def test_a_large_net_in_40_evaluations(kind):
    check_kind(kind, "tanh", 0)


@pytest.mark.slow
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kind", REQUIRED)
def test_every_kind_in_a_large_net_in_40_evaluations(kind, activation):
    for seed in range(4):
        check_kind(kind, activation, seed)


def small():
    net = examples.mlp((20, 16, 16, 5), batch=24, l2=0.1)
    layout = Parameters.of(net.params)
    return net, layout, layout.flatten(net.params), layout.flatten(net.claimed())


@pytest.mark.parametrize("seed", range(10))
def test_random_errors_get_no_confident_finding(seed):
    net, layout, theta, g = small()
    rng = np.random.default_rng(seed)
    wrong = g + 10.0 ** rng.uniform(-4, 0) * np.sqrt(np.mean(g**2)) * rng.standard_normal(len(g))
    findings, _ = named(net, layout, theta, wrong, [block.name for block in layout.blocks])
    assert [finding.kind for finding in findings] == ["origin"]


def test_blocks_that_no_probe_is_left_for_are_told_to_be_wrong():
    net, layout, theta, g = small()
    wrong = g + np.random.default_rng(0).standard_normal(len(g))
    findings, spent = named(net, layout, theta, wrong, [block.name for block in layout.blocks], probes=2)
    assert spent == 8
    assert "W1, b1, W2, b2, W3 and b3 are wrong" in findings[0].message


def test_a_probe_is_the_directional_derivative_and_its_uncertainty_holds():
    for activation in ACTIVATIONS:
        net = examples.mlp((20, 16, 16, 5), batch=24, activation=activation, seed=3)
        layout = Parameters.of(net.params)
        theta, g = layout.flatten(net.params), layout.flatten(net.claimed())
        evaluator = evaluator_for(net.loss, layout, theta.copy(), net.args)
        probe = derivative_along(evaluator, 1e-14 * abs(evaluator.base()))
        rng = np.random.default_rng(0)
        for block in layout.blocks:
            v = rng.choice([-1.0, 1.0], block.size)
            value, uncertainty = probe(block, v)
            assert abs(value - g[block.slice] @ v) <= uncertainty + 1e-12
            assert uncertainty < 1e-6 * np.linalg.norm(g[block.slice]) * np.sqrt(block.size)


def test_seeds_repeat():
    net, layout, theta, g = small()
    first, second = (named(net, layout, theta, 2 * g, ["W2"])[0] for _ in range(2))
    assert first == second
