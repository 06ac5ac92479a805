"""One BLAS thread for every evaluation.

A matrix product may differ in its last bit with the number of BLAS threads. So that a value does not depend on who
computed it, every evaluation of a check has one BLAS thread, whether it runs alone or beside others; the cores are
the workers'. It also keeps workers x threads within the cores.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from threadpoolctl import ThreadpoolController

__all__ = ["one_blas_thread"]


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit every BLAS and OpenMP pool loaded by now to one thread; the former limits return at the end."""
    with ThreadpoolController().limit(limits=1):
        yield


@lru_cache(maxsize=1)
def worker_limits() -> ThreadpoolController:
    """Return the pools of a worker process, looked up once for all its shards."""
    return ThreadpoolController()
