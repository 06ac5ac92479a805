"""Every kind of bug of the catalogue, planted in every example that a `Network` describes, is found through the network
with its exact coordinates.

Which coordinates are wrong is worked out from two hand-derived gradients, the one with the bug and the one without, and
from nothing that a check measures but the uncertainty it states.
"""

from __future__ import annotations

from collections import Counter
from functools import cache

import numpy as np
import pytest

import fastcheck
from fastcheck import examples
from fastcheck.bugs import MUTATIONS
from fastcheck.bugs.catalogue import BACKWARD
from fastcheck.errors import InputError
from fastcheck.judge.verdict import Verdict
from fastcheck.networks import Conv2D, Dense, Network
from tests import zoo

from . import described

BAD = (Verdict.WRONG, Verdict.SUSPICIOUS)
ONLY_WHERE = {"first_wrong_layer", "unknown", "coordinate", "slice", "region"}  # findings that say where, not what
ROUNDING = 1e-14  # of the largest derivative of a block: two correct backward passes differ by less
DEEP = (8, 10, 10, 10, 10, 10, 4)

FAST = {
    "course": described.course,
    "mlp tanh": lambda: described.dense(examples.mlp((20, 16, 16, 5), batch=24)),
    "mlp relu l2": lambda: described.dense(examples.mlp((20, 16, 16, 5), batch=24, activation="relu", l2=0.1)),
    "logistic l2 l1": lambda: described.logistic(l2=0.1, l1=0.05),
    "conv": described.conv,
    "batchnorm": described.batchnorm,
}
SLOW = {
    "embedding": described.embedding,
    "hinge": described.hinge,
    "conv, no l2": lambda: described.conv(channels=3, batch=17, l2=0.0, seed=1),
    "mlp deep tanh": lambda: described.dense(examples.mlp(DEEP, batch=16, l2=1e-3)),
    "mlp deep relu": lambda: described.dense(examples.mlp(DEEP, batch=16, activation="relu")),
    "digits relu": lambda: described.dense(examples.digits_net((24, 24), batch=64, l2=1e-2)),
    "linear": described.linear,
    "logistic": lambda: described.logistic(l2=0.0),
    "residual": described.residual,
}
TORCH = {"lenet": described.lenet, "strided": described.strided}
DESCRIBED = FAST | SLOW | TORCH


@cache
def case(name):
    return DESCRIBED[name]()


# Kinds that are made inside a backward pass, and need a net whose layers have what they get wrong.
MADE_INSIDE = {m.kind for m in BACKWARD} - {"bias_over_all", "bias_last_sample", "stale", "mean_of_means"}
OF_SAMPLES = {"rare_branch", "bias_last_sample", "mean_of_means"}
OF_L2 = {m.kind for m in MUTATIONS if m.kind.startswith("l2_")}


def has_no_place(d, kind):
    """Say whether a net has nothing that this kind of bug could be made in: no regulariser, no square block ..."""
    net, shapes = d.net, [block.shape for block in d.subject.layout.blocks]
    matrices = [shape for shape in shapes if len(shape) > 1 and min(shape) > 1]
    square = [shape for shape in matrices if shape[-1] == shape[-2]]
    # A softmax's own bias has a gradient of sum zero: there a sum over its units too is no other bug than zeros.
    biases = [name for name in net.biases if d.subject.layout[name].size > 1]
    biases = biases[:-1] if net.classes else biases
    lacks = {
        "factor_classes": not net.classes,
        "transpose": not square,
        "fortran_order": len(square) == len(matrices),
        "swapped": len(set(shapes)) == len(shapes),
        "slice_zeroed": not matrices,
        "slice_scaled": not matrices,
        "l1_missing": not net.lasso,
        "bias_over_all": not biases,
        "stale": True,  # some nets have no parameters one step ago: a fixed point that need not exist
    }
    lacks |= dict.fromkeys(MADE_INSIDE, kind not in net.bugs)
    lacks |= dict.fromkeys(OF_SAMPLES, net.take is None) | dict.fromkeys(OF_L2, not net.decay)
    return lacks.get(kind, False)


