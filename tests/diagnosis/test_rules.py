import numpy as np
import pytest

from fastcheck.diagnosis import DataFacts, diagnose
from tests.diagnosis.build import evidence, gradients


def told(g, n, **options):
    return diagnose(evidence(g, n, **options))


def changed(n, **blocks):
    return {**n, **blocks}


def only(findings):
    assert len(findings) == 1, [f.message for f in findings]
    return findings[0]


def test_nothing_is_said_of_a_right_gradient():
    n = gradients()
    assert told(n, n) == ()


@pytest.mark.parametrize(
    ("factor", "words"),
    [
        (3.0, "missing 1/m? (batch m = 3)"),
        (1 / 3, "divided by m twice? (batch m = 3)"),
        (2.0, "the 1/2 of a square forgotten, or added twice?"),
        (0.5, "halved twice?"),
        (10.0, "number of classes? (10)"),
        (np.sqrt(8), "missing 1/sqrt(8)?"),
        (17.0, "missing division by 17?"),
    ],
)
def test_factor_and_its_reading(factor, words):
    n = gradients()
    finding = only(told(changed(n, W2=factor * n["W2"]), n, facts=DataFacts(batch=3, classes=10)))
    assert (finding.kind, finding.block) == ("factor", "W2")
    assert finding.evidence["factor"] == pytest.approx(factor, rel=1e-9)
    low, high = finding.evidence["interval"]
    assert low < factor < high
    assert high - low < 1e-6
    assert words in finding.message


def test_the_two_classic_bugs_read_as_they_should():
    n = gradients()
    W2, b1 = told(changed(n, W2=3 * n["W2"], b1=2 * n["b1"]), n, facts=DataFacts(batch=3))
    assert W2.message == "gradient of W2 is 3.0000 × the measured one: missing 1/m? (batch m = 3)"
    assert b1.message.startswith("gradient of b1 is 2.0000 × the measured one")
    assert (W2.block, b1.block) == ("W2", "b1")


def test_a_factor_without_a_reading_is_a_number():
    n = gradients()
    finding = only(told(changed(n, W1=1.2345 * n["W1"]), n))
    assert "1.2345 × the measured one" in finding.message


def test_one_number_is_no_factor_unless_it_is_a_usual_one():
    n = gradients(w=(6,), b=())
    assert only(told(changed(n, b=1.2345 * n["b"]), n)).kind == "first_wrong_layer"
    assert only(told(changed(n, b=2 * n["b"]), n)).kind == "factor"


def test_a_single_number_joins_a_factor_proven_elsewhere():
    n = gradients(w=(6,), b=(), c=(4,))
    g = changed(n, w=1.2345 * n["w"], b=1.2345 * n["b"])
    finding = only(told(g, n))
    assert finding.kind == "factor"
    assert finding.evidence["blocks"] == ["w", "b"]


def test_sign():
    n = gradients()
    finding = only(told(changed(n, b3=-n["b3"]), n))
    assert (finding.kind, finding.block) == ("sign", "b3")


def test_zero_and_copies_and_independence():
    n = gradients()
    assert only(told(changed(n, W2=0 * n["W2"]), n)).kind == "zero"
    finding = only(told(changed(n, b1=n["b2"]), n))
    assert (finding.kind, finding.block) == ("copied", "b1")
    assert "b2" in finding.message
    right = changed(n, W2=0 * n["W2"])
    assert only(told(n, right)).kind == "independent"


def test_whole_gradient():
    n = gradients()
    everything = lambda c: {name: c * value for name, value in n.items()}  # noqa: E731
    assert only(told(everything(2), n, facts=DataFacts(batch=7))).kind == "accumulated"
    finding = only(told(everything(7), n, facts=DataFacts(batch=7)))
    assert (finding.kind, finding.block) == ("sum_over_batch", None)
    finding = only(told(everything(7 / 10), n, facts=DataFacts(batch=7)))
    assert finding.kind == "last_batch"
    assert "divided by 10, where this batch has m = 7" in finding.message


def test_data_term_scaled_but_not_the_regulariser():
    n, theta = gradients(), gradients(1)
    penalty = {name: 0.3 * theta[name] * (name[0] == "W") for name in n}
    g = {name: 7 * (n[name] - penalty[name]) + penalty[name] for name in n}
    finding = only(told(g, n, theta=theta, facts=DataFacts(batch=7)))
    assert finding.kind == "sum_over_batch"
    assert finding.evidence["lambda_l2"] == pytest.approx(0.3, rel=1e-6)


