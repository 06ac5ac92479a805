"""fastcheck beside the checkers of torch and jax: what any of them sees it sees, and it calls nothing right wrong."""

from __future__ import annotations

import json

import pytest

from benchmarks.peers import RESULTS, RIGHT, UNTOLD, WRONG, answer, names_it, seen, subjects

SUBJECTS = list(subjects())
OPEN = {"rounding alone, straight through"}  # piecewise constant: what is said of it is that it can't be checked


def marked(subject):
    marks = [pytest.mark.slow] if "jax" in subject.group else []  # together; each compiles what it asks about
    return pytest.param(subject, marks=marks, id=f"{subject.group}: {subject.name}")


@pytest.mark.parametrize("subject", [marked(subject) for subject in SUBJECTS])
def test_fastcheck_says_what_is_true_and_where(subject):
    with subject.within():
        verdict, place, _ = answer(subject.make()["fastcheck"])
    assert verdict == (UNTOLD if subject.name in OPEN else subject.truth)
    if subject.blocks and verdict == WRONG:
        assert names_it({"blocks": subject.blocks}, place), place


def test_so_do_the_results_that_the_table_is_made_of():
    rows = json.loads(RESULTS.read_text(encoding="utf-8"))["subjects"]
    assert len(rows) >= 100
    for row in rows:
        said = {checker: verdict for checker, (verdict, *_) in row["answers"].items()}
        if row["truth"] == RIGHT:
            assert said["fastcheck"] == RIGHT, row["name"]
        else:
            assert row["truth"] == WRONG
            assert seen(said["fastcheck"]) or row["name"] in OPEN, row["name"]
    if SUBJECTS:
        assert {(row["group"], row["name"]) for row in rows} >= {(s.group, s.name) for s in SUBJECTS}


def test_what_is_missed_by_whom_is_counted():
    assert seen("error")
    assert not seen("cannot tell")
    assert names_it({"blocks": ["x"]}, "x[3, 1]")
    assert not names_it({"blocks": ["x"]}, "x; w")
    assert not names_it({"blocks": ["x"]}, "")
