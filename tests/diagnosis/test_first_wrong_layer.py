import numpy as np
import pytest

from fastcheck.diagnosis import diagnose
from fastcheck.diagnosis.first_wrong_layer import in_order, layers_of
from fastcheck.parameters import Parameters
from tests.diagnosis.build import evidence, gradients


def noisy(n, *names):
    rng = np.random.default_rng(1)
    return {k: v + 0.3 * rng.standard_normal(v.shape) if k in names else v for k, v in n.items()}


def layers(**shapes):
    blocks = Parameters.of({name: np.ones(shape) for name, shape in shapes.items()}).blocks
    return {layer.names: layer.label if layer.known else None for layer in layers_of(blocks)}


def test_layers_are_read_from_names():
    assert layers(W2=(3, 4), b2=(3,), W1=(4, 5), b1=(4,)) == {("W1", "b1"): "layer 1", ("W2", "b2"): "layer 2"}
    cells = {"cell.bias": (3,), "cell.weight": (3, 4), "out.bias": (2,), "out.weight": (2, 3)}
    assert list(layers(**cells).values()) == ["layer cell", "layer out"]
    assert list(layers(hidden_b=(3,), hidden_w=(3, 4), out_w=(2, 3), out_b=(2,))) == [
        ("hidden_b", "hidden_w"),
        ("out_w", "out_b"),
    ]


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ({"W": (5, 4), "b": (5,), "V": (3, 5), "c": (3,)}, {("W", "b"), ("V", "c")}),
        ({"W": (4, 5), "V": (5, 3), "b": (5,), "c": (3,)}, {("W", "b"), ("V", "c")}),
        ({"Wxh": (7, 4), "bh": (7,), "Why": (3, 7), "by": (3,)}, {("Wxh", "bh"), ("Why", "by")}),
        ({"K": (6, 2, 3, 3), "c": (6,)}, {("K", "c")}),
        ({"W": (5, 5), "b": (5,), "V": (5, 5), "c": (5,)}, {("W", "b"), ("V", "c")}),
        ({"W": (5, 4), "b": (5, 1), "g": (5,)}, {("W", "b", "g")}),
    ],
)
def test_shapes_tell_which_bias_belongs_to_which_matrix(shapes, expected):
    assert {names for names, label in layers(**shapes).items() if label} == expected


def test_where_nothing_tells_nothing_is_claimed():
    lstm = layers(Wx=(4, 20), Wh=(5, 20), b=(20,))
    assert not any(lstm.values())
    n = gradients(Wx=(4, 20), Wh=(5, 20), b=(20,))
    (finding,) = diagnose(evidence(noisy(n, "Wh"), n))
    assert "same layer" not in finding.message
    assert "step from" not in finding.message
    assert "look first at Wh" in finding.message


def test_the_wrong_block_nearest_to_the_output_is_the_culprit():
    n = gradients()
    (finding,) = diagnose(evidence(noisy(n, "W1", "b1", "W2", "b2"), n))
    assert finding.kind == "first_wrong_layer"
    assert finding.message.startswith("W1, b1, W2 and b2 are wrong, W3 and b3 are right: look at the step from layer 3")
    assert "back to layer 2" in finding.message
    assert "(W1 and b1) may be wrong only because of it" in finding.message
    assert finding.block == finding.evidence["culprit"] == "b2"


def test_a_right_block_of_the_same_layer_clears_what_arrives_there():
    n = gradients()
    (finding,) = diagnose(evidence(noisy(n, "W1", "b1", "W2"), n))
    assert finding.block == "W2"
    assert "b2, of the same layer, is right" in finding.message


def test_all_wrong_points_at_the_output():
    n = gradients()
    (finding,) = diagnose(evidence(noisy(n, *n), n))
    assert "from the output on" in finding.message


def test_explained_blocks_come_first_where_they_are_nearer_to_the_output():
    n = gradients()
    g = noisy(n, "W1", "b1") | {"W3": 2 * n["W3"]}
    kinds = [finding.kind for finding in diagnose(evidence(g, n))]
    assert kinds == ["factor", "first_wrong_layer"]
    g = noisy(n, "b3") | {"W1": 2 * n["W1"]}
    assert [finding.kind for finding in diagnose(evidence(g, n))] == ["first_wrong_layer", "factor"]


def test_numbered_names_are_ordered_by_number():
    n = gradients(W1=(4, 3), W2=(4, 4), b1=(4,), b2=(4,))
    assert [block.name for block in in_order(evidence(n, n).blocks)] == ["W1", "b1", "W2", "b2"]


def test_a_lone_block_is_unknown():
    n = gradients(theta=(8,))
    (finding,) = diagnose(evidence(noisy(n, "theta"), n))
    assert finding.kind == "unknown"
    assert "°" in finding.message
