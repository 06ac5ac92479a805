"""A loss with its data, packed once for all workers: code by cloudpickle, arrays apart and memory-mapped."""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import tempfile
import threading
import time
import uuid
from dataclasses import dataclass
from typing import Any

from fastcheck.losses.evaluator import Shardable

__all__ = ["FilePayload", "MemoryPayload", "Payload", "end_with", "pack"]

WATCH_SECONDS = 0.5
ALIGNMENT = 64  # bytes; vector loads want it


@dataclass(frozen=True)
class FilePayload:
    """An evaluator in a file that the workers of one machine map into memory; its arrays exist once.

    The file has no name, where the system has such (see `_temporary`): nothing of it is left behind by a process that
    was killed. The token names the evaluator, the head counts the bytes of the pickle at its beginning, and the spans
    are where in the file the arrays are.
    """

    token: str
    path: str
    head: int
    spans: tuple[tuple[int, int], ...]

    @classmethod
    def write(cls, evaluator: Shardable) -> FilePayload:
        """Pack an evaluator into a new temporary file."""
        head, buffers = pack(evaluator)
        file, path = _temporary()
        spans = []
        try:
            file.write(head)
            for buffer in buffers:
                file.write(bytes(-file.tell() % ALIGNMENT))
                start = file.tell()
                file.write(buffer)
                spans.append((start, file.tell()))
            file.flush()
        except BaseException:
            with contextlib.suppress(OSError):  # the disk is full: what is in the buffer can't be written either
                file.close()
            raise
        token = uuid.uuid4().hex
        _HELD[token] = file
        return cls(token, path, len(head), tuple(spans))

    def load(self) -> Shardable:
        """Return the evaluator; its arrays are private views of the file, copied only where the loss writes to them."""
        with open(self.path, "rb") as file:
            mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
        evaluator: Shardable = pickle.loads(
            mapped[: self.head], buffers=[mapped[start:stop] for start, stop in self.spans]
        )
        return evaluator

    def discard(self) -> None:
        """Delete the file; workers that have mapped it keep their view."""
        file = _HELD.pop(self.token, None)
        if file is not None:
            file.close()


_HELD: dict[str, Any] = {}  # open files by token: closing one deletes it


def _temporary() -> tuple[Any, str]:
    """Return a new file that is deleted when it is closed, and a path by which other processes can open it.

    Where processes can see each other's files, it needs no name. Elsewhere it has one.
    """
    if os.path.isdir(f"/proc/{os.getpid()}/fd"):
        file = tempfile.TemporaryFile(prefix="fastcheck-")  # noqa: SIM115
        return file, f"/proc/{os.getpid()}/fd/{file.fileno()}"
    named = tempfile.NamedTemporaryFile(prefix="fastcheck-")  # noqa: SIM115
    return named, named.name


def end_with(parent: int | None) -> None:
    """End this worker soon after the process that hired it was killed; idle, it would linger for minutes.

    None stands for a parent that is not this one's: a server between them forks for it, and ends with it.
    """
    hired_by = os.getppid() if parent is None else parent

    def watch() -> None:
        while os.getppid() == hired_by:
            time.sleep(WATCH_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="fastcheck-watch").start()


@dataclass(frozen=True)
class MemoryPayload:
    """An evaluator as bytes, for workers that may not share a file system.

    The token names it, the head is the pickle, and the buffers are the arrays.
    """

    token: str
    head: bytes
    buffers: tuple[bytearray, ...]

    @classmethod
    def of(cls, evaluator: Shardable) -> MemoryPayload:
        """Pack an evaluator."""
        head, buffers = pack(evaluator)
        return cls(uuid.uuid4().hex, head, tuple(bytearray(buffer) for buffer in buffers))

    def load(self) -> Shardable:
        """Return the evaluator."""
        evaluator: Shardable = pickle.loads(self.head, buffers=[bytearray(buffer) for buffer in self.buffers])
        return evaluator

    def discard(self) -> None:
        """Nothing to delete."""


Payload = FilePayload | MemoryPayload


def pack(evaluator: Shardable) -> tuple[bytes, list[memoryview]]:
    """Return the pickle of an evaluator and its arrays' memory, not copied.

    Raises
    ------
    Exception
        Whatever the loss, or what it holds, raises when it is pickled.
    """
    import cloudpickle

    buffers: list[pickle.PickleBuffer] = []
    head = cloudpickle.dumps(evaluator, protocol=5, buffer_callback=buffers.append)
    return head, [buffer.raw() for buffer in buffers]
