"""Finished shards on disk: what a killed run had done, bit for bit, and for which problem.

Layout of the file (little-endian): 8 bytes magic; the *commit*, 8 bytes length of what counts and 4 bytes of its CRC;
4 bytes length of the header, the header (JSON, UTF-8) and 4 bytes of its CRC; then records, each with its CRC.
A record is appended first and the commit moved behind it after that, so a run killed while it writes leaves a file
whose tail does not count yet; a file shorter than its commit was truncated by somebody else, and is refused.
Nothing is unpickled.

The lock belongs to the open file, and so to every process that inherits it: a forked child lets go of it at once.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import struct
import time
import uuid
import weakref
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastcheck.arrays import FloatArray, IntArray
from fastcheck.errors import CheckpointError, InputError
from fastcheck.parallel.shards import Cutter
from fastcheck.parallel.worker import Done, Shard

__all__ = ["Checkpoint"]

MAGIC = b"FASTCHK1"
COMMIT = struct.Struct("<QI")  # length, crc
SIZE = struct.Struct("<I")
RECORD = struct.Struct("<IIQQQdIIB")  # grid, columns, start, rows, evaluations, seconds, crc of probes, failure, lost
BODY = len(MAGIC) + COMMIT.size
COMMIT_SECONDS = 0.2  # a record counts this much later at most; syncing the disk for each would cost more than it saves
CHUNK = 1 << 20
ELSEWHERE = "its shards were measured at other coordinates or steps"

Probed = tuple[FloatArray | IntArray, ...]  # where losses were evaluated; the last of them counts a row's columns


@dataclass(frozen=True)
class _Record:
    """Where a stored shard stands in the file, and what belongs to it beside its values."""

    offset: int
    grid: int
    columns: int
    start: int
    rows: int
    evaluations: int
    seconds: float
    probes: int
    failure: int
    lost: int


class Checkpoint:
    """An open checkpoint of one problem.

    Parameters
    ----------
    path : path
        The file; made if there is none.
    problem : mapping of str to plain data
        What the shards belong to: see `fastcheck.parallel.digest`.

    Raises
    ------
    CheckpointError
        The file is another problem's, is damaged, is no checkpoint, or is in use. It is left as it was.
    InputError
        The folder does not exist or can't be written to.
    """

    def __init__(self, path: str | Path, problem: Mapping[str, Any]) -> None:
        self.path = Path(path)
        header = json.dumps(problem, sort_keys=True).encode()
        try:
            if not self.path.exists():
                _create(self.path, header)
            self._file = _File(self.path, "r+b")
        except (OSError, ValueError) as error:  # a ValueError: no name, or a NUL in it
            raise _unwritable(self.path, error) from error
        try:
            _lock(self._file, self.path)
            self._end, found = self._opened()
            self._compare(found, problem)
            self._records = list(self._read_records(BODY + len(header) + 2 * SIZE.size))
            self._file.truncate(self._end)
        except OSError as error:
            self._file.close()
            raise _unwritable(self.path, error) from error
        except BaseException:
            self._file.close()
            raise
        self._committed = time.perf_counter()

    def stored(self, grid: int, cutter: Cutter) -> Iterator[tuple[Shard, Done]]:
        """Yield the stored shards of a grid, in order, and move the cutter behind them.

        Raises
        ------
        CheckpointError
            They were measured elsewhere.
        """
        for record in self._records:
            if record.grid != grid:
                continue
            shard = cutter.take(record.rows) if record.start == cutter.start else None
            if shard is None:
                raise self._refused(ELSEWHERE)
            yield shard, self._read(record, shard.probes)

    def recall(self, grid: int, probes: Probed) -> Done | None:
        """Return what is stored of a grid that was added as a whole, or None.

        Raises
        ------
        CheckpointError
            It was measured elsewhere.
        """
        record = next((record for record in self._records if record.grid == grid), None)
        return None if record is None else self._read(record, probes)

    def add(self, grid: int, start: int, probes: Probed, done: Done) -> None:
        """Append a finished shard of a grid, which begins at a row and was measured at some probes.

        Raises
        ------
        OSError
            The disk refuses; what was added before still counts.
        """
        values = np.ascontiguousarray(done.values, "<f8")
        failure = (done.failure or "").encode()
        head = RECORD.pack(
            grid,
            values.shape[1],
            start,
            values.shape[0],
            done.evaluations,
            done.seconds,
            _crc_of(probes),
            len(failure),
            done.lost,
        )
        record = head + values.tobytes() + failure
        record += SIZE.pack(zlib.crc32(record))
        self._file.put(record, self._end)
        self._end += len(record)
        if time.perf_counter() - self._committed >= COMMIT_SECONDS:
            self.commit()

    def commit(self) -> None:
        """Let all that was added count, also after a kill or a power failure."""
        os.fsync(self._file.fileno())
        length = struct.pack("<Q", self._end)
        self._file.put(length + SIZE.pack(zlib.crc32(length)), len(MAGIC))
        self._committed = time.perf_counter()

    def close(self) -> None:
        """Commit and close the file; it stays on disk.

        Raises
        ------
        OSError
            The disk refuses; the file is closed all the same.
        """
        try:
            self.commit()
        finally:
            self._file.close()

    def abandon(self) -> None:
        """Close the file of a disk that refuses; what was added before counts as far as that can be written."""
        with contextlib.suppress(OSError):
            self._file.truncate(self._end)
            self.close()
        self._file.close()

    def _read(self, record: _Record, probes: Probed) -> Done:
        """Return a stored shard, if it was measured at these probes."""
        if record.probes != _crc_of(probes) or record.columns != probes[-1].size:
            raise self._refused(ELSEWHERE)
        size = 8 * record.rows * record.columns
        raw = self._file.get(size + record.failure, record.offset)
        values = np.frombuffer(raw, "<f8", record.rows * record.columns).astype(np.float64)
        failure = raw[size:].decode(errors="replace") or None
        values = values.reshape(record.rows, record.columns)
        return Done(values, record.evaluations, failure, record.seconds, lost=bool(record.lost))

    def _opened(self) -> tuple[int, dict[str, Any]]:
        """Return the length that counts and the header."""
        size = os.fstat(self._file.fileno()).st_size
        start = self._file.get(BODY + SIZE.size, 0)
        if len(start) < BODY + SIZE.size or not start.startswith(MAGIC):
            raise self._refused("it is not a checkpoint of fastcheck")
        end, crc = COMMIT.unpack_from(start, len(MAGIC))
        if zlib.crc32(start[len(MAGIC) : len(MAGIC) + 8]) != crc:
            raise self._refused("it is damaged (its length)")
        if size < end:
            raise self._refused(f"it is truncated: {size} bytes of {end}")
        (length,) = SIZE.unpack_from(start, BODY)
        header = self._file.get(min(length, size), BODY + SIZE.size)
        if self._crc_at(BODY + SIZE.size + length) != zlib.crc32(header):
            raise self._refused("it is damaged (its header)")
        return end, dict(json.loads(header))

    def _compare(self, found: Mapping[str, Any], problem: Mapping[str, Any]) -> None:
        """Raise unless the file belongs to the problem, and say what differs."""
        differ = [key for key in problem if found.get(key) != problem[key]]
        if differ:
            shown = [f"{key}: {_short(found.get(key))} there, {_short(problem[key])} here" for key in differ[:4]]
            raise self._refused(f"it belongs to another run ({'; '.join(shown)})")

    def _read_records(self, start: int) -> Iterator[_Record]:
        """Yield the records that count, each one verified."""
        offset = start
        while offset < self._end:
            head = self._file.get(RECORD.size, offset)
            if len(head) < RECORD.size:
                raise self._refused(f"it is damaged at byte {offset}")
            fields = RECORD.unpack(head)
            record = _Record(offset + RECORD.size, *fields)
            body = 8 * record.rows * record.columns + record.failure
            if offset + RECORD.size + body + SIZE.size > self._end or not self._intact(offset, body):
                raise self._refused(f"it is damaged at byte {offset}")
            offset += RECORD.size + body + SIZE.size
            yield record

    def _intact(self, offset: int, body: int) -> bool:
        crc, end = 0, offset + RECORD.size + body
        for at in range(offset, end, CHUNK):
            crc = zlib.crc32(self._file.get(min(CHUNK, end - at), at), crc)
        return self._crc_at(end) == crc

    def _crc_at(self, offset: int) -> int:
        """Read a CRC; -1 where the file ends before it."""
        raw = self._file.get(SIZE.size, offset)
        return int(SIZE.unpack(raw)[0]) if len(raw) == SIZE.size else -1

    def _refused(self, why: str) -> CheckpointError:
        return CheckpointError(
            f"checkpoint={str(self.path)!r} can't be resumed: {why}. It was left as it is; name another path, or "
            "delete it to begin anew."
        )


class _File(io.FileIO):
    """A file without a buffer, so that closing it in a forked child writes nothing."""

    def __init__(self, path: Path, mode: str) -> None:
        super().__init__(path, mode)
        _OPEN.add(self)

    def put(self, data: bytes, offset: int) -> None:
        """Write all of the data; a disk that is nearly full takes a part of it first."""
        left = memoryview(data)
        while left:
            written = os.pwrite(self.fileno(), left, offset)
            left, offset = left[written:], offset + written

    def get(self, size: int, offset: int) -> bytes:
        """Read so many bytes, or those that there are."""
        parts = []
        while size and (part := os.pread(self.fileno(), size, offset)):
            parts.append(part)
            size, offset = size - len(part), offset + len(part)
        return b"".join(parts)


_OPEN: weakref.WeakSet[_File] = weakref.WeakSet()


def _let_go() -> None:
    for file in _OPEN:
        file.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


def _create(path: Path, header: bytes) -> None:
    """Write an empty checkpoint beside the path and move it there, unless somebody else was faster."""
    body = SIZE.pack(len(header)) + header + SIZE.pack(zlib.crc32(header))
    length = struct.pack("<Q", BODY + len(body))
    fresh = path.with_name(f".fastcheck-{uuid.uuid4().hex}")  # of a length that every file system takes
    try:
        fresh.write_bytes(MAGIC + length + SIZE.pack(zlib.crc32(length)) + body)
        os.link(fresh, path)
    except FileExistsError:
        pass
    finally:
        with contextlib.suppress(OSError):
            fresh.unlink()


def _unwritable(path: Path, error: OSError | ValueError) -> InputError:
    return InputError(f"checkpoint={str(path)!r} can't be written: {error}. Name a file in a folder you own.")


def _lock(file: _File, path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # no such locks on this system: two runs on one file are then the caller's business
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise CheckpointError(f"checkpoint={str(path)!r} is in use by another run; name another path.") from error


def _crc_of(probes: Probed) -> int:
    crc = 0
    for part in probes:
        crc = zlib.crc32(part.tobytes(), crc)
    return crc


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:12] + "..."
