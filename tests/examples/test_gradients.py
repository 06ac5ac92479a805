import copy

import numpy as np
import pytest

from fastcheck import examples
from fastcheck.bugs.mutation import Subject
from fastcheck.parameters import Parameters, leaves
from tests import zoo
from tests.naive import central_differences

ZOO = zoo.nets()
COMPILED = [zoo.compiled_course_net(), zoo.compiled_mlp((6, 5, 4), batch=9)]


def named(nets):
    return pytest.mark.parametrize("net", nets, ids=[net.name for net in nets])


@named(ZOO + COMPILED)
def test_gradient_is_that_of_the_loss(net):
    # Rounding of the loss over the step, about 1e-16 * J / 1e-5, and h**2 times a third derivative: below 2e-9 here.
    numerical = central_differences(net.loss, net.params, net.args)
    np.testing.assert_allclose(Subject.of(net).g, numerical, rtol=0, atol=2e-9 * max(1.0, net.value()))


@pytest.mark.parametrize("seed", [1, 2])
def test_other_seeds_give_other_correct_nets(seed):
    for net in zoo.nets(seed)[1:]:
        subject = Subject.of(net)
        direction = np.random.default_rng(seed).standard_normal(subject.theta.size)
        direction *= 1e-8 / np.abs(direction).max()  # so small that a kink between the two points is unlikely
        plus, minus = (net.loss(subject.layout.unflatten(subject.theta + s * direction), *net.args) for s in (1, -1))
        error = abs(plus - minus - 2 * subject.g @ direction)
        assert error < 1e-5 * np.linalg.norm(subject.g) * np.linalg.norm(direction), net.name


def test_random_nets_are_right_and_different():
    names = set()
    for seed in range(30):
        net = zoo.random_net(seed)
        names.add(net.name)
        subject = Subject.of(net)
        numerical = central_differences(net.loss, net.params, net.args, 1e-6)
        error = np.abs(subject.g - numerical) / np.abs(subject.g).max()
        # a relu may switch within the step: at most a coordinate or so in a thousand
        assert np.mean(error > 1e-7) <= (0.005 if "relu" in net.name else 0), net.name
    assert len(names) > 25


@named(ZOO)
def test_loss_and_gradient_change_nothing_and_repeat(net):
    before = copy.deepcopy((net.params, net.args))
    first = (net.value(), Subject.of(net).g)
    assert net.value() == first[0]
    np.testing.assert_array_equal(Subject.of(net).g, first[1])
    for (_, old), (_, new) in zip(leaves(before), leaves((net.params, net.args)), strict=True):
        np.testing.assert_array_equal(old, new)


@named(ZOO)
def test_facts_name_blocks_that_exist(net):
    names = {block.name for block in Parameters.of(net.params).blocks}
    assert {*net.decay, *net.lasso, *net.biases} <= names


@named([net for net in ZOO if net.take])
def test_batch_gradient_is_the_mean_over_samples(net):
    subject = Subject.of(net)
    each = [subject.flat(net.gradient(net.params, *net.take(net.args, np.array([s])))) for s in range(net.batch)]
    np.testing.assert_allclose(np.mean(each, axis=0), subject.g, rtol=1e-10, atol=1e-13)


@named(ZOO)
def test_declared_penalty_is_what_the_loss_has(net):
    """Scaling theta's penalty away: J(theta) at rate zero differs by exactly the declared L2 and L1."""
    subject = Subject.of(net)
    declared = sum(0.5 * r * np.sum(subject.theta[subject.layout[n].slice] ** 2) for n, r in net.decay.items())
    declared += sum(r * np.sum(np.abs(subject.theta[subject.layout[n].slice])) for n, r in net.lasso.items())
    rates = {*net.decay.values(), *net.lasso.values()}
    without = tuple(0.0 if isinstance(arg, float) and arg in rates else arg for arg in net.args)
    assert net.value() - net.loss(net.params, *without) == pytest.approx(declared, rel=1e-12, abs=1e-15)


def test_containers_differ():
    kinds = {type(value).__name__ for net in ZOO for value in [net.params]}
    assert {"dict", "list", "tuple", "HingeParams", "ConvParams", "EmbeddingParams", "GruParams"} <= kinds


def test_compiled_twins_agree_with_their_trees():
    for twin, tree in (
        (COMPILED[0], examples.course_net()),
        (COMPILED[1], examples.mlp((6, 5, 4), batch=9, activation="relu")),
    ):
        assert twin.value() == pytest.approx(tree.value(), rel=1e-14)
        np.testing.assert_array_equal(Subject.of(twin).g, Subject.of(tree).g)


@pytest.mark.parametrize("seed", range(5))
def test_compiled_twins_agree_elsewhere(seed):
    """At the exercise's parameters a hidden unit is dead, and would hide a wrong index."""
    rng = np.random.default_rng(seed)
    for twin, tree in (
        (COMPILED[0], examples.course_net()),
        (COMPILED[1], examples.mlp((6, 5, 4), batch=9, activation="relu")),
    ):
        theta = rng.standard_normal(twin.params.size)
        params = Parameters.of(tree.params).unflatten(theta)
        assert twin.loss(theta, *twin.args) == pytest.approx(tree.loss(params, *tree.args), rel=1e-13)


def test_compiled_losses_without_the_compiler():
    for net in COMPILED:
        assert net.loss.py_func(net.params, *net.args) == pytest.approx(net.value(), rel=1e-14)


def test_size_of_the_figures():
    net = examples.mlp()
    assert Parameters.of(net.params).size == 1_863_690
    assert all(np.all(leaf != 0) for _, leaf in leaves(net.params))


def test_training_reaches_its_target_and_leaves_the_problem_alone():
    net = examples.mlp((20, 30, 5), batch=16)
    before = copy.deepcopy(net.params)
    trained = zoo.train(net, 2000, target=1e-4, learning_rate=1e-2)
    assert trained.value() <= 1e-4 < net.value()
    for name, old in before.items():
        np.testing.assert_array_equal(old, net.params[name])
    numerical = central_differences(trained.loss, trained.params, trained.args)
    np.testing.assert_allclose(Subject.of(trained).g, numerical, rtol=0, atol=1e-10)


def test_training_stops_after_its_steps():
    net = examples.mlp((20, 30, 5), batch=16)
    assert 1e-5 < zoo.train(net, 3).value() < net.value()
