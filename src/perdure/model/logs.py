"""Log segments: runs of a source's transaction log, with the places inside them that can be recovered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perdure.model.positions import Position

__all__ = ["MARK", "LogEnd", "LogSegment", "LogSpan", "StoredSegment"]

MARK = np.dtype([("place", "<u8"), ("time_ns", "<i8")])
"""One recoverable place inside a segment: the place in the segment's generation and when it was seen."""


@dataclass(frozen=True, eq=False, slots=True)
class LogSegment:
    """What a workload ships: the log in ``(after, last]``, ending at a transaction boundary.

    Args:
        after: The position that this segment continues. In the same generation as ``last``, or the
            last position of the generation before it.
        last: Position of the last transaction in the segment.
        marks: Array of :data:`MARK`: every recoverable place, ascending; the last one is ``last.place``.
        chain: The workload's continuity token at ``last``.
        index: The workload's own description of the payload (which pages it holds), small.
        blocks: The payload, in pieces of about 1 MiB; the workload chooses where to cut.
    """

    after: Position
    last: Position
    marks: NDArray[np.void]
    chain: bytes
    index: bytes
    blocks: Sequence[bytes | bytearray | memoryview]


@dataclass(frozen=True, slots=True)
class LogSpan:
    """A stored segment as the pool's listing shows it: ``(after, last]`` in one generation.

    Args:
        generation: The segment's generation.
        after_place: Place that it continues; 0 when it opens the generation.
        last_place: Place of its last transaction.
        stored: Bytes in the pool.
        name: Object name.
    """

    generation: int
    after_place: int
    last_place: int
    stored: int
    name: str

    @property
    def last(self) -> Position:
        return Position(self.generation, self.last_place)


@dataclass(frozen=True, eq=False, slots=True)
class StoredSegment:
    """A segment read back: everything of :class:`LogSegment` but the payload, which is read by block.

    Args:
        span: Where it lies.
        after: As shipped (exact, across generations).
        last: As shipped.
        marks: As shipped.
        chain: As shipped.
        index: As shipped.
        block_sizes: Bytes of every block, uncompressed.
        durable_ns: When the vault began to write it, nanoseconds since 1970 UTC.
    """

    span: LogSpan
    after: Position
    last: Position
    marks: NDArray[np.void]
    chain: bytes
    index: bytes
    block_sizes: tuple[int, ...]
    durable_ns: int


@dataclass(frozen=True, slots=True)
class LogEnd:
    """Where the pool's copy of a source's log ends: what a workload must continue.

    Args:
        position: The last position that is durable.
        chain: The continuity token at that position.
    """

    position: Position
    chain: bytes
