"""Workers: who they are, how they are handed shards, and how they are sent home."""

from __future__ import annotations

import importlib
import itertools
import multiprocessing
import os
import queue
import re
import signal
import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Protocol, TypeVar

from fastcheck.arithmetic import own, settings
from fastcheck.errors import InputError, said
from fastcheck.losses.evaluator import Shardable
from fastcheck.parallel.payload import FilePayload, MemoryPayload, Payload, end_with
from fastcheck.parallel.worker import Done, Shard, evaluate, evaluate_packed

__all__ = ["Crew", "CrewGoneError", "JoblibCrew", "LocalCrew", "ProcessCrew", "WorkerDiedError", "cores", "hire"]


class WorkerDiedError(Exception):
    """A worker ended without an answer: killed, out of memory, or the loss left the process."""


class CrewGoneError(Exception):
    """Nobody is left to ask: the scheduler of the workers was killed, or can't be reached."""


class Crew(Protocol):
    """Some workers that hold one evaluator.

    Attributes
    ----------
    workers : int
        How many.
    """

    workers: int

    def map(self, shards: Iterator[Shard]) -> Generator[Done, None, None]:
        """Yield what became of each shard, in order; shards are drawn as workers get free.

        Raises
        ------
        WorkerDiedError
            A worker ended before its answer; the crew is ready for another `map`.
        """
        ...

    def close(self) -> None:
        """Send the workers home."""
        ...


def cores() -> int:
    """Return the cores this process may use."""
    import joblib

    return int(joblib.cpu_count())


def hire(backend: str, workers: int, evaluator: Shardable) -> Crew:
    """Return a crew that shares a loss; the backend is a name of fastcheck's, or of a registered joblib backend.

    Raises
    ------
    InputError
        There is no such backend, or the loss can't travel to its workers.
    MissingDependencyError
        The backend needs a package that is not installed.
    """
    if backend == "threads":
        return LocalCrew(workers, evaluator)
    if backend in ("processes", "multiprocessing") and multiprocessing.current_process().daemon:
        raise InputError(
            f"backend={backend!r}: this is a daemonic process (a worker of multiprocessing.Pool?), which may have no "
            "processes of its own. Use backend='threads' or 'serial' in it."
        )
    try:
        if backend == "processes":
            return JoblibCrew("loky", workers, FilePayload.write(evaluator))
        if backend == "multiprocessing":
            return ProcessCrew(workers, FilePayload.write(evaluator))
        payload = MemoryPayload.of(evaluator)
    except OSError as error:
        raise InputError(
            f"backend={backend!r}: the loss and its data can't be written to a temporary file for the workers "
            f"({error}). Make room there, name another folder with TMPDIR, or use backend='threads' or 'serial'."
        ) from error
    except Exception as error:
        raise InputError(
            f"backend={backend!r}: the loss or its data can't be sent to another process "
            f"({said(error)}). Use backend='threads' or 'serial', or move open files, locks and "
            "generators out of the loss."
        ) from error
    if backend == "dask":
        from fastcheck.parallel.dask import DaskCrew

        return DaskCrew(workers, payload)
    return JoblibCrew(backend, workers, payload)


class LocalCrew:
    """Threads of this process, each with a theta of its own: one has the evaluator itself, the others its twins.

    A thread pool with a window of shards, and not joblib's: its generators hand out work as fast as it is done, also
    when the results are taken more slowly, and a compiled loss would fill the memory with them.
    """

    def __init__(self, workers: int, evaluator: Shardable) -> None:
        self.workers = workers
        self._evaluator = evaluator
        self._errors = settings()
        self._idle: queue.SimpleQueue[Shardable] = queue.SimpleQueue()

    def map(self, shards: Iterator[Shard]) -> Generator[Done, None, None]:
        """See `Crew.map`."""
        self._idle = queue.SimpleQueue()
        for evaluator in [self._evaluator, *(self._evaluator.twin() for _ in range(self.workers - 1))]:
            self._idle.put(evaluator)
        yield from _windowed(ThreadPoolExecutor(self.workers, "fastcheck"), self.workers, self._evaluate, shards)
        self._idle = queue.SimpleQueue()  # a working theta each, not kept longer than they work

    def close(self) -> None:
        """Nothing outlives a map."""

    def _evaluate(self, shard: Shard) -> Done:
        evaluator = self._idle.get()
        try:
            with own(self._errors):
                return evaluate(evaluator, shard)
        finally:
            self._idle.put(evaluator)


class ProcessCrew:
    """Processes of the standard library, of its own default start method, for as long as a map takes.

    They stand in for joblib's backend of the name "multiprocessing", which waits for ever for a worker that died.
    """

    def __init__(self, workers: int, payload: Payload) -> None:
        self.workers = workers
        self._payload = payload

    def map(self, shards: Iterator[Shard]) -> Generator[Done, None, None]:
        """See `Crew.map`."""
        work = partial(evaluate_packed, self._payload, settings())
        try:
            yield from _windowed(_processes(self.workers), self.workers, work, shards, _kill)
        except BrokenProcessPool as error:
            raise WorkerDiedError("it ended without an answer") from error

    def close(self) -> None:
        """See `Crew.close`."""
        self._payload.discard()


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Let processes that are begun here never hear Ctrl-C, which is the caller's: it hears it, and ends them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _processes(workers: int) -> ProcessPoolExecutor:
    """Return a pool of processes that end soon after this one, however it ends."""
    server = multiprocessing.get_start_method() == "forkserver"
    return ProcessPoolExecutor(workers, initializer=end_with, initargs=(None if server else os.getpid(),))


