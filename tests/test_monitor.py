"""The monitor in plain NumPy training loops."""

import dataclasses
import json
import random
import sys
import time
import warnings

import numpy as np
import pytest

import fastcheck
from fastcheck import GradientError, InputError, MissingDependencyError, Monitor, Verdict
from fastcheck.examples import digits_net
from fastcheck.examples.digits import digits_batch

NET = digits_net((10,), batch=32)


def batches(count, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield (*digits_batch(32, rng), *NET.args[2:])


def train(monitor, steps, gradient=NET.gradient, rate=0.05, pause=0.0):
    """Train, and return the reports by step."""
    params = {name: array.copy() for name, array in NET.params.items()}
    reports = {}
    for step, args in enumerate(batches(steps)):
        g = gradient(params, *args)
        for name in params:
            params[name] -= rate * g[name]
        time.sleep(pause)
        report = monitor.step(params, args)
        if report is not None:
            reports[step] = report
    return reports


def test_the_first_step_is_checked_and_the_others_when_it_is_time():
    monitor = Monitor(NET.loss, NET.gradient, overhead=0.5)
    reports = train(monitor, 60, pause=2e-3)
    assert next(iter(reports)) == 0
    assert 2 <= len(reports) < 60
    assert all(report.verdict is Verdict.CORRECT for report in reports.values())
    assert [moment.step for moment in monitor.history] == list(reports)
    assert [moment.report for moment in monitor.history] == list(reports.values())


class Clock:
    """A clock that somebody else sets."""

    def __init__(self):
        self.now = 100.0

    def perf_counter(self):
        return self.now


@pytest.mark.parametrize("overhead", [0.02, 0.1, 0.5])
def test_checks_stay_within_the_overhead_and_use_it(overhead, monkeypatch):
    clock = Clock()
    monitor = Monitor(NET.loss, NET.gradient, overhead=overhead)
    report = monitor._check(NET.params, NET.args)
    rng = np.random.default_rng(0)

    def check(params, args):
        spent = 0.03 * rng.uniform(0.8, 1.2)
        clock.now += spent
        return dataclasses.replace(report, seconds=spent)

    monkeypatch.setattr("fastcheck.monitor.time", clock)
    monkeypatch.setattr(monitor, "_check", check)
    for _ in range(40_000):
        clock.now += 1e-3 * rng.uniform(0.5, 1.5)
        monitor.step(NET.params, NET.args)
    assert 0.9 * overhead <= monitor.share <= 1.02 * overhead
    gaps = np.diff([moment.step for moment in monitor.history])
    assert gaps[0] > 1.5 * np.median(gaps)  # the first check is paid back before the second


def test_a_little_overhead_means_one_check():
    monitor = Monitor(NET.loss, NET.gradient, overhead=1e-6)
    assert list(train(monitor, 20)) == [0]


def breaks_when_weights_grow(params, *args):
    """Return the gradient, wrong where a weight is above one."""
    g = NET.gradient(params, *args)
    if np.abs(params["W2"]).max() > 1.0:
        g["W1"] = np.where(params["W1"] > 0.1, -g["W1"], g["W1"])
    return g


def test_a_bug_that_begins_during_training_is_caught_at_the_next_check():
    params = {name: 0.3 * array for name, array in NET.params.items()}
    alarms = []
    monitor = Monitor(NET.loss, breaks_when_weights_grow, overhead=0.9, on_wrong=alarms.append)
    args = next(batches(1))
    for step in range(60):
        params["W2"][0, 0] = step / 20
        time.sleep(2e-3)
        monitor.step(params, args)
        if alarms:
            break
    first_wrong = next(k for k, moment in enumerate(monitor.history) if moment.step > 20)
    assert first_wrong == len(monitor.history) - 1  # no check with such a weight passed
    assert all(moment.report.passed for moment in monitor.history[:first_wrong])
    assert [report.blocks["W1"].verdict for report in alarms] == [Verdict.WRONG]


def test_an_alarm_can_end_the_training():
    monitor = Monitor(NET.loss, lambda p, *a: {n: -g for n, g in NET.gradient(p, *a).items()}, on_wrong="raise")
    with pytest.raises(GradientError) as caught:
        monitor.step(NET.params, NET.args)
    assert caught.value.report is monitor.history[0].report


def test_a_warning_says_when_and_where():
    monitor = Monitor(NET.loss, lambda p, *a: {n: -g if n == "b1" else g for n, g in NET.gradient(p, *a).items()})
    with pytest.warns(RuntimeWarning, match=r"gradient check at step 0: WRONG: b1 ×-1.000"):
        monitor.step(NET.params, NET.args)


def test_a_function_is_called_with_the_report():
    seen = []
    monitor = Monitor(NET.loss, lambda p, *a: {n: 2 * g for n, g in NET.gradient(p, *a).items()}, on_wrong=seen.append)
    report = monitor.step(NET.params, NET.args)
    assert seen == [report]
    assert monitor.history[0].report is report


def test_a_correct_gradient_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Monitor(NET.loss, NET.gradient).step(NET.params, NET.args).passed


def test_params_args_and_random_generators_are_untouched():
    def drawing(params, *args):
        np.random.random(3)  # noqa: NPY002
        random.random()
        return NET.loss(params, *args)

    params = {name: array.copy() for name, array in NET.params.items()}
    args = tuple(a.copy() if isinstance(a, np.ndarray) else a for a in NET.args)
    np.random.seed(3)  # noqa: NPY002
    random.seed(3)
    before = np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    Monitor(drawing, NET.gradient).step(params, args)
    assert np.array_equal(np.random.get_state()[1], before[0])  # noqa: NPY002
    assert random.getstate() == before[1]
    assert all(np.array_equal(params[name], NET.params[name]) for name in params)
    assert np.array_equal(args[0], NET.args[0])


def test_a_random_loss_is_inconclusive_and_no_alarm():
    rng = np.random.default_rng(0)
    monitor = Monitor(lambda p, *a: NET.loss(p, *a) * (1 + rng.random()), NET.gradient, on_wrong="raise")
    report = monitor.step(NET.params, NET.args)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert report.findings[0].kind == "random_loss"


def test_every_check_looks_at_new_coordinates_and_new_directions():
    loss = lambda p: float(np.sum(np.sin(p)))  # noqa: E731
    monitor = Monitor(loss, np.cos, overhead=0.99)
    w = np.linspace(0.1, 1.0, 8)
    while len(monitor.history) < 4:
        time.sleep(0.01)
        monitor.step(w)
    assert monitor._seen["theta"] == set(range(8))
    residuals = [str(moment.report.settings["directions"]) for moment in monitor.history]
    assert len(set(residuals)) == 4
    while len(monitor.history) < 5:  # all were seen: it begins again
        time.sleep(0.01)
        monitor.step(w)
    assert len(monitor._seen["theta"]) == 2


def test_the_same_seed_draws_the_same():
    first, second = (Monitor(NET.loss, NET.gradient, seed=7).step(NET.params, NET.args) for _ in range(2))
    assert first.settings["directions"] == second.settings["directions"]


def test_history_is_saved_as_json_and_as_a_page(tmp_path):
    monitor = Monitor(NET.loss, NET.gradient, overhead=0.9)
    train(monitor, 10, pause=5e-3)
    data = json.loads(monitor.save(tmp_path / "history.json").read_text())
    assert data["format"] == "fastcheck-history"
    assert [moment["step"] for moment in data["moments"]] == [moment.step for moment in monitor.history]
    assert data["moments"][0]["report"]["verdict"] == "correct"
    page = monitor.save(tmp_path / "history.html").read_text()
    assert "none of them wrong" in page
    assert page.count("<tr>") == len(monitor.history) + 1
    assert "<svg" in page
    assert "<script" not in page


def test_a_page_of_nothing_and_of_an_alarm(tmp_path):
    monitor = Monitor(NET.loss, lambda p, *a: {n: 0 * g for n, g in NET.gradient(p, *a).items()}, on_wrong=len_of)
    assert "0 checks" in monitor.save(tmp_path / "empty.html").read_text()
    monitor.step(NET.params, NET.args)
    page = monitor.save(tmp_path / "wrong.html").read_text()
    assert "wrong from step 0 on" in page
    assert '<header class="wrong">' in page
    assert "var(--wrong)" in page  # of the marks, in light and dark
    assert len(monitor.plot().axes[0].lines) == 2 * len(NET.params) + 1


def len_of(report):
    return len(report.blocks)


@pytest.mark.parametrize("missing", ["jinja2", "matplotlib.figure"])
def test_without_an_optional_dependency_the_page_says_what_to_install(missing, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingDependencyError, match="pip install"):
        Monitor(NET.loss, NET.gradient).save(tmp_path / "history.html")
    Monitor(NET.loss, NET.gradient).save(tmp_path / "history.json")


@pytest.mark.parametrize(
    "options",
    [{"overhead": 0}, {"overhead": 1.5}, {"overhead": True}, {"on_wrong": "shout"}, {"tolerance": -1}, {"seed": -1}],
)
def test_bad_options_are_refused(options):
    with pytest.raises(InputError, match=next(iter(options))):
        Monitor(NET.loss, NET.gradient, **options)


def test_a_gradient_that_is_no_function_is_refused():
    with pytest.raises(InputError, match="callable"):
        Monitor(NET.loss, NET.claimed())


@pytest.mark.parametrize("name", ["history.txt", "nowhere/history.json"])
def test_bad_paths_are_refused(name, tmp_path):
    with pytest.raises(InputError, match="path="):
        Monitor(NET.loss, NET.gradient).save(tmp_path / name)


def test_it_is_public():
    assert fastcheck.Monitor is Monitor
