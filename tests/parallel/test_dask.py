"""A real cluster of worker processes."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest

import fastcheck
from tests.parallel import losses
from tests.parallel.test_bits import COMPILED, PYTHON, bits, same

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def client():
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.mark.parametrize("net", [COMPILED, PYTHON], ids=["compiled", "python"])
def test_the_numbers_are_those_of_the_serial_run(client, net):
    same(bits(net, backend="serial"), bits(net, backend="dask"))


def test_it_works_on_the_cluster_of_the_caller_and_leaves_it_running(client):
    homes = client.run(lambda: __import__("os").getpid())

    def loss(params):
        import os

        return losses.loss(params) + (0.0 if os.getpid() in allowed else 1e9)

    allowed = {*homes.values(), __import__("os").getpid()}
    assert fastcheck.check(loss, losses.gradient, losses.PARAMS, backend="dask", mode="full").passed
    assert client.run(lambda: __import__("os").getpid()) == homes
    for _ in range(200):  # the scheduler forgets what nobody holds, in its own time
        if not client.who_has():
            break
        time.sleep(0.05)
    assert not client.who_has()


def test_a_closure_with_data_is_sent_once_to_every_worker(client):
    data = np.ones(500_000)
    counts = {"sent": 0}
    scatter = client.scatter

    def counting(*args, **kwargs):
        counts["sent"] += 1
        return scatter(*args, **kwargs)

    client.scatter = counting
    try:
        report = fastcheck.check(
            lambda params: losses.loss(params) * data[0], losses.gradient, losses.PARAMS, backend="dask", mode="full"
        )
    finally:
        del client.scatter
    assert report.passed
    assert counts["sent"] == 1


@pytest.mark.slow
def test_a_worker_that_dies_costs_one_coordinate(client):
    report = fastcheck.check(losses.Bad("kill"), losses.gradient, losses.PARAMS, backend="dask", mode="full")
    assert report.blocks["W"].checked == losses.THETA.size - 1
    assert any("W[3, 1]" in finding.message for finding in report.findings)


def test_without_dask_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(fastcheck.MissingDependencyError, match=r"pip install 'fastcheck\[dask\]'"):
        fastcheck.check(losses.loss, losses.gradient, losses.PARAMS, backend="dask", mode="full")


class Emptied:
    """A client whose cluster is without workers for its first few calls."""

    def __init__(self, empty):
        self.empty = empty

    def nthreads(self):
        return {"a": 1}

    def wait_for_workers(self, count, timeout):
        self.empty -= 1
        if self.empty % 2:
            raise TimeoutError

    def scatter(self, payload, broadcast, hash):
        if self.empty > 0:
            raise ValueError("Can not use replicate to delete data")
        return payload

    def submit(self, function, payload, errors, shard, pure):
        return Ready(shard)

    def cancel(self, futures):
        pass


class Ready:
    def __init__(self, shard):
        self.shard = shard

    def result(self):
        return self.shard


@pytest.mark.parametrize("empty, patience", [(5, 30.0), (10**9, 0.3)])
def test_workers_that_died_are_waited_for(monkeypatch, empty, patience):
    pytest.importorskip("distributed")
    from fastcheck.parallel import dask
    from fastcheck.parallel.crew import WorkerDiedError

    monkeypatch.setattr(dask, "_client", lambda workers, stack: Emptied(empty))
    monkeypatch.setattr(dask, "PATIENCE", patience)
    crew = dask.DaskCrew(2, "loss")
    if patience > 1:
        assert list(crew.map(iter("abc"))) == ["a", "b", "c"]
        return
    for _ in range(2):  # the second time without waiting
        with pytest.raises(WorkerDiedError, match="no worker left"):
            list(crew.map(iter("abc")))


def test_a_script_without_its_guard_is_told_the_remedy(tmp_path):
    pytest.importorskip("distributed")
    script = tmp_path / "unguarded.py"
    script.write_text(
        "import numpy as np, fastcheck\n"
        "options = {'mode': 'full', 'backend': 'dask', 'workers': 2}\n"
        "fastcheck.check(lambda t: float(np.sum(np.sin(t))), np.cos, np.ones(4), **options)\n"
    )
    run = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert run.returncode == 1
    assert "InputError: backend='dask': its workers did not start" in run.stderr
    assert "if __name__ == '__main__':" in run.stderr
