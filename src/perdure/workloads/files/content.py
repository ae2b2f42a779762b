"""File content into chunks: large files are cut by content, small ones packed together, holes stay holes.

The walking thread reads and cuts; two worker threads hash, compress and encrypt in ``sink.put``. A bounded
number of chunks is under way, so memory does not depend on the tree.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

from blake3 import blake3
from pyfastcdc import FastCDC

from perdure.workloads.contract import ContentSink

__all__ = [
    "AVERAGE_CHUNK",
    "MAX_CHUNK",
    "MIN_CHUNK",
    "PACK_LIMIT",
    "SMALL",
    "ChunkWriter",
    "ContentReader",
    "Run",
    "Slot",
]

MIN_CHUNK = 256 * 1024
AVERAGE_CHUNK = 1024 * 1024
MAX_CHUNK = 4 * 1024 * 1024
"""FastCDC 2020 with normalized chunking 1 and the default gear table. Part of the repository format: other
numbers cut elsewhere, and nothing stored before would be found again."""

SMALL = 256 * 1024
"""Runs of content up to this many bytes are packed together; longer ones are cut."""

PACK_LIMIT = 1024 * 1024
"""Most bytes that packed runs share a chunk in."""

_WINDOW = 8 * 1024 * 1024
_UNDER_WAY = 16
_WORKERS = 2
_REMEMBERED = 1 << 18


class Slot:
    """A chunk's id, known (not empty) only once the chunk has been put."""

    __slots__ = ("id",)

    def __init__(self) -> None:
        self.id = b""


Run = tuple[Slot | None, int, int]
"""A run of content: the chunk (``None``: a hole), the first byte inside it, the length in bytes."""


class ChunkWriter:
    """Puts chunks into a sink from two threads, at most 16 under way. Used by one walking thread."""

    def __init__(self, sink: ContentSink) -> None:
        self._sink = sink
        self._free = threading.Semaphore(_UNDER_WAY)
        self._threads = ThreadPoolExecutor(_WORKERS, thread_name_prefix="perdure-put")
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(wait=True, cancel_futures=kind is not None)

    def write(self, data: memoryview | list[bytes]) -> Slot:
        """Hand over a chunk, or the parts to join into one; waits while too many are under way.

        Raises:
            BaseException: Whatever the sink raised for an earlier chunk.
        """
        slot = Slot()
        self.fill(slot, data)
        return slot

    def fill(self, slot: Slot, data: memoryview | list[bytes]) -> None:
        """As :meth:`write`, for a slot that was given out before its chunk was complete."""
        self._free.acquire()
        if self._failure is not None:
            self._free.release()
            raise self._failure
        self._threads.submit(self._put, slot, data)

    def drain(self) -> None:
        """Wait until every chunk handed over has its id.

        Raises:
            BaseException: Whatever the sink raised.
        """
        for _ in range(_UNDER_WAY):
            self._free.acquire()
        self._free.release(_UNDER_WAY)
        if self._failure is not None:
            raise self._failure

    def _put(self, slot: Slot, data: memoryview | list[bytes]) -> None:
        try:
            if self._failure is None:
                slot.id = self._sink.put(b"".join(data) if isinstance(data, list) else data)
        except BaseException as failure:  # noqa: BLE001 - raised again in the walking thread
            self._failure = failure
        finally:
            self._free.release()


