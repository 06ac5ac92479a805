"""A loss with its data, packed once for all workers: code by cloudpickle, arrays apart and memory-mapped."""

from __future__ import annotations

import mmap
import os
import pickle
import shutil
import tempfile
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from fastcheck.losses.evaluator import Shardable

__all__ = ["FilePayload", "MemoryPayload", "Payload", "pack"]

WATCH_SECONDS = 0.5
ALIGNMENT = 64  # bytes; vector loads want it


@dataclass(frozen=True)
class FilePayload:
    """An evaluator in a file that the workers of one machine map into memory; its arrays exist once.

    Attributes
    ----------
    token : str
        Names the evaluator.
    path : str
        The file.
    head : int
        Bytes of the pickle at its beginning.
    spans : tuple of (int, int)
        Where in the file the arrays are.
    parent : int
        The process whose workers these are.
    """

    token: str
    path: str
    head: int
    spans: tuple[tuple[int, int], ...]
    parent: int

    @classmethod
    def write(cls, evaluator: Shardable) -> FilePayload:
        """Pack an evaluator into a file of a new temporary folder."""
        head, buffers = pack(evaluator)
        path = Path(tempfile.mkdtemp(prefix="fastcheck-")) / "loss"
        spans = []
        with path.open("wb") as file:
            file.write(head)
            for buffer in buffers:
                file.write(bytes(-file.tell() % ALIGNMENT))
                start = file.tell()
                file.write(buffer)
                spans.append((start, file.tell()))
        return cls(uuid.uuid4().hex, str(path), len(head), tuple(spans), os.getpid())

    def load(self) -> Shardable:
        """Return the evaluator; its arrays are private views of the file, copied only where the loss writes to them."""
        self._end_with_parent()
        with open(self.path, "rb") as file:
            mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
        evaluator: Shardable = pickle.loads(
            mapped[: self.head], buffers=[mapped[start:stop] for start, stop in self.spans]
        )
        return evaluator

    def _end_with_parent(self) -> None:
        """End this worker soon after its parent was killed; idle, it would linger for minutes."""
        if os.getppid() != self.parent:
            return

        def watch() -> None:
            while os.getppid() == self.parent and os.path.exists(self.path):
                time.sleep(WATCH_SECONDS)
            if os.getppid() != self.parent:
                self.discard()
                os._exit(1)

        threading.Thread(target=watch, daemon=True, name="fastcheck-watch").start()

    def discard(self) -> None:
        """Delete the file; workers that have mapped it keep their view."""
        shutil.rmtree(os.path.dirname(self.path), ignore_errors=True)


@dataclass(frozen=True)
class MemoryPayload:
    """An evaluator as bytes, for workers that may not share a file system.

    Attributes
    ----------
    token : str
        Names the evaluator.
    head : bytes
        The pickle.
    buffers : tuple of bytearray
        The arrays.
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
