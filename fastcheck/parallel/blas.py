"""One BLAS thread for every evaluation.

A matrix product may differ in its last bit with the number of BLAS threads. So that a value does not depend on who
computed it, every evaluation of a check has one BLAS thread, whether it runs alone or beside others; the cores are
the workers'. It also keeps workers x threads within the cores.

The number of threads belongs to the whole process. So the process has one count of who needs it to be one: the first
lowers it, and the last puts it back, in whatever order the checks of several threads end.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from threadpoolctl import ThreadpoolController

__all__ = ["one_blas_thread"]


class _Limits:
    """Who needs one thread, the pools that are known, and how many threads each had."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.count = 0
        self.known: Any = None
        self.loads: int | None = None  # libraries loaded when those known were looked for
        self.before: dict[str, tuple[Any, int]] = {}

    def look(self) -> None:
        """Look for pools, where a library was loaded since, or it can't be told."""
        loads = _loads()
        if self.known is None or loads is None or loads != self.loads:
            self.known, self.loads = ThreadpoolController(), loads

    def lower(self) -> None:
        for pool in self.known.select(user_api="blas").lib_controllers:
            self.before.setdefault(pool.filepath, (pool, pool.get_num_threads()))
            _set(pool, 1)

    def restore(self) -> None:
        for pool, threads in self.before.values():
            _set(pool, threads)
        self.before = {}


class _Library(ctypes.Structure):
    """The head of ``struct dl_phdr_info``, as glibc and musl have it."""

    _fields_ = (
        ("address", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("headers", ctypes.c_void_p),
        ("count", ctypes.c_uint16),
        ("loads", ctypes.c_ulonglong),
    )


def _loads() -> int | None:
    """Return how many shared libraries this process has loaded so far; None where the system does not say."""
    found = ctypes.c_ulonglong()
    try:
        iterate, first = _iteration()
        iterate(first, ctypes.byref(found))
    except Exception:
        return None
    return found.value or None


@functools.cache
def _iteration() -> tuple[Any, Any]:
    """Return the function of the system that goes through the libraries, and one for it to call with the first."""
    kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_Library), ctypes.c_size_t, ctypes.POINTER(ctypes.c_ulonglong))

    def first(library: Any, size: int, found: Any) -> int:
        if size >= ctypes.sizeof(_Library):
            found.contents.value = library.contents.loads
        return 1  # look no further

    return ctypes.CDLL(None).dl_iterate_phdr, kind(first)


def _set(pool: Any, threads: int) -> None:
    """Set the threads of a pool, from whatever thread: newer threadpoolctl obeys only the first that ever did so."""
    release = getattr(pool, "clear_controlling_thread", lambda force: None)
    release(force=True)
    pool.set_num_threads(threads)
    release(force=True)


_LIMITS = _Limits()
if hasattr(os, "register_at_fork"):  # a child must not wait for a thread of its parent that held the lock
    os.register_at_fork(after_in_child=lambda: setattr(_LIMITS, "lock", threading.RLock()))


@contextmanager
def one_blas_thread(*, look: bool = True) -> Iterator[None]:
    """Limit every BLAS and OpenMP pool to one thread; the former limits return with the last to leave.

    Parameters
    ----------
    look : bool
        Look for pools that were loaded lately, as by the first call of a loss; otherwise those known are all.
    """
    with _LIMITS.lock:
        if look or _LIMITS.known is None:
            _LIMITS.look()
        _LIMITS.count += 1
        _LIMITS.lower()
        own = _LIMITS.known.select(user_api="openmp")  # whose number belongs to each thread alone
    try:
        with own.limit(limits=1):
            yield
    finally:
        with _LIMITS.lock:
            _LIMITS.count -= 1
            if not _LIMITS.count:
                _LIMITS.restore()
