"""Statistical claims of the screen, tested statistically; the probability is stated at each."""

import numpy as np
import pytest
from scipy import stats

import fastcheck
from fastcheck import Verdict
from fastcheck.examples import mlp
from fastcheck.gradients import Analytic
from fastcheck.judge.coordinates import Judge
from fastcheck.losses import evaluator_for
from fastcheck.measure.noise import measure_noise
from fastcheck.measure.probes import Probing
from fastcheck.parameters import Parameters
from fastcheck.run import Run
from fastcheck.strategies.screen import screen
from fastcheck.thresholds import PROBES
from tests import zoo

ALARMS = (Verdict.WRONG, Verdict.SUSPICIOUS)


def no_surprise(count, runs, chance):
    """Say whether so many events among the runs have a probability above 1e-6 where each has at most `chance`."""
    return stats.binom.sf(count - 1, runs, chance) > 1e-6


def alarms(nets):
    return [net.name for net, seed in nets if verdict(net, seed) in ALARMS]


def verdict(net, seed):
    return fastcheck.check(net.loss, net.gradient, net.params, args=net.args, mode="screen", seed=seed).verdict


def test_no_alarm_on_correct_nets():
    """Each screen may alarm with probability 1e-4, so that one alarm among these has a probability below 1%."""
    nets = [(zoo.random_net(seed), seed) for seed in range(40)] + [(net, 0) for net in zoo.nets()]
    assert alarms(nets) == []


@pytest.mark.slow
def test_no_alarm_on_five_hundred_correct_nets():
    """One alarm among 500 would have a probability of at most 5%."""
    nets = [(zoo.random_net(1000 + seed), seed) for seed in range(415)]
    nets += [(net, seed) for seed in range(1, 6) for net in zoo.nets(seed)]
    assert len(nets) == 500
    assert alarms(nets) == []


@pytest.mark.explore
def test_no_alarm_on_fresh_nets(fresh):
    assert alarms([(zoo.random_net(seed), seed) for seed in fresh(100)]) == []


@pytest.mark.explore
def test_rates_hold_on_fresh_seeds(fresh):
    assert no_surprise(missed(fresh(300), 1.05, 0.9), 300, 0.1)
    assert no_surprise(exceeded(fresh(300), 0.9), 300, 0.1)
    assert no_surprise(shared(fresh(60), 0.056, 0.9), 60, 0.1)


def tangents(n, seed):
    """Return loss, gradient and params of n tanh units, cheap to evaluate."""
    rng = np.random.default_rng(seed)
    w, a = rng.standard_normal(n), rng.standard_normal(n)
    return (lambda p: float(np.tanh(p * a).sum())), a / np.cosh(w * a) ** 2, w


def screened(loss, gradient, w, seed, confidence):
    """Screen one block by itself, without the rest of a check."""
    layout = Parameters.of(w)
    evaluator = evaluator_for(loss, layout, layout.flatten(w), ())
    base = evaluator.base()
    noise = measure_noise(evaluator, base, np.random.default_rng(seed))
    judge = Judge(1e-7, confidence, PROBES)
    analytic = Analytic(gradient, np.array([2.0**-52]), (), np.zeros(1))
    plan = Probing(evaluator, analytic, base, noise, judge, Run(), seed)
    return screen(plan, [(0, layout.blocks[0])], confidence)[0]


def missed(seeds, factor, confidence):
    """Plant an error of `factor` times the detectable norm in each run; return how many passed."""
    loss, gradient, w = tangents(30, 0)
    norm = float(np.linalg.norm(gradient))
    count = 0
    for seed in seeds:
        error = np.random.default_rng(seed).standard_normal(30) ** 3  # some coordinates much larger than others
        detectable = screened(loss, gradient, w, seed, confidence).detectable
        error *= factor * detectable * norm / np.linalg.norm(error)
        # screened with the same directions, so that the detectable norm is that of this run
        count += not screened(loss, gradient + error, w, seed, confidence).failed
    return count


def test_errors_above_the_detectable_norm_are_missed_as_rarely_as_stated():
    """At most 10% each; more than the binomial interval allows has a probability of 1e-6."""
    assert no_surprise(missed(range(100), 1.05, 0.9), 100, 0.1)


@pytest.mark.slow
@pytest.mark.parametrize("confidence", [0.9, 0.99])
def test_errors_above_the_detectable_norm_are_missed_as_rarely_as_stated_in_2000_runs(confidence):
    assert no_surprise(missed(range(2000), 1.05, confidence), 2000, 1 - confidence)


def test_errors_far_above_the_detectable_norm_are_never_missed():
    assert missed(range(40), 30.0, 0.9999) == 0


def exceeded(seeds, confidence):
    """Plant an error in each run; return how often it was larger than the certified bound."""
    loss, gradient, w = tangents(30, 1)
    norm, count = float(np.linalg.norm(gradient)), 0
    for seed in seeds:
        error = np.random.default_rng(seed).standard_normal(30)
        error *= 10 ** np.random.default_rng((seed, 1)).uniform(-10, -5) * norm / np.linalg.norm(error)
        wrong = gradient + error
        report = fastcheck.check(loss, wrong, w, mode="screen", seed=seed, confidence=confidence)
        count += np.linalg.norm(error) > report.bound * np.linalg.norm(wrong)
    return count


def test_bounds_hold_as_often_as_stated():
    """At most 10% of the errors are larger than their bound; more has a probability of 1e-6."""
    assert no_surprise(exceeded(range(100), 0.9), 100, 0.1)


@pytest.mark.slow
@pytest.mark.parametrize("confidence", [0.9, 0.99])
def test_bounds_hold_as_often_as_stated_in_2000_runs(confidence):
    assert no_surprise(exceeded(range(2000), confidence), 2000, 1 - confidence)


def shared(seeds, share, confidence):
    """Plant a share of wrong coordinates above the guarantee of a sample; return how many samples missed them all."""
    loss, gradient, w = tangents(2000, 2)
    count = 0
    for seed in seeds:
        wrong = gradient.copy()
        chosen = np.random.default_rng((seed, 2)).choice(2000, int(share * 2000), replace=False)
        wrong[chosen] = -wrong[chosen] + 0.1
        report = fastcheck.check(
            loss, wrong, w, mode="sample", samples=40, confidence=confidence, seed=seed, progress=False
        )
        count += report.passed
    return count


def test_shares_above_the_guarantee_are_missed_as_rarely_as_stated():
    """40 of 2,000 miss a share of 5.6% with probability 10%."""
    assert no_surprise(shared(range(30), 0.056, 0.9), 30, 0.1)


@pytest.mark.slow
def test_shares_above_the_guarantee_are_missed_as_rarely_as_stated_in_400_runs():
    assert no_surprise(shared(range(400), 0.056, 0.9), 400, 0.1)


def evaluations(sizes):
    net = mlp(sizes, batch=16)
    return fastcheck.check(net.loss, net.gradient, net.params, args=net.args, mode="screen").evaluations


def test_the_evaluations_of_a_screen_do_not_grow_with_the_number_of_parameters():
    counts = [evaluations((20, n, n, 10)) for n in (20, 200, 1000)]  # 1e3, 5e4, 1e6 coordinates
    assert max(counts) <= 64
    assert max(counts) - min(counts) <= 12
