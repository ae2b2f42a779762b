"""Chunks in packs: storing new ones, finding and reading old ones."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from perdure.model.errors import Damaged, PerdureError
from perdure.repository.container import BLOCK_HEADER, HEADER_SIZE, open_block
from perdure.repository.index import ChunkIndex, ChunkPlace
from perdure.repository.keys import KeyRing
from perdure.repository.packs import PackWriter, pack_name
from perdure.repository.refreshing import Refreshing
from perdure.storage.contract import Buffer, ObjectMissing, Pending, Storage, StorageFailed

__all__ = ["BadCopy", "ChunkReader", "ChunkWriter"]

_RUN = 8 << 20
"""Neighbouring chunks are read together up to this many bytes."""

_GAP_LOCAL, _GAP_REMOTE = 64 << 10, 1 << 20
"""Unwanted bytes between two chunks that are read over: on an object store a request costs as much as a megabyte."""

_WINDOW = 1 << 16
"""Chunks that are sorted by their places together: bounds memory (some 400 bytes each)."""

_SETTLE_AT, _SETTLE = 16, 12
"""When so many finished packs are not yet in the index, so many of them, the oldest, are made durable and put there.
Bounds what a long capture remembers, while the latest packs still have time to reach the disk unwaited for."""


class ChunkWriter:
    """Stores the chunks of one capture. Every thread fills a pack of its own, so threads do not wait for each other."""

    def __init__(self, storage: Storage, keys: KeyRing, index: ChunkIndex) -> None:
        self._storage = storage
        self._keys = keys
        self._index = index
        self._lock = threading.Lock()
        self._open: dict[int, PackWriter] = {}
        self._fresh: set[bytes] = set()
        self._finished: list[_FinishedPack] = []
        self._written: list[tuple[bytes, int]] = []
        self.stored = 0
        self.packs: list[bytes] = []
        """Ids of the packs that are complete."""

    def put(self, content: Buffer) -> bytes:
        """Store one chunk if the pool has it not yet, outside its condemned packs; returns its id."""
        chunk = self._keys.content_id(content)
        self.add(chunk, content)
        return chunk

    def add(self, chunk: bytes, content: Buffer) -> bool:
        """Store one chunk under its id, which the caller has computed; returns whether the pool had it not yet."""
        if chunk in self._fresh or self._index.has(chunk):
            return False
        with self._lock:
            if chunk in self._fresh:
                return False
            self._fresh.add(chunk)
        try:
            self._store(chunk, content)
        except BaseException:
            with self._lock:
                self._fresh.discard(chunk)
            raise
        return True

    def make_durable(self) -> list[tuple[bytes, int]]:
        """Return when every chunk put so far is durable and in the index. No ``put`` may be under way.

        Returns:
            Id and size of the packs that were written since the last time.
        """
        with self._lock:
            writers, self._open = list(self._open.values()), {}
        for writer in writers:
            self._finish(writer)
        with self._lock:
            finished, self._finished = self._finished, []
        self._settle(finished)
        with self._lock:
            written, self._written = self._written, []
        return written

    def discard(self) -> None:
        """Drop packs that are not complete."""
        with self._lock:
            writers, self._open = list(self._open.values()), {}
        for writer in writers:
            writer.discard()

    def _store(self, chunk: bytes, content: Buffer) -> None:
        writer = self._open.get(threading.get_ident())
        if writer is None:
            writer = PackWriter(self._storage, self._keys)
            with self._lock:
                self._open[threading.get_ident()] = writer
        stored = writer.add(chunk, content)
        with self._lock:
            self.stored += stored + BLOCK_HEADER
            if writer.full:
                del self._open[threading.get_ident()]
        if writer.full:
            self._finish(writer)
            with self._lock:
                count = _SETTLE if len(self._finished) >= _SETTLE_AT else 0
                settling, self._finished = self._finished[:count], self._finished[count:]
            self._settle(settling)

    def _finish(self, writer: PackWriter) -> None:
        pending, rows, size = writer.finish()
        with self._lock:
            self._finished.append(_FinishedPack(writer.pack, size, rows, pending))
            self.packs.append(writer.pack)

    def _settle(self, packs: Sequence[_FinishedPack]) -> None:
        """Make packs durable and put them in the index."""
        if not packs:
            return
        try:
            self._storage.barrier([pack.pending for pack in packs])
        except BaseException:
            # Whoever goes on all the same must not find the rest durable and commit.
            with self._lock:
                self._finished[:0] = packs
            raise
        for pack in packs:
            self._index.add_pack(pack.pack, pack.size, pack.rows)
        with self._lock:
            self._written.extend((pack.pack, pack.size) for pack in packs)
            self._fresh.difference_update(chunk for pack in packs for chunk in pack.rows["id"].tolist())


@dataclass(frozen=True)
class _FinishedPack:
    """A pack that is complete but perhaps not durable."""

    pack: bytes
    size: int
    rows: NDArray[np.void]
    pending: Pending


@dataclass(frozen=True, slots=True)
class BadCopy:
    """A copy of a chunk that is not what was written, met while reading."""

    chunk: bytes
    place: ChunkPlace
    error: PerdureError


_Item = tuple[ChunkPlace, bytes, list[int]]
"""A chunk in a run: where it lies, its id, and its numbers in the list that was asked for."""


class ChunkReader:
    """Reads chunks. All methods may be called from several threads.

    A copy that cannot be read is replaced by any other that the pool has. When the index knows no other, it may be
    out of date, since another process can move chunks to new packs: it is refreshed, once, and asked again.

    Args:
        storage: The pool's objects.
        keys: The pool's keys.
        index: Where chunks lie.
        refresh: Makes the index agree with the pool.
        note: Told of every copy that is not what was written; called from several threads.
    """

    def __init__(
        self,
        storage: Storage,
        keys: KeyRing,
        index: ChunkIndex,
        refresh: Callable[[], None] = lambda: None,
        note: Callable[[BadCopy], None] = lambda _: None,
    ) -> None:
        self._storage = storage
        self._keys = keys
        self._index = index
        self._refreshing = Refreshing(refresh)
        self._note = note
        self._headers: dict[bytes, bytes] = {}
        local = storage.capabilities.local
        self._gap = _GAP_LOCAL if local else _GAP_REMOTE
        # A bad sector spoils one copy. What fails elsewhere is the way to the storage, and that for every copy.
        self._failures = (Damaged, ObjectMissing, StorageFailed) if local else (Damaged, ObjectMissing)

    def place(self, chunk: bytes) -> ChunkPlace:
        """Where a chunk lies.

        Raises:
            Damaged: The pool has no such chunk.
        """
        place = self._index.find(chunk)
        if place is None and self._refreshing.run(unless_fruitless=True):
            place = self._index.find(chunk)
            self._refreshing.helped(place is not None)
        if place is None:
            raise Damaged(f"chunk {chunk.hex()[:16]} is missing from the pool", code="missing-chunk")
        return place

    def read(self, chunk: bytes) -> bytes:
        """The content of one chunk.

        Raises:
            Damaged: It is missing, or no copy of it is what was written.
        """
        place = self.place(chunk)
        try:
            return self._read_at(place, chunk)
        except self._failures as error:
            return self._read_elsewhere(chunk, place, error)

    def read_many(self, chunks: Sequence[bytes]) -> Iterator[tuple[int, bytes]]:
        """Read chunks in the order in which they lie; yields ``(index in chunks, content)``."""
        for run in self._runs(chunks):
            yield from self._read_run(run)

    def for_each(self, chunks: Sequence[bytes], work: Callable[[int, bytes], None], threads: int) -> None:
        """Call ``work(index, content)`` for every chunk, from several threads, decoding each once."""
        source, lock, failed = self._runs(chunks), threading.Lock(), threading.Event()

        def drain() -> None:
            while not failed.is_set():
                try:
                    with lock:
                        run = next(source, None)
                    if run is None:
                        return
                    for number, content in self._read_run(run):
                        work(number, content)
                except BaseException:
                    failed.set()
                    raise

        with ThreadPoolExecutor(threads, thread_name_prefix="read-chunks") as pool:
            jobs = [pool.submit(drain) for _ in range(threads)]
            for job in wait(jobs, return_when=FIRST_EXCEPTION).done:
                job.result()
            for job in jobs:
                job.result()

    # --- runs ---

    def _runs(self, chunks: Sequence[bytes]) -> Iterator[list[_Item]]:
        """Chunks grouped into runs that lie close together in one pack; equal chunks are read once."""
        # Whatever is missing is said before the first hour of a long restore, not after it.
        for chunk in chunks[_WINDOW:]:
            self.place(chunk)
        for begin in range(0, len(chunks), _WINDOW):
            wanted: dict[bytes, list[int]] = {}
            for number, chunk in enumerate(chunks[begin : begin + _WINDOW], begin):
                wanted.setdefault(chunk, []).append(number)
            placed = [(self.place(chunk), chunk, numbers) for chunk, numbers in wanted.items()]
            placed.sort(key=lambda item: (item[0].pack, item[0].offset))
            for _, group in groupby(placed, key=lambda item: item[0].pack):
                yield from self._cut(group)

    def _cut(self, items: Iterator[_Item]) -> Iterator[list[_Item]]:
        """Cut the chunks of one pack, in order, into runs."""
        run: list[_Item] = []
        for item in items:
            if run:
                far = item[0].offset > _end(run[-1][0]) + self._gap
                if far or _end(item[0]) - run[0][0].offset > _RUN:
                    yield run
                    run = []
            run.append(item)
        yield run

    def _read_run(self, run: list[_Item]) -> Iterator[tuple[int, bytes]]:
        first = run[0][0]
        try:
            data = memoryview(
                self._storage.read_range(pack_name(first.pack), first.offset, _end(run[-1][0]) - first.offset)
            )
        except self._failures:
            # Each by itself finds out which of them are hurt, and where else they are.
            for _, chunk, numbers in run:
                content = self.read(chunk)
                yield from ((number, content) for number in numbers)
            return
        for place, chunk, numbers in run:
            at = place.offset - first.offset
            try:
                content = self._opened(place, chunk, data[at : at + BLOCK_HEADER + place.stored])
            except self._failures as error:
                content = self._read_elsewhere(chunk, place, error)
            yield from ((number, content) for number in numbers)

    # --- copies ---

    def _read_at(self, place: ChunkPlace, chunk: bytes) -> bytes:
        data = self._storage.read_range(pack_name(place.pack), place.offset, BLOCK_HEADER + place.stored)
        return self._opened(place, chunk, data)

    def _read_elsewhere(self, chunk: bytes, place: ChunkPlace, error: PerdureError) -> bytes:
        """Read a chunk of which one copy failed from another.

        Raises:
            Damaged: There is none, or none that can be read.
        """
        failed = {place: error}
        self._note_failure(chunk, place, error)
        refreshed = False
        while True:
            other = next((other for other in self._index.find_all(chunk) if other not in failed), None)
            if other is None:
                vanished = any(isinstance(error, ObjectMissing) for error in failed.values())
                if refreshed:
                    self._refreshing.helped(False)
                if refreshed or not self._refreshing.run(unless_fruitless=not vanished):
                    raise _worst(chunk, failed)
                refreshed = True
                continue
            try:
                content = self._read_at(other, chunk)
            except self._failures as more:
                failed[other] = more
                self._note_failure(chunk, other, more)
                continue
            if refreshed:
                self._refreshing.helped(True)
            return content

    def _note_failure(self, chunk: bytes, place: ChunkPlace, error: PerdureError) -> None:
        self._headers.pop(place.pack, None)
        if not isinstance(error, ObjectMissing):
            self._note(BadCopy(chunk, place, error))

    def _opened(self, place: ChunkPlace, chunk: bytes, data: Buffer) -> bytes:
        header = self._headers.get(place.pack)
        if header is None:
            header = self._storage.read_range(pack_name(place.pack), 0, HEADER_SIZE)
            if len(self._headers) > 4096:
                self._headers.clear()
            self._headers[place.pack] = header
        return open_block(self._keys, header, data, pack_name(place.pack), chunk)[1]


def _end(place: ChunkPlace) -> int:
    return place.offset + BLOCK_HEADER + place.stored


def _worst(chunk: bytes, failed: dict[ChunkPlace, PerdureError]) -> PerdureError:
    """What to tell of a chunk none of whose copies can be read."""
    for error in failed.values():
        if not isinstance(error, ObjectMissing):
            return error
    packs = ", ".join(sorted({pack_name(place.pack) for place in failed}))
    return Damaged(f"chunk {chunk.hex()[:16]} is missing from the pool: {packs} is gone", code="missing-chunk")
