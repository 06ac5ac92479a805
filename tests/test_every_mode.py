"""The same bug, the same words in every mode: one table. The next report of a wrong name is one more row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

import fastcheck
from fastcheck import Network, Verdict
from fastcheck.networks import Dense

SIZES, BATCH, L2 = (6, 9, 9, 4), 13, 1e-2
MODES = ("full", "sample", "screen", "structured")


def make(seed=3):
    rng = np.random.default_rng(seed)
    params = {}
    for k in (1, 2, 3):
        params[f"W{k}"] = rng.standard_normal((SIZES[k], SIZES[k - 1])) / np.sqrt(SIZES[k - 1])
        params[f"b{k}"] = 0.3 * rng.standard_normal((SIZES[k], 1))
    return params, rng.standard_normal((SIZES[0], BATCH)), rng.integers(0, SIZES[-1], BATCH)


PARAMS, X, Y = make()


def forward(p):
    A1 = np.tanh(p["W1"] @ X + p["b1"])
    A2 = np.tanh(p["W2"] @ A1 + p["b2"])
    Z = p["W3"] @ A2 + p["b3"]
    E = np.exp(Z - Z.max(0))
    return A1, A2, E / E.sum(0)


def loss(p):
    probabilities = forward(p)[2]
    data = -np.mean(np.log(probabilities[Y, np.arange(BATCH)]))
    return float(data + L2 / 2 * sum(np.sum(p[f"W{k}"] ** 2) for k in (1, 2, 3)))


def gradient(p):
    A1, A2, P = forward(p)
    D3 = P.copy()
    D3[Y, np.arange(BATCH)] -= 1
    D3 /= BATCH
    D2 = (p["W3"].T @ D3) * (1 - A2**2)
    D1 = (p["W2"].T @ D2) * (1 - A1**2)
    found = {}
    for k, D, A in ((1, D1, X), (2, D2, A1), (3, D3, A2)):
        found[f"W{k}"] = D @ A.T + L2 * p[f"W{k}"]
        found[f"b{k}"] = D.sum(axis=1, keepdims=True)
    return found


NETWORK = Network([Dense("W1", "b1", "tanh"), Dense("W2", "b2", "tanh"), Dense("W3", "b3")],
                  loss="softmax_cross_entropy", l2=L2)  # fmt: skip


def check(mode, wrong, **options):
    if mode == "structured":
        return fastcheck.check(NETWORK.bind(X, Y, like=loss), wrong, PARAMS, mode="full", **options)
    samples = {"samples": 250} if mode == "sample" else {}  # of 253: a sample that happens to hold the bug
    return fastcheck.check(loss, wrong, PARAMS, mode=mode, **samples, **options)


class Row(NamedTuple):
    """A bug, and what is to be said of it."""

    name: str
    plant: Callable[[dict[str, Any]], Any]
    verdict: Verdict
    blocks: set[str]
    coordinates: set[str] | None  # exactly these are listed; None: any of the blocks
    kind: str


def put(name, index, change):
    def plant(g):
        g[name][index] = change(g[name][index])

    return plant


def whole(name, change):
    def plant(g):
        g[name] = change(g[name])

    return plant


def everywhere(change):
    def plant(g):
        for name in g:
            g[name] = change(g[name])

    return plant


ALL = set(PARAMS)
WEIGHTS = {"W1", "W2", "W3"}
TABLE = [
    Row("a factor on one block", whole("W2", lambda a: 3 * a), Verdict.WRONG, {"W2"}, None, "factor"),
    Row("a percent on one block", whole("W1", lambda a: 1.03 * a), Verdict.WRONG, {"W1"}, None, "factor"),
    Row("the sign of one block", whole("W1", lambda a: -a), Verdict.WRONG, {"W1"}, None, "sign"),
    Row("the sign of all", everywhere(lambda a: -a), Verdict.WRONG, ALL, None, "sign"),
    Row("the sum for the mean", everywhere(lambda a: BATCH * a), Verdict.WRONG, ALL, None, "sum_over_batch"),
    Row("a block of zeros", whole("W2", np.zeros_like), Verdict.WRONG, {"W2"}, None, "zero"),
    Row("a transpose", whole("W2", lambda a: a.T.copy()), Verdict.WRONG, {"W2"}, None, "transpose"),
    Row("one coordinate", put("W1", (4, 2), lambda x: 1.5 * x), Verdict.WRONG, {"W1"}, {"W1[4, 2]"}, "coordinate"),
    Row("one sign", put("W3", (1, 7), lambda x: -x), Verdict.WRONG, {"W3"}, {"W3[1, 7]"}, "coordinate"),
    Row("one row", put("W2", (5,), lambda x: 1.2 * x), Verdict.WRONG, {"W2"}, None, "slice"),
    Row("one column", put("W2", (slice(None), 3), lambda x: 0 * x), Verdict.WRONG, {"W2"}, None, "slice"),
    Row("no L2", lambda g: [g.update({n: g[n] - L2 * PARAMS[n]}) for n in WEIGHTS], Verdict.WRONG, WEIGHTS, None, "l2"),
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_the_same_words_in_every_mode(row, mode):
    wrong = gradient(PARAMS)
    row.plant(wrong)
    report = check(mode, wrong)
    assert report.verdict is row.verdict, report
    assert {name for name, block in report.blocks.items() if block.verdict.refuted} == row.blocks, report
    assert report.findings[0].kind == row.kind, report
    if row.coordinates is not None:
        assert {one.name for one in report.wrong} == row.coordinates, report
    else:
        assert {one.block for one in report.wrong} <= row.blocks


@pytest.mark.parametrize("mode", MODES)
def test_right_in_every_mode(mode):
    report = check(mode, gradient)
    assert report.verdict is Verdict.CORRECT, report
    assert not report.findings or mode == "sample"
    assert report.wrong == ()


def test_a_network_says_which_step_it_took():
    assert check("structured", gradient).settings["step"] == 2.0**-30
    assert check("structured", gradient, step=1e-12).settings["step"] == 1e-12
    assert check("structured", gradient, step=1e-3).settings["step"] == 2.0**-30
    assert "steps" not in check("structured", gradient).settings


@pytest.mark.parametrize("option", [{"scheme": "forward"}, {"checkpoint": "x.fastcheck"}, {"backend": "processes"}])
def test_what_a_network_cannot_honour_is_refused_by_name(option, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(fastcheck.InputError, match=next(iter(option))):
        check("structured", gradient, **option)
    assert not list(tmp_path.iterdir())


def test_a_network_keeps_to_its_budget():
    report = check("structured", gradient, budget=1e-9)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert report.findings[0].kind == "stopped"
    assert check("structured", gradient, budget=60.0).verdict is Verdict.CORRECT


def test_the_numerical_gradient_of_a_network_is_the_networks_own():
    bound = NETWORK.bind(X, Y)
    found = fastcheck.numerical_gradient(bound, PARAMS)
    for name, exact in gradient(PARAMS).items():
        np.testing.assert_allclose(found[name], exact, rtol=1e-11, atol=1e-13)
