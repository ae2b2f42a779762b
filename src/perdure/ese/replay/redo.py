"""Redo of the records of many logs, and undo of what they leave unfinished."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perdure.ese.errors import EseDamaged
from perdure.ese.logs.files import Log
from perdure.ese.logs.record_types import RECORD_TYPES, Head, name_of
from perdure.ese.logs.records import Records
from perdure.ese.logs.segments import SEGMENT_SIZE
from perdure.ese.replay.attachments import ATTACHMENT_RECORDS, CREATE, DETACH, Attachments, DatabaseMark, mark_of
from perdure.ese.replay.dbtime_spans import DbtimeSpans
from perdure.ese.replay.errors import (
    Contradiction,
    Incapable,
    NoSuchDatabase,
    PositionNotReached,
    ReplayInconsistent,
    ReplayRefused,
    ReplayUnsupported,
)
from perdure.ese.replay.image_check import Stopped, check_not_newer
from perdure.ese.replay.interpreter import Interpreter
from perdure.ese.replay.log_stream import joined_logs
from perdure.ese.replay.page_cache import PageCache
from perdure.ese.replay.plans import ReplayPlan, before_image
from perdure.ese.replay.sizes import SizeRecords
from perdure.ese.replay.stops import record_end, records_before
from perdure.ese.replay.target import ReplayTarget
from perdure.ese.replay.transactions import Sessions
from perdure.ese.replay.undo import roll_back
from perdure.ese.structures import LogPosition, LogTime, Signature
from perdure.model.errors import BadInput

__all__ = ["OpenTransaction", "Reached", "Redo"]

_HAS_HEAD = np.isin(
    np.arange(256), [kind.number for kind in RECORD_TYPES.values() if kind.head is not Head.NONE and kind.number != 36]
)
_IS_MARK = np.isin(np.arange(256), ATTACHMENT_RECORDS)
_NEW_PAGES_LOGGED_SINCE = 40
"""Major update of the log format since which a new page has a record, so that no number of the counter lacks one."""

_UNSET = Signature(bytes(28))


@contextmanager
def _uncollected() -> Iterator[None]:
    """Let nobody look for circles of objects among millions of nodes and changes: there are none."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@dataclass(frozen=True, slots=True)
class OpenTransaction:
    """A transaction that does not end before the position, and was taken back.

    Args:
        process: Number of its session.
        begun: Position at which it began, ``None`` if that lies before the logs.
        changes: How many of its changes were taken back.
    """

    process: int
    begun: LogPosition | None
    changes: int


@dataclass(frozen=True, slots=True)
class Reached:
    """Where a replay has come to.

    Args:
        position: Behind the last record.
        time: When the segment of that record was begun.
    """

    position: LogPosition
    time: LogTime


