"""Where a replay ends: at the end of the logs, of a generation, before a position, or at a time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from perdure.ese.logs.records import Records
from perdure.ese.logs.segments import SEGMENT_HEADER, SEGMENT_SIZE, Segments
from perdure.ese.structures import LogPosition, LogTime
from perdure.model.errors import BadInput

__all__ = ["END_OF_LOGS", "StopAt", "parse_stop", "record_end", "records_before"]

_POSITION = re.compile(r"([0-9a-f]{1,8})(?:[:,]([0-9a-f]{1,4})(?:[:,]([0-9a-f]{1,4}))?)?", re.IGNORECASE)
_FRAGMENT_BEGIN_HEAD, _FRAGMENT_HEAD = 7, 3


@dataclass(frozen=True, slots=True)
class StopAt:
    """Where a replay ends.

    Args:
        position: Only records that end before it count; ``None`` for no such limit.
        time: Only segments that were begun at this time or before count; ``None`` for no such limit.
    """

    position: LogPosition | None = None
    time: datetime | None = None

    @property
    def anywhere(self) -> bool:
        """Whether it is not just the end of the logs."""
        return self.position is not None or self.time is not None

    def ends_before(self, moment: LogTime) -> bool:
        """Whether it is a time before a moment of the log."""
        return self.time is not None and _moment(moment) > self.time

    def position_in(self, segments: Segments) -> LogPosition | None:
        """The position in a log before which replay ends, ``None`` if it goes on behind this log."""
        candidates = []
        if self.position is not None and self.position.generation <= segments.generation:
            at = self.position if self.position.generation == segments.generation else _beginning(segments)
            candidates.append(max(at, _beginning(segments)))
        if self.time is not None:
            for index in range(segments.count):
                if self.ends_before(LogTime(segments.content[index].tobytes()[16:24])):
                    candidates.append(LogPosition(segments.generation, segments.first + index, 0))
                    break
        return min(candidates, default=None)

    def __str__(self) -> str:
        if self.position is not None:
            return f"position {self.position}"
        return f"{self.time:%Y-%m-%d %H:%M:%S} UTC" if self.time is not None else "the end of the logs"


END_OF_LOGS = StopAt()


def parse_stop(text: str) -> StopAt:
    """Read ``GEN``, ``GEN:SEGMENT``, ``GEN:SEGMENT:BYTE`` (hexadecimal) or a time.

    A generation alone counts whole; a position ends before its segment or byte. A time without zone is UTC.

    Raises:
        BadInput: It is neither.
    """
    match = _POSITION.fullmatch(text.strip())
    if match:
        generation = int(match[1], 16)
        if match[2] is None:
            return StopAt(LogPosition(generation + 1, 0, 0))
        return StopAt(LogPosition(generation, int(match[2], 16), int(match[3] or "0", 16)))
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise BadInput(
            f"{text!r} is neither a position in the logs nor a time",
            code="ese-replay-position",
            hint="name a generation (1A), a position (1A:30 or 1A:30:5C, hexadecimal), or a time (2024-05-06T07:08:09)",
        ) from None
    return StopAt(time=moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC))


def records_before(records: Records, stop: LogPosition) -> int:
    """How many records of a log end before a position in it."""
    place = stop.sector * SEGMENT_SIZE + stop.offset
    count = int(np.searchsorted(records.places, place))
    if count and record_end(int(records.places[count - 1]), int(records.sizes[count - 1])) > place:
        count -= 1  # a record in fragments that begins before and ends behind
    return count


def record_end(place: int, size: int) -> int:
    """Where a record ends in the file, with the heads of its fragments and of segments between."""
    room = SEGMENT_SIZE - place % SEGMENT_SIZE
    if size <= room:
        return place + size
    rest = size - (room - _FRAGMENT_BEGIN_HEAD)
    each = SEGMENT_SIZE - SEGMENT_HEADER - _FRAGMENT_HEAD
    whole, last = divmod(rest, each)
    first = place - place % SEGMENT_SIZE + SEGMENT_SIZE
    if not last:
        return first + whole * SEGMENT_SIZE
    return first + whole * SEGMENT_SIZE + SEGMENT_HEADER + _FRAGMENT_HEAD + last


def _beginning(segments: Segments) -> LogPosition:
    return LogPosition(segments.generation, 0, 0)


def _moment(time: LogTime) -> datetime:
    moment = time.moment
    if moment is None:
        return datetime.min.replace(tzinfo=UTC)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
