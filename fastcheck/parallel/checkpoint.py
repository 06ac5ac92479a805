"""Finished shards on disk: what a killed run had done, bit for bit, and for which problem.

Layout of the file (little-endian): 8 bytes magic; the *commit*, 8 bytes length of what counts and 4 bytes of its CRC;
4 bytes length of the header, the header (JSON, UTF-8) and 4 bytes of its CRC; then records, each with its CRC.
A record is appended first and the commit moved behind it after that, so a run killed while it writes leaves a file
whose tail does not count yet; a file shorter than its commit was truncated by somebody else, and is refused.
Nothing is unpickled.
"""

from __future__ import annotations

import json
import os
import struct
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

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
        What the shards belong to: see `fastcheck.parallel.identity`.

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
        if not self.path.exists():
            _create(self.path, header)
        try:
            self._file: BinaryIO = self.path.open("r+b")
        except OSError as error:
            raise _unwritable(self.path, error) from error
        try:
            _lock(self._file, self.path)
            self._end, found = self._opened()
            self._compare(found, problem)
            self._records = list(self._read_records(BODY + len(header) + 2 * SIZE.size))
        except BaseException:
            self._file.close()
            raise
        self._file.seek(self._end)
        self._file.truncate()
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
        """Append a finished shard of a grid, which begins at a row and was measured at some probes."""
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
        self._file.seek(self._end)
        self._file.write(record)
        self._end += len(record)
        if time.perf_counter() - self._committed >= COMMIT_SECONDS:
            self.commit()

    def commit(self) -> None:
        """Let all that was added count, also after a kill or a power failure."""
        self._file.flush()
        os.fsync(self._file.fileno())
        length = struct.pack("<Q", self._end)
        os.pwrite(self._file.fileno(), length + SIZE.pack(zlib.crc32(length)), len(MAGIC))
        self._committed = time.perf_counter()

    def close(self) -> None:
        """Commit and close the file; it stays on disk."""
        self.commit()
        self._file.close()

    def _read(self, record: _Record, probes: Probed) -> Done:
        """Return a stored shard, if it was measured at these probes."""
        if record.probes != _crc_of(probes) or record.columns != probes[-1].size:
            raise self._refused(ELSEWHERE)
        self._file.seek(record.offset)
        values = np.frombuffer(self._file.read(8 * record.rows * record.columns), "<f8").astype(np.float64)
        failure = self._file.read(record.failure).decode() or None
        self._file.seek(self._end)
        values = values.reshape(record.rows, record.columns)
        return Done(values, record.evaluations, failure, record.seconds, lost=bool(record.lost))

    def _opened(self) -> tuple[int, dict[str, Any]]:
        """Return the length that counts and the header."""
        size = os.fstat(self._file.fileno()).st_size
        start = self._file.read(BODY + SIZE.size)
        if len(start) < BODY + SIZE.size or not start.startswith(MAGIC):
            raise self._refused("it is not a checkpoint of fastcheck")
        end, crc = COMMIT.unpack_from(start, len(MAGIC))
        if zlib.crc32(start[len(MAGIC) : len(MAGIC) + 8]) != crc:
            raise self._refused("it is damaged (its length)")
        if size < end:
            raise self._refused(f"it is truncated: {size} bytes of {end}")
        (length,) = SIZE.unpack_from(start, BODY)
        header = self._file.read(min(length, size))
        if _tail(self._file) != zlib.crc32(header):
            raise self._refused("it is damaged (its header)")
        return end, json.loads(header)

    def _compare(self, found: Mapping[str, Any], problem: Mapping[str, Any]) -> None:
        """Raise unless the file belongs to the problem, and say what differs."""
        differ = [key for key in problem if found.get(key) != problem[key]]
        if differ:
            shown = [f"{key}: {_short(found.get(key))} there, {_short(problem[key])} here" for key in differ[:4]]
            raise self._refused(f"it belongs to another run ({'; '.join(shown)})")

    def _read_records(self, start: int) -> Iterator[_Record]:
        """Yield the records that count, each one verified."""
        self._file.seek(start)
        offset = start
        while offset < self._end:
            head = self._file.read(RECORD.size)
            if len(head) < RECORD.size:
                raise self._refused(f"it is damaged at byte {offset}")
            fields = RECORD.unpack(head)
            record = _Record(offset + RECORD.size, *fields)
            body = 8 * record.rows * record.columns + record.failure
            if offset + RECORD.size + body + SIZE.size > self._end or not self._intact(head, body):
                raise self._refused(f"it is damaged at byte {offset}")
            offset += RECORD.size + body + SIZE.size
            yield record

    def _intact(self, head: bytes, body: int) -> bool:
        crc = zlib.crc32(head)
        while body:
            chunk = self._file.read(min(body, CHUNK))
            crc = zlib.crc32(chunk, crc)
            body -= len(chunk)
        return _tail(self._file) == crc

    def _refused(self, why: str) -> CheckpointError:
        return CheckpointError(
            f"checkpoint={str(self.path)!r} can't be resumed: {why}. It was left as it is; name another path, or "
            "delete it to begin anew."
        )


def _create(path: Path, header: bytes) -> None:
    """Write an empty checkpoint beside the path and move it there, unless somebody else was faster."""
    body = SIZE.pack(len(header)) + header + SIZE.pack(zlib.crc32(header))
    length = struct.pack("<Q", BODY + len(body))
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        fresh.write_bytes(MAGIC + length + SIZE.pack(zlib.crc32(length)) + body)
        os.link(fresh, path)
    except FileExistsError:
        pass
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        fresh.unlink(missing_ok=True)


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(f"checkpoint={str(path)!r} can't be written: {error}. Name a file in a folder you own.")


def _lock(file: BinaryIO, path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # no such locks on this system: two runs on one file are then the caller's business
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise CheckpointError(f"checkpoint={str(path)!r} is in use by another run; name another path.") from error


def _tail(file: BinaryIO) -> int:
    """Read a CRC; -1 where the file ends before it."""
    raw = file.read(SIZE.size)
    return int(SIZE.unpack(raw)[0]) if len(raw) == SIZE.size else -1


def _crc_of(probes: Probed) -> int:
    crc = 0
    for part in probes:
        crc = zlib.crc32(part.tobytes(), crc)
    return crc


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:12] + "..."
