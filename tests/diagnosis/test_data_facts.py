import functools

import numpy as np
import pytest

from fastcheck import examples
from fastcheck.diagnosis import facts_of
from fastcheck.diagnosis.hypothesis import Number
from fastcheck.diagnosis.wording import interpret_factor, shown
from fastcheck.networks import Network
from fastcheck.parameters import Parameters
from tests import zoo

X, Y = np.zeros((7, 12)), np.zeros((2, 12))


def loss_of_args(params, x, y):
    return 0.0


def loss_of_globals(params):
    return float(X.sum() + Y.sum())


def test_batch_of_every_example():
    for net in zoo.nets():
        shapes = [block.shape for block in Parameters.of(net.params).blocks]
        facts = facts_of(net.loss, net.args, shapes)
        assert facts.batch == net.batch, net.name
        if net.classes:
            assert facts.classes in (net.classes, 0), net.name


def test_the_axis_that_the_arrays_share():
    facts = facts_of(loss_of_args, (X, Y, 0.25, True))
    assert facts.batch == 12
    assert facts.sizes == (2, 7, 12)
    assert facts.scalars == (0.25,)


def test_labels_give_the_classes():
    facts = facts_of(loss_of_args, (np.zeros((30, 5)), np.arange(30) % 4))
    assert (facts.batch, facts.classes) == (30, 4)


def test_data_that_the_function_carries():
    def closure(x, y):
        return lambda params: float(x.sum() + y.sum())

    class Model:
        def __init__(self):
            self.x, self.y = X, Y

        def loss(self, params):
            return 0.0

        __call__ = loss

    carried = [closure(X, Y), functools.partial(loss_of_args, x=X, y=Y), Model().loss, Model(), loss_of_globals]
    assert [facts_of(loss, ()).batch for loss in carried] == [12] * 5


def test_a_network_stands_for_the_loss_that_it_was_compared_with():
    net = examples.mlp((4, 5, 3), batch=12, l2=0.25)
    own = facts_of(net.loss, net.args)
    described = Network.from_params(net.params, l2=0.25)
    assert facts_of(described.bind(*net.args[:2], like=net.loss, args=net.args), ()) == own
    alone = facts_of(described.bind(*net.args[:2]), ())
    assert (alone.batch, alone.classes, alone.sizes) == (own.batch, own.classes, own.sizes) == (12, 3, (4, 12))


def test_without_data_there_are_no_facts():
    facts = facts_of(lambda params: 0.0, ())
    assert (facts.batch, facts.classes, facts.sizes, facts.scalars) == (0, 0, (), ())


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (Number(3.0, 1e-9), "3.0000"),
        (Number(-1.0, 1e-9), "-1.0000"),
        (Number(0.015625, 1e-12), "0.015625"),
        (Number(1.2345678, 1e-2), "1.23"),
        (Number(0.0, 1e-3), "0"),
    ],
)
def test_numbers_are_shown_to_their_digits(number, text):
    assert shown(number) == text


def test_a_vague_factor_has_no_reading():
    facts = facts_of(loss_of_args, (X, Y))
    assert interpret_factor(Number(16.7, 1.0), facts) == ""
    assert interpret_factor(Number(1.234567, 1e-9), facts) == ""
    assert "divided by 16, where this batch has m = 12" in interpret_factor(Number(0.75, 1e-9), facts)
