"""What a report says it could have seen is seen: errors a little above `detectable`, planted anywhere, never pass.

Each run keeps its promise with probability 1 - 1e-4 at least, by construction; among the few hundred plants here a
single miss would have a probability of a few percent, and two hardly any.
"""

import numpy as np
import pytest

import fastcheck
from tests import zoo

ABOVE = 1.2


def missed(seeds, mode):
    """Plant dense and single errors of `ABOVE` times what the report on the right gradient calls detectable."""
    passed, planted = [], 0
    for seed in seeds:
        net = zoo.random_net(seed)
        options = {"args": net.args, "mode": mode, "seed": seed}
        right = net.gradient(net.params, *net.args)
        report = fastcheck.check(net.loss, right, net.params, **options)
        assert not report.verdict.refuted, seed
        for name, block in report.blocks.items():
            if not np.isfinite(block.detectable):
                continue
            for error in errors(right[name].shape, np.random.default_rng((seed, planted))):
                planted += 1
                size = ABOVE * block.detectable * np.linalg.norm(right[name])
                wrong = {**right, name: right[name] + size * error}
                found = fastcheck.check(net.loss, wrong, net.params, **options)
                if found.passed or found.blocks[name].verdict.passed:
                    passed.append((seed, name, float(block.detectable)))
    return passed, planted


def errors(shape, rng):
    """Return a dense error and one in a single entry, both of norm one."""
    dense, single = rng.standard_normal(shape), np.zeros(shape)
    single[tuple(rng.integers(0, n) for n in shape)] = rng.choice([-1.0, 1.0])
    return dense / np.linalg.norm(dense), single


@pytest.mark.parametrize("mode", ["full", "screen"])
def test_what_is_detectable_never_passes(mode):
    passed, planted = missed(range(5), mode)
    assert planted > 40
    assert passed == []


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["full", "sample", "screen"])
def test_what_is_detectable_never_passes_in_forty_nets(mode):
    passed, planted = missed(range(100, 140), mode)
    assert planted > 300
    assert passed == []


@pytest.mark.explore
@pytest.mark.parametrize("mode", ["full", "screen"])
def test_what_is_detectable_never_passes_in_fresh_nets(mode, fresh):
    assert missed(fresh(10), mode)[0] == []
