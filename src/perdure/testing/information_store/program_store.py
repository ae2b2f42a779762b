"""A store with one small table, driven operation by operation beside a model of its rows: a case costs milliseconds.

What a real store takes minutes for happens here within a hundred operations: logs have a few segments, the database a
few dozen pages, and crashes, images and rolled logs are operations among others.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import NamedTuple, TypeAlias

from perdure.ese.columns import ColumnType
from perdure.testing.information_store.clock import SteppingClock
from perdure.testing.information_store.disk import Disk
from perdure.testing.information_store.engine import Engine
from perdure.testing.information_store.engine_settings import EngineSettings
from perdure.testing.information_store.journal import JournalRow, Rows, digest_of
from perdure.testing.information_store.recovery import DirtyDatabase, recover
from perdure.testing.information_store.row_format import RowValue, long_key
from perdure.testing.information_store.schema import IndexSchema, TableSchema, columns_of
from perdure.testing.information_store.stream_end import close_stream_end, find_stream_end
from perdure.testing.information_store.tables import StoreTable
from perdure.testing.information_store.tree_store import KeyNotFound
from perdure.testing.information_store.versions import Session, WriteConflict

__all__ = ["NAME", "Captured", "Operation", "ProgramBase", "ProgramStore", "program_base"]

NAME = "Notes"
"""Of the database."""

_GUID = "00000000-0000-4000-8000-000000000001"
_TABLE = "Note"
_BASE = "E00"
_COMMIT_SIZE = 8
_SESSIONS = 3
_DEEPEST = 3
_PAGES = 40


def _number(values: dict[str, RowValue], name: str) -> int:
    value = values[name]
    assert isinstance(value, int)
    return value


SCHEMA = TableSchema(
    _TABLE,
    columns_of(
        ("NoteId", ColumnType.LONG),
        ("Shelf", ColumnType.LONG),
        ("Edits", ColumnType.LONG),
        ("Title", ColumnType.TEXT),
        ("Body", ColumnType.LONG_BINARY),
    ),
    IndexSchema("NotePK", (1,), lambda values: long_key(_number(dict(values), "NoteId"))),
    (IndexSchema("ByShelf", (2,), lambda values: long_key(_number(dict(values), "Shelf"))),),
    long_values=True,
)


class Operation(NamedTuple):
    """One operation of a program.

    Args:
        kind: Its name: that of a method of :class:`ProgramStore`, without the underscore.
        session: Which session does it, if it is done in one.
        row: Which row, if it is about one.
        size: How much: bytes of a title or body, pages, a seed.
    """

    kind: str
    session: int = 0
    row: int = 0
    size: int = 0


@dataclass(frozen=True, slots=True)
class _Row:
    stored: dict[str, RowValue]
    stated: JournalRow


_Pending: TypeAlias = "dict[int, _Row | None]"


@dataclass(frozen=True, slots=True)
class Captured:
    """Image and logs as they lay on the disk at one moment.

    Args:
        image: The database.
        logs: The folder of the logs.
        place: Behind the last record that was durable: the image holds nothing from behind it.
    """

    image: Path
    logs: Path
    place: int


@dataclass(frozen=True, slots=True)
class ProgramBase:
    """The files of a small store that was made and ended in order: cases begin with a copy of them.

    Args:
        page_size: Of the database, bytes.
        files: Content by path below the store's folder.
    """

    page_size: int
    files: dict[str, bytes] = field(repr=False)

    @property
    def log_segments(self) -> int:
        """Segments of a log: a split repeats a page, which must fit into one of them."""
        return 12 if self.page_size <= 8192 else 24

    def settings(self, folder: Path, seed: int) -> EngineSettings:
        """How its engine is set up; the seed decides the rest."""
        chance = Random(seed)  # noqa: S311 - decides when, guards nothing
        return EngineSettings(
            folder,
            _BASE,
            self.page_size,
            checkpoint_depth=chance.choice((1, 2, 4)),
            log_resilience=chance.choice((0, 1, 2)),
            initial_pages=_PAGES,
            cached_pages=chance.choice((8, 30, 1000)),
            seed=seed,
            log_segments=self.log_segments,
        )


def program_base(folder: Path, page_size: int) -> ProgramBase:
    """Make the files of a small store in an empty folder."""
    base = ProgramBase(page_size, {})
    clock = SteppingClock()
    engine = Engine(base.settings(folder, 0), Disk(), Engine.new_signature(Random(page_size), clock), clock)  # noqa: S311
    engine.start()
    database = engine.create_database(NAME, folder / f"{NAME}.edb", Random(1))  # noqa: S311
    session = engine.session()
    session.begin()
    database.create_table(session, SCHEMA)
    session.commit()
    engine.stop()
    base.files.update({path.name: path.read_bytes() for path in folder.iterdir()})
    return base


def _schemas(_tables: set[str]) -> dict[str, TableSchema]:
    return {_TABLE: SCHEMA}


@dataclass(eq=False, repr=False)
class _Client:
    """One session, and for every level of its transaction the rows that it sees instead of the committed ones."""

    session: Session
    pending: list[_Pending] = field(default_factory=list)


@dataclass(eq=False, repr=False)
class ProgramStore:
    """A store and the model of its rows.

    Args:
        folder: Where it lies, a folder of its own.
        base: What it begins with.
        seed: Decides what its engine is set up with, and what it writes when.
        may_lose_power: Whether crashes may be power cuts.

    Attributes:
        captured: Images that were taken, with their logs.
        begun: What it began with.
    """

    folder: Path
    base: ProgramBase
    seed: int = 0
    may_lose_power: bool = False
    captured: list[Captured] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.live = self.folder / "live"
        self.live.mkdir(parents=True)
        for name, content in self.base.files.items():
            (self.live / name).write_bytes(content)
        self.begun = self._taken("begun", 1)
        self._clock = SteppingClock()
        self._clock.moment = self._clock.moment.replace(hour=9)
        self._chance = Random(self.seed)  # noqa: S311 - decides when, guards nothing
        self._committed: dict[int, _Row] = {}
        self._history: list[tuple[int, dict[int, _Row]]] = [(0, {})]
        self._clients: list[_Client] = []
        self._start()

    @property
    def path(self) -> Path:
        """The database."""
        return self.live / f"{NAME}.edb"

    @property
    def commits(self) -> list[int]:
        """Places behind all commits that no crash has taken away."""
        return [place + _COMMIT_SIZE for place, _rows in self._history[1:]]

    def rows_at(self, place: int) -> Rows:
        """The rows that the database must hold when its log is replayed up to a place."""
        found: dict[int, _Row] = {}
        for commit, rows in self._history:
            if commit and commit + _COMMIT_SIZE > place:
                break
            found = rows
        if not found:
            return {}
        return {_TABLE: {long_key(number).hex(): row.stated for number, row in found.items()}}

    @property
    def durable(self) -> int:
        """Place behind the last durable record."""
        return self._engine.stream.flushed

    def perform(self, operation: Operation) -> None:
        """Do one operation; one that is not possible now does nothing."""
        getattr(self, f"_{operation.kind}")(operation)

    def end(self) -> Captured:
        """Kill it, and take what lies on the disk."""
        return self._crash_now(power=False)

    # ---- transactions

    def _begin(self, operation: Operation) -> None:
        client = self._client(operation)
        if len(client.pending) < _DEEPEST:
            client.session.begin()
            client.pending.append({})

    def _commit(self, operation: Operation) -> None:
        client = self._client(operation)
        if not client.pending:
            return
        place = client.session.commit()
        changed = client.pending.pop()
        if client.pending:
            client.pending[-1].update(changed)
            return
        for number, row in changed.items():
            if row is None:
                self._committed.pop(number, None)
            else:
                self._committed[number] = row
        if place:
            self._history.append((place, dict(self._committed)))
        if operation.size % 4:
            self._engine.make_durable()

    def _rollback(self, operation: Operation) -> None:
        client = self._client(operation)
        if client.pending:
            client.session.roll_back()
            client.pending.pop()

    # ---- rows

    def _insert(self, operation: Operation) -> None:
        """A new row, with a body of its own if it is large enough."""
        title, body = _title(operation), _body(operation)
        values: dict[str, RowValue] = {"NoteId": operation.row, "Shelf": operation.row % 3, "Edits": 0}
        values |= {"Title": title, "Body": body}

        def insert(table: StoreTable, session: Session, before: _Row | None) -> _Row | None:
            if before is not None:
                return before
            return _row(table.insert(session, values), values, {})

        self._change(operation, insert)

    def _update(self, operation: Operation) -> None:
        """Other numbers and another title: the row grows or shrinks, and moves in its index."""

        def update(table: StoreTable, session: Session, before: _Row | None) -> _Row | None:
            if before is None:
                return None
            changes: dict[str, RowValue] = {"Edits": _number(before.stored, "Edits") + 1, "Title": _title(operation)}
            if operation.size % 2:
                changes["Shelf"] = operation.size % 5
            return _row(table.replace(session, before.stored, changes), changes, before.stated)

        self._change(operation, update)

    def _body(self, operation: Operation) -> None:
        """Another long value in place of the old one."""

        def replace(table: StoreTable, session: Session, before: _Row | None) -> _Row | None:
            if before is None:
                return None
            changes: dict[str, RowValue] = {"Body": _body(operation)}
            return _row(table.replace(session, before.stored, changes), changes, before.stated)

        self._change(operation, replace)

    def _delete(self, operation: Operation) -> None:
        def delete(table: StoreTable, session: Session, before: _Row | None) -> _Row | None:
            if before is not None:
                table.delete(session, before.stored)
            return None

        self._change(operation, delete)

    def _change(self, operation: Operation, change: Callable[[StoreTable, Session, _Row | None], _Row | None]) -> None:
        client = self._client(operation)
        if not client.pending:
            self._begin(operation)
        before = next((level[operation.row] for level in reversed(client.pending) if operation.row in level), None)
        known = any(operation.row in level for level in client.pending)
        if not known:
            before = self._committed.get(operation.row)
        try:
            after = change(self._database.tables[_TABLE], client.session, before)
        except (WriteConflict, KeyNotFound):
            while client.pending:
                self._rollback(operation)
            return
        if after is not before:
            client.pending[-1][operation.row] = after

    # ---- what the engine does besides

    def _flush(self, operation: Operation) -> None:
        """Write some dirty pages, whatever transactions are under way."""
        self._database.file.write_some(1 + operation.size % 8, self._chance)

    def _write(self, _operation: Operation) -> None:
        """Write all dirty pages."""
        self._database.file.write_all()

    def _durable(self, _operation: Operation) -> None:
        self._engine.make_durable()

    def _checkpoint(self, _operation: Operation) -> None:
        self._engine.advance_checkpoint()

    def _maintain(self, _operation: Operation) -> None:
        """Clean up what was deleted, write what is old."""
        self._engine.maintain()

    def _roll(self, _operation: Operation) -> None:
        self._engine.roll()

    def _capture(self, _operation: Operation) -> None:
        """Take an image and the logs as they lie on the disk."""
        self.captured.append(self._taken(f"captured-{len(self.captured)}"))

    def _remount(self, _operation: Operation) -> None:
        """End in order and begin again."""
        self._abandon()
        self._engine.stop()
        self._start()

    def _reattach(self, _operation: Operation) -> None:
        """Dismount and mount while the log goes on."""
        self._abandon()
        self._engine.dismount(NAME)
        self._engine.leave([client.session for client in self._clients])
        self._mount()

    def _crash(self, operation: Operation) -> None:
        """Die, perhaps with the machine's power, and recover."""
        self._crash_now(power=self.may_lose_power and operation.size % 2 == 1)
        self._start()

    def _crash_now(self, *, power: bool) -> Captured:
        flushed = self._engine.stream.flushed
        if power:
            self._disk.cut_power(self._chance)
        else:
            self._disk.close_all()
        self._clients.clear()
        self._history = [(place, rows) for place, rows in self._history if place < flushed]
        self._committed = dict(self._history[-1][1])
        return self._taken("crashed", flushed)

    # ---- its engine

    def _client(self, operation: Operation) -> _Client:
        return self._clients[operation.session % _SESSIONS]

    def _abandon(self) -> None:
        for client in self._clients:
            while client.pending:
                client.session.roll_back()
                client.pending.pop()

    def _start(self) -> None:
        self._disk = Disk(may_lose_power=self.may_lose_power)
        settings = self.base.settings(self.live, self.seed)
        end = find_stream_end(self.live, _BASE)
        assert end is not None
        assert end.log.header is not None
        engine = self._engine = Engine(settings, self._disk, end.log.header.signature.raw, self._clock)
        if Engine.read_fields(self.path, self.base.page_size).state != _CLEAN:
            recover(engine, [DirtyDatabase(NAME, self.path, _GUID, _schemas, lambda _place: None)])
            engine.start()
        else:
            engine.start(close_stream_end(self._disk, self.live, _BASE, end))
        self._mount()

    def _mount(self) -> None:
        self._database = self._engine.mount(NAME, self.path, _GUID, _schemas(set()))
        self._clients = [_Client(self._engine.session()) for _ in range(_SESSIONS)]

    def _taken(self, name: str, place: int = 0) -> Captured:
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for path in self.live.glob("*.log"):
            shutil.copyfile(path, folder / path.name)
        image = folder / self.path.name
        shutil.copyfile(self.path, image)
        return Captured(image, folder, place or self._engine.stream.flushed)


_CLEAN = 3


def _title(operation: Operation) -> str:
    return f"note {operation.row} " + "x" * (operation.size % 90)


def _body(operation: Operation) -> bytes:
    """Bytes that begin no part with what readers take for compression; up to 512 lie in the row."""
    size = operation.size * 37 % 6000
    return bytes((0x41 + (operation.row + at) % 60) for at in range(64)) * (size // 64 + 1)


def _row(stored: dict[str, RowValue], given: dict[str, RowValue], before: JournalRow) -> _Row:
    stated = dict(before)
    for name, value in given.items():
        if isinstance(value, bytes):
            stated[name] = digest_of(value)
        else:
            assert isinstance(value, int | str)
            stated[name] = value
    return _Row(stored, stated)
