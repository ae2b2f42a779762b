"""A vault for log segments in memory: what a workload's tests restore from."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from perdure.model.logs import LogEnd, LogSegment, LogSpan, StoredSegment
from perdure.model.positions import Position

__all__ = ["MemoryLog", "MemoryLogReader"]


@dataclass
class MemoryLog:
    """Segments in the order they were shipped, gap-checked like a real vault's.

    Args:
        clock: Gives ``durable_ns``.
    """

    clock: Callable[[], int] = lambda: 0
    stored: list[tuple[StoredSegment, tuple[bytes, ...]]] = field(default_factory=list)

    def append(self, segment: LogSegment) -> None:
        """Copy a segment.

        Raises:
            AssertionError: It does not say the truth about itself.
        """
        marks = segment.marks["place"]
        assert len(marks), "a segment has a mark"
        assert int(marks[-1]) == segment.last.place, "the last mark is the last place"
        assert (marks[1:] > marks[:-1]).all(), "marks ascend"
        blocks = tuple(bytes(block) for block in segment.blocks)
        opens = segment.after.generation != segment.last.generation
        span = LogSpan(
            segment.last.generation,
            0 if opens else segment.after.place,
            segment.last.place,
            sum(map(len, blocks)),
            f"memory-{len(self.stored)}",
        )
        sizes = tuple(map(len, blocks))
        self.stored.append(
            (
                StoredSegment(
                    span,
                    segment.after,
                    segment.last,
                    segment.marks.copy(),
                    segment.chain,
                    segment.index,
                    sizes,
                    self.clock(),
                ),
                blocks,
            )
        )

    def end(self) -> LogEnd:
        """Where the log ends."""
        last = self.stored[-1][0]
        return LogEnd(last.last, last.chain)

    def after(self, position: Position) -> MemoryLogReader:
        """The segments that continue ``position``."""
        return MemoryLogReader([pair for pair in self.stored if pair[0].last > position])

    def marks_after(self, position: Position) -> list[tuple[Position, int]]:
        """Every recoverable place after ``position`` with its time."""
        return [
            (Position(segment.last.generation, int(mark["place"])), int(mark["time_ns"]))
            for segment, _blocks in self.stored
            if segment.last > position
            for mark in segment.marks
        ]


@dataclass(frozen=True)
class MemoryLogReader:
    """Implements :class:`perdure.workloads.contract.LogReader`."""

    pairs: list[tuple[StoredSegment, tuple[bytes, ...]]]

    def segments(self) -> Iterable[StoredSegment]:
        return [segment for segment, _blocks in self.pairs]

    def blocks(self, segment: StoredSegment) -> Iterable[bytes]:
        return next(blocks for kept, blocks in self.pairs if kept is segment)
