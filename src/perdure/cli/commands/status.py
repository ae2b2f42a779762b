"""``perdure status``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from perdure.cli.documents import plain
from perdure.cli.options import DEFAULT_OPTIONS, CommonOptions
from perdure.cli.output import print_json, print_lines
from perdure.cli.session import Session
from perdure.cli.wording import count, duration, size, table
from perdure.model.moments import moment_text

if TYPE_CHECKING:
    from perdure.protection.status import SourceStatus

__all__ = ["status"]

_HEAD = (
    "SOURCE",
    "KIND",
    "STATE",
    "LAST POINT",
    "BEHIND",
    "LAG P99",
    "SIZE",
    "IN POOL",
    "PER DAY",
    "DRILLED",
    "WATCHED",
)


def status(*, common: CommonOptions = DEFAULT_OPTIONS) -> int:
    """Show every data source on one screen: its state and why, last point, lag, size and growth.

    For example:

        perdure status
        perdure status --json
    """
    with Session(common) as session:
        found = []
        if session.home.sources():
            from perdure.protection.status import status as look_at_all

            found = look_at_all(session.home, session.pool)
    if common.json:
        print_json({"sources": [{**plain(row), "watched": row.watched} for row in found]})
    elif not found:
        print_lines(["Nothing is protected on this machine. Begin with: perdure protect sqlite:PATH --pool PATH"])
    else:
        print_lines(table(_HEAD, [_cells(row) for row in found], right=(4, 5, 6, 7, 8)))
        print_lines(line for row in found for line in _remarks(row))
    return 0


def _cells(row: SourceStatus) -> tuple[str, ...]:
    readable = not row.problem
    behind_s = (time.time_ns() - row.last_recoverable_ns) / 1e9
    return (
        row.source.name,
        row.source.workload,
        row.state.value,
        moment_text(row.last_point.time_ns) if row.last_point is not None else "",
        duration(max(0.0, behind_s)) if row.last_recoverable_ns else "",
        duration(row.activity.lag_ms.p99 / 1000) if row.activity is not None else "",
        size(row.size) if readable else "",
        size(row.stored) if readable else "",
        size(row.growth_per_day) if row.growth_per_day else "",
        _drilled(row),
        f"by process {row.activity.pid}" if row.activity is not None else "no",
    )


def _drilled(row: SourceStatus) -> str:
    if row.drill is None:
        return "never" if not row.problem else ""
    ago = duration(max(0.0, (time.time_ns() - row.drill.began_ns) / 1e9))
    return f"{ago} ago" if row.drill.passed else f"FAILED {ago} ago"


def _remarks(row: SourceStatus) -> list[str]:
    lines = []
    if row.state.value != "ok":
        since = f" since {moment_text(row.since_ns)}" if row.since_ns else ""
        lines.append(f"{row.source.name}: {row.state.value}{since}: {row.cause}")
    if row.problem:
        lines.append(f"{row.source.name}: its pool cannot be read: {row.problem}")
    if row.damage:
        lines.append(f"{row.source.name}: DAMAGED: {_damaged(row)}; see: perdure points {row.source.name}")
    if row.drill is not None and not row.drill.passed:
        lines.append(f"{row.source.name}: the drill of #{row.drill.number} FAILED: {row.drill.failure}")
    if row.attention:
        lines.append(f"{row.source.name}: {row.attention}")
    if row.activity is not None and row.activity.warning:
        lines.append(f"{row.source.name}: {row.activity.warning}")
    return lines


def _damaged(row: SourceStatus) -> str:
    points = [f"#{number}" for number in sorted(row.damage.points)]
    named = ", ".join(points[:8]) + (f" and {len(points) - 8} more" if len(points) > 8 else "")
    parts = [f"{count(len(points), 'recovery point')} ({named})"] if points else []
    if row.damage.log:
        parts.append(count(len(row.damage.log), "piece") + " of log")
    return " and ".join(parts)
