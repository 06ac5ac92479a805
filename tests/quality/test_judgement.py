"""The benchmark of judgement: fastcheck misses no bug and calls no right gradient wrong, and it counts rightly."""

from __future__ import annotations

import numpy as np
import pytest

import fastcheck
from benchmarks.contenders import CONTENDERS, Answer, Contender
from benchmarks.judgement import NETS, QUICK, RIGHT, judged, plants
from benchmarks.pages import Try, results, tally, tries

OURS = tuple(contender for contender in CONTENDERS if contender.name.startswith("fastcheck"))


@pytest.mark.slow
@pytest.mark.parametrize("net", QUICK)
def test_no_bug_passes_and_no_right_gradient_is_called_wrong(net):
    (result,) = judged((net,), 1, OURS)
    assert len(result["answers"]) == 3
    for contender, answers in result["answers"].items():
        for bug, [(verdict, *_)] in answers.items():
            assert verdict != ("alarm" if bug == RIGHT else "pass"), f"{contender}: {bug}"


def counted(*said):
    """Return the tally of a checker that answers the right gradient and four bugs of one net like this."""
    answers = iter(said)
    checker = Contender("checker", "", lambda subject, gradient, seed: next(answers))
    (result,) = judged(("course",), 1, (checker,))
    rows = result["answers"]["checker"]
    return tally([Try("", 47, bug, *row, rows[RIGHT][0][0]) for bug, [row] in rows.items()])


def test_what_is_counted_as_found_missed_untold_void_and_named():
    assert NETS["course"][0]().size == 47
    passes, alarms, unsure = Answer(False), Answer(True), Answer(None)
    everything = Answer(True, frozenset(["W1", "b1", "W2", "b2", "W3", "b3"]))
    assert counted(passes, alarms, passes, unsure, everything)[:6] == ["2/4", "1", "1", "0", "0/1", "0/2"]
    assert counted(alarms, alarms, passes, unsure, alarms)[:5] == ["0/4", "1", "1", "2", "1/1"]
    assert counted(unsure, alarms, alarms, alarms, alarms)[:5] == ["4/4", "0", "0", "0", "0/1"]


def test_every_bug_is_planted_and_a_place_that_is_named_is_recognised():
    places = {}

    def knows(subject, gradient, seed):
        right, found = subject.gradient(subject.params), gradient(subject.params)
        wrong = frozenset(
            (name, i) for name, block in found.items() for i in map(tuple, np.argwhere(block != right[name]))
        )
        places[len(places)] = wrong
        return Answer(bool(wrong), frozenset(name for name, _ in wrong), wrong)

    for net in QUICK[:2]:
        (result,) = judged((net,), 1, (Contender("knows", "", knows),))
        for bug, [(verdict, block, coordinate, evaluations, _)] in result["answers"]["knows"].items():
            assert (verdict, block, evaluations) == (("pass", False, 0) if bug == RIGHT else ("alarm", True, 0))
            assert coordinate is (True if bug.startswith("one ") else None)
    assert all(len(wrong) == 1 for wrong in (places[1], places[2]))


BELOW = ("784-256-128-10 relu, trained", "one entry x1.01")  # smaller than the report says that it would have seen


def test_so_do_the_results_that_the_tables_are_made_of():
    data = results()
    for contender in OURS:
        said = tries(data, contender.name)
        assert {t.verdict for t in said if t.bug != RIGHT and (t.net, t.bug) != BELOW} <= {"alarm", "cannot tell"}
        assert {t.verdict for t in said if t.bug == RIGHT} <= {"pass", "cannot tell"}
        assert len({t.net for t in said}) >= 4


@pytest.mark.slow
def test_a_bug_that_passes_is_smaller_than_what_its_report_calls_detectable():
    own = NETS["medium trained"][0]()
    assert own.name == BELOW[0]
    right, passed = own.gradient(own.params), 0
    for seed in range(3):
        plant = dict(plants(own, seed))[BELOW[1]]
        block, _ = plant.coordinate
        wrong = plant.gradient(own.params)
        error = np.linalg.norm(wrong[block] - right[block]) / np.linalg.norm(right[block])
        report = fastcheck.check(own.plain_loss, plant.gradient, own.params, mode="screen", seed=seed)
        assert not report.passed or error < report.blocks[block].detectable
        passed += report.passed
    assert passed < 3
