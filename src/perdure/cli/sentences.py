"""Sentences about what the verbs did, shared by several commands."""

from __future__ import annotations

from perdure.cli.wording import count, size
from perdure.model.moments import moment_text
from perdure.model.points import PointKind, RecoveryPoint

__all__ = ["about_point", "notes_lines"]

_SHOWN_NOTES = 20


def about_point(point: RecoveryPoint) -> list[str]:
    """What a new recovery point is and what it cost."""
    kind = "File recovery point" if point.kind is PointKind.FILE else point.kind.value.capitalize()
    return [
        f"{kind} #{point.number} of {moment_text(point.time_ns)}: {size(point.size)} protected.",
        f"{size(point.changed)} changed, {size(point.stored)} stored, {size(point.read)} read.",
        *notes_lines(point.notes),
    ]


def notes_lines(notes: tuple[str, ...]) -> list[str]:
    """What a person should know; a long list is cut, since ``--json`` has all of it."""
    if not notes:
        return []
    more = len(notes) - _SHOWN_NOTES
    return [
        f"{count(len(notes), 'note')}:",
        *(f"  {note}" for note in notes[:_SHOWN_NOTES]),
        *([f"  … and {more} more (see --json)"] if more > 0 else []),
    ]
