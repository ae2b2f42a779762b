"""Timeline histories: which timeline branched from which, and where."""

from __future__ import annotations

from dataclasses import dataclass

from perdure.workloads.postgresql.lsn import parse_lsn

__all__ = ["History", "parse_history"]


@dataclass(frozen=True, slots=True)
class History:
    """How a timeline came about.

    Args:
        timeline: The timeline.
        ends: Its ancestors, oldest first, each with the LSN at which the next one branched off.
    """

    timeline: int
    ends: tuple[tuple[int, int], ...] = ()

    def end_of(self, timeline: int) -> int | None:
        """Where a timeline ends on the way to this one; ``None``: it is this one, or not an ancestor."""
        return dict(self.ends).get(timeline)

    def after(self, timeline: int) -> int:
        """The timeline that follows an ancestor."""
        line = [number for number, _ in self.ends]
        return [*line, self.timeline][line.index(timeline) + 1]

    def contains(self, timeline: int, lsn: int) -> bool:
        """Whether what was written up to ``lsn`` on a timeline is part of this one."""
        end = self.end_of(timeline)
        return timeline == self.timeline or (end is not None and lsn <= end)

    def timeline_at(self, lsn: int) -> int:
        """The timeline on which the byte before ``lsn`` was written."""
        for timeline, end in self.ends:
            if lsn <= end:
                return timeline
        return self.timeline


def parse_history(timeline: int, content: bytes) -> History:
    """Read a history file; lines that are not understood are comments, as for PostgreSQL."""
    ends = []
    for line in content.decode("utf-8", "replace").splitlines():
        fields = line.split()
        if len(fields) >= 2 and fields[0].isdecimal() and "/" in fields[1]:
            ends.append((int(fields[0]), parse_lsn(fields[1])))
    return History(timeline, tuple(ends))
