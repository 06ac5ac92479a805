import json
import math

import numpy as np
import pytest

import fastcheck
from fastcheck import examples

KINDS = ["factor_2", "sign", "zero", "transpose", "coordinate_scaled", "slice_zeroed"]


def small():
    return examples.mlp((6, 5, 5, 3), batch=8)


def test_finds_names_and_measures():
    net = small()
    report = fastcheck.self_test(net.loss, net.gradient, net.params, args=net.args, kinds=KINDS)
    assert report.passed
    assert [bug.kind for bug in report.bugs] == KINDS
    assert report.named == 1.0
    assert report.report.passed
    for bug in report.bugs:
        assert bug.found
        assert bug.verdict is fastcheck.Verdict.WRONG or bug.size < 0.02
        # what is seen is at most ten times what the check says it can see, and never below a tenth of its tolerance
        detectable = max(report.report.blocks[name].detectable for name in bug.blocks)
        assert 1e-8 < bug.smallest < 100 * detectable
        assert bug.smallest <= bug.size


def test_all_kinds_that_make_sense():
    net = small()
    report = fastcheck.self_test(net.loss, net.gradient, net.params, args=net.args, smallest=False)
    assert len(report.bugs) >= 18
    assert report.passed
    assert report.named >= 0.95
    assert all(math.isnan(bug.smallest) for bug in report.bugs)
    assert {"factor_m", "sum_over_batch", "factor_classes"} <= {bug.kind for bug in report.bugs}


def test_table_and_data():
    net = small()
    report = fastcheck.self_test(net.loss, net.gradient, net.params, args=net.args, kinds=["sign"])
    head, columns, row = str(report).splitlines()
    assert head.startswith("PASSED: 1 of 1 planted bug found, 1 of 1 named rightly")
    assert columns.split() == ["bug", "in", "size", "found", "named", "first", "finding", "smallest", "found"]
    assert row.split()[0] == "sign"
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["bugs"][0]["kind"] == "sign"
    with pytest.raises(fastcheck.InputError, match="neither true nor false"):
        bool(report)


def test_a_blind_check_fails():
    net = small()
    options = {"tolerance": 0.9, "kinds": ["factor_1.01"]}
    report = fastcheck.self_test(net.loss, net.gradient, net.params, args=net.args, **options)
    assert not report.passed
    assert str(report).startswith("FAILED: 0 of 1")


def test_a_wrong_gradient_is_no_place_to_plant():
    net = small()
    wrong = {name: 2 * value for name, value in net.claimed().items()}
    with pytest.raises(fastcheck.GradientError):
        fastcheck.self_test(net.loss, wrong, net.params, args=net.args)


def test_unknown_kinds_are_named():
    net = small()
    with pytest.raises(fastcheck.InputError, match="'typo' is not known"):
        fastcheck.self_test(net.loss, net.gradient, net.params, args=net.args, kinds=["typo"])


def test_seeds_repeat_and_params_stay():
    net = small()
    before = {name: value.copy() for name, value in net.params.items()}
    first, second = (
        fastcheck.self_test(net.loss, net.gradient, net.params, args=net.args, kinds=KINDS, smallest=False, seed=5)
        for _ in range(2)
    )
    assert first.bugs == second.bugs
    for name, value in net.params.items():
        np.testing.assert_array_equal(value, before[name])
