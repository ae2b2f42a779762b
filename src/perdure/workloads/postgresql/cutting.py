"""The WAL that was received and is not in the pool yet, and the segments that are cut from it."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from perdure.model.logs import MARK, LogSegment
from perdure.model.positions import Position
from perdure.workloads.postgresql.blocks import BlockChanges, changed_blocks
from perdure.workloads.postgresql.chain import ChainToken, encode_token
from perdure.workloads.postgresql.records import Records
from perdure.workloads.postgresql.segment_index import (
    VERSION,
    SegmentIndex,
    encode_changes,
    encode_index,
    joined_changes,
)
from perdure.workloads.postgresql.transactions import RestorePoint, restore_points, transaction_ends

__all__ = ["PendingWal"]

BLOCK_BYTES = 1 << 20
SEGMENT_BYTES = 16 << 20
"""A segment is cut when this much has come in, even if no transaction has ended in it."""

QUIET_S = 1.0
"""WAL without the end of a transaction waits this long for one."""


@dataclass(frozen=True, eq=False, slots=True)
class _Batch:
    """The records of one look, described."""

    end: int
    ends: NDArray[np.int64]
    starts: NDArray[np.int64]
    checks: NDArray[np.uint32]
    transactions: NDArray[np.void]
    points: tuple[RestorePoint, ...]
    changes: BlockChanges
    seen_ns: int
    """No transaction that ends behind it has an earlier time than this; 0: not known."""


class PendingWal:
    """WAL from a position on, as bytes and as records.

    Args:
        position: Where it begins: the end of what is shipped.
        token: The continuity token there.
        segment_size: Bytes of a WAL file.
        history: The timeline's history file, to be kept with the first segment.
        generation: Of what is shipped from here on, if it is not the position's.
    """

    def __init__(
        self,
        position: Position,
        token: ChainToken,
        segment_size: int,
        history: bytes = b"",
        generation: int | None = None,
    ) -> None:
        self.position = position
        self.generation = position.generation if generation is None else generation
        self.token = token
        self._segment_size = segment_size
        self._history = history
        self._raw = bytearray()
        self._batches: deque[_Batch] = deque()
        self._since = 0.0

    @property
    def size(self) -> int:
        """Bytes received."""
        return len(self._raw)

    @property
    def changes(self) -> BlockChanges:
        """The blocks that its records change."""
        return joined_changes([batch.changes for batch in self._batches])

    @property
    def walked(self) -> int:
        """LSN up to which whole records are here."""
        return self._batches[-1].end if self._batches else self.position.place

    def add_bytes(self, start: int, data: bytes | memoryview) -> None:
        """Take in bytes that continue what is here; what lies before the position is left out."""
        skip = self.position.place + len(self._raw) - start
        if skip < len(data):
            self._raw += memoryview(data)[max(0, skip) :]

    def add_records(self, records: Records, seen_ns: int) -> BlockChanges:
        """Take in the records of these bytes, those before the position left out.

        Returns:
            The blocks that they change.
        """
        changes = changed_blocks(records)
        if records.ends[-1] <= self.position.place:
            return changes
        if not self._batches:
            self._since = time.monotonic()
        transactions = transaction_ends(records)
        self._batches.append(
            _Batch(
                int(records.ends[-1]),
                records.ends,
                records.starts,
                records.checks,
                transactions[transactions["place"] > self.position.place],
                tuple(point for point in restore_points(records) if point.place > self.position.place),
                changes,
                seen_ns,
            )
        )
        return changes

    # --- cutting ---------------------------------------------------------------------------------

    def has_segment(self, wanted: int = 0) -> bool:
        """Whether there is something to cut: a transaction's end, much WAL, old WAL, or the LSN that is wanted."""
        if not self._batches:
            return False
        return (
            self.position.place < wanted <= self.walked
            or len(self._raw) >= SEGMENT_BYTES
            or time.monotonic() - self._since >= QUIET_S
            or any(len(batch.transactions) for batch in self._batches)
        )

    def cut(self, *, everything: bool = False) -> LogSegment | None:
        """The next segment: up to the last transaction's end, or to the last record where there is none.

        Args:
            everything: Up to the last record in any case.
        """
        batches = self._first_batches()
        if not batches:
            return None
        end = batches[-1].end
        if not everything and len(batches) == len(self._batches):
            ends = [int(batch.transactions["place"][-1]) for batch in batches if len(batch.transactions)]
            end = ends[-1] if ends else end
        return self._segment(end)

    def advance(self, segment: LogSegment, token: ChainToken) -> None:
        """A segment is durable: what it holds goes."""
        end = segment.last.place
        self.drop_before(end)
        self.position, self.token, self._history = segment.last, token, b""

    def drop_before(self, end: int) -> None:
        """Forget what lies before an LSN at which a record ends."""
        del self._raw[: max(0, end - self.position.place)]
        while self._batches and self._batches[0].end <= end:
            self._batches.popleft()
        if self._batches and self._batches[0].starts[0] < end:
            self._batches[0] = _after(self._batches[0], end)
        self._since = time.monotonic()
        self.position = Position(self.generation, end)

    def token_at(self, end: int) -> ChainToken | None:
        """The continuity token at the end of a record that is here."""
        for batch in self._batches:
            row = int(np.searchsorted(batch.ends, end))
            if row < len(batch.ends) and batch.ends[row] == end:
                newest = self._newest_ns(end)
                return ChainToken(
                    self.token.system, self.token.timeline, int(batch.starts[row]), int(batch.checks[row]), newest
                )
        return None

    def _first_batches(self) -> list[_Batch]:
        """Enough for one segment."""
        taken: list[_Batch] = []
        for batch in self._batches:
            if taken and batch.end - self.position.place > SEGMENT_BYTES:
                break
            taken.append(batch)
        return taken

    def _newest_ns(self, end: int) -> int:
        newest = self.token.newest_ns
        for batch in self._batches:
            times = batch.transactions["time_ns"][batch.transactions["place"] <= end]
            newest = max(newest, int(times.max()) if len(times) else 0)
        return newest

    def _segment(self, end: int) -> LogSegment:
        batches = [batch for batch in self._batches if batch.starts[0] < end]
        transactions = np.concatenate([batch.transactions for batch in batches])
        transactions = transactions[transactions["place"] <= end]
        points = [point for batch in batches for point in batch.points if point.place <= end]
        marks = self._marks(transactions, points, end, batches[-1].seen_ns)
        token = self.token_at(end)
        assert token is not None, "segments end where records end"
        token = msgspec.structs.replace(token, newest_ns=int(marks["time_ns"][-1]))
        index = SegmentIndex(
            VERSION,
            self.token.timeline,
            self._segment_size,
            transactions.tobytes(),
            [(point.name, point.place, point.time_ns) for point in points],
            encode_changes(joined_changes([batch.changes for batch in batches])),
            self._history,
        )
        raw = bytes(memoryview(self._raw)[: end - self.position.place])
        view = memoryview(raw)
        return LogSegment(
            self.position,
            Position(self.generation, end),
            marks,
            encode_token(token),
            encode_index(index),
            [view[at : at + BLOCK_BYTES] for at in range(0, len(view), BLOCK_BYTES)],
        )

    def _marks(
        self, transactions: NDArray[np.void], points: list[RestorePoint], end: int, seen_ns: int
    ) -> NDArray[np.void]:
        """Every place that a person may name, in order.

        Transactions may get their times in another order than their places in the log. As in PostgreSQL's own
        recovery to a time, a place counts as reached at a time if everything before it was.
        """
        places = [*transactions["place"].tolist(), *(point.place for point in points)]
        times = [*transactions["time_ns"].tolist(), *(point.time_ns for point in points)]
        if end not in places:
            places.append(end)
            times.append(0 if times else seen_ns)
        marks = np.empty(len(places), MARK)
        marks["place"], marks["time_ns"] = places, times
        marks = marks[np.argsort(marks["place"], kind="stable")]
        marks["time_ns"] = np.maximum(np.maximum.accumulate(marks["time_ns"]), self.token.newest_ns)
        return marks


def _after(batch: _Batch, end: int) -> _Batch:
    """What of a batch lies behind an LSN; its changed blocks stay as they are, which is only too many."""
    kept = batch.ends > end
    return _Batch(
        batch.end,
        batch.ends[kept],
        batch.starts[kept],
        batch.checks[kept],
        batch.transactions[batch.transactions["place"] > end],
        tuple(point for point in batch.points if point.place > end),
        batch.changes,
        batch.seen_ns,
    )
