"""Many checks become one report: what counts, what is left out, and what is shared."""

import dataclasses

import numpy as np
import pytest

import fastcheck
from fastcheck import Verdict
from fastcheck.findings import Finding, Kind
from fastcheck.products import checks as module
from fastcheck.products.checks import RULES, Checked, Checks, Part, merged, parts_of
from fastcheck.products.claims import TangentClaim, Tangents, TransposedClaim
from fastcheck.products.cotangents import suspects_of
from fastcheck.products.point import LinearizationPoint, Product

PASSED = fastcheck.check(lambda x: float(np.sin(x).sum()), np.cos, np.ones(2))
WRONG = fastcheck.check(lambda x: float(np.sin(x).sum()), lambda x: 2 * np.cos(x), np.ones(2))
UNSURE = dataclasses.replace(
    PASSED,
    verdict=Verdict.INCONCLUSIVE,
    uncertainty=1e-3,
    blocks={"theta": dataclasses.replace(PASSED.blocks["theta"], verdict=Verdict.INCONCLUSIVE)},
    findings=(Finding(Kind.UNCHECKED, "theta", "theta is unchecked", {"gradient": 1.0, "uncertainty": 1e-3}),),
)
STOPPED = dataclasses.replace(UNSURE, findings=(*UNSURE.findings, Finding(Kind.STOPPED, None, "it stopped")))


def whole(report, claimed=1.0):
    return Checked("all outputs", np.ones(2), False, report, claimed)


def single(place, report, claimed=1.0):
    return Checked(f"output[{place}]", np.eye(2)[place], True, report, claimed)


@pytest.mark.parametrize(
    ("done", "verdict"),
    [
        ([whole(PASSED), single(0, PASSED), single(1, PASSED)], Verdict.CORRECT),
        ([whole(PASSED), single(0, WRONG), single(1, PASSED)], Verdict.WRONG),
        ([whole(WRONG), single(0, UNSURE)], Verdict.WRONG),
        # undecided together, but decided one by one; and the other way round
        ([whole(UNSURE), single(0, PASSED), single(1, PASSED)], Verdict.CORRECT),
        ([whole(UNSURE), single(0, PASSED)], Verdict.INCONCLUSIVE),
        ([whole(STOPPED), single(0, PASSED), single(1, PASSED)], Verdict.INCONCLUSIVE),
        ([whole(UNSURE), whole(PASSED)], Verdict.CORRECT),
        ([whole(STOPPED), whole(PASSED)], Verdict.INCONCLUSIVE),
        ([whole(UNSURE), whole(UNSURE)], Verdict.INCONCLUSIVE),
        # an output that may be left out because its derivative is small, and others that may not
        ([whole(PASSED), single(0, UNSURE, claimed=1e-5), single(1, PASSED)], Verdict.CORRECT),
        ([whole(PASSED), single(0, UNSURE, claimed=0.01), single(1, PASSED)], Verdict.CORRECT),
        ([whole(PASSED), single(0, UNSURE, claimed=0.5), single(1, PASSED)], Verdict.INCONCLUSIVE),
        ([whole(PASSED), single(0, STOPPED, claimed=0.0), single(1, PASSED)], Verdict.INCONCLUSIVE),
    ],
)
def test_the_verdict_is_the_worst_of_what_was_decided(done, verdict):
    report = merged(Checks("check_vjp", {}), done, [], {})
    assert report.verdict is verdict
    assert report.blocks["theta"].verdict is verdict or verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("done", "wrong_outputs_known", "parts"),
    [
        ([whole(PASSED), single(0, UNSURE, claimed=1e-5)], False, [Part.LEADS, Part.NAMED]),
        ([whole(PASSED), single(0, STOPPED, claimed=0.0)], False, [Part.LEADS, Part.COUNTS]),
        ([whole(UNSURE), whole(PASSED)], False, [Part.LEFT_OUT, Part.LEADS]),
        ([whole(UNSURE), single(0, PASSED), single(1, PASSED)], False, [Part.LEFT_OUT, Part.COUNTS, Part.COUNTS]),
        ([whole(WRONG), single(0, WRONG), single(1, PASSED)], True, [Part.COUNTS, Part.LEADS, Part.LEADS]),
        ([whole(UNSURE), single(0, PASSED)], False, [Part.LEADS, Part.COUNTS]),
    ],
)
def test_every_rule_gives_checks_their_part(done, wrong_outputs_known, parts):
    assert parts_of(done, wrong_outputs_known) == parts
    assert len({words for _, words, _ in RULES}) == len(RULES)


def test_what_is_left_out_is_named():
    report = merged(Checks("check_vjp", {}), [whole(PASSED), single(0, UNSURE, claimed=0.0), single(1, PASSED)], [], {})
    assert [finding.kind for finding in report.findings] == ["silent_outputs"]
    assert report.findings[0].evidence["outputs"] == ["output[0]"]


@pytest.mark.parametrize(
    ("done", "share"),
    [
        ([whole(PASSED)] * 2, 0.01),
        ([whole(PASSED), whole(UNSURE)], 1e-4),
        ([whole(UNSURE), single(0, PASSED), single(1, PASSED)], 1.0),
        ([whole(UNSURE)], 0.0),
    ],
)
def test_the_share_that_is_seen_counts_what_was_decided(done, share):
    assert merged(Checks("check_vjp", {}), done, [], {}).settings["visible"] == pytest.approx(share)


def test_confidence_and_time_are_shared_out(monkeypatch):
    given = []

    def recorded(*what, **options):
        given.append(options)
        return fastcheck.check(*what, **options)

    monkeypatch.setattr(module, "check", recorded)
    A = np.random.default_rng(0).normal(size=(40, 3))
    report = fastcheck.check_vjp(lambda x: A @ x, lambda x, u: A.T @ u, np.ones(3), confidence=0.97, budget=60)
    assert report.settings["confidence"] == 0.97
    assert report.settings["budget"] == 60
    assert [options["confidence"] for options in given] == pytest.approx([0.99] * 3)
    assert 19 < given[0]["budget"] <= 20
    assert 29 < given[1]["budget"] <= 30
    assert 50 < given[2]["budget"] <= 60
    assert {options["mode"] for options in given} == {"full"}


def test_outputs_are_found_too_where_no_coordinate_stands_out():
    rng = np.random.default_rng(1)
    A = rng.normal(size=(40, 100))
    factor = np.ones(40)
    factor[17] = 2.0
    point = LinearizationPoint.of(lambda x: A @ x, rng.normal(size=100), ())
    drawn = TangentClaim(
        point,
        Product(lambda x, v: factor * (A @ v), "jvp", "tangent"),
        Tangents.at_random(point, point.inputs.blocks, 8, 0),
    )
    pulled = TransposedClaim(point, Product(lambda x, u: A.T @ (factor * u), "vjp", "cotangent"))
    report = dataclasses.replace(WRONG, wrong=(), settings={})
    for claim in (drawn, pulled):
        assert suspects_of(claim, Checked("all outputs", np.ones(40), False, report, 1.0)) == [17]


def test_entries_of_a_gradient_that_belong_to_no_input_are_left_alone():
    def vjp(x, u):
        return {"dx": np.cos(x["x"]) * u, "note": "not an array", "cache": None}

    report = fastcheck.check_vjp(lambda p: np.sin(p["x"]), vjp, {"x": np.ones(3)})
    assert report.passed
    assert [finding.kind for finding in report.findings] == ["extra_gradient"]
