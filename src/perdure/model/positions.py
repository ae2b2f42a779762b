"""Positions: a data source's own total order of log places."""

from __future__ import annotations

import re
from dataclasses import dataclass

from perdure.model.errors import BadInput

__all__ = ["Position"]

_TEXT = re.compile(r"(\d+):(\d+)")


@dataclass(frozen=True, order=True, slots=True)
class Position:
    """A place in a source's log.

    Args:
        generation: Counts the incarnations of the log (SQLite WAL generation, PostgreSQL timeline,
            ESE log generation). It grows by one when the log continues across a restart of the log
            file; a break in the log skips a number, so that a gap can be seen from numbers alone.
        place: The place inside the generation (SQLite frame number, PostgreSQL LSN, ESE offset).
    """

    generation: int
    place: int

    def __str__(self) -> str:
        return f"{self.generation}:{self.place}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Read the form that ``str`` writes.

        Raises:
            BadInput: ``text`` is not ``GENERATION:PLACE``.
        """
        match = _TEXT.fullmatch(text.strip())
        if match is None:
            raise BadInput(f"{text!r} is not a log position", hint="write it as GENERATION:PLACE, for example 3:1042")
        return cls(int(match[1]), int(match[2]))