def _kill(pool: ProcessPoolExecutor) -> None:
    """End the processes of a pool at once, whatever they are doing."""
    for process in list((pool._processes or {}).values()):
        process.kill()


_Pool = TypeVar("_Pool", bound=Executor)


def _windowed(
    pool: _Pool,
    workers: int,
    function: Callable[[Shard], Done],
    shards: Iterator[Shard],
    kill: Callable[[_Pool], None] = lambda pool: None,
) -> Generator[Done, None, None]:
    """Map over shards in order, two shards ahead of each worker, and end the pool; where it is left early, at once.

    Threads can't be ended from outside: what they are evaluating then is waited for.
    """
    waiting: deque[Future[Done]] = deque()
    with pool:
        try:
            for shard in shards:
                with _without_ctrl_c():
                    waiting.append(pool.submit(function, shard))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except (GeneratorExit, KeyboardInterrupt):
            kill(pool)
            raise
        finally:
            for future in waiting:
                future.cancel()


class JoblibCrew:
    """Worker processes of a joblib backend, by its name."""

    def __init__(self, backend: str, workers: int, payload: Payload) -> None:
        self.workers = workers
        self._backend = backend
        self._payload = payload

    def map(self, shards: Iterator[Shard]) -> Generator[Done, None, None]:
        """See `Crew.map`."""
        try:
            yield from _mapped(self._backend, self.workers, partial(evaluate_packed, self._payload, settings()), shards)
        except BrokenProcessPool as error:
            raise WorkerDiedError(_exit_codes(error)) from error

    def close(self) -> None:
        """See `Crew.close`; loky's idle workers end by themselves."""
        self._payload.discard()


def _mapped(backend: str, workers: int, function: Any, shards: Iterator[Shard]) -> Generator[Done, None, None]:
    """Map over shards with joblib, in order, two shards ahead of each worker."""
    import joblib

    task = joblib.delayed(function)
    # max_nbytes: a shard's indices are sent as they are; the loss is mapped into memory already
    options: dict[str, Any] = {"n_jobs": workers, "backend": backend, "batch_size": 1, "max_nbytes": None}
    if backend == "loky":
        options |= {"initializer": end_with, "initargs": (os.getpid(),)}
        for home in ("multiprocessing", "joblib.externals.loky.backend"):
            with suppress(ImportError, AttributeError):  # their start would let the workers hear Ctrl-C after all
                importlib.import_module(f"{home}.resource_tracker").ensure_running()
    if not _streams(backend, workers):
        with joblib.Parallel(**options) as parallel:
            while wave := list(itertools.islice(shards, 2 * workers)):
                yield from parallel(task(shard) for shard in wave)
        return
    streaming: Any = joblib.Parallel(**options, return_as="generator", pre_dispatch=2 * workers)
    with _without_ctrl_c():
        results: Generator[Done, None, None] = streaming(task(shard) for shard in shards)
    try:
        for done in results:  # noqa: UP028 - `yield from` would close them where joblib's warning is heard
            yield done
    finally:
        with _thrown_away():
            results.close()


_closing = threading.Lock()


@contextmanager
def _thrown_away() -> Iterator[None]:
    """Hear nothing of work that is thrown away: the run was stopped, and says so.

    joblib warns of it, and loky's thread, told to end while a shard is on its way through it, misses that shard with a
    KeyError; its workers are gone by then.
    """
    with _closing, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        heard = threading.excepthook

        def hook(args: threading.ExceptHookArgs) -> None:
            loky = args.thread is not None and args.thread.name == "ExecutorManagerThread"
            if not (loky and args.exc_type is KeyError):
                heard(args)

        threading.excepthook = hook
        try:
            yield
        finally:
            threading.excepthook = heard


def _streams(backend: str, workers: int) -> bool:
    """Say whether a joblib backend yields results one by one, as all but the older ones do."""
    import joblib

    try:
        with joblib.parallel_config(backend, n_jobs=workers):
            return bool(joblib.parallel.get_active_backend()[0].supports_return_generator)
    except (ValueError, KeyError, TypeError, ImportError) as error:
        raise InputError(
            f"backend={backend!r} is none of 'auto', 'serial', 'threads', 'processes', 'dask', nor a registered joblib "
            f"backend: {error}."
        ) from error


def _exit_codes(error: BaseException) -> str:
    """Return what loky says of how the workers ended, as ``SIGKILL(-9)``."""
    found = re.search(r"exit codes of the workers are \{(.*?)\}", str(error))
    return found[1] if found else type(error).__name__