class Redo:
    """Brings one database forward, log by log.

    Args:
        plan: What to do.
        descriptor: The copy of the image, or an empty file.
        file: Its name, for messages.
        name: Which database to make, where the logs make several.
        memory: Bytes that pages may take.
    """

    def __init__(self, plan: ReplayPlan, descriptor: int, file: str, *, name: str, memory: int) -> None:
        self._plan, self._name = plan, name
        image = plan.image
        target = ReplayTarget(
            PageCache(descriptor, plan.page_size, file, memory),
            may_be_newer=image is not None,
            dbtime=image.dbtime if image is not None else 0,
            last_objid=image.last_objid if image is not None else 0,
            where=self._where,
        )
        last_resize = image.last_resize if image is not None else LogPosition(0, 0, 0)
        self.interpreter = Interpreter(
            target,
            # Logs are read from their beginning, also the one in the middle of which a clean image was detached.
            Sessions(may_begin_before=image is not None or plan.begins_within_stream),
            SizeRecords(target, self._position, last_resize),
            self._position,
        )
        self.signature = image.signature if image is not None else _UNSET
        self.original = ""
        self.generations: tuple[int, int] | None = None
        self.records = 0
        self.last_dbid = 0
        self.dbtimes = DbtimeSpans()
        self.every_change_has_a_record = True
        self.open_transactions: list[OpenTransaction] = []
        self._attachments = Attachments()
        self._log: Records | None = None
        self._index = 0
        self._stopped: LogPosition | None = None
        self._left_image = image is None
        self._reached = Reached(image.consistent, image.consistent_time) if image is not None else None

    def reached(self) -> Reached:
        """Where it has come to."""
        assert self._reached is not None
        return self._reached

    def run(self, progress: Callable[[int, int], None]) -> None:
        """Read all logs.

        Raises:
            ReplayInconsistent: A record does not fit what is there.
            ReplayUnsupported: A record is of a type that is not known.
            ReplayRefused: The wanted position lies before what the image holds.
            PositionNotReached: It lies behind the logs.
        """
        with _uncollected():
            self._run(progress)

    def _run(self, progress: Callable[[int, int], None]) -> None:
        plan = self._plan
        sizes = [log.path.stat().st_size for log in plan.logs]
        stop_generation = plan.stop.position.generation if plan.stop.position is not None else None
        for log, size in zip(joined_logs(plan.logs, stop_generation), sizes, strict=True):
            if self._stopped is None:
                self._read(log)
            if self._stopped is not None:
                # What the image holds of records behind the stop shows only in the logs that it needs.
                stopped = Stopped(self.interpreter, self.signature, self._stopped, plan.newer_until)
                check_not_newer(stopped, log, self._attachments)
                if log.generation is not None and log.generation + 1 >= plan.newer_until.generation:
                    break
            progress(size, sum(sizes))
        self._check_end()

    def undo(self) -> None:
        """Take back what transactions changed that do not end.

        Raises:
            ReplayInconsistent: Something that is needed for that is missing or contradicts the log.
        """
        interpreter = self.interpreter
        for session in interpreter.sessions:
            begun = session.begun
            try:
                changes = roll_back(interpreter.target, session)
            except (Contradiction, EseDamaged) as error:
                what = error.message if isinstance(error, EseDamaged) else str(error)
                raise ReplayInconsistent(
                    f"undo of the transaction of session {session.process:#x} begun at "
                    f"{begun or 'a position before the logs'}: {what}",
                    code="ese-replay-undo",
                    hint="replay to another position, or from another image",
                ) from error
            if changes:
                interpreter.target.counters.undone += changes
                self.open_transactions.append(OpenTransaction(session.process, begun, changes))

    # ---- one log

    def _read(self, log: Log) -> None:
        records = log.records
        assert records is not None
        assert log.header is not None
        assert log.segments is not None
        generation = log.header.generation
        self._attachments.begin_log(log.header.attached)
        self._follow()
        stop = self._plan.stop.position_in(log.segments)
        if stop is not None and stop.sector > log.segments.last + 1:
            raise PositionNotReached(
                f"{stop} lies behind the end of {log.file}, whose last segment is {log.segments.last:X}",
                code="ese-replay-position",
                hint="name a position that the log holds, or its generation alone",
            )
        image = self._plan.image
        if stop is not None and image is not None and image.clean and stop < self._plan.newer_until:
            raise before_image(self._plan.stop, self._plan.newer_until)
        end = len(records) if stop is None else records_before(records, stop)
        self._log = records
        border = self._border(records)
        self._prefetch(records, end)
        self._run_until(records, min(border, end))
        if not self._left_image and border <= end and (border < len(records) or self._border_is_behind(generation)):
            self._leave_image()
        self._run_until(records, end, first=min(border, end))
        self.records += end
        self.dbtimes.add(records, end, self.interpreter.dbid or self.last_dbid)
        self.every_change_has_a_record &= log.header.version[2] >= _NEW_PAGES_LOGGED_SINCE
        if end or self.generations is None:
            self.generations = (self.generations[0] if self.generations else generation, generation)
            self._note_reached(log, records, end)
        if stop is not None:
            self._stopped = stop

    def _border(self, records: Records) -> int:
        """The first record behind which the image holds nothing."""
        until = self._plan.newer_until
        if records.generation < until.generation:
            return len(records)
        if records.generation > until.generation:
            return 0
        return int(np.searchsorted(records.places, until.sector * SEGMENT_SIZE + until.offset))

    def _border_is_behind(self, generation: int) -> bool:
        return LogPosition(generation + 1, 0, 0) >= self._plan.newer_until

    def _leave_image(self) -> None:
        """From here on the image holds nothing: every change must be needed, and nothing may be lacking.

        This happens once: transactions that begin behind it have changes that nobody may forget.
        """
        target = self.interpreter.target
        if target.pending:
            raise ReplayInconsistent(
                f"{self._plan_file()}: {next(iter(target.pending.values()))}",
                code="ese-replay-page-missing",
                hint="the image lost a write, or is of another time than the logs; replay from another image",
            )
        target.may_be_newer = False
        self._left_image = True
        if self._plan.image is not None and self._plan.image.clean:
            # It was shut down cleanly: what transactions changed in it until then has ended, one way or the other.
            self.interpreter.sessions.forget_changes()

    def _prefetch(self, records: Records, end: int) -> None:
        starts = records.starts[:end]
        heads = starts[_HAS_HEAD[records.content[starts]]]
        if len(heads) and self.interpreter.target.cache.page_count:
            octets: NDArray[np.uint8] = records.content[heads[:, None] + np.arange(4, 8)]
            self.interpreter.target.cache.prefetch(np.unique(np.ascontiguousarray(octets).view("<u4")))

    def _run_until(self, records: Records, end: int, first: int = 0) -> None:
        """Apply records, those that attach databases between the others."""
        types = records.types
        marks = np.flatnonzero(_IS_MARK[types[first:end]]) + first
        begin = first
        for mark in [*marks.tolist(), end]:
            self._apply(records, begin, mark)
            if mark < end:
                self._index = mark
                self._mark(mark_of(records.record(mark).content))
            begin = mark + 1

    def _apply(self, records: Records, first: int, end: int) -> None:
        content = records.content.data.tobytes() if first < end else b""
        handlers = self.interpreter.handlers
        which = (column[first:end].tolist() for column in (records.types, records.starts, records.sizes))
        try:
            for self._index, (kind, start, size) in enumerate(zip(*which, strict=True), first):
                handlers[kind](content, start, size)
        except Contradiction as error:
            raise self._inconsistent(str(error)) from error
        except EseDamaged as error:
            raise self._inconsistent(error.message.removeprefix(f"{self._plan_file()}: ")) from error
        except Incapable as error:
            raise ReplayUnsupported(
                f"{self._plan_file()}: record {self._where()}: {error}; nothing that follows can be replayed",
                code="ese-replay-unsupported",
                hint="end the replay before this record with --to, or let the engine replay the logs",
            ) from error

    def _inconsistent(self, what: str) -> ReplayInconsistent:
        return ReplayInconsistent(
            f"{self._plan_file()}: record {self._where()}: {what}",
            code="ese-replay-inconsistent",
            hint="image and logs do not fit together: one of them is damaged, or from another recovery of the database",
        )

    # ---- databases

    def _mark(self, mark: DatabaseMark) -> None:
        self._attachments.take(mark)
        if mark.kind == CREATE and self._plan.image is None:
            self._make(mark)
        elif mark.kind == DETACH and mark.dbid == self.interpreter.dbid:
            self._end_sessions()
        self._follow()

    def _end_sessions(self) -> None:
        for session in self.interpreter.sessions:
            left = sum(map(len, session.levels))
            if left:
                raise self._inconsistent(
                    f"the database is detached, and the transaction of session {session.process:#x} begun at "
                    f"{session.begun} has {left} changes that were never undone"
                )

    def _make(self, mark: DatabaseMark) -> None:
        if self._name and not mark.path.lower().endswith(self._name.lower()):
            return
        if self.signature not in (_UNSET, mark.signature) and not self._name:
            raise BadInput(
                f"the logs make several databases: {self.original} and {mark.path}",
                code="ese-replay-ambiguous",
                hint="say which one with --name",
            )
        if self.signature == mark.signature:
            raise self._inconsistent(f"the database {mark.path} is made a second time")
        self.signature, self.original = mark.signature, mark.path
        target = self.interpreter.target
        target.cache.truncate(0)
        target.dbtime = target.last_objid = 0

    def _follow(self) -> None:
        """Learn the number that the database has from here on."""
        dbid = self._attachments.number_of(self.signature) if self.signature != _UNSET else None
        self.interpreter.dbid = dbid
        if dbid is not None:
            self.last_dbid = dbid
            self.original = self._attachments.path_of(self.signature) or self.original

    # ---- the end

    def _check_end(self) -> None:
        plan, last = self._plan, self.generations[1] if self.generations else 0
        if plan.image is None and self.signature == _UNSET:
            raise NoSuchDatabase(
                f"no record of logs {plan.logs[0].header.generation:X}-{last:X} creates "
                + (f"a database {self._name}" if self._name else "a database"),
                code="ese-replay-no-database",
                hint="name the image that the logs continue with --database",
            )
        if plan.image is not None and not plan.image.clean and not self.last_dbid:
            if self._stopped is not None:
                raise ReplayRefused(
                    f"{self._plan_file()}: the position {self._stopped} lies before the logs attach the database, "
                    "and the image, which was attached, holds changes from behind it",
                    code="ese-replay-before-image",
                    hint="replay onto an older image, or name a later position",
                )
            raise NoSuchDatabase(
                f"{self._plan_file()}: the logs never attach the database {self.signature}, "
                "so none of their records can be of it",
                code="ese-replay-no-database",
                hint="name the logs that belong to this image",
            )
        if plan.stop.anywhere and self._stopped is None:
            self._check_stop_reached(last)
        if self.interpreter.target.pending:
            self._leave_image()

    def _check_stop_reached(self, last: int) -> None:
        """The logs end before the wanted position: fine only if that is where the next record would stand."""
        stop = self._plan.stop
        if stop.position is not None and self._reached is not None:
            ends = stop.position == LogPosition(last + 1, 0, 0)
            if ends or stop.position <= self._next_segment():
                return
        if stop.time is not None and last and self._plan.stream.goes_on_behind(last):
            raise self._plan.stream.missing(last + 1, f"{stop} lies behind it")
        if stop.time is not None:
            return
        raise PositionNotReached(
            f"{stop} lies behind the logs, which end at {self.reached().position}",
            code="ese-replay-position",
            hint="leave --to out to replay all logs that are there",
        )

    def _next_segment(self) -> LogPosition:
        reached = self.reached().position
        return LogPosition(reached.generation, reached.sector + 1, 0)

    def _note_reached(self, log: Log, records: Records, end: int) -> None:
        assert log.segments is not None
        if not end:
            sector, place = log.segments.first, log.segments.first * SEGMENT_SIZE
        else:
            place = record_end(int(records.places[end - 1]), int(records.sizes[end - 1]))
            sector = (place - 1) // SEGMENT_SIZE
        index = min(max(0, sector - log.segments.first), max(0, log.segments.count - 1))
        raw = log.segments.content[index].tobytes()[16:24] if log.segments.count else bytes(8)
        position = LogPosition(records.generation, place // SEGMENT_SIZE, place % SEGMENT_SIZE)
        self._reached = Reached(position, LogTime(raw))

    # ---- messages

    def _plan_file(self) -> str:
        return self.interpreter.target.file

    def _position(self) -> LogPosition:
        assert self._log is not None
        if self._index >= len(self._log):
            # A log without records, read after another one: nothing of it has been reached.
            return LogPosition(self._log.generation, 0, 0)
        return self._log.position(self._index)

    def _where(self) -> str:
        assert self._log is not None
        kind = int(self._log.content[int(self._log.starts[self._index])])
        return f"{name_of(kind)} at {self._position()}"
