import numpy as np
import pytest

import fastcheck
from fastcheck import examples
from fastcheck.bugs import MUTATIONS

BY_KIND = {mutation.kind: mutation for mutation in MUTATIONS}


def report_of(kind, net, seed=0):
    mutated = BY_KIND[kind].apply(net, np.random.default_rng(seed))
    return fastcheck.check(net.loss, mutated.problem.gradient, net.params, args=net.args, mode="full")


def test_the_exercise_with_its_two_bugs():
    net = examples.course_net(bugs=True)
    report = fastcheck.check(net.loss, net.gradient, net.params, args=net.args)
    lines = str(report).splitlines()
    assert lines[0] == (
        "WRONG: W2 ×3.000 of the measured gradient (missing 1/m? m = 3), b1 ×2.000; 4 of 6 blocks agree"
    )
    W2, b1 = report.findings[:2]
    assert W2.message == "gradient of W2 is 3.0000 × the measured one: missing 1/m? (batch m = 3)"
    assert b1.message.startswith("gradient of b1 is 2.0000 × the measured one")
    assert f"- {W2.message}" in lines
    assert report.findings[2].kind == "extra_gradient"  # what was noticed on the way comes after the reasons


@pytest.mark.parametrize(
    ("kind", "headline"),
    [
        ("l2_missing", "WRONG: W1, W2, W3 L2 missing;"),
        ("transpose", "WRONG: W2 transposed;"),
        ("swapped", "WRONG: b1, b2 exchanged;"),
        ("coordinate_sign", "WRONG: b3[2] ×-1.000 of the measured one;"),
        ("slice_scaled", "×1.500 of the measured one;"),
        ("zero", "all zeros;"),
    ],
)
def test_headlines(kind, headline):
    net = examples.digits_net((24, 24), batch=64, l2=1e-2)
    assert headline in str(report_of(kind, net)).splitlines()[0]


def test_a_right_gradient_has_no_diagnosis():
    net = examples.digits_net((12,), batch=32)
    report = fastcheck.check(net.loss, net.gradient, net.params, args=net.args)
    assert report.passed
    assert not [f for f in report.findings if "blocks" in f.evidence]


def test_findings_survive_json(tmp_path):
    net = examples.digits_net((12,), batch=32)
    report = report_of("sum_over_batch", net)
    again = fastcheck.Report.load(report.save(tmp_path / "r.json"))
    assert [f.message for f in again.findings] == [f.message for f in report.findings]
    assert str(again).splitlines()[0] == str(report).splitlines()[0]


def test_a_stopped_run_is_diagnosed_from_what_it_measured():
    net = examples.digits_net((24, 24), batch=64)
    report = report_of("factor_2", net)
    assert report.findings[0].kind == "factor"
    only = fastcheck.check(
        net.loss, {n: 3 * v for n, v in net.claimed().items()}, net.params, args=net.args, blocks=["b*"]
    )
    assert only.findings[0].evidence["blocks"] == ["b1", "b2", "b3"]


def test_kinks_do_not_spoil_the_diagnosis():
    net = examples.digits_net((24, 24), batch=64, activation="relu")
    wrong = {name: 2 * value for name, value in net.claimed().items()}
    report = fastcheck.check(net.loss, wrong, net.params, args=net.args)
    assert report.findings[0].kind == "accumulated"
