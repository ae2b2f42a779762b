"""Redo of logs on a database where it lies, by the replay library: for recovery after a crash, and for passive copies.

The library knows what log records do; the simulator only makes them. So each checks the other.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from perdure.ese.changes import changed_pages
from perdure.ese.editing import EditablePage
from perdure.ese.logs.files import read_log, read_logs
from perdure.ese.replay.plans import plan_replay
from perdure.ese.replay.redo import Redo
from perdure.ese.replay.stops import END_OF_LOGS
from perdure.ese.replay.transactions import Change
from perdure.ese.structures import LogPosition
from perdure.testing.information_store.engine import CLEAN, DIRTY, Engine
from perdure.testing.information_store.header_fields import NOWHERE, DatabaseFields

__all__ = ["OpenSession", "RedoneDatabase", "redo_in_place", "write_fields"]

_MEMORY = 4 << 30
"""Enough that no page is written because others need its place."""

_BEGIN_TRANSACTION, _DETACH = 8, 16
_INSERT_AND_REPLACE = 31
_NEED_DATA_BEFORE = (_INSERT_AND_REPLACE, 32, 33, 34)
"""Records of changes that cannot be taken back without what was there before."""

_ENDS = (7, 9)
"""Records with which transactions end."""

_Handler = Callable[[bytes, int, int], None]
_Listen = Callable[[bytes, int], None]
_PAGE = struct.Struct("<I")
_TRANSACTION_AT = struct.Struct("<HBI")


@dataclass(frozen=True, slots=True)
class OpenSession:
    """A session whose transaction the logs do not end.

    Args:
        process: Its number.
        transaction: Number that its transaction began with.
        begun: Generation in which it began.
        levels: Its changes, oldest first, for every level of its nested transactions.
    """

    process: int
    transaction: int
    begun: int
    levels: tuple[tuple[Change, ...], ...]


@dataclass(frozen=True, slots=True)
class RedoneDatabase:
    """A database after redo.

    Args:
        fields: Its header, as it is in the file now.
        open_sessions: What is still to be taken back.
        held: Pages with uncommitted data, which are older in the file.
        pages: The page on which a version that needs the data before it was made, by the version's number.
        changed: Changes that were made.
    """

    fields: DatabaseFields
    open_sessions: tuple[OpenSession, ...]
    held: Mapping[int, EditablePage]
    pages: Mapping[int, int]
    changed: int


def redo_in_place(path: Path, logs: Sequence[Path], page_size: int) -> RedoneDatabase:
    """Make every change of logs that a database lacks; transactions that they do not end stay open in it.

    Its header says afterwards that it needs the logs from the oldest open transaction on, or that it is clean if the
    logs detach it.

    Args:
        path: The database; it is written.
        logs: Logs of its stream, the needed ones among them, or folders of such logs.
        page_size: Of the database.

    Raises:
        EseDamaged: Database and logs contradict each other, or logs are missing.
    """
    plan = plan_replay(logs, path, END_OF_LOGS)
    fields = Engine.read_fields(path, page_size)
    if not plan.logs:
        return RedoneDatabase(fields, (), {}, {}, 0)
    last = plan.logs[-1].header
    # Pages are about to hold changes of all these logs: whoever dies meanwhile must know that when it begins again.
    if fields.state == CLEAN:
        fields.state = DIRTY
        fields.min_required = fields.min_consistent = plan.logs[0].header.generation
    fields.max_required = fields.max_committed = last.generation
    fields.max_required_time = fields.max_committed_time = last.created.raw
    write_fields(path, fields)
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        redo = Redo(plan, descriptor, path.name, name="", memory=_MEMORY)
        heard = _Listener(redo, plan.logs[0].header.generation)
        # A page with uncommitted data must not be written before the log has the data before it, and redo cannot log:
        # such pages stay as they are. After every log some of them are free of it again.
        redo.run(heard.after_log)
        held = heard.write()
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    target = redo.interpreter.target
    sessions = tuple(
        OpenSession(session.process, *heard.beginning(session.process), tuple(tuple(level) for level in session.levels))
        for session in redo.interpreter.sessions
    )
    fields.dbtime, fields.last_objid = target.dbtime, max(fields.last_objid, target.last_objid)
    if redo.interpreter.dbid is None:
        _leave_clean(fields, _detached(plan.logs[-1].path))
    else:
        fields.state, fields.dbid = DIRTY, redo.interpreter.dbid
        first = min([last.generation, *(session.begun for session in sessions)])
        known = {page: generation for page in held if (generation := heard.first_change(page)) is not None}
        others = _first_change([log.path for log in plan.logs], held.keys() - known.keys())
        fields.min_required = fields.min_consistent = min([first, others, *known.values()])
        fields.max_required = fields.max_committed = last.generation
        fields.max_required_time = fields.max_committed_time = last.created.raw
        fields.detach, fields.detach_time = NOWHERE, bytes(8)
    write_fields(path, fields)
    return RedoneDatabase(fields, sessions, held, heard.pages, target.counters.changed)


def _ignore(_log: bytes, _at: int) -> None:
    return


class _Listener:
    """Listens to the records of a redo: where transactions begin, and on which pages they change data."""

    def __init__(self, redo: Redo, first: int) -> None:
        self.pages: dict[int, int] = {}
        self._written: dict[int, int] = {}
        self._held: set[int] = set()
        self._begun: dict[int, tuple[int, int]] = {}
        self._redo, self._first = redo, first
        handlers = redo.interpreter.handlers
        handlers[_BEGIN_TRANSACTION] = self._wrapped(handlers[_BEGIN_TRANSACTION], self._begins)
        for kind in _ENDS:
            handlers[kind] = self._wrapped(handlers[kind], after=self._ends)
        for kind in _NEED_DATA_BEFORE:
            handlers[kind] = self._wrapped(handlers[kind], self._changes)

    def beginning(self, process: int) -> tuple[int, int]:
        """Number of a session's transaction, and the generation in which it began."""
        return self._begun.get(process, (0, self._first))

    def write(self) -> dict[int, EditablePage]:
        """Write all pages but those with uncommitted data, which are returned."""
        held = self._write(self._uncommitted())
        self._held = set(held)
        return held

    def first_change(self, page: int) -> int | None:
        """The generation from which on the file lacks changes of a page, ``None`` if it was never written here."""
        return self._written.get(page)

    def _uncommitted(self) -> set[int]:
        return {
            self.pages[change.version]
            for session in self._redo.interpreter.sessions
            for level in session.levels
            for change in level
            if change.version in self.pages
        }

    def _write(self, keep: Collection[int]) -> dict[int, EditablePage]:
        cache = self._redo.interpreter.target.cache
        changed = cache.changed
        held = cache.write(keep)
        generation = self._generation()
        for number in changed - held.keys():
            self._written[number] = generation
        return held

    def _generation(self) -> int:
        return self._redo.interpreter.sizes.position().generation

    def _ends(self, _log: bytes, _at: int) -> None:
        """A transaction has ended: a page that was held may be free of uncommitted data for a moment."""
        if not self._held:
            return
        free = self._held - self._uncommitted()
        if free:
            self._write(self._redo.interpreter.target.cache.changed - free)
            self._held -= free

    def after_log(self, _done: int, _total: int) -> None:
        """Write what can be written after a log."""
        self.write()

    @staticmethod
    def _wrapped(handler: _Handler, listen: _Listen = _ignore, *, after: _Listen = _ignore) -> _Handler:
        def both(log: bytes, at: int, size: int) -> None:
            listen(log, at)
            handler(log, at, size)
            after(log, at)

        return both

    def _begins(self, log: bytes, at: int) -> None:
        process, _, transaction = _TRANSACTION_AT.unpack_from(log, at + 1)
        self._begun[process] = (transaction, self._generation())

    def _changes(self, log: bytes, at: int) -> None:
        (page,) = _PAGE.unpack_from(log, at + 4)
        (version,) = _PAGE.unpack_from(log, at + 32)
        if version and log[at + 3] == self._redo.interpreter.dbid:
            self.pages[version] = page
            if log[at] == _INSERT_AND_REPLACE:
                self.pages[_PAGE.unpack_from(log, at + 48)[0]] = page