@pytest.mark.parametrize(
    ("times", "words"),
    [
        (-1.0, "is in the loss (lambda = 0.3), not in the gradient"),
        (1.0, "counts twice"),
        (-2.0, "is subtracted"),
        (1 / 7 - 1, "is divided by m = 7 in the gradient only"),
        (-0.5, "is halved"),
    ],
)
def test_l2_and_what_became_of_it(times, words):
    n, theta = gradients(), gradients(1)
    g = {name: n[name] + times * 0.3 * theta[name] * (name[0] == "W") for name in n}
    finding = only(told(g, n, theta=theta, facts=DataFacts(batch=7, scalars=(0.3,))))
    assert finding.kind == "l2"
    assert finding.evidence["rate"] == pytest.approx(0.3 * times, rel=1e-6)
    assert finding.evidence["blocks"] == ["W1", "W2", "W3"]
    assert words in finding.message


def test_l2_of_unknown_strength_and_of_biases():
    n, theta = gradients(), gradients(1)
    finding = only(told(changed(n, W1=n["W1"] - 0.02 * theta["W1"]), n, theta=theta))
    assert "lambda = 0.020000 that the gradient lacks" in finding.message
    finding = only(told(changed(n, b1=n["b1"] + 0.02 * theta["b1"]), n, theta=theta))
    assert "biases" in finding.message


def test_l1_and_both_penalties():
    n, theta = gradients(w=(20,), b=(3,)), gradients(1, w=(20,), b=(3,))
    finding = only(told(changed(n, w=n["w"] - 0.05 * np.sign(theta["w"])), n, theta=theta))
    assert finding.kind == "l1"
    assert finding.evidence["rate"] == pytest.approx(-0.05, rel=1e-6)
    both = n["w"] - 0.05 * np.sign(theta["w"]) - 0.2 * theta["w"]
    assert only(told(changed(n, w=both), n, theta=theta)).kind == "l2"


def test_transpose_reshape_reverse_shift_permute():
    n = gradients()
    cases = {
        "transpose": n["W2"].T,
        "order": None,
        "reversed": n["W2"][::-1],
        "shifted": np.roll(n["W2"], 2, axis=1),
        "permuted": n["W2"][[1, 0, 3, 2, 4]],
    }
    for kind, value in cases.items():
        if value is not None:
            finding = only(told(changed(n, W2=value), n))
            assert (finding.kind, finding.block) == (kind, "W2")
    for value in (n["W1"].T.reshape(5, 4), n["W1"].ravel().reshape((5, 4), order="F")):
        assert only(told(changed(n, W1=value), n)).kind == "order"


def test_words_of_a_shift_say_by_how_much():
    n = gradients(w=(30,))
    finding = only(told({"w": np.roll(n["w"], 1)}, n))
    assert "shifted by 1 along axis 0" in finding.message


def test_axes_of_three():
    n = gradients(kernel=(2, 3, 4), recurrent=(3, 4, 4))
    moved = n["kernel"].transpose(2, 0, 1).reshape(2, 3, 4)
    assert only(told(changed(n, kernel=moved), n)).kind == "order"
    assert only(told(changed(n, recurrent=n["recurrent"].swapaxes(1, 2)), n)).kind == "transpose"


def test_a_move_of_the_data_term_alone():
    n, theta = gradients(), gradients(1)
    g = changed(n, W2=(n["W2"] - 0.1 * theta["W2"]).T + 0.1 * theta["W2"])
    finding = only(told(g, n, theta=theta))
    assert finding.kind == "transpose"
    assert finding.evidence["lambda"] == pytest.approx(0.1, rel=1e-6)


def test_swapped():
    n = gradients()
    finding = only(told(changed(n, b1=n["b2"], b2=n["b1"]), n))
    assert finding.kind == "swapped"
    assert finding.evidence["blocks"] == ["b1", "b2"]
    assert "the other way round" in finding.message


def test_equal_slices_do_not_hide_a_permutation():
    n = {"w": np.array([0.5, 0.25, 0.5, 0.125, 0.25, 1.0, 0.5, 3.0, 2.0, 0.7])}
    g = {"w": n["w"][[4, 6, 2, 7, 3, 5, 9, 0, 8, 1]]}
    assert only(told(g, n)).kind == "permuted"


