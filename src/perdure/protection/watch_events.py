"""What ``watch`` tells its caller."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from perdure.model.points import RecoveryPoint
from perdure.model.positions import Position

__all__ = ["WatchEvent", "WatchKind"]


class WatchKind(StrEnum):
    """What happened."""

    LOG = "log"
    EXPRESS_FULL = "express full"
    FILE_POINT = "file"
    STATE = "state"
    UPKEEP = "upkeep"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One thing that happened to one source; times in nanoseconds since 1970 UTC.

    Args:
        time_ns: When.
        source: The source's name.
        kind: What.
        commits: Transactions that became durable.
        bytes: Payload bytes of the log, or bytes that a point stored.
        position: The last durable position.
        durable_ns: When the log was durable.
        oldest_commit_ns: Time of the first transaction that became durable.
        lags_ns: From being seen to durable, of every transaction.
        message: State or warning in words.
        point: The recovery point that was made.
    """

    time_ns: int
    source: str
    kind: WatchKind
    commits: int = 0
    bytes: int = 0
    position: Position | None = None
    durable_ns: int = 0
    oldest_commit_ns: int = 0
    lags_ns: tuple[int, ...] = ()
    message: str = ""
    point: RecoveryPoint | None = None

    @property
    def lag_ms(self) -> float:
        """Milliseconds from the first of these transactions to all of them being durable."""
        return (self.durable_ns - self.oldest_commit_ns) / 1e6 if self.oldest_commit_ns else 0.0
