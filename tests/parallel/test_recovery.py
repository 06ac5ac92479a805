"""Workers that die, losses that raise in a worker, losses that can't travel."""

from __future__ import annotations

import threading
from collections import deque

import numpy as np
import pytest

import fastcheck
from fastcheck.judge.verdict import Verdict
from fastcheck.parallel.crew import WorkerDiedError, _thrown_away
from fastcheck.parallel.shards import Cutter, Pace, evaluated
from fastcheck.parallel.worker import Done
from tests.parallel import losses


@pytest.mark.parametrize("how, backend", [("exit", "processes"), ("kill", "processes"), ("kill", "multiprocessing")])
def test_the_coordinate_that_ends_its_worker_is_named_and_all_others_are_kept(how, backend):
    report = fastcheck.check(losses.Bad(how), losses.gradient, losses.PARAMS, backend=backend, workers=2, mode="full")
    expected = fastcheck.check(losses.loss, losses.gradient, losses.PARAMS, backend="serial", mode="full")
    (finding,) = [finding for finding in report.findings if finding.kind == "loss_failed"]
    assert "W[3, 1]" in finding.message
    assert finding.evidence["coordinates"] == [losses.BAD]
    assert report.blocks["W"].checked == losses.THETA.size - 1
    assert report.verdict is Verdict.INCONCLUSIVE
    numerical, wanted = report.numerical["W"].ravel(), expected.numerical["W"].ravel()
    assert np.flatnonzero(np.isnan(numerical)).tolist() == [losses.BAD]
    keep = np.arange(numerical.size) != losses.BAD
    assert np.array_equal(numerical[keep], wanted[keep])


@pytest.mark.parametrize("backend", ["processes", "multiprocessing"])
@pytest.mark.parametrize("how", ["raise", "sys.exit"])
def test_a_loss_that_raises_in_a_worker_is_a_finding_that_names_the_coordinate(how, backend):
    report = fastcheck.check(losses.Bad(how), losses.gradient, losses.PARAMS, backend=backend, workers=2, mode="full")
    (finding,) = [finding for finding in report.findings if finding.kind == "loss_failed"]
    assert "W[3, 1]" in finding.message
    expected = losses.gradient(losses.PARAMS)["W"]
    expected[3, 1] = np.nan  # whatever the step, it raises there
    np.testing.assert_allclose(report.numerical["W"], expected, rtol=1e-6)
    assert report.verdict is Verdict.INCONCLUSIVE


class Fake:
    """A crew whose workers die of some rows, so many times each."""

    workers = 2

    def __init__(self, deadly, times=10**6):
        self.left = dict.fromkeys(deadly, times)
        self.deaths = 0

    def map(self, shards):
        waiting = deque()
        for shard in shards:
            waiting.append(shard)
            if len(waiting) == 4:
                yield self.work(waiting.popleft())
        while waiting:
            yield self.work(waiting.popleft())

    def work(self, shard):
        for row in shard.coordinates.tolist():
            if self.left.get(row, 0):
                self.left[row] -= 1
                self.deaths += 1
                raise WorkerDiedError("SIGKILL(-9)")
        return Done(shard.coordinates[:, None] * 2.0, len(shard.coordinates), None, 0.01)


def collected(crew, rows=200):
    pace = Pace()
    pace.measured(16, 0.01)
    cutter = Cutter(
        rows, lambda r: (np.arange(r.start, r.stop), np.ones(r.stop - r.start)), (1.0,), pace, lambda *_: True
    )
    pairs = list(evaluated(crew, cutter))
    assert [shard.start for shard, _ in pairs] == np.cumsum([0, *(len(s.coordinates) for s, _ in pairs[:-1])]).tolist()
    return np.concatenate([done.values[:, 0] for _, done in pairs]), pairs


def test_one_death_costs_one_more_try():
    crew = Fake([77], times=1)
    values, pairs = collected(crew)
    assert np.array_equal(values, 2.0 * np.arange(200))
    assert crew.deaths == 1
    assert not any(done.lost for _, done in pairs)


@pytest.mark.parametrize("deadly", [[0], [199], [77, 78], [3, 100, 150]])
def test_the_culprits_are_isolated_by_halving(deadly):
    values, pairs = collected(Fake(deadly))
    expected = 2.0 * np.arange(200)
    expected[deadly] = np.nan
    assert np.array_equal(values, expected, equal_nan=True)
    assert [shard.start for shard, done in pairs if done.lost] == deadly


@pytest.mark.slow
def test_a_loss_that_ends_every_worker_ends_the_run():
    everywhere = losses.Bad("exit", where=tuple(range(120)))
    report = fastcheck.check(everywhere, losses.gradient, losses.PARAMS, backend="processes", workers=2, mode="full")
    assert report.verdict is Verdict.INCONCLUSIVE
    assert "died again and again" in next(f.message for f in report.findings if f.kind == "stopped")


def unpicklable():
    lock = threading.Lock()

    def loss(params):
        with lock:
            return losses.loss(params)

    return loss


def test_a_loss_that_cannot_travel_is_refused_with_the_remedy_when_processes_are_asked_for():
    with pytest.raises(fastcheck.InputError, match=r"backend='processes'.*lock"):
        fastcheck.check(unpicklable(), losses.gradient, losses.PARAMS, backend="processes", workers=2, mode="full")


def test_it_runs_in_threads_and_by_itself_stays_here(monkeypatch):
    assert fastcheck.check(
        unpicklable(), losses.gradient, losses.PARAMS, backend="threads", workers=2, mode="full"
    ).passed
    monkeypatch.setattr("fastcheck.parallel.shards.STARTUP", {"threads": 0.0, "processes": 0.0})
    monkeypatch.setattr("fastcheck.parallel.shards.KNOWN_SECONDS", 0.0)
    assert fastcheck.check(unpicklable(), losses.gradient, losses.PARAMS, workers=2, mode="full").passed


class NotThere:
    """Arrives nowhere: it can be sent, but not rebuilt."""

    def __call__(self, params):
        return losses.loss(params)

    def __reduce__(self):
        return int, ("no number",)


def test_a_loss_that_a_worker_cannot_rebuild_is_refused_or_stays_here(monkeypatch):
    with pytest.raises(fastcheck.InputError, match="can't rebuild the loss"):
        fastcheck.check(NotThere(), losses.gradient, losses.PARAMS, backend="processes", workers=2, mode="full")
    monkeypatch.setattr("fastcheck.parallel.shards.STARTUP", {"threads": 0.0, "processes": 0.0})
    monkeypatch.setattr("fastcheck.parallel.shards.KNOWN_SECONDS", 0.0)
    assert fastcheck.check(NotThere(), losses.gradient, losses.PARAMS, workers=2, mode="full").passed


def test_only_the_thread_of_thrown_away_work_is_unheard(monkeypatch):
    heard = []
    monkeypatch.setattr(threading, "excepthook", lambda args: heard.append((args.thread.name, args.exc_type)))
    hook = threading.excepthook

    def end(name, error):
        def run():
            raise error

        thread = threading.Thread(target=run, name=name)
        thread.start()
        thread.join()

    with _thrown_away():
        for name in ("ExecutorManagerThread", "mine"):
            end(name, KeyError(121))
        end("ExecutorManagerThread", OSError("disk"))
    assert heard == [("mine", KeyError), ("ExecutorManagerThread", OSError)]
    assert threading.excepthook is hook


def test_an_unknown_backend_is_refused():
    with pytest.raises(fastcheck.InputError, match="backend='abacus'"):
        fastcheck.check(losses.loss, losses.gradient, losses.PARAMS, backend="abacus", workers=2, mode="full")
