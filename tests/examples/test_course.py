import numpy as np
import pytest

from fastcheck import examples
from tests.naive import central_differences, textbook_ratio


def blocks(net):
    claimed = net.claimed()
    return {name: claimed[f"d{name}"].ravel() for name in net.params}


def ratios(net, step):
    numerical, start, per_block = central_differences(net.loss, net.params, net.args, step), 0, {}
    for name, g in blocks(net).items():
        per_block[name] = textbook_ratio(g, numerical[start : start + g.size])
        start += g.size
    return textbook_ratio(np.concatenate(list(blocks(net).values())), numerical), per_block


def test_draws_are_those_of_the_exercise():
    net = examples.course_net()
    x, y = net.args
    assert x[0, 0] == pytest.approx(1.62434536)  # the well-known first draw of seed 1
    assert y.tolist() == [[1, 1, 0]]
    shapes = {name: value.shape for name, value in net.params.items()}
    assert shapes == {"W1": (5, 4), "b1": (5, 1), "W2": (3, 5), "b2": (3, 1), "W3": (1, 3), "b3": (1, 1)}
    rng = np.random.RandomState(1)
    rng.randn(12)
    np.testing.assert_array_equal(net.params["W1"], rng.randn(5, 4))


def test_two_bugs_give_the_published_ratio():
    whole, per_block = ratios(examples.course_net(bugs=True), 1e-7)
    assert whole == pytest.approx(0.3134753, abs=1e-7)
    assert per_block.pop("W2") == pytest.approx(0.5, abs=1e-7)
    assert per_block.pop("b1") == pytest.approx(1 / 3, abs=1e-7)
    assert max(per_block.values()) < 1e-6


def test_correct_net_fails_the_fixed_threshold_but_not_a_better_step():
    net = examples.course_net()
    assert ratios(net, 1e-7)[0] == pytest.approx(1.19e-7, rel=0.1)
    assert ratios(net, 1e-5)[0] < 1e-9


def test_bugs_are_the_two_factors():
    right, wrong = blocks(examples.course_net()), blocks(examples.course_net(bugs=True))
    for name, g in right.items():
        np.testing.assert_allclose(wrong[name], g * {"W2": 3, "b1": 2}.get(name, 1), rtol=1e-15)
