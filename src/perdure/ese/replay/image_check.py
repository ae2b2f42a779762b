"""Whether an image holds changes from behind the position at which a replay is to end."""

from __future__ import annotations

from perdure.ese.logs.files import Log
from perdure.ese.logs.record_types import RECORD_TYPES, Head, name_of
from perdure.ese.logs.records import LogRecord
from perdure.ese.replay.errors import ReplayRefused
from perdure.ese.replay.heads import page_head
from perdure.ese.replay.interpreter import Interpreter
from perdure.ese.replay.stops import records_before
from perdure.ese.structures import Fields, LogPosition

__all__ = ["check_not_newer"]

_UNDO_INFO, _NEW_PAGE = 36, 95
_PAGES_AT: dict[int, tuple[int, ...]] = {
    **{kind.number: (4,) for kind in RECORD_TYPES.values() if kind.head is not Head.NONE and kind.number != _UNDO_INFO},
    **dict.fromkeys((24, 26, 58), (4, 36, 40)),
    **dict.fromkeys((27, 62), (4, 32, 36)),
    **dict.fromkeys((28, 63), (4, 32, 44)),
    65: (4, 32, 36, 40, 44),
}


def check_not_newer(interpreter: Interpreter, log: Log, stop: LogPosition, newer_until: LogPosition) -> None:
    """Check that no page of the image has a change from behind the stop.

    Pages that hold changes from before it only may still have been written behind it; what takes those changes back was
    logged just before, so it is learned here.

    Args:
        interpreter: The database at the stop, with its number in the records.
        log: The log of the stop or a later one.
        stop: Where replay has ended.
        newer_until: The image holds nothing from here on.

    Raises:
        ReplayRefused: A page has.
    """
    records = log.records
    if records is None or log.generation is None or log.generation >= newer_until.generation:
        return
    first = records_before(records, stop) if log.generation == stop.generation else 0
    target, seen = interpreter.target, set()
    for index in range(first, len(records)):
        record = records.record(index)
        if record.type == _UNDO_INFO:
            interpreter.learn_undo(record.content)
        for number, dbtime in _changes(record, interpreter.dbid):
            if number in seen:
                continue
            seen.add(number)
            if target.cache.page(number).dbtime >= dbtime:
                raise ReplayRefused(
                    f"{target.file}: page {number} of the image already holds what record {name_of(record.type)} at "
                    f"{record.position} changes, which lies behind the position {stop}",
                    code="ese-replay-before-image",
                    hint="replay onto an older image, or name a later position",
                )


def _changes(record: LogRecord, dbid: int | None) -> list[tuple[int, int]]:
    """The pages that a record changes, with their dbtime afterwards."""
    content = record.content
    if record.type == _NEW_PAGE and content[3] == dbid:
        at = Fields(content)
        return [(at.u32(4), at.u64(12))]
    places = _PAGES_AT.get(record.type)
    if places is None or content[3] != dbid:
        return []
    dbtime = page_head(content, 0).dbtime
    numbers = [int.from_bytes(content[place : place + 4], "little") for place in places]
    return [(number, dbtime) for number in numbers if number]
