"""``perdure points``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perdure.cli.documents import plain
from perdure.cli.options import DEFAULT_OPTIONS, CommonOptions
from perdure.cli.output import print_json, print_lines
from perdure.cli.session import Session
from perdure.cli.wording import duration, rate, size, table
from perdure.model.moments import moment_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perdure.protection.estimating import ReplayEstimate
    from perdure.protection.points import TimelineRow

__all__ = ["points"]

_HEAD = ("POINT", "KIND", "TIME", "POSITION", "SIZE", "STORED", "TRANSACTIONS", "STANDS ON", "DRILL", "CAUSE")


def points(
    name: str, /, *, commits: bool = False, pool: str | None = None, common: CommonOptions = DEFAULT_OPTIONS
) -> int:
    """Show a data source's timeline: everything that can be recovered, oldest first.

    Each line is a recovery point, or a piece of log in which every transaction can be recovered by its time or
    position. For PostgreSQL the time of the replay is estimated, by what drills measured.

    For example:

        perdure points app
        perdure points app --commits

    Args:
        name: The data source.
        commits: Show every single transaction of the log.
        pool: Look into the pool at this path, such as a second copy, instead of the one it is protected in.
    """
    from perdure.protection.estimating import replay_estimate
    from perdure.protection.points import timeline_rows

    with Session(common) as session:
        protected = session.protected(name, pool)
        rows = timeline_rows(protected.vault, protected.source.id, commits)
        estimate = replay_estimate(protected)
    if common.json:
        print_json({"source": protected.source.name, **_document(rows, estimate)})
    else:
        print_lines(_lines(rows, estimate))
        print_lines(f"DAMAGED {_name(row)}: {row.damage}" for row in rows if row.damage)
        print_lines(
            f"FAILED DRILL of {_name(row)} at {moment_text(row.drill.began_ns)}: {row.drill.failure}"
            for row in rows
            if row.drill is not None and not row.drill.passed
        )
    return 0


def _document(rows: Sequence[TimelineRow], estimate: ReplayEstimate | None) -> dict[str, Any]:
    if estimate is None:
        return {"points": [plain(row) for row in rows]}
    replay = {"bytes_per_second": estimate.rate, "basis": estimate.basis}
    return {"points": [{**plain(row), "replay_seconds": estimate.seconds(row)} for row in rows], "replay": replay}


def _lines(rows: Sequence[TimelineRow], estimate: ReplayEstimate | None) -> list[str]:
    if estimate is None:
        return table(_HEAD, [_cells(row) for row in rows], right=(4, 5, 6))
    cells = []
    for row in rows:
        seconds = estimate.seconds(row)
        before, after = _cells(row)[:8], _cells(row)[8:]
        cells.append((*before, "" if seconds is None else f"~{duration(seconds)}", *after))
    head = (*_HEAD[:8], "REPLAY", *_HEAD[8:])
    basis = f"REPLAY is an estimate, at {rate(estimate.rate, 1)} of log, {estimate.basis}."
    return [*table(head, cells, right=(4, 5, 6, 8)), *([basis] if rows else [])]


def _name(row: TimelineRow) -> str:
    return f"log up to {row.position}" if row.number is None else f"#{row.number}"


def _cells(row: TimelineRow) -> tuple[str, ...]:
    return (
        "" if row.number is None else f"#{row.number}",
        row.kind.value,
        moment_text(row.time_ns),
        "" if row.position is None else str(row.position),
        size(row.size) if row.size or row.number is not None else "",
        size(row.stored) if row.stored or row.number is not None else "",
        f"{row.commits:,}" if row.commits else "",
        "" if row.stands_on is None else f"#{row.stands_on}",
        "" if row.drill is None else "passed" if row.drill.passed else "FAILED",
        ("DAMAGED " if row.damage else "") + row.cause + (f" ({len(row.notes)} notes)" if row.notes else ""),
    )
