import numpy as np
import pytest

from fastcheck import examples
from fastcheck.bugs import MUTATIONS
from fastcheck.bugs.mutation import Subject
from fastcheck.parameters import leaves
from fastcheck.problem import Problem
from tests import zoo

ZOO = zoo.nets()
BY_KIND = {mutation.kind: mutation for mutation in MUTATIONS}


def planted(kind, net, seed=0):
    mutated = BY_KIND[kind].apply(net, np.random.default_rng(seed))
    assert mutated is not None
    subject = Subject.of(net)
    return mutated, subject, subject.layout.flatten(mutated.problem.gradient)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.kind)
def test_changes_the_gradient_wherever_it_applies(mutation):
    applied = 0
    for net in ZOO:
        subject = Subject.of(net)
        right = subject.g.copy()
        for seed in range(3):
            mutated = mutation.apply(net, np.random.default_rng(seed))
            if mutated is None:
                continue
            applied += 1
            wrong = subject.layout.flatten(mutated.problem.gradient)
            assert np.isfinite(wrong).all()
            assert [path for path, _ in leaves(mutated.problem.gradient)] == [path for path, _ in leaves(net.params)]
            differ = tuple(b.name for b in subject.layout.blocks if np.any(wrong[b.slice] != right[b.slice]))
            assert set(mutated.blocks) <= set(differ)
            assert max(mutated.errors.values()) > (1e-9 if mutation.kind == "float32" else 1e-4), net.name
            assert mutated.problem.loss is net.loss
        np.testing.assert_array_equal(Subject.of(net).g, right)  # the net itself is as it was
    assert applied


def test_catalogue_is_large_and_its_kinds_are_unique():
    assert len(BY_KIND) == len(MUTATIONS) >= 24
    counts = [sum(m.apply(net, np.random.default_rng(0)) is not None for m in MUTATIONS) for net in ZOO]
    assert min(counts) >= 15


def test_every_bug_of_every_net_is_in_the_catalogue():
    made = {kind for net in ZOO for kind in net.bugs}
    assert made - set(BY_KIND) == {"missing_l2"}  # there under l2_missing, made from the declared penalty


def test_seeds_choose_different_places():
    places = {BY_KIND["coordinate_sign"].apply(ZOO[0], np.random.default_rng(s)).facts["index"] for s in range(20)}
    assert len(places) > 3


@pytest.mark.parametrize("kind", ["factor_m", "factor_1/m", "factor_2", "factor_1/2", "factor_1.01", "sign", "zero"])
def test_factors_multiply_one_block(kind):
    mutated, subject, wrong = planted(kind, examples.digits_net())
    (name,) = mutated.blocks
    where = subject.layout[name].slice
    np.testing.assert_allclose(wrong[where], mutated.facts["factor"] * subject.g[where], rtol=1e-15)
    assert mutated.errors[name] == pytest.approx(abs(mutated.facts["factor"] - 1))


def test_transpose_and_memory_order():
    mutated, subject, wrong = planted("transpose", zoo.rnn())
    block = subject.layout[mutated.blocks[0]]
    np.testing.assert_array_equal(block.view(wrong), block.view(subject.g).T)
    mutated, subject, wrong = planted("fortran_order", zoo.rnn())
    block = subject.layout[mutated.blocks[0]]
    np.testing.assert_array_equal(block.view(wrong).ravel(order="F"), block.view(subject.g).ravel())


def test_moved_axes_and_swaps_keep_the_numbers():
    for kind in ("transpose", "fortran_order", "swapped", "shifted", "reversed", "permuted"):
        _, subject, wrong = planted(kind, zoo.residual_net())
        np.testing.assert_array_equal(np.sort(wrong), np.sort(subject.g))


def test_permutations_are_neither_shifts_nor_reversals():
    for seed in range(50):
        order = BY_KIND["permuted"].apply(examples.course_net(), np.random.default_rng(seed)).facts["order"]
        n = len(order)
        rolled = [tuple((s + d * i) % n for i in range(n)) for s in range(n) for d in (1, -1)]
        assert order not in rolled


