"""The timeline as rows for people: images, file points and log segments in order."""

from __future__ import annotations

from dataclasses import dataclass, replace

from perdure.model.drills import Drill
from perdure.model.logs import LogSpan
from perdure.model.points import PointKind, RecoveryPoint
from perdure.model.positions import Position
from perdure.model.timeline import Timeline
from perdure.protection.vault import Vault

__all__ = ["TimelineRow", "timeline_of", "timeline_rows"]


@dataclass(frozen=True, slots=True)
class TimelineRow:
    """One recovery point.

    Args:
        kind: Express full, incremental or file.
        number: The record's number; ``None`` for incremental points.
        position: Log position, for databases.
        time_ns: The moment that it shows, nanoseconds since 1970 UTC.
        size: Bytes protected (images and trees); payload bytes (incremental).
        stored: Bytes in the pool.
        stands_on: The recovery point that is read first to recover this one; ``None`` for records themselves.
        cause: Why it was made.
        commits: Transactions that it ends or holds.
        notes: What a person should know.
        damage: How it is known to be damaged; empty if it is not.
        drill: The newest drill that recovered it, or a moment that stands on it; ``None`` if there was none.
    """

    kind: PointKind
    number: int | None
    position: Position | None
    time_ns: int
    size: int
    stored: int
    stands_on: int | None
    cause: str = ""
    commits: int = 0
    notes: tuple[str, ...] = ()
    damage: str = ""
    drill: Drill | None = None


def timeline_of(vault: Vault, source: str) -> Timeline:
    """The timeline of a source id, from the pool's listing."""
    return Timeline(vault.points(source), vault.spans(source), lambda span: vault.segment(source, span))


def timeline_rows(vault: Vault, source: str, commits: bool = False) -> list[TimelineRow]:
    """All recovery points of a source id, oldest first.

    Args:
        vault: The pool.
        source: Id of the data source.
        commits: One row for every transaction instead of one for every log segment.
    """
    timeline = timeline_of(vault, source)
    known = vault.known_damage(source)
    drills = {drill.number: drill for drill in vault.drills(source)}
    rows = [
        replace(_image_row(point), damage=known.points.get(point.number, ""), drill=drills.get(point.number))
        for point in timeline.points
    ]
    seen: set[str] = set()
    for stretch in timeline.stretches:
        for span in stretch.spans:
            if span.name not in seen:
                seen.add(span.name)
                log = _log_rows(vault, source, span, stretch.point.number, commits=commits)
                rows += (replace(row, damage=known.log.get(span.name, "")) for row in log)
    # A record at a position comes before the log that goes on from there; file points have only their time.
    first = Position(0, 0)
    return sorted(rows, key=lambda row: (row.position or first, row.number is None, row.number or 0, row.time_ns))


def _image_row(point: RecoveryPoint) -> TimelineRow:
    return TimelineRow(
        point.kind,
        point.number,
        point.position,
        point.time_ns,
        point.size,
        point.stored,
        None,
        point.cause,
        notes=point.notes,
    )


def _log_rows(vault: Vault, source: str, span: LogSpan, stands_on: int, *, commits: bool) -> list[TimelineRow]:
    segment = vault.segment(source, span)
    size = sum(segment.block_sizes)
    if not commits:
        time_ns = int(segment.marks["time_ns"][-1])
        count = len(segment.marks)
        row = TimelineRow(
            PointKind.INCREMENTAL, None, segment.last, time_ns, size, span.stored, stands_on, commits=count
        )
        return [row]
    return [
        TimelineRow(PointKind.INCREMENTAL, None, Position(span.generation, place), time_ns, 0, 0, stands_on, commits=1)
        for place, time_ns in zip(segment.marks["place"].tolist(), segment.marks["time_ns"].tolist(), strict=True)
    ]
