"""What working with a live database gives: log that became durable, and what a comparison found."""

from __future__ import annotations

from dataclasses import dataclass

from perdure.model.points import RecoveryPoint
from perdure.model.positions import Position
from perdure.protection.storing import Found

__all__ = ["Checked", "Shipped"]


@dataclass(frozen=True, slots=True)
class Shipped:
    """Log that became durable.

    Args:
        segments: Number of segments.
        commits: Number of recoverable places in them.
        bytes: Payload bytes.
        last: The last durable position, ``None`` if nothing was shipped.
        oldest_commit_ns: Time of the first transaction among them, 0 if there was none.
        newest_commit_ns: Time of the last one.
        durable_ns: When the last segment was durable.
        lags_ns: Nanoseconds from being seen to durable, of every place in it.
    """

    segments: int = 0
    commits: int = 0
    bytes: int = 0
    last: Position | None = None
    oldest_commit_ns: int = 0
    newest_commit_ns: int = 0
    durable_ns: int = 0
    lags_ns: tuple[int, ...] = ()

    def joined(self, later: Shipped) -> Shipped:
        """Both together."""
        if not later.segments:
            return self
        return Shipped(
            self.segments + later.segments,
            self.commits + later.commits,
            self.bytes + later.bytes,
            later.last,
            self.oldest_commit_ns or later.oldest_commit_ns,
            later.newest_commit_ns,
            later.durable_ns,
            self.lags_ns + later.lags_ns,
        )


@dataclass(frozen=True, slots=True)
class Checked:
    """What a comparison of source and replica found.

    Args:
        found: Differing pages by file name.
        page_sizes: Page size of every file, bytes.
        repair: The point that repaired them, if there were any.
        read: Bytes read from the source.
    """

    found: dict[str, Found]
    page_sizes: dict[str, int]
    repair: RecoveryPoint | None
    read: int
