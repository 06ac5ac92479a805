import numpy as np
import pytest

from fastcheck.diagnosis import diagnose
from fastcheck.diagnosis.origin import in_order, layer_of
from tests.diagnosis.build import evidence, gradients


def noisy(n, *names):
    rng = np.random.default_rng(1)
    return {k: v + 0.3 * rng.standard_normal(v.shape) if k in names else v for k, v in n.items()}


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("W2", "2"),
        ("b2", "2"),
        ("cell.bias", "cell"),
        ("blocks.3.0", "blocks.3"),
        ("hidden_bias", "hidden"),
        ("0", "0"),
    ],
)
def test_layers_are_read_from_names(name, layer):
    assert layer_of(name) == layer


def test_the_wrong_block_nearest_to_the_output_is_the_culprit():
    n = gradients()
    (finding,) = diagnose(evidence(noisy(n, "W1", "b1", "W2", "b2"), n))
    assert finding.kind == "origin"
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
    assert kinds == ["factor", "origin"]
    g = noisy(n, "b3") | {"W1": 2 * n["W1"]}
    assert [finding.kind for finding in diagnose(evidence(g, n))] == ["origin", "factor"]


def test_numbered_names_are_ordered_by_number():
    n = gradients(W1=(4, 3), W2=(4, 4), b1=(4,), b2=(4,))
    assert [block.name for block in in_order(evidence(n, n).blocks)] == ["W1", "b1", "W2", "b2"]


def test_a_lone_block_is_unknown():
    n = gradients(theta=(8,))
    (finding,) = diagnose(evidence(noisy(n, "theta"), n))
    assert finding.kind == "unknown"
    assert "°" in finding.message