def planted(d, mutation, seed, tally):
    """Return the bug; None where it has no place, or is the correct gradient itself, which is then shown to pass."""
    with np.errstate(all="ignore"):  # "stale" may look for its fixed point where the loss has no value
        mutated = mutation.apply(d.net, np.random.default_rng(seed))
        raw = None if mutated is not None else mutation.rule(d.subject, np.random.default_rng(seed))
    if mutated is not None:
        return mutated
    if raw is None:
        tally["no place"] += 1
        return None
    tally["equal"] += 1
    largest = np.abs(d.exact).max()
    np.testing.assert_allclose(raw.gradient, d.exact, rtol=0, atol=ROUNDING * largest)
    report = fastcheck.check(d.bound, d.layout.unflatten(raw.gradient), d.params, mode="full")
    assert report.verdict is Verdict.CORRECT
    return None


def wrong_places(d, claimed, measured, tolerance):
    """Return where a gradient is off by more than the tolerance and the uncertainty, an array of bool, shape (P,)."""
    return np.abs(claimed - measured) > tolerance * (np.abs(claimed) + np.abs(measured)) + d.uncertainty


def examine(d, mutation, seed, tally):
    """Plant a bug, check the gradient through the network, and hold the report to what was planted."""
    mutated = planted(d, mutation, seed, tally)
    if mutated is None:
        return
    context = (str(d), mutation.kind, seed)
    claimed = d.subject.layout.flatten(mutated.problem.gradient)
    report = fastcheck.check(d.bound, d.layout.unflatten(claimed), d.params, mode="full")
    wrong = wrong_places(d, claimed, d.exact, report.settings["tolerance"])
    tally["planted"] += 1
    if mutation.kind != "float32":  # of these, every entry that was touched at all can be seen
        scale = np.concatenate([np.full(b.size, np.abs(d.exact[b.slice]).max()) for b in d.layout.blocks])
        assert np.array_equal(wrong, np.abs(claimed - d.exact) > ROUNDING * scale), context
    if not wrong.any():  # a float32 backward pass can be better than the tolerance, and then the report says so
        tally["below tolerance"] += 1
        assert report.verdict is Verdict.CORRECT, context
        assert {f.kind for f in report.findings} == {"below_tolerance"}, context
        return
    places(d, report, claimed, wrong, context)
    words(d, report, mutated, wrong, context, tally)


def places(d, report, claimed, wrong, context):
    """Hold verdicts, counts, listed coordinates and measured values to the set of coordinates that are wrong."""
    assert report.verdict in BAD, context
    assert not report.passed
    for block in d.layout.blocks:
        seen, count = report.blocks[block.name], np.count_nonzero(wrong[block.slice])
        assert (seen.wrong, seen.verdict in BAD) == (count, count > 0), (*context, block.name)
        assert seen.checked == seen.size
    expected = {d.layout.breadcrumb(int(place)) for place in np.flatnonzero(wrong)}
    listed = {c.name for c in report.wrong}
    assert len(listed) == len(report.wrong)
    if len(expected) <= report.settings["listed"]:
        assert listed == expected, context
    else:
        assert listed < expected, context
        assert {c.block for c in report.wrong} == {name for name, b in report.blocks.items() if b.wrong}, context
    numerical = d.layout.flatten(report.numerical)
    assert np.array_equal(wrong_places(d, claimed, numerical, report.settings["tolerance"]), wrong), context
    for c in report.wrong:
        block = d.layout[c.block]
        analytic, exact = (float(block.view(v)[c.index]) for v in (claimed, d.exact))
        assert c.analytic == analytic, (*context, c.name)
        assert abs(c.numerical - exact) <= c.uncertainty + ROUNDING * np.abs(d.exact[block.slice]).max()


def words(d, report, mutated, wrong, context, tally):
    """Hold the first finding to the kind that was planted, where a gradient can tell it, and to the wrong blocks."""
    first = report.findings[0]
    blocks = {block.name for block in d.layout.blocks if wrong[block.slice].any()}
    assert set(first.evidence["blocks"]) <= blocks, context
    assert first.block is None or first.block in blocks, context
    if len(blocks) == 1:
        assert {first.block} == blocks, context
    if not mutated.findings:
        assert first.kind in ONLY_WHERE, (*context, first.kind)
        return
    tally["identifiable"] += 1
    if first.kind in mutated.findings:
        tally["named"] += 1
        return
    # Small nets can leave no difference between two kinds: then the loss itself tells no more than the network.
    own = fastcheck.check(d.net.loss, mutated.problem.gradient, d.net.params, args=d.net.args, mode="full")
    assert (first.kind, first.block) == (own.findings[0].kind, own.findings[0].block), context
    tally[f"{context} called {first.kind}"] += 1