class ContentReader:
    """Reads files and turns their content into runs.

    Args:
        writer: Where chunks go.
        progress: Called with the number of bytes read since its last call.
    """

    def __init__(self, writer: ChunkWriter, progress: Callable[[int], None]) -> None:
        self._writer = writer
        self._progress = progress
        self._unreported = 0
        self._cutter = FastCDC(AVERAGE_CHUNK, min_size=MIN_CHUNK, max_size=MAX_CHUNK, normalized_chunking=1)
        self._packed: dict[bytes, tuple[Slot, int]] = {}
        self._pack = Slot()
        self._pack_parts: list[bytes] = []
        self._pack_size = 0
        self.bytes_read = 0

    def passed(self, length: int) -> None:
        """Count bytes as dealt with."""
        self._unreported += length
        if self._unreported >= PACK_LIMIT:
            self.report()

    def report(self) -> None:
        """Tell the progress callback what it has not been told yet."""
        if self._unreported:
            self._progress(self._unreported)
            self._unreported = 0

    def read(self, file: int, size: int, blocks: int, same: Callable[[bytes], bool] | None) -> list[Run] | None:
        """Read ``[0, size)`` of a file.

        Args:
            file: Open descriptor.
            size: Bytes, from ``fstat``.
            blocks: ``st_blocks``; fewer than the size needs means holes (or compression by the file system).
            same: For small files: whether the content is what the pool already has for it.

        Returns:
            The runs, fewer bytes than ``size`` if the file became shorter; ``None`` if ``same`` said so.

        Raises:
            OSError: Reading failed.
        """
        if blocks * 512 >= size:
            if size <= SMALL:
                data = _read_small(file, 0, size)
                self._count(len(data))
                if same is not None and same(data):
                    return None
                return [self.pack(data)] if data else []
            return self._cut(file, 0, size)[0]
        if size <= SMALL and same is not None:
            data = _read_small(file, 0, size)
            if same(data):
                self._count(len(data))
                return None
        return self._read_sparse(file, size)

    def pack(self, data: bytes) -> Run:
        """Put a small run into the chunk that small runs share; the same bytes are kept once."""
        length = len(data)
        digest = blake3(data).digest(16)
        known = self._packed.get(digest)
        if known is not None:
            return known[0], known[1], length
        if self._pack_size + length > PACK_LIMIT:
            self.flush()
        start = self._pack_size
        self._pack_parts.append(data)
        self._pack_size += length
        if len(self._packed) >= _REMEMBERED:
            self._packed.clear()
        self._packed[digest] = (self._pack, start)
        return self._pack, start, length

    def flush(self) -> None:
        """Hand the shared chunk over, full or not."""
        if self._pack_parts:
            self._writer.fill(self._pack, self._pack_parts)
            self._pack, self._pack_parts, self._pack_size = Slot(), [], 0

    def _count(self, length: int) -> None:
        self.bytes_read += length
        self.passed(length)

    def _read_sparse(self, file: int, size: int) -> list[Run]:
        runs: list[Run] = []
        position = 0
        for begin, end in _data_ranges(file, size):
            if begin > position:
                runs.append((None, 0, begin - position))
                self.passed(begin - position)
            position = begin
            if end - begin <= SMALL:
                data = _read_small(file, begin, end - begin)
                self._count(len(data))
                got = len(data)
                if data:
                    runs.append(self.pack(data))
            else:
                part, got = self._cut(file, begin, end)
                runs += part
            position += got
            if position < end:
                return runs
        if position < size:
            runs.append((None, 0, size - position))
            self.passed(size - position)
        return runs

    def _cut(self, file: int, begin: int, end: int) -> tuple[list[Run], int]:
        """Cut ``[begin, end)`` by content. Windows are read, not mapped: truncating a mapped file would kill us."""
        runs: list[Run] = []
        position, rest = begin, b""
        while True:
            fresh = os.pread(file, min(_WINDOW, end - position), position)
            self._count(len(fresh))
            position += len(fresh)
            last = position >= end or not fresh
            window = rest + fresh if rest else fresh
            offset, size = 0, len(window)
            chunks = self._cutter.cut_buf(window)
            while size - offset >= MAX_CHUNK or (last and offset < size):
                chunk = next(chunks)
                runs.append((self._writer.write(chunk.data), 0, chunk.length))
                offset += chunk.length
            if last:
                return runs, position - begin
            rest = window[offset:]


def _read_small(file: int, begin: int, length: int) -> bytes:
    data = os.pread(file, length, begin)
    while len(data) < length:
        more = os.pread(file, length - len(data), begin + len(data))
        if not more:
            break
        data += more
    return data


def _data_ranges(file: int, size: int) -> Iterator[tuple[int, int]]:
    """The ranges that are not holes; lseek(2) SEEK_DATA and SEEK_HOLE."""
    position = 0
    while position < size:
        try:
            begin = os.lseek(file, position, os.SEEK_DATA)
            end = os.lseek(file, begin, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            if error.errno in (errno.EINVAL, errno.ENOTSUP):
                begin, end = position, size
            else:
                raise
        if begin >= size:
            return
        yield begin, min(end, size)
        position = end
