"""Chunks in packs: storing new ones, finding and reading old ones."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from perdure.model.errors import Damaged
from perdure.repository.container import BLOCK_HEADER, HEADER_SIZE, open_block
from perdure.repository.index import ChunkIndex, ChunkPlace
from perdure.repository.keys import KeyRing
from perdure.repository.packs import PackWriter, pack_name
from perdure.storage.contract import Buffer, Pending, Storage

__all__ = ["ChunkReader", "ChunkWriter"]

_RUN = 8 << 20
"""Neighbouring chunks are read together up to this many bytes."""


class ChunkWriter:
    """Stores the chunks of one capture. Every thread fills a pack of its own, so threads do not wait for each other."""

    def __init__(self, storage: Storage, keys: KeyRing, index: ChunkIndex) -> None:
        self._storage = storage
        self._keys = keys
        self._index = index
        self._lock = threading.Lock()
        self._open: dict[int, PackWriter] = {}
        self._fresh: set[bytes] = set()
        self._finished: list[tuple[bytes, int, NDArray[np.void]]] = []
        self._pending: list[Pending] = []
        self.stored = 0

    def put(self, content: Buffer) -> bytes:
        """Store one chunk if the pool has it not yet; returns its id."""
        chunk = self._keys.content_id(content)
        self.add(chunk, content)
        return chunk

    def add(self, chunk: bytes, content: Buffer) -> bool:
        """Store one chunk under its id, which the caller has computed; returns whether the pool had it not yet."""
        if chunk in self._fresh or self._index.has(chunk):
            return False
        writer = self._open.get(threading.get_ident())
        if writer is None:
            writer = PackWriter(self._storage, self._keys)
            with self._lock:
                self._open[threading.get_ident()] = writer
        stored = writer.add(chunk, content)
        with self._lock:
            self._fresh.add(chunk)
            self.stored += stored + BLOCK_HEADER
            if writer.full:
                del self._open[threading.get_ident()]
        if writer.full:
            self._finish(writer)
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
        pending, self._pending = self._pending, []
        self._storage.barrier(pending)
        for pack, size, rows in self._finished:
            self._index.add_pack(pack, size, rows)
        written = [(pack, size) for pack, size, _ in self._finished]
        self._finished = []
        self._fresh = set()
        return written

    def discard(self) -> None:
        """Drop packs that are not complete."""
        with self._lock:
            writers, self._open = list(self._open.values()), {}
        for writer in writers:
            writer.discard()

    def _finish(self, writer: PackWriter) -> None:
        pending, rows, size = writer.finish()
        with self._lock:
            self._pending.append(pending)
            self._finished.append((writer.pack, size, rows))


class ChunkReader:
    """Reads chunks. All methods may be called from several threads."""

    def __init__(self, storage: Storage, keys: KeyRing, index: ChunkIndex) -> None:
        self._storage = storage
        self._keys = keys
        self._index = index
        self._headers: dict[bytes, bytes] = {}

    def place(self, chunk: bytes) -> ChunkPlace:
        """Where a chunk lies.

        Raises:
            Damaged: The pool has no such chunk.
        """
        place = self._index.find(chunk)
        if place is None:
            raise Damaged(f"chunk {chunk.hex()[:16]} is missing from the pool", code="missing-chunk")
        return place

    def read(self, chunk: bytes) -> bytes:
        """The content of one chunk.

        Raises:
            Damaged: It is missing or not what was written.
        """
        place = self.place(chunk)
        data = self._storage.read_range(pack_name(place.pack), place.offset, BLOCK_HEADER + place.stored)
        return self._opened(place, chunk, data)

    def read_many(self, chunks: Sequence[bytes]) -> Iterator[tuple[int, bytes]]:
        """Read chunks in the order in which they lie; yields ``(index in chunks, content)``."""
        for run in self._runs(chunks):
            yield from self._read_run(run)

    def for_each(self, chunks: Sequence[bytes], work: Callable[[int, bytes], None], threads: int) -> None:
        """Call ``work(index, content)`` for every chunk, from several threads, decoding each once."""
        runs = self._runs(chunks)
        source, lock, failed = iter(runs), threading.Lock(), threading.Event()

        def drain() -> None:
            while not failed.is_set():
                with lock:
                    run = next(source, None)
                if run is None:
                    return
                try:
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

    def _runs(self, chunks: Sequence[bytes]) -> list[list[tuple[ChunkPlace, bytes, list[int]]]]:
        """Chunks grouped into runs that lie close together in one pack; equal chunks are read once."""
        wanted: dict[bytes, list[int]] = {}
        for number, chunk in enumerate(chunks):
            wanted.setdefault(chunk, []).append(number)
        placed = [(self.place(chunk), chunk, numbers) for chunk, numbers in wanted.items()]
        placed.sort(key=lambda item: (item[0].pack, item[0].offset))
        runs: list[list[tuple[ChunkPlace, bytes, list[int]]]] = []
        for _, group in groupby(placed, key=lambda item: item[0].pack):
            run: list[tuple[ChunkPlace, bytes, list[int]]] = []
            for item in group:
                end = item[0].offset + BLOCK_HEADER + item[0].stored
                far = run and item[0].offset > run[-1][0].offset + run[-1][0].stored + BLOCK_HEADER + (64 << 10)
                if run and (far or end - run[0][0].offset > _RUN):
                    runs.append(run)
                    run = []
                run.append(item)
            runs.append(run)
        return runs

    def _read_run(self, run: list[tuple[ChunkPlace, bytes, list[int]]]) -> Iterator[tuple[int, bytes]]:
        first, last = run[0][0], run[-1][0]
        length = last.offset + BLOCK_HEADER + last.stored - first.offset
        data = memoryview(self._storage.read_range(pack_name(first.pack), first.offset, length))
        for place, chunk, numbers in run:
            at = place.offset - first.offset
            content = self._opened(place, chunk, data[at : at + BLOCK_HEADER + place.stored])
            for number in numbers:
                yield number, content

    def _opened(self, place: ChunkPlace, chunk: bytes, data: Buffer) -> bytes:
        header = self._headers.get(place.pack)
        if header is None:
            header = self._storage.read_range(pack_name(place.pack), 0, HEADER_SIZE)
            if len(self._headers) > 4096:
                self._headers.clear()
            self._headers[place.pack] = header
        return open_block(self._keys, header, data, pack_name(place.pack), chunk)[1]
