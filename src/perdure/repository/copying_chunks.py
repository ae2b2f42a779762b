"""Shipping chunks from one pool into another: read and checked, re-encrypted, read back."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from perdure.model.errors import Damaged, PerdureError
from perdure.model.extents import chunk_table
from perdure.model.points import StreamRef
from perdure.repository.capture import PoolCapture
from perdure.repository.copying_arrival import verify_chunks, verify_packs
from perdure.repository.copying_translation import IdTable, no_ids
from perdure.repository.descriptor import read_descriptor
from perdure.repository.index_snapshot import IndexSnapshot
from perdure.repository.pool import Pool
from perdure.repository.reach import Ids
from perdure.storage.contract import ObjectMissing, StorageFailed

__all__ = ["Origin", "Shipment", "Traffic"]

BATCH = 1 << 30
"""Stored bytes after which what was shipped is made durable and read back, so that a run that is cut off repeats no
more than reading this."""

_UNREADABLE = (Damaged, ObjectMissing, StorageFailed)


@dataclass
class Traffic:
    """What went over.

    Args:
        shipped: Bytes written into the pool that is copied into.
        skipped: Bytes, as stored in the pool that is copied from, that the other one had already.
    """

    shipped: int = 0
    skipped: int = 0


class Origin:
    """The pool that is copied from: where its chunks lie, and which of them are known to be damaged.

    Args:
        pool: The pool.
    """

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.damaged: dict[bytes, str] = {}
        self._snapshot: IndexSnapshot | None = None

    def in_order(self, ids: Ids) -> tuple[Ids, NDArray[np.int64]]:
        """Chunk ids in the order in which they lie, each with the bytes that it takes.

        Raises:
            Damaged: One is missing, or is known to be damaged.
        """
        rows = self._rows(ids)
        if (rows < 0).any():
            # Repacked meanwhile, or written after the look.
            self.pool.matched.refresh()
            self._snapshot = None
            rows = self._rows(ids)
        lost = ids[rows < 0]
        if len(lost):
            raise Damaged(f"chunk {lost[0].tobytes().hex()[:16]} is missing from the pool", code="missing-chunk")
        if self.damaged:
            self._refuse_damaged(ids)
        places = self._looked_at().places(rows)
        order = np.lexsort((places.offset, places.pack))
        return ids[order], places.stored[order]

    def stored(self, ids: Ids) -> int:
        """Bytes that chunks take; what is not found counts nothing."""
        rows = self._rows(ids)
        return int(self._looked_at().places(rows[rows >= 0]).stored.sum())

    def read(self, chunk: bytes) -> bytes:
        """The content of one chunk, checked.

        Raises:
            Damaged: It is missing, or not what was written.
            StorageFailed: The pool cannot be reached any more.
        """
        try:
            with self.told_from_damage():
                content = self.pool.read_chunk(chunk)
            self.check(chunk, content)
        except (Damaged, ObjectMissing) as error:
            self.damaged[chunk] = error.message
            raise error if isinstance(error, Damaged) else Damaged(error.message, code="damaged-object") from error
        return content

    def read_many(self, chunks: Sequence[bytes]) -> Iterator[tuple[int, bytes]]:
        """The contents of chunks, checked, in the order in which they lie; yields ``(index, content)``.

        Raises:
            Damaged: One cannot be read.
        """
        for number, content in self.pool.read_chunks(chunks):
            self.check(chunks[number], content)
            yield number, content

    def check(self, chunk: bytes, content: bytes) -> None:
        """Make sure that content is what its id says, so that no mistake is ever sealed anew as the truth.

        Raises:
            Damaged: It is not.
        """
        if self.pool.chunk_id(content) != chunk:
            raise Damaged(f"chunk {chunk.hex()[:16]}: its content does not match its id", code="damaged-chunk")

    def must_be_there(self) -> None:
        """Make sure that the pool can be reached at all.

        Raises:
            PerdureError: It cannot.
        """
        read_descriptor(self.pool.storage)

    @contextlib.contextmanager
    def told_from_damage(self) -> Iterator[None]:
        """Make an error of the storage damage, as a bad sector is, unless the whole pool cannot be reached any more.

        Raises:
            PerdureError: It cannot be reached.
            Damaged: What was read inside cannot be.
        """
        try:
            yield
        except StorageFailed as error:
            self.must_be_there()
            raise Damaged(error.message, code="damaged-object") from error

    def _refuse_damaged(self, ids: Ids) -> None:
        bad = IdTable()
        names = chunk_table(self.damaged)
        bad.add(names, names)
        found, known = bad.find(ids)
        if known.any():
            raise Damaged(self.damaged[found[known][0].tobytes()], code="damaged-chunk")

    def _rows(self, ids: Ids) -> NDArray[np.int64]:
        return self._looked_at().rows(ids, condemned=True)

    def _looked_at(self) -> IndexSnapshot:
        if self._snapshot is None:
            self._snapshot = self.pool.index.snapshot()
        return self._snapshot


@dataclass
class Shipment:
    """What is on its way into a pool for one point.

    Args:
        origin: The pool that is copied from.
        pool: The pool that is copied into.
        capture: The point in the making there.
        traffic: Counts.
        verify: Read everything back before it is relied on.
        threads: Workers that read, decrypt, compress and encrypt.
        tick: Called now and then from several threads, with the bytes dealt with since the last time.
    """

    origin: Origin
    pool: Pool
    capture: PoolCapture
    traffic: Traffic
    verify: bool
    threads: int
    tick: Callable[[int], None]
    _unproven: list[bytes] = field(default_factory=list)
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def put_stream(self, data: bytes) -> StreamRef:
        """Store a map or listing; implements ``StreamSink``."""
        ref = self.capture.put_stream(data)
        # What is new comes into the index only when it is durable.
        self._unproven.extend(chunk for chunk in ref.chunks if self.pool.index.has(chunk))
        self.tick(0)
        return ref

    def chunks(self, ids: Ids, known: IdTable) -> None:
        """Ship chunks, and note in ``known`` what they are in the other pool.

        Raises:
            Damaged: One cannot be read; what was read before it is shipped and noted all the same.
        """
        ordered, stored = self.origin.in_order(ids)
        for begin, end in _batches(stored):
            batch, sizes = ordered[begin:end], stored[begin:end]
            others, done, failure = self._batch(batch, sizes)
            self.settle()
            known.add(batch[done], others[done])
            if failure is not None:
                raise failure

    def settle(self) -> None:
        """Make durable what was shipped, and read it back.

        Raises:
            DamagedOnArrival: It is not what was sent.
        """
        packs = self.capture.flush()
        unproven, self._unproven = self._unproven, []
        if self.verify:
            verify_packs(self.pool, packs, threads=self.threads)
            verify_chunks(self.pool, list(dict.fromkeys(unproven)), threads=self.threads)

    def _batch(self, batch: Ids, sizes: NDArray[np.int64]) -> tuple[Ids, NDArray[np.bool_], PerdureError | None]:
        """Ship one batch; returns the new ids, which of them count, and why it is not all."""
        chunks = [chunk.tobytes() for chunk in batch]
        others = np.zeros_like(batch) if len(batch) else no_ids()
        done = np.zeros(len(batch), dtype=np.bool_)
        refused: list[BaseException] = []

        def ship(number: int, content: bytes) -> None:
            self.origin.check(chunks[number], content)
            try:
                others[number] = np.frombuffer(self._put(content, int(sizes[number])), dtype=np.uint8)
            except BaseException as error:
                refused.append(error)
                raise
            done[number] = True

        try:
            self.origin.pool.for_each_chunk(chunks, ship, threads=self.threads)
        except _UNREADABLE:
            if refused:
                raise
            # Something in this batch cannot be read where it was looked for: take what is left one by one.
            return others, done, self._one_by_one(chunks, np.flatnonzero(~done).tolist(), ship)
        return others, done, None

    def _one_by_one(
        self, chunks: Sequence[bytes], left: Sequence[int], ship: Callable[[int, bytes], None]
    ) -> PerdureError | None:
        failure: PerdureError | None = None
        for number in left:
            try:
                content = self.origin.read(chunks[number])
            except Damaged as error:
                failure = failure or error
                continue
            ship(number, content)
        return failure

    def _put(self, content: bytes, stored: int) -> bytes:
        chunk = self.pool.chunk_id(content)
        if not self.capture.add(chunk, content):
            with self._guard:
                self._unproven.append(chunk)
                self.traffic.skipped += stored
        self.tick(stored)
        return chunk


def _batches(stored: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Where to cut, so that no batch takes much more than :data:`BATCH` bytes."""
    begin = 0
    ends = np.cumsum(stored)
    while begin < len(stored):
        before = int(ends[begin - 1]) if begin else 0
        end = max(begin + 1, int(ends.searchsorted(before + BATCH)))
        yield begin, end
        begin = end