def test_one_coordinate_one_row():
    n = gradients()
    g = {name: value.copy() for name, value in n.items()}
    g["W3"][1, 2] *= -1
    finding = only(told(g, n))
    assert finding.kind == "coordinate"
    assert finding.evidence["places"] == [("W3", (1, 2))]
    assert "the sign is wrong" in finding.message
    for value, words in ((0.0, "never filled in"), (1.5, "1.5000 ×")):
        g = {name: part.copy() for name, part in n.items()}
        g["W1"][:, 3] *= value
        finding = only(told(g, n))
        assert (finding.kind, finding.evidence["axis"], finding.evidence["index"]) == ("slice", 1, 3)
        assert "W1[:, 3] (column 3 alone)" in finding.message
        assert words in finding.message
    g = {name: part.copy() for name, part in n.items()}
    g["W1"][2] = [5.0, 1.0, -3.0, 0.2]
    assert only(told(g, n)).kind == "slice"


def test_a_factor_for_every_row():
    n = gradients()
    finding = only(told(changed(n, W2=n["W2"] * np.array([[1.5], [0.3], [2.2], [1.0], [0.9]])), n))
    assert finding.kind == "axis_factor"
    assert finding.evidence["factors"] == pytest.approx([1.5, 0.3, 2.2, 1.0, 0.9])


def test_bias_summed_over_all():
    n = gradients()
    finding = only(told(changed(n, b1=np.full((5, 1), n["b1"].sum())), n))
    assert finding.kind == "bias_sum"
    assert "the sum of the measured gradient" in finding.message


def test_clipping():
    n = gradients()
    finding = only(told({name: np.clip(value, -0.8, 0.8) for name, value in n.items()}, n))
    assert finding.kind == "clipped"
    assert finding.evidence["limit"] == 0.8


def test_float32():
    n = gradients()
    g = {name: value.astype(np.float32).astype(float) for name, value in n.items()}
    finding = only(told(g, n, tolerance=1e-12))
    assert finding.kind == "float32"
    off = {name: value * (1 + 1e-7 * np.cos(np.arange(value.size)).reshape(value.shape)) for name, value in n.items()}
    finding = only(told(off, n, tolerance=1e-12))
    assert finding.kind == "first_wrong_layer"
    assert "the size of float32 arithmetic" in finding.message


def test_softmax_without_cross_terms():
    n = gradients(W=(6, 4), b=(6,))
    n["b"] -= n["b"].mean()
    g = changed(n, b=np.minimum(n["b"], 0.0) * 0.7)
    finding = told(g, n)[0]
    assert finding.kind == "softmax"


def test_sampled_rows_are_enough():
    n = gradients(W=(40, 40), b=(40,))
    rng = np.random.default_rng(3)
    rows = {"W": np.sort(rng.choice(1600, 60, replace=False)), "b": np.arange(0, 40, 3)}
    for kind, value in (("transpose", n["W"].T), ("factor", 2 * n["W"]), ("shifted", np.roll(n["W"], 1, 0))):
        assert only(told(changed(n, W=value), n, rows=rows)).kind == kind


@pytest.mark.parametrize("seed", range(20))
def test_random_errors_stay_unexplained(seed):
    n, rng = gradients(), np.random.default_rng(seed)
    g = {name: value + 10.0 ** rng.uniform(-4, 1) * rng.standard_normal(value.shape) for name, value in n.items()}
    finding = only(told(g, n, facts=DataFacts(batch=3, classes=3, sizes=(3, 4), scalars=(0.1,))))
    assert finding.kind == "first_wrong_layer"


def test_fortran_blocks_are_read_in_their_own_order():
    n = gradients(W=(6, 6))["W"]
    theta = {"W": np.asfortranarray(np.cos(np.arange(36.0)).reshape(6, 6))}
    built = evidence({"W": n.T.T}, {"W": n}, theta)
    block = built.blocks[0]
    assert block.block.order == "F"
    vector = np.arange(36.0)
    np.testing.assert_array_equal(block.vector(block.array(vector)), vector)
    np.testing.assert_array_equal(block.array(vector), vector.reshape(6, 6, order="F"))