def examine_all(d, seed):
    tally = Counter()
    for mutation in MUTATIONS:
        before = tally["no place"]
        examine(d, mutation, seed, tally)
        if tally["no place"] > before:
            # Whoever draws a block may draw one in which the kind has no place; not so with every seed.
            drawn = (mutation.rule(d.subject, np.random.default_rng(other)) for other in range(20))
            assert has_no_place(d, mutation.kind) or any(drawn), (str(d), mutation.kind)
    assert sum(tally[n] for n in ("planted", "equal", "no place")) == len(MUTATIONS)
    assert tally["planted"] >= 21
    assert tally["below tolerance"] <= 1
    assert tally["named"] >= tally["identifiable"] - 2, dict(tally)
    return tally


def correct_passes(d):
    assert d.bound.verified
    report = fastcheck.check(d.bound, d.layout.unflatten(d.exact), d.params, mode="full")
    assert report.verdict is Verdict.CORRECT
    assert report.passed
    assert report.coverage == 1
    assert (report.wrong, report.findings) == ((), ())
    assert {block.verdict for block in report.blocks.values()} == {Verdict.CORRECT}
    assert {block.wrong for block in report.blocks.values()} == {0}
    apart = np.abs(d.layout.flatten(report.numerical) - d.exact)
    assert np.all(apart <= d.uncertainty + ROUNDING * np.abs(d.exact).max())


@pytest.mark.parametrize("name", FAST)
def test_the_correct_gradient_passes(name):
    correct_passes(case(name))


@pytest.mark.parametrize("name", FAST)
def test_every_bug_is_found_with_its_coordinates(name):
    examine_all(case(name), seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_every_bug_in_more_nets(name):
    correct_passes(case(name))
    examine_all(case(name), seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", TORCH)
def test_every_bug_in_deeper_convolutions(name):
    pytest.importorskip("torch")
    correct_passes(case(name))
    examine_all(case(name), seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAST | SLOW)
def test_every_bug_in_other_places(name):
    for seed in (1, 2):
        examine_all(case(name), seed)


def dense_nets(seeds):
    """Plant every bug in some random nets; return their number and what came of it."""
    tally, nets = Counter(), 0
    for seed in seeds:
        net = zoo.random_net(seed)
        if any(len(arg) for arg in net.args[4:]):  # dropout, which no layer describes
            continue
        d = described.by_hand(net)
        correct_passes(d)
        for mutation in MUTATIONS:
            examine(d, mutation, seed, tally)
        nets += 1
    return nets, tally


@pytest.mark.slow
def test_random_dense_nets():
    nets, tally = dense_nets(range(100, 125))
    assert nets >= 12
    assert tally["planted"] >= 300
    assert tally["named"] >= 0.95 * tally["identifiable"], dict(tally)


@pytest.mark.explore
def test_fresh_dense_nets(fresh):
    nets, tally = dense_nets(fresh(6))
    assert nets
    assert tally["named"] >= 0.9 * tally["identifiable"], dict(tally)  # of so few nets


def test_a_kind_that_changes_nothing_is_no_bug():
    """A mean of the means of two batches of two samples is the mean over the four."""
    d, tally = described.dense(examples.mlp((6, 5, 3), batch=4)), Counter()
    mutation = next(m for m in MUTATIONS if m.kind == "mean_of_means")
    assert planted(d, mutation, 0, tally) is None
    assert tally == {"equal": 1}


def test_every_example_is_described_or_refused():
    known = {str(case(name)) for name in FAST | SLOW}
    left = [net for net in zoo.nets() if net.name not in known]
    assert [net.name for net in left] == [
        "digits_net 64-24-16-10 tanh",  # dropout masks in the data
        "rnn",  # weights shared over time, here and below
        "gru",
        "attention_block",
        "tied_autoencoder",
    ]
    with pytest.raises(InputError, match="not the same function"):
        _ = described.dense(left[0]).bound
    with pytest.raises(InputError, match="used twice"):
        Network([Dense("0", "1", "sigmoid"), Dense("0", "2", weights="in_out")], "squared_error")
    conv, mean = zoo.conv_net(), zoo.embedding_net()
    with pytest.raises(InputError, match=r"'kernel' has shape .6, 3, 3.; it must have 4 axes"):
        Network([Conv2D("kernel", "kernel_bias", "relu"), *described.conv().network.layers[1:]], samples="rows").bind(
            conv.args[0][:, None], conv.args[1], params=conv.params
        )
    with pytest.raises(InputError, match=r"'weight' has shape .6, 4.; it must be .in, out. with in=42"):  # no mean
        described.embedding().network.bind(*mean.args, params=mean.params)
