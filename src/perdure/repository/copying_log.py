"""Copying log: the same segments under the same positions, re-encrypted.

No gap is ever hidden: a segment keeps the positions that it had, so where log is missing the chain shows it. What the
other pool holds already, be it in wider or narrower segments, is not shipped again.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np
from blake3 import blake3

from perdure.model.errors import Damaged
from perdure.model.logs import LogSegment, LogSpan, StoredSegment
from perdure.model.positions import Position
from perdure.repository import logs
from perdure.repository.copying_arrival import DamagedOnArrival
from perdure.repository.copying_chunks import Origin
from perdure.repository.pool import Pool
from perdure.storage.contract import ObjectExists, ObjectMissing

__all__ = ["Coverage", "copy_segment", "same_log", "widest_first"]


def widest_first(spans: Iterable[LogSpan]) -> list[LogSpan]:
    """Spans by where they begin; of those that begin together the widest first."""
    return sorted(spans, key=lambda span: (span.generation, span.after_place, -span.last_place))


class Coverage:
    """Which places segments join without a gap.

    Args:
        spans: The segments.
    """

    def __init__(self, spans: Iterable[LogSpan]) -> None:
        # For each generation disjoint stretches (after, last], ascending.
        self._stretches: dict[int, list[tuple[int, int]]] = {}
        for span in widest_first(spans):
            self.add(span)

    def covers(self, span: LogSpan) -> bool:
        """Whether the segments join the beginning of a span to its end."""
        stretches = self._stretches.get(span.generation, [])
        row = bisect_right(stretches, span.after_place, key=lambda stretch: stretch[0]) - 1
        return row >= 0 and stretches[row][1] >= span.last_place

    def add(self, span: LogSpan) -> None:
        """Add a segment."""
        stretches = self._stretches.setdefault(span.generation, [])
        first = bisect_left(stretches, span.after_place, key=lambda stretch: stretch[1])
        end = bisect_right(stretches, span.last_place, key=lambda stretch: stretch[0])
        touched = [*stretches[first:end], (span.after_place, span.last_place)]
        stretches[first:end] = [(min(after for after, _ in touched), max(last for _, last in touched))]

    def last_common(self, other: Coverage) -> Position | None:
        """The last position that lies inside both."""
        for generation in sorted(self._stretches.keys() & other._stretches.keys(), reverse=True):
            mine, theirs = list(self._stretches[generation]), list(other._stretches[generation])
            while mine and theirs:
                place = min(mine[-1][1], theirs[-1][1])
                if place > max(mine[-1][0], theirs[-1][0]):
                    return Position(generation, place)
                (mine if mine[-1][0] > theirs[-1][0] else theirs).pop()
        return None


def same_log(source: str, pool: Pool, spans: Sequence[LogSpan], other: Pool, held: Sequence[LogSpan]) -> bool:
    """Whether two pools hold the same log of a source at the last place that both have.

    Histories that part never meet again, so that this place tells for all before it. Segments that cannot be read are
    left out.
    """
    while (last := Coverage(spans).last_common(Coverage(held))) is not None:
        span, twin = _around(last, spans), _around(last, held)
        here, there = _readable(pool, source, span), _readable(other, source, twin)
        if here is not None and there is not None:
            begin = max(span.after_place, twin.after_place)
            same_end = here.last != there.last or here.chain == there.chain
            return same_end and np.array_equal(_marks(here, begin, last.place), _marks(there, begin, last.place))
        spans = [each for each in spans if each != span or here is not None]
        held = [each for each in held if each != twin or there is not None]
    return True


def _readable(pool: Pool, source: str, span: LogSpan) -> StoredSegment | None:
    try:
        return pool.segment(source, span)
    except (Damaged, ObjectMissing):
        return None


def _around(position: Position, spans: Iterable[LogSpan]) -> LogSpan:
    """The narrowest span that has a position inside or at its end."""
    return min(
        (
            span
            for span in spans
            if span.generation == position.generation and span.after_place < position.place <= span.last_place
        ),
        key=lambda span: span.last_place - span.after_place,
    )


def _marks(segment: StoredSegment, after: int, last: int) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    marks = segment.marks
    return marks[(marks["place"] > after) & (marks["place"] <= last)]


class _Blocks(Sequence[bytes]):
    """The payload of a stored segment, read block by block as it is asked for, and hashed on the way."""

    def __init__(self, origin: Origin, source: str, segment: StoredSegment) -> None:
        self._origin, self._source, self._segment = origin, source, segment
        self.hash = blake3()

    def __len__(self) -> int:
        return len(self._segment.block_sizes)

    def __iter__(self) -> Iterator[bytes]:
        blocks = self._origin.pool.blocks(self._source, self._segment.span)
        with self._origin.told_from_damage():
            block = next(blocks, None)
        while block is not None:
            self.hash.update(block)
            yield block
            with self._origin.told_from_damage():
                block = next(blocks, None)

    @overload
    def __getitem__(self, number: int) -> bytes: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[bytes]: ...
    def __getitem__(self, number: int | slice) -> bytes | Sequence[bytes]:
        return list(self)[number]


def copy_segment(source: str, origin: Origin, span: LogSpan, other: Pool, *, verify: bool) -> LogSpan | None:
    """Copy a segment; durable on return. ``None`` if another process was faster.

    Args:
        source: Id of the data source.
        origin: The pool that is copied from.
        span: The segment there.
        other: The pool that is copied into.
        verify: Read it back.

    Raises:
        Damaged: It cannot be read.
        ObjectMissing: It is no longer there.
        DamagedOnArrival: It does not read back as it was sent; it was removed again.
    """
    with origin.told_from_damage():
        segment = origin.pool.segment(source, span)
    blocks = _Blocks(origin, source, segment)
    copied = LogSegment(segment.after, segment.last, segment.marks, segment.chain, segment.index, blocks)
    try:
        made = logs.append_segment(other.storage, other.keys, source, copied, written_ns=segment.durable_ns)
    except ObjectExists:
        return None
    if verify and not _arrived(source, segment, blocks, other, made):
        other.delete_log(source, [made])
        raise DamagedOnArrival(
            f"log that was written to {other.storage.url} does not read back as it was written; it was removed again",
            hint="run the command again; if it happens again, do not trust the storage, or this machine's memory",
        )
    # Locked only now: what did not arrive had to be removed.
    other.lock_written(source, [made.name])
    return made


def _arrived(source: str, sent: StoredSegment, blocks: _Blocks, other: Pool, made: LogSpan) -> bool:
    try:
        read = other.segment(source, made)
        found = blake3()
        for block in other.blocks(source, made):
            found.update(block)
    except (Damaged, ObjectMissing):
        return False
    same = (read.after, read.last, read.chain, read.index, read.block_sizes, read.durable_ns) == (
        sent.after,
        sent.last,
        sent.chain,
        sent.index,
        sent.block_sizes,
        sent.durable_ns,
    )
    return same and np.array_equal(read.marks, sent.marks) and found.digest() == blocks.hash.digest()
