"""Whether an image holds changes from behind the position at which a replay is to end."""

from __future__ import annotations

from dataclasses import dataclass

from perdure.ese.logs.files import Log
from perdure.ese.logs.record_types import RECORD_TYPES, Head, name_of
from perdure.ese.replay.attachments import ATTACHMENT_RECORDS, Attachments, mark_of
from perdure.ese.replay.errors import ReplayRefused
from perdure.ese.replay.heads import page_head
from perdure.ese.replay.interpreter import Interpreter
from perdure.ese.replay.stops import records_before
from perdure.ese.structures import Fields, LogPosition, Signature

__all__ = ["Stopped", "changes_of", "check_not_newer"]

_UNDO_INFO, _EMPTY_TREE, _NEW_PAGE = 36, 48, 95
_EMPTIED_AT, _EMPTIED_SIZE = 46, 16
_PAGES_AT: dict[int, tuple[int, ...]] = {
    **{kind.number: (4,) for kind in RECORD_TYPES.values() if kind.head is not Head.NONE and kind.number != _UNDO_INFO},
    **dict.fromkeys((24, 26, 58), (4, 36, 40)),
    **dict.fromkeys((27, 62), (4, 32, 36)),
    **dict.fromkeys((28, 63), (4, 32, 44)),
    65: (4, 32, 36, 40, 44),
}


@dataclass(frozen=True, slots=True)
class Stopped:
    """A replay that has ended before what the image may hold.

    Args:
        interpreter: The database at the stop.
        signature: Its identity; it may be detached and attached again behind the stop.
        position: Where replay has ended.
        newer_until: The image holds nothing from here on.
    """

    interpreter: Interpreter
    signature: Signature
    position: LogPosition
    newer_until: LogPosition


def check_not_newer(stopped: Stopped, log: Log, attachments: Attachments) -> None:
    """Check that no page of the image has a change from behind the stop.

    Pages that hold changes from before it only may still have been written behind it; what takes those changes back was
    logged just before, so it is learned here.

    Args:
        stopped: Where, and what is there.
        log: The log of the stop or a later one.
        attachments: The databases that are attached where this begins; it goes on with the records behind.

    Raises:
        ReplayRefused: A page has.
    """
    records, stop = log.records, stopped.position
    if records is None or log.generation is None or log.generation >= stopped.newer_until.generation:
        return
    first = records_before(records, stop) if log.generation == stop.generation else 0
    if first == 0 and log.header is not None:
        attachments.begin_log(log.header.attached)
    target, seen = stopped.interpreter.target, set()
    dbid = attachments.number_of(stopped.signature)
    for index in range(first, len(records)):
        record = records.record(index)
        if record.type in ATTACHMENT_RECORDS:
            attachments.take(mark_of(record.content))
            dbid = attachments.number_of(stopped.signature)
        elif record.type == _UNDO_INFO:
            stopped.interpreter.learn_undo(record.content)
        for number, dbtime in changes_of(record.content, dbid):
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


def changes_of(record: bytes, dbid: int | None) -> list[tuple[int, int]]:
    """The pages of a database that a record changes, each with its dbtime afterwards."""
    kind = record[0]
    if kind == _NEW_PAGE and record[3] == dbid:
        at = Fields(record)
        return [(at.u32(4), at.u64(12))]
    places = _PAGES_AT.get(kind)
    if places is None or record[3] != dbid:
        return []
    dbtime = page_head(record, 0).dbtime
    if kind == _EMPTY_TREE:
        places = (*places, *(start + 8 for start in range(_EMPTIED_AT, len(record), _EMPTIED_SIZE)))
    numbers = [int.from_bytes(record[place : place + 4], "little") for place in places]
    return [(number, dbtime) for number in numbers if number]