def test_one_coordinate_one_slice():
    _, subject, wrong = planted("coordinate_scaled", zoo.conv_net())
    assert np.count_nonzero(wrong != subject.g) == 1
    mutated, subject, wrong = planted("slice_zeroed", zoo.conv_net())
    block = subject.layout[mutated.blocks[0]]
    gone = np.take(block.view(wrong), mutated.facts["index"], axis=mutated.facts["axis"])
    assert not gone.any()
    assert np.count_nonzero(wrong != subject.g) <= gone.size


def test_regularisers_are_off_by_lambda_theta():
    net = examples.logistic_regression(l2=0.3, l1=0.05)
    w = net.params["w"]
    expected = {"l2_missing": -0.3 * w, "l2_doubled": 0.3 * w, "l2_sign": -0.6 * w, "l1_missing": -0.05 * np.sign(w)}
    expected["l2_averaged"] = (0.3 / net.batch - 0.3) * w
    for kind, error in expected.items():
        _, subject, wrong = planted(kind, net)
        np.testing.assert_allclose((wrong - subject.g)[:64], error, rtol=1e-12, atol=1e-15)
    _, subject, wrong = planted("l2_biases", net)
    assert (wrong - subject.g)[64] == pytest.approx(0.3 * net.params["b"])


def test_last_sample_of_a_bias_and_a_forgotten_sample():
    net = examples.linear_regression()
    residual = net.args[0] @ net.params[0] + net.params[1] - net.args[1]
    mutated, subject, wrong = planted("bias_last_sample", net)
    np.testing.assert_allclose(subject.layout["1"].view(wrong), residual[-1] / 50, rtol=1e-12)
    mutated, subject, wrong = planted("rare_branch", net)
    sample = mutated.facts["sample"]
    np.testing.assert_allclose(subject.layout["1"].view(subject.g - wrong), residual[sample] / 50, rtol=1e-10)


def test_mean_of_means_weighs_samples_by_their_batch():
    net = examples.linear_regression()
    mutated, subject, wrong = planted("mean_of_means", net)
    assert mutated.facts["sizes"] == (20, 20, 10)
    residual = net.args[0] @ net.params[0] + net.params[1] - net.args[1]
    means = [residual[:20].mean(axis=0), residual[20:40].mean(axis=0), residual[40:].mean(axis=0)]
    np.testing.assert_allclose(subject.layout["1"].view(wrong), np.mean(means, axis=0), rtol=1e-12)


def test_clipping_saturates_some_and_not_most():
    mutated, subject, wrong = planted("clipped", examples.digits_net())
    limit = mutated.facts["limit"]
    assert np.abs(wrong).max() == limit
    assert 3 <= np.count_nonzero(np.abs(subject.g) > limit) < subject.g.size / 2


def test_float32_leak_has_the_size_of_single_precision():
    for net in ZOO:
        mutated, _, _ = planted("float32", net)
        assert 1e-9 < max(mutated.errors.values()) < 1e-4, net.name


def test_sum_over_batch_spares_the_regulariser():
    net = examples.logistic_regression(l2=0.3, batch=50)
    _, subject, wrong = planted("sum_over_batch", net)
    np.testing.assert_allclose(wrong[:64] - 0.3 * net.params["w"], 50 * (subject.g[:64] - 0.3 * net.params["w"]))


def test_plain_problems_take_what_needs_no_facts():
    net = examples.digits_net((12,))
    plain = Problem(net.loss, net.claimed(), net.params, net.args, name=net.name)
    applied = {m.kind for m in MUTATIONS if m.apply(plain, np.random.default_rng(0))}
    assert {"sign", "zero", "factor_2", "fortran_order", "coordinate_sign", "clipped"} <= applied
    assert not applied & {"factor_m", "l2_missing", "stale", "float32", "rare_branch", "bias_over_all"}


def test_course_style_gradients_are_understood():
    mutated, subject, wrong = planted("sign", examples.course_net())
    assert subject.g.size == 47
    assert set(mutated.problem.gradient) == set(examples.course_net().params)
    np.testing.assert_array_equal(np.abs(wrong), np.abs(subject.g))
