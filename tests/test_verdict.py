from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastcheck.judge.verdict import Verdict, grade, worst
from tests.naive import grade_in_words

LIMITS = (1e-7, 1e-4, 1e-2)


@pytest.mark.parametrize("kinks", [False, True])
@pytest.mark.parametrize("limit", LIMITS)
def test_grades_at_the_limits_from_both_sides(limit, kinks):
    for error in (np.nextafter(limit, 0), limit, np.nextafter(limit, 1)):
        assert grade(float(error), 1e-7, kinks).value == grade_in_words(float(error), kinks=kinks)


def test_the_scale():
    said = {
        0.0: "correct",
        1e-7: "correct",
        1.1e-7: "suspicious",
        1e-4: "suspicious",
        1e-2: "suspicious",
        0.011: "wrong",
    }
    assert {error: grade(error, 1e-7, False).value for error in said} == said
    assert grade(1e-4, 1e-7, True) is Verdict.ACCEPTABLE
    assert grade(1.01e-4, 1e-7, True) is Verdict.SUSPICIOUS
    assert grade(math.inf, 1e-7, True) is Verdict.WRONG


@given(st.floats(0, 1), st.floats(1e-12, 0.5), st.booleans())
def test_as_the_textbook_words_it(error, tolerance, kinks):
    assert grade(error, tolerance, kinks).value == grade_in_words(error, tolerance, kinks)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(1e-12, 0.5), st.booleans())
def test_a_larger_error_is_never_graded_better(a, b, tolerance, kinks):
    small, large = sorted((a, b))
    assert grade(small, tolerance, kinks).severity <= grade(large, tolerance, kinks).severity


def test_order_of_severity():
    order = [Verdict.CORRECT, Verdict.ACCEPTABLE, Verdict.INCONCLUSIVE, Verdict.SUSPICIOUS, Verdict.WRONG]
    assert sorted(Verdict, key=lambda verdict: verdict.severity) == order
    assert [verdict.passed for verdict in order] == [True, True, False, False, False]
    for a, b in itertools.product(order, repeat=2):
        assert worst([a, b]) is order[max(order.index(a), order.index(b))]
    assert worst([]) is Verdict.CORRECT


def test_every_verdict_has_its_own_words():
    assert len({verdict.message for verdict in Verdict}) == len(Verdict)
    for verdict in Verdict:
        assert verdict.message.endswith(".")
        assert verdict.remedy.endswith(".")
        assert Verdict(verdict.value) is verdict
