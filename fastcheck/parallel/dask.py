"""Workers of a Dask cluster: the caller's, or a local one for the length of a run."""

from __future__ import annotations

import contextlib
import importlib
import time
from collections import deque
from collections.abc import Generator, Iterator
from typing import Any

from fastcheck.arithmetic import settings
from fastcheck.errors import InputError, MissingDependencyError, said
from fastcheck.parallel.crew import CrewGoneError, WorkerDiedError
from fastcheck.parallel.payload import MemoryPayload
from fastcheck.parallel.worker import Done, Shard, evaluate_packed

__all__ = ["DaskCrew"]


PATIENCE = 30.0  # seconds until workers that died have been replaced


class DaskCrew:
    """The workers of a `distributed.Client`.

    The client is the caller's own (the current or the default one); where there is none, a local cluster of processes
    with one thread each is started, and closed at the end. The loss and its data are scattered once, to every worker.

    Parameters
    ----------
    workers : int
        Worker processes of a cluster started here; a cluster of the caller's has its own number.
    payload : MemoryPayload
        The loss.

    Raises
    ------
    MissingDependencyError
        dask.distributed is not installed.
    """

    def __init__(self, workers: int, payload: MemoryPayload) -> None:
        self._stack = contextlib.ExitStack()
        self._client = _client(workers, self._stack)
        threads = self._client.nthreads()
        self.workers = max(1, sum(threads.values())) if threads else workers
        self._payload = payload
        self._scattered: Any = None
        self._patience = PATIENCE

    def map(self, shards: Iterator[Shard]) -> Generator[Done, None, None]:
        """See `Crew.map`."""
        from distributed import KilledWorker
        from distributed.client import FutureCancelledError

        self._scatter()
        waiting: deque[Any] = deque()
        try:
            for shard in shards:
                waiting.append(self._client.submit(evaluate_packed, self._scattered, settings(), shard, pure=False))
                if len(waiting) >= 2 * self.workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except (KilledWorker, FutureCancelledError) as error:
            self._scattered = None  # its holders may be gone; the next map sends it again
            raise WorkerDiedError(type(error).__name__) from error
        except (OSError, TimeoutError) as error:  # of the connection: what the loss raises, it returns as a failure
            raise CrewGoneError(f"the scheduler does not answer ({said(error)})") from error
        finally:
            with contextlib.suppress(Exception):  # nobody to tell
                self._client.cancel(list(waiting))

    def _scatter(self) -> None:
        """Send the loss to the workers, once; where all of them have just died, wait for those that take their place.

        Raises
        ------
        WorkerDiedError
            Nobody took their place.
        """
        began = time.monotonic()
        while self._scattered is None:
            if time.monotonic() - began > self._patience:
                self._patience = 0.0  # nobody will come
                raise WorkerDiedError("the cluster has no worker left")
            try:
                self._client.wait_for_workers(1, timeout=max(0.1, self._patience))
                self._scattered = self._client.scatter(self._payload, broadcast=True, hash=False)
            except (TimeoutError, ValueError):  # the last worker may die between the two
                time.sleep(0.1)
            except OSError as error:
                raise CrewGoneError(f"the scheduler does not answer ({said(error)})") from error

    def close(self) -> None:
        """See `Crew.close`; a cluster of the caller's is left as it was."""
        scattered, self._scattered = self._scattered, None
        with contextlib.suppress(Exception):  # a scheduler that is gone has forgotten it
            if scattered is not None:
                self._client.cancel([scattered])
        with contextlib.suppress(OSError):
            self._stack.close()


def _client(workers: int, stack: contextlib.ExitStack) -> Any:
    try:
        distributed: Any = importlib.import_module("distributed")
    except ImportError as error:
        raise MissingDependencyError("backend='dask' needs dask.distributed: pip install 'fastcheck[dask]'") from error
    try:
        return distributed.get_client()
    except ValueError:
        pass
    try:
        cluster = stack.enter_context(
            distributed.LocalCluster(n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None)
        )
    except RuntimeError as error:
        raise InputError(
            f"backend='dask': its workers did not start ({error}). They import the script that began them: put what it "
            "does under `if __name__ == '__main__':`, or begin a distributed.Client of your own."
        ) from error
    return stack.enter_context(distributed.Client(cluster))
