"""``perdure points``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perdure.cli.documents import plain
from perdure.cli.options import DEFAULT_OPTIONS, CommonOptions
from perdure.cli.output import print_json, print_lines
from perdure.cli.session import Session
from perdure.cli.wording import size, table
from perdure.model.moments import moment_text

if TYPE_CHECKING:
    from perdure.protection.points import TimelineRow

__all__ = ["points"]

_HEAD = ("POINT", "KIND", "TIME", "POSITION", "SIZE", "STORED", "TRANSACTIONS", "STANDS ON", "DRILL", "CAUSE")


def points(
    name: str, /, *, commits: bool = False, pool: str | None = None, common: CommonOptions = DEFAULT_OPTIONS
) -> int:
    """Show a data source's timeline: everything that can be recovered, oldest first.

    Each line is a recovery point, or a piece of log in which every transaction can be recovered by its time or
    position.

    For example:

        perdure points app
        perdure points app --commits

    Args:
        name: The data source.
        commits: Show every single transaction of the log.
        pool: Look into the pool at this path, such as a second copy, instead of the one it is protected in.
    """
    from perdure.protection.points import timeline_rows

    with Session(common) as session:
        protected = session.protected(name, pool)
        rows = timeline_rows(protected.vault, protected.source.id, commits)
    if common.json:
        print_json({"source": protected.source.name, "points": [plain(row) for row in rows]})
    else:
        print_lines(table(_HEAD, [_cells(row) for row in rows], right=(4, 5, 6)))
        print_lines(f"DAMAGED {_name(row)}: {row.damage}" for row in rows if row.damage)
        print_lines(
            f"FAILED DRILL of {_name(row)} at {moment_text(row.drill.began_ns)}: {row.drill.failure}"
            for row in rows
            if row.drill is not None and not row.drill.passed
        )
    return 0


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
