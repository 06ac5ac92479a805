import json

import numpy as np
import pytest

import fastcheck
from fastcheck import examples

RATE = 1e-8


def pieces():
    net = examples.logistic_regression(l2=0.0)
    data = (net.loss, net.gradient, net.args)
    return net, data


def l2(times=1.0, rate=RATE):
    return lambda p: 0.5 * rate * float(np.sum(p["w"] ** 2)), lambda p: {"w": times * rate * p["w"]}


def test_right_terms_pass_and_the_sum_too():
    net, data = pieces()
    report = fastcheck.check_terms({"data": data, "l2": l2(rate=0.1)}, net.params)
    assert report.passed
    assert report.verdict is fastcheck.Verdict.CORRECT
    assert list(report.terms) == ["data", "l2"]
    assert not report.findings
    assert report.raise_if_wrong() is report


def test_an_error_that_the_sum_cannot_see_is_found_in_the_term():
    net, data = pieces()
    report = fastcheck.check_terms({"data": data, "l2": l2(times=1 + 1e-3)}, net.params)
    assert report.sum.passed
    assert not report.passed
    assert not report.terms["l2"].passed
    masked = report.findings[0]
    assert (masked.kind, masked.block) == ("masked", "l2")
    size = np.linalg.norm(np.hstack([*net.claimed().values()]))
    expected = (1 + 1e-3) * RATE * np.linalg.norm(net.params["w"]) / size
    assert masked.evidence["ratio"] == pytest.approx(expected, rel=1e-6)
    why = report.findings[1]
    assert why.evidence["blocks"] == ["w"]
    assert why.message.startswith("l2: ")


def test_a_term_without_a_gradient_is_found_though_the_sum_passes():
    net, data = pieces()
    report = fastcheck.check_terms({"data": data, "l2": l2(times=0.0, rate=1e-12)}, net.params)
    assert report.sum.passed
    assert not report.passed
    masked = report.findings[0]
    assert (masked.kind, masked.block, masked.evidence["ratio"]) == ("masked", "l2", 0.0)
    assert "its gradient is all zeros" in masked.message


def test_a_right_term_that_is_drowned_is_said_to_be():
    net, data = pieces()
    report = fastcheck.check_terms({"data": data, "l2": l2()}, net.params)
    assert report.passed
    (finding,) = report.findings
    assert (finding.kind, finding.block) == ("drowned", "l2")
    # above it an error is always seen in the sum; below it may be, in a coordinate where the data term is small
    hidden = finding.evidence["hidden"]
    assert not fastcheck.check_terms({"data": data, "l2": l2(times=1 + 10 * hidden)}, net.params).sum.passed
    assert fastcheck.check_terms({"data": data, "l2": l2(times=1 + 1e-4 * hidden)}, net.params).sum.passed


def test_errors_that_cancel_in_the_sum():
    net, (loss, gradient, args) = pieces()
    shift = {"w": np.ones(64), "b": np.array(0.0)}

    def high(p, *args):
        return {name: value + shift[name] for name, value in gradient(p, *args).items()}

    def low(p, *args):
        return {name: value - shift[name] for name, value in gradient(p, *args).items()}

    report = fastcheck.check_terms({"a": (loss, high), "b": (loss, low)}, net.params, args=args)
    assert report.sum.passed
    assert not report.passed
    assert {f.block for f in report.findings if f.kind == "masked"} == {"a", "b"}


def test_text_and_data():
    net, data = pieces()
    report = fastcheck.check_terms({"data": data, "l2": l2(times=2.0)}, net.params)
    text = str(report)
    assert text.startswith("WRONG: 2 terms and their sum")
    assert "l2: WRONG: w L2 too much" in text
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["format"] == "fastcheck-terms"
    assert plain["passed"] is False
    assert set(plain["terms"]) == {"data", "l2"}
    with pytest.raises(fastcheck.GradientError, match="l2"):
        report.raise_if_wrong()
    with pytest.raises(fastcheck.GradientError):
        fastcheck.check_terms({"data": data, "l2": l2(times=2.0)}, net.params, throw=True)
    with pytest.raises(fastcheck.InputError, match="neither true nor false"):
        bool(report)


def test_params_stay_as_they_are():
    net, data = pieces()
    before = {name: value.copy() for name, value in net.params.items()}
    fastcheck.check_terms({"data": data, "l2": l2()}, net.params)
    for name, value in net.params.items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize("terms", [{}, None, [1], {"a": 3}, {"a": (1, 2)}, {"a": (lambda p: 0.0,)}])
def test_bad_terms_are_named(terms):
    with pytest.raises(fastcheck.InputError, match="terms"):
        fastcheck.check_terms(terms, {"w": np.ones(2)})
