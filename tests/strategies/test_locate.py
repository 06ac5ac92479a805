"""Planted errors are found where they are, and named for what they are."""

import numpy as np
import pytest

import fastcheck
from fastcheck.examples import mlp
from tests.strategies.losses import planted, smooth

ROWS, COLUMNS = 40, 30


def located(change, **options):
    loss, gradient, params = smooth(ROWS, COLUMNS)
    return fastcheck.check(loss, planted(gradient, params, change), params, mode="screen", **options)


def kinds(report):
    return {finding.kind for finding in report.findings if finding.block}


@pytest.mark.parametrize("factor", [1.01, -1.0, 0.0, 2.0])
@pytest.mark.parametrize("seed", range(4))
def test_one_coordinate(factor, seed):
    rng = np.random.default_rng(seed)
    at = int(rng.integers(ROWS)), int(rng.integers(COLUMNS))

    def change(tree):
        tree["W"][at] = 0.05 * factor if abs(tree["W"][at]) < 0.01 else tree["W"][at] * factor

    report = located(change, seed=seed)
    assert [c.index for c in report.wrong] == [at]
    assert kinds(report) == {"coordinate"}
    assert str(report).splitlines()[0].startswith(f"{report.verdict.value.upper()}: W[{at[0]}, {at[1]}]")


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_one_coordinate_of_a_net_costs_few_evaluations(activation):
    """In 53 and 74 without directions that vouch for each other, and quick looks that these corroborate."""
    net, seeds = mlp((200, 300, 200, 10), activation=activation), range(10)
    evaluations = []
    for seed in seeds:
        gradient = {name: array.copy() for name, array in net.claimed().items()}
        telling = np.argwhere(np.abs(gradient["W1"]) >= np.median(np.abs(gradient["W1"])))
        at = tuple(telling[np.random.default_rng(seed).integers(len(telling))].tolist())
        gradient["W1"][at] *= 1.01
        report = fastcheck.check(net.loss, gradient, net.params, args=net.args, mode="screen", seed=seed)
        assert [c.index for c in report.wrong] == [at]
        evaluations.append(report.evaluations)
    assert np.median(evaluations) <= 40


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("count", [2, 5, 9])
def test_several_coordinates(seed, count):
    places = np.random.default_rng(seed).choice(ROWS * COLUMNS, count, replace=False)

    def change(tree):
        tree["W"].reshape(-1)[places] += 0.03

    report = located(change, seed=seed)
    assert {c.index[0] * COLUMNS + c.index[1] for c in report.wrong} == set(places.tolist())
    (finding,) = [f for f in report.findings if f.block == "W"]
    assert finding.kind == "coordinate"
    assert finding.evidence["complete"]
    assert finding.evidence["evaluations"] <= 20 + 45 * count


@pytest.mark.parametrize(
    "where, name, axis",
    [((7, slice(None)), "W[7, :]", 0), ((slice(None), 11), "W[:, 11]", 1)],
)
@pytest.mark.parametrize("what", ["zero", "factor", "noise"])
def test_a_row_or_a_column_is_named(where, name, axis, what):
    def change(tree):
        part = tree["W"][where]
        tree["W"][where] = {"zero": 0 * part, "factor": 1.1 * part, "noise": part[::-1]}[what]

    report = located(change)
    (finding,) = [f for f in report.findings if f.block == "W"]
    assert finding.kind == "slice"
    assert (finding.evidence["axis"], finding.evidence["index"]) == (axis, 7 if axis == 0 else 11)
    assert name in str(report).splitlines()[0]
    if what == "factor":
        assert finding.evidence["factor"] == pytest.approx(1.1, rel=1e-4)
    assert all(c.index[axis] == finding.evidence["index"] for c in report.wrong)
    assert report.wrong


@pytest.mark.parametrize("factor", [1.01, -1.0, 0.5, 64.0])
def test_a_factor_on_a_whole_block_is_told(factor):
    report = located(lambda tree: tree["W"].__imul__(factor))
    (finding,) = [f for f in report.findings if f.block == "W"]
    assert finding.kind == ("sign" if factor == -1 else "factor")
    assert finding.evidence["factor"] == pytest.approx(factor, rel=1e-4)


def test_a_transposed_square_matrix_is_told():
    def change(tree):
        tree["V"] = tree["V"].T.copy()

    report = located(change)
    (finding,) = [f for f in report.findings if f.block == "V"]
    assert finding.kind == "transpose"


def test_a_block_that_is_wrong_throughout_is_not_taken_apart():
    report = located(lambda tree: tree["W"].__isub__(np.random.default_rng(99).standard_normal((ROWS, COLUMNS))))
    (finding,) = [f for f in report.findings if f.block == "W"]
    assert finding.kind == "first_wrong_layer"
    assert report.blocks["W"].checked < 20
    assert report.evaluations < 100


def test_a_region_of_rows_is_named():
    report = located(lambda tree: tree["W"][:20].__imul__(np.linspace(1.5, 2, COLUMNS)))
    (finding,) = [f for f in report.findings if f.block == "W"]
    assert finding.kind == "region"
    assert finding.evidence["box"] == [(0, 20), (0, COLUMNS)]


def test_fortran_arrays_are_told_in_the_users_axes():
    loss, gradient, params = smooth(ROWS, COLUMNS)
    params["W"] = np.asfortranarray(params["W"])

    def change(tree):
        tree["W"][7] = tree["W"][7, ::-1].copy()

    report = fastcheck.check(loss, planted(gradient, params, change), params, mode="screen")
    (finding,) = [f for f in report.findings if f.block == "W"]
    assert (finding.kind, finding.evidence["axis"], finding.evidence["index"]) == ("slice", 0, 7)


def test_everything_listed_was_measured_and_is_wrong():
    loss, gradient, params = smooth(ROWS, COLUMNS)
    right = gradient(params)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        mask = rng.random((ROWS, COLUMNS)) < 0.02

        def change(tree, mask=mask):
            tree["W"][mask] *= 1.5

        report = fastcheck.check(loss, planted(gradient, params, change), params, mode="screen", seed=seed)
        assert report.wrong
        for c in report.wrong:
            assert mask[c.index]
            assert abs(c.numerical - right["W"][c.index]) <= c.uncertainty


def test_a_budget_ends_the_search():
    loss, gradient, params = smooth(ROWS, COLUMNS)

    def slow(p):
        total = 0.0
        for _ in range(40):
            total += loss(p)
        return total / 40

    wrong = planted(gradient, params, lambda tree: tree["W"].reshape(-1)[::97].__iadd__(0.05))
    report = fastcheck.check(slow, wrong, params, mode="screen", budget=0.1)
    assert not report.passed
    assert report.seconds < 2
