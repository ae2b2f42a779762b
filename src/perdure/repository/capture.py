"""A capture: one recovery point in the making."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from perdure.model.errors import Refused
from perdure.model.extents import ExtentMap
from perdure.model.points import RecoveryPoint, StreamRef
from perdure.repository.chunks import ChunkWriter
from perdure.repository.leases import WorkLease
from perdure.repository.maps import encode_map
from perdure.repository.packs import pack_name
from perdure.repository.records import point_name
from perdure.storage.contract import Buffer, ObjectExists

__all__ = ["STREAM_PIECE", "PoolCapture"]

STREAM_PIECE = 4 << 20
"""Streams are cut into chunks of this size."""


class PoolCapture:
    """Puts chunks, then commits the record. Nothing is visible before :meth:`commit` has returned."""

    def __init__(
        self,
        chunks: ChunkWriter,
        number: int,
        write: Callable[[RecoveryPoint], int],
        lease: WorkLease,
        lock: Callable[[Sequence[str]], None] = lambda _: None,
    ) -> None:
        """Begin.

        Args:
            chunks: Stores the chunks.
            number: The record's number. It is fixed from the beginning: if somebody else commits it meanwhile, what
                this capture builds on may be older than what garbage collection knows, and its commit is refused.
            write: Writes the record.
            lease: Shows garbage collection that this capture is under way.
            lock: Locks objects against deletion, where the source's policy asks for it.
        """
        self._chunks = chunks
        self._number = number
        self._write = write
        self._lease = lease
        self._lock = lock

    @property
    def stored(self) -> int:
        return self._chunks.stored

    def put(self, data: Buffer) -> bytes:
        self._lease.renew_if_due()
        return self._chunks.put(data)

    def add(self, chunk: bytes, data: Buffer) -> bool:
        """Store one chunk under its id, which the caller has computed; returns whether the pool had it not yet."""
        self._lease.renew_if_due()
        return self._chunks.add(chunk, data)

    def put_stream(self, data: bytes) -> StreamRef:
        view = memoryview(data)
        pieces = [view[at : at + STREAM_PIECE] for at in range(0, len(view), STREAM_PIECE)]
        return StreamRef(tuple(self.put(piece) for piece in pieces), len(data))

    def put_map(self, extents: ExtentMap) -> StreamRef:
        return self.put_stream(encode_map(extents))

    def commit(self, draft: RecoveryPoint) -> RecoveryPoint:
        """Write order: packs, barrier, record.

        Raises:
            Refused: Another process committed a point of this source meanwhile, or this one stood still for too long.
        """
        return self._committed(replace(draft, number=self._number, committed_ns=time.time_ns()))

    def flush(self) -> list[tuple[bytes, int]]:
        """Return when everything put so far is durable, with id and size of the packs written since the last time.

        No ``put`` may be under way.
        """
        return self._chunks.make_durable()

    def commit_as(self, point: RecoveryPoint) -> RecoveryPoint:
        """Commit a point of another pool: all stays as it is there, but for ``stored``.

        Raises:
            Refused: As :meth:`commit`.
        """
        if point.number != self._number:
            raise ValueError(f"this capture is for number {self._number}, not {point.number}")
        return self._committed(point)

    def _committed(self, point: RecoveryPoint) -> RecoveryPoint:
        self._chunks.make_durable()
        self._lock([pack_name(pack) for pack in self._chunks.packs])
        self._lease.check()
        point = replace(point, stored=self.stored)
        try:
            self._write(point)
        except ObjectExists as error:
            raise Refused(
                f"recovery point {point.number} was committed by another process at the same time",
                code="point-exists",
                hint="only one perdure process may protect a source; run the command again",
            ) from error
        self._lock([point_name(point.source, point.number)])
        self._lease.release()
        return point

    def abort(self) -> None:
        self._chunks.discard()
        self._lease.release()
