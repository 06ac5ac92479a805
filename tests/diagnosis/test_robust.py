"""Whatever the shapes and the numbers, a diagnosis is made, and it is true of exact evidence."""

import numpy as np
import pytest

from fastcheck.diagnosis import DataFacts, diagnose
from tests.diagnosis.build import evidence

SHAPES = [(), (1,), (2,), (3,), (1, 1), (1, 5), (5, 1), (2, 2), (3, 4), (2, 3, 4), (2, 2, 2, 2), (2, 1, 3, 1, 2), (30,)]
FACTS = DataFacts(batch=3, classes=4, sizes=(3, 4, 5), scalars=(0.0, 0.1, 1e300, -2.0))


def draw(rng, shape):
    kind = rng.integers(5)
    if kind == 0:
        return np.zeros(shape)
    if kind == 1:
        return np.full(shape, rng.standard_normal())
    if kind == 2:
        return np.round(rng.standard_normal(shape))
    if kind == 3:
        return 10.0 ** rng.uniform(-12, 12) * rng.standard_normal(shape)
    return rng.standard_normal(shape) * (rng.random(shape) < 0.3)


@pytest.mark.parametrize("seed", range(60))
def test_any_shapes_and_values(seed):
    rng = np.random.default_rng(seed)
    chosen = [SHAPES[i] for i in rng.integers(len(SHAPES), size=rng.integers(1, 6))]
    names = [f"p{i}" for i in range(len(chosen))]
    g, n, theta = ({name: draw(rng, shape) for name, shape in zip(names, chosen, strict=True)} for _ in range(3))
    built = evidence(g, n, theta, facts=FACTS, tolerance=10.0 ** rng.uniform(-14, -3))
    findings = diagnose(built)
    assert bool(findings) == any(block.wrong for block in built.blocks)
    for finding in findings:
        assert finding.message
        assert set(finding.evidence["blocks"]) <= {block.name for block in built.blocks if block.wrong}


@pytest.mark.parametrize("seed", range(30))
def test_sampled_rows_of_any_number(seed):
    rng = np.random.default_rng(seed)
    g, n = ({"W": rng.standard_normal((4, 5)), "b": rng.standard_normal(5)} for _ in range(2))
    rows = {
        name: np.sort(rng.choice(value.size, rng.integers(0, value.size + 1), replace=False))
        for name, value in g.items()
    }
    findings = diagnose(evidence(g, n, facts=FACTS, rows=rows))
    assert {finding.kind for finding in findings} <= {"first_wrong_layer", "coordinate", "slice"}
