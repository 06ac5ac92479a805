"""Random samples, and what is said about the rest."""

import numpy as np
import pytest

import fastcheck
from fastcheck.judge.bounds import sample_size, split, wrong_count_bound
from fastcheck.parameters import Parameters
from fastcheck.strategies.sample import MINIMUM, SHARE
from fastcheck.strategies.sample import drawn as draw
from tests.strategies.losses import planted, smooth


def layout(*shapes):
    return Parameters.of([np.zeros(shape) for shape in shapes])


@pytest.mark.parametrize("samples", [1, 50, 400, 10_000])
def test_every_block_has_its_minimum_and_no_coordinate_comes_twice(samples):
    blocks = layout((30, 20), 3, (1, 40), 5000).blocks
    drawn = draw(blocks, samples, 0.9999, np.random.default_rng(0))
    for block, places in zip(blocks, drawn.places, strict=True):
        assert len(places) >= min(MINIMUM, block.size)
        assert len(np.unique(places)) == len(places)
        assert np.all((places >= block.start) & (places < block.stop))
        assert np.all(np.diff(places) > 0)
    assert len(drawn.uniform) == min(samples, sum(block.size for block in blocks))


def test_blocks_that_were_not_chosen_are_not_drawn():
    blocks = layout(100, 100, 100).blocks
    drawn = draw((blocks[0], blocks[2]), 60, 0.99, np.random.default_rng(0))
    assert not np.any((drawn.uniform >= 100) & (drawn.uniform < 200))
    assert drawn.population == 200


def test_without_a_number_the_sample_keeps_the_promise():
    blocks = layout((300, 200)).blocks
    drawn = draw(blocks, None, 0.99, np.random.default_rng(0))
    assert len(drawn.uniform) == sample_size(60_000, SHARE, 0.01)


def test_coordinates_are_drawn_equally_often(first_seed):
    blocks = layout(20, 5, 40).blocks
    counts = np.zeros(65)
    for seed in range(first_seed, first_seed + 600):
        for places in draw(blocks, 20, 0.9, np.random.default_rng(seed)).places:
            counts[places] += 1
    for block in blocks:  # filling up a block to its minimum favours none of its own
        inside = counts[block.slice]
        assert inside.std() <= 4 * np.sqrt(inside.mean())


def test_a_clean_sample_states_its_bounds():
    loss, gradient, params = smooth()
    report = fastcheck.check(loss, gradient, params, mode="sample", samples=60)
    assert report.passed
    (finding,) = [f for f in report.findings if f.kind == "sample"]
    assert finding.evidence["wrong"] == 0
    each = split(0.9999, 4)
    for name, stated in finding.evidence["blocks"].items():
        block = report.blocks[name]
        assert stated["at_most"] == wrong_count_bound(block.size, block.checked, 0, each)
    assert finding.evidence["at_most"] <= wrong_count_bound(201, 60, 0, each)
    assert report.coverage == finding.evidence["measured"] / 201
    assert "sampled coordinates" in str(report)


def test_a_sample_with_failures_states_the_bound_with_failures():
    loss, gradient, params = smooth()
    wrong = planted(gradient, params, lambda tree: tree["W"].__setitem__(slice(6), 0.5))
    report = fastcheck.check(loss, wrong, params, mode="sample", samples=80)
    (finding,) = [f for f in report.findings if f.kind == "sample"]
    assert finding.evidence["wrong"] == sum(block.wrong for block in report.blocks.values()) > 0
    assert finding.evidence["at_most"] >= 54
    assert not report.passed


def test_the_bound_covers_the_wrong_ones_as_often_as_it_says(first_seed):
    from scipy import stats

    loss, gradient, params = smooth()
    wrong = planted(gradient, params, lambda tree: tree["W"].__setitem__((slice(4), 0), 0.5))
    runs, missed = 60, 0
    for seed in range(first_seed, first_seed + runs):
        report = fastcheck.check(loss, wrong, params, mode="sample", samples=30, confidence=0.9, seed=seed)
        (finding,) = [f for f in report.findings if f.kind == "sample"]
        missed += finding.evidence["at_most"] < 4
    assert stats.binom.sf(missed - 1, runs, 0.1) > 1e-6


def test_samples_alone_make_auto_a_sample():
    loss, gradient, params = smooth()
    report = fastcheck.check(loss, gradient, params, samples=40)
    assert any(f.kind == "sample" for f in report.findings)
