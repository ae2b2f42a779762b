"""Redo of logs on a database where it lies, by the replay library: for recovery after a crash, and for passive copies.

The library knows what log records do; the simulator only makes them. So each checks the other.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from perdure.ese.logs.files import read_log
from perdure.ese.replay.plans import plan_replay
from perdure.ese.replay.redo import Redo
from perdure.ese.replay.stops import END_OF_LOGS
from perdure.ese.replay.transactions import Change
from perdure.ese.structures import LogPosition
from perdure.testing.information_store.engine import CLEAN, DIRTY, Engine
from perdure.testing.information_store.header_fields import NOWHERE, DatabaseFields

__all__ = ["OpenSession", "RedoneDatabase", "redo_in_place"]

_MEMORY = 128 << 20
_BEGIN_TRANSACTION, _DETACH = 8, 16
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
        changed: Changes that were made.
    """

    fields: DatabaseFields
    open_sessions: tuple[OpenSession, ...]
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
        return RedoneDatabase(fields, (), 0)
    last = plan.logs[-1].header
    if fields.state != CLEAN:
        # Pages are about to hold changes of all these logs.
        fields.max_required = fields.max_committed = last.generation
        fields.max_required_time = fields.max_committed_time = last.created.raw
        _write_header(path, fields)
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        redo = Redo(plan, descriptor, path.name, name="", memory=_MEMORY)
        begun = _Beginnings(redo)
        redo.run(lambda _done, _total: None)
        target = redo.interpreter.target
        target.cache.write()
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sessions = tuple(
        OpenSession(session.process, *begun.of(session.process), tuple(tuple(level) for level in session.levels))
        for session in redo.interpreter.sessions
    )
    fields.dbtime, fields.last_objid = target.dbtime, max(fields.last_objid, target.last_objid)
    if redo.interpreter.dbid is None:
        _leave_clean(fields, _detached(plan.logs[-1].path))
    else:
        fields.state, fields.dbid = DIRTY, redo.interpreter.dbid
        first = min([last.generation, *(session.begun for session in sessions)])
        fields.min_required = fields.min_consistent = first
        fields.max_required = fields.max_committed = last.generation
        fields.max_required_time = fields.max_committed_time = last.created.raw
        fields.detach, fields.detach_time = NOWHERE, bytes(8)
    _write_header(path, fields)
    return RedoneDatabase(fields, sessions, target.counters.changed)


class _Beginnings:
    """Listens to the records of a redo: where transactions begin."""

    def __init__(self, redo: Redo) -> None:
        self._begun: dict[int, tuple[int, int]] = {}
        self._redo = redo
        handlers = redo.interpreter.handlers
        begin = handlers[_BEGIN_TRANSACTION]
        self._first = redo._plan.logs[0].header.generation  # noqa: SLF001 - the plan is the one that was given to it

        def listen(log: bytes, at: int, size: int) -> None:
            process, _, transaction = _TRANSACTION_AT.unpack_from(log, at + 1)
            self._begun[process] = (transaction, self._position().generation)
            begin(log, at, size)

        handlers[_BEGIN_TRANSACTION] = listen

    def of(self, process: int) -> tuple[int, int]:
        """Number of a session's transaction, and the generation in which it began."""
        return self._begun.get(process, (0, self._first))

    def _position(self) -> LogPosition:
        return self._redo.interpreter.sizes.position()


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


def _write_header(path: Path, fields: DatabaseFields) -> None:
    content = fields.encode()
    with path.open("r+b") as file:
        file.write(content * 2)
        file.flush()
        os.fsync(file.fileno())