def _first_change(logs: Sequence[Path], pages: Collection[int]) -> int:
    """The first generation that changes one of some pages; a very high one if there are none."""
    if not pages:
        return 1 << 31
    wanted = np.array(sorted(pages), np.uint32)
    for log in read_logs(logs):
        if any(np.isin(wanted, changes.pages).any() for changes in changed_pages([log])):
            assert log.generation is not None
            return log.generation
    return 1 << 31


def _detached(path: Path) -> LogPosition:
    """Where the last record lies that detaches a database."""
    records = read_log(path).records
    assert records is not None
    places = [index for index in range(len(records)) if records.types[index] == _DETACH]
    assert places, f"no record of {path} detaches a database"
    return records.position(places[-1])


def _leave_clean(fields: DatabaseFields, position: LogPosition) -> None:
    fields.state = CLEAN
    fields.consistent = fields.detach = position
    fields.min_required = fields.max_required = fields.max_committed = fields.min_consistent = 0
    fields.max_required_time = fields.max_committed_time = bytes(8)


def write_fields(path: Path, fields: DatabaseFields) -> None:
    """Write both copies of a header into a closed database."""
    content = fields.encode()
    with path.open("r+b") as file:
        file.write(content * 2)
        file.flush()
        os.fsync(file.fileno())
