import numpy as np
import pytest

from fastcheck import examples
from fastcheck.parameters import Parameters


def test_equal_to_the_copy_in_scikit_learn():
    datasets = pytest.importorskip("sklearn.datasets")
    theirs = datasets.load_digits()
    X, y = examples.load_digits()
    np.testing.assert_array_equal(X * 16, theirs.data)
    np.testing.assert_array_equal(y, theirs.target)


def test_shapes_and_types():
    X, y = examples.load_digits()
    assert (X.shape, X.dtype, y.shape, y.dtype) == ((1797, 64), np.float64, (1797,), np.int64)
    assert (X.min(), X.max()) == (0, 1)
    assert set(y.tolist()) == set(range(10))


@pytest.mark.parametrize("bug", list(examples.digits_net().bugs))
def test_every_named_bug_is_in_the_gradient(bug):
    right, wrong = examples.digits_net(), examples.digits_net(bug=bug)
    layout = Parameters.of(right.params)
    g, e = layout.flatten(right.claimed()), layout.flatten(wrong.claimed())
    np.testing.assert_array_equal(layout.flatten(right.params), layout.flatten(wrong.params))
    assert np.linalg.norm(g - e) > 1e-3 * np.linalg.norm(g)
    assert bug in wrong.name


def test_bug_that_does_not_exist():
    with pytest.raises(KeyError, match="no_such"):
        examples.digits_net(bug="no_such")
    with pytest.raises(KeyError, match="dropout_backward"):
        examples.digits_net(bug="dropout_backward")  # there is no mask
