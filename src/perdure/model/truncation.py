"""The truncation ledger: which of a database's log its engine may delete, what it deleted, and what keeps the rest."""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = ["LEDGER_EVENTS", "TruncationEvent", "TruncationLedger"]

LEDGER_EVENTS = 200
"""How many backups a ledger remembers."""


@dataclass(frozen=True, slots=True)
class TruncationEvent:
    """One backup that was reported to the engine as complete, or was not.

    Args:
        time_ns: When, nanoseconds since 1970 UTC.
        kind: What it was to the engine: ``full``, ``incremental`` or ``copy``; a copy truncates nothing.
        durable: Highest log generation that was durable in the pool at that time.
        truncated: First and last generation that the engine deleted, inclusive; ``None`` if none.
        blockers: What kept the rest, one sentence each.
    """

    time_ns: int
    kind: str
    durable: int
    truncated: tuple[int, int] | None
    blockers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TruncationLedger:
    """What is known about the log of one database.

    Args:
        durable: Highest log generation that is durable in the pool; 0 if none is.
        allowed: Highest generation that the engine has been told it may delete; 0 if none.
        blockers: What keeps log from being truncated now, one sentence each.
        own_full: The mark of the last full backup that perdure made, as the database's header shows it.
        own_full_ns: When that was, nanoseconds since 1970 UTC.
        foreign_full: The mark of a full backup that another product made since then; empty if there is none.
        awaited: When and where a full backup was frozen that the engine may have completed although its answer did not
            arrive; empty if there is none. A mark of that moment in the header is perdure's own.
        node: Node of the copy that was active at the last express full.
        events: The last backups, the newest last.
    """

    durable: int = 0
    allowed: int = 0
    blockers: tuple[str, ...] = ()
    own_full: str = ""
    own_full_ns: int = 0
    foreign_full: str = ""
    awaited: str = ""
    node: str = ""
    events: tuple[TruncationEvent, ...] = ()

    @property
    def truncated(self) -> int:
        """Highest generation that the engine deleted after a backup of perdure; 0 if none."""
        return max((event.truncated[1] for event in self.events if event.truncated is not None), default=0)

    def with_event(self, event: TruncationEvent) -> TruncationLedger:
        """The ledger after one more backup."""
        allowed = self.allowed if event.kind == "copy" else max(self.allowed, event.durable)
        return replace(
            self,
            durable=max(self.durable, event.durable),
            allowed=allowed,
            blockers=event.blockers,
            events=(*self.events, event)[-LEDGER_EVENTS:],
        )
