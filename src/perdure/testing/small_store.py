"""A small store with real headers, logs and pages and no engine behind it: for tests of what follows and ships them.

Its log names pages and counts of changes, and its pages carry those counts; what the records would do to a page is
nobody's concern here. It speaks the writer protocol, and does at once whatever it is told to.
"""

from __future__ import annotations

import copy
import random
import shutil
import struct
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from perdure.ese.checksums import xor32
from perdure.ese.headers.log import read_log_header
from perdure.ese.pages import PageFlag
from perdure.ese.repair import sealed_page
from perdure.snapshots.writer import (
    BackupKind,
    Blocker,
    BlockerKind,
    CompletedDatabase,
    CopyRole,
    DatabaseCopy,
    DatabaseState,
    DatabaseStatus,
    FailedAtFreeze,
    Frozen,
    NonRetryable,
    WriterTimeout,
)
from perdure.testing.ese_databases import header_bytes, page_bytes
from perdure.testing.ese_logs import LogMaker, attach_entry, log_time, node_record, segment_checksums, stream_signature

__all__ = ["SmallStore"]

_SNAPSHOT_MARK = slice(316, 340)
"""Where the header has the mark of a snapshot under way; that of the last full backup is at 136."""

_LEAF = PageFlag.NEW_RECORD_FORMAT | PageFlag.ECC_CHECKSUM | PageFlag.LEAF


class SmallStore:
    """A mounted database with its log in one folder; implements ``StoreWriter``.

    Args:
        folder: Is made.
        name: The administrator's name of the database, and of its file.
        pages: Pages of the database, header not counted.
        page_size: Bytes per page.
        sectors: Segments of a log, its header included.
        seed: Makes signatures and content.
        node: Name of the node.
        beginning: Time of the first log.
    """

    def __init__(
        self,
        folder: Path,
        name: str = "Mailboxes",
        *,
        pages: int = 200,
        page_size: int = 4096,
        sectors: int = 32,
        seed: int = 1,
        node: str = "",
        beginning: datetime = datetime(2026, 3, 1, 8, 0, 0, tzinfo=UTC),
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.name, self.page_size, self.sectors, self.node = folder, name, page_size, sectors, node
        self.database = folder / f"{name}.edb"
        self._random = random.Random(seed)  # noqa: S311 - content, no secrets
        self.now = beginning
        self.signature = stream_signature(self._random.getrandbits(32), beginning)
        self.stream = stream_signature(self._random.getrandbits(32), beginning)
        self.dbtime = 10
        self.repairs = 0
        self.flags = 0
        self.role = CopyRole.ACTIVE
        self.copies: tuple[DatabaseCopy, ...] = ()
        self.state = DatabaseState.MOUNTED
        self.full_mark = self.snapshot_mark = self.frozen_mark = bytes(24)
        self.content: dict[int, bytes] = {}
        self.dirty: dict[int, int] = {}
        self.pages = pages
        self.sets: dict[str, BackupKind] = {}
        self.completed: list[tuple[BackupKind, int]] = []
        self.fail_at = ""
        self.busy_at: tuple[str, ...] = ()
        self.blockers: tuple[Blocker, ...] = ()
        self.generation, self.checkpoint = 1, 1
        self._begin_log(bytes(8), 0)
        for page in range(1, pages + 1):
            self.content[page] = self._page(page, 5)
        self.flush()

    # --- the engine --------------------------------------------------------------------------------

    def change(self, pages: Iterable[int], size: int = 300) -> None:
        """Log a transaction that changes pages; they stay in memory until they are flushed."""
        self.tick(0.01)
        for page in pages:
            before, self.dbtime = self.dbtime, self.dbtime + 1
            self.content[page] = self._page(page, self.dbtime)
            self.dirty.setdefault(page, self.generation)
            data = self._random.randbytes(size)
            body = struct.pack("<HHH", 4, 2, len(data)) + b"suffpr" + data
            self.records.append(node_record(29, 1, page, body, dbtime=self.dbtime, before=before))
        self._write_current()

    def flush(self, pages: Iterable[int] | None = None) -> None:
        """Write pages from memory; all that are there unless named."""
        size = (self.pages + 2) * self.page_size
        if not self.database.exists():
            self.database.write_bytes(bytes(size))
        with self.database.open("r+b") as file:
            for page in sorted(self.dirty if pages is None and self.dirty else pages or self.content):
                file.seek((page + 1) * self.page_size)
                file.write(self.content[page])
                self.dirty.pop(page, None)
        self.checkpoint = min(self.dirty.values(), default=self.generation)
        self.write_header()

    def roll(self) -> int:
        """Close the log that is being written; returns its generation."""
        self.tick(0.5)
        closed = self._log(shadow=False)
        self.path(self.generation).write_bytes(closed)
        previous, self.generation = self.created, self.generation + 1
        self._begin_log(previous, segment_checksums(closed))
        if not self.dirty:
            self.checkpoint = self.generation
        self.write_header()
        return self.generation - 1

    def work(self, logs: int, per_log: int = 5) -> None:
        """Some transactions, a log for every few."""
        for _ in range(logs):
            self.change(self._random.sample(range(1, self.pages + 1), per_log))
            self.roll()

    def write_header(self, state: int = 2) -> None:
        """Write the database's header as it is now."""
        clean = state == 3
        header = bytearray(
            header_bytes(
                self.page_size,
                state=state,
                required=(0, 0) if clean else (self.checkpoint, self.generation),
                committed=0 if clean else self.generation,
                log_signature=self.stream,
                log_time=bytes(8) if clean else self.created,
                signature=self.signature,
            )
        )
        struct.pack_into("<Q", header, 16, self.dbtime)
        header[136:160] = self.full_mark
        header[_SNAPSHOT_MARK] = self.snapshot_mark
        struct.pack_into("<I", header, 240, self.repairs)
        struct.pack_into("<I", header, 0, xor32(bytes(header)))
        with self.database.open("r+b") as file:
            file.write(bytes(header) * 2)

    def dismount(self) -> None:
        """Flush everything and bring the database to clean shutdown."""
        self.flush()
        self.state = DatabaseState.DISMOUNTED
        self.write_header(3)

    def reset_stream(self) -> None:
        """Begin the log anew with generation 1 and another signature."""
        self.flush()
        for path in self.folder.glob("E00*.log"):
            path.unlink()
        self.stream = stream_signature(self._random.getrandbits(32), self.now)
        self.generation = self.checkpoint = 1
        self.tick(1)
        self._begin_log(bytes(8), 0)
        self.write_header()

    def path(self, generation: int) -> Path:
        """A complete log."""
        return self.folder / f"E00{generation:08X}.log"

    def tick(self, seconds: float) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)

    def image(self) -> bytes:
        """The database as it would be with everything in memory written."""
        return b"".join(self.content[page] for page in range(1, self.pages + 1))

    def _page(self, page: int, dbtime: int) -> bytes:
        nodes = [(b"key%05d" % page, self._random.randbytes(self.page_size // 3), 0)]
        made = bytearray(page_bytes(self.page_size, page, 9, flags=_LEAF, external=b"", nodes=nodes))
        struct.pack_into("<Q", made, 8, dbtime)
        return sealed_page(bytes(made), page)

    def _begin_log(self, previous: bytes, checksums: int) -> None:
        self.tick(0.1)
        self.created, self.previous, self.previous_checksums = log_time(self.now), previous, checksums
        self.records: list[bytes] = []
        self._write_current()

    def _write_current(self) -> None:
        (self.folder / "E00.log").write_bytes(self._log(shadow=True))

    def _log(self, *, shadow: bool) -> bytes:
        attached = attach_entry(1, self.signature, str(self.database))
        maker = LogMaker(self.stream, self.sectors, flags=self.flags, attached=attached)
        return maker.log(
            self.records,
            self.generation,
            self.created,
            previous_created=self.previous,
            previous_segments=self.previous_checksums,
            shadow=shadow,
        )

    # --- the availability group --------------------------------------------------------------------

    def passive_copy(self, folder: Path, node: str, role: CopyRole = CopyRole.PASSIVE) -> SmallStore:
        """A copy on another node, as it is after it was seeded and has replayed all complete logs."""
        folder.mkdir(parents=True)
        other = copy.copy(self)
        other.folder, other.node, other.role = folder, node, role
        other.database = folder / self.database.name
        other.sets, other.completed, other.dirty = {}, [], {}
        other.catch_up(self)
        return other

    def catch_up(self, active: SmallStore, upto: int | None = None) -> None:
        """Copy the complete logs of the active copy and replay them into this one."""
        for path in active.folder.glob("E00????????.log"):
            if upto is None or int(path.stem[3:], 16) <= upto:
                shutil.copyfile(path, self.folder / path.name)
        last = max(int(path.stem[3:], 16) for path in self.folder.glob("E00????????.log"))
        header = read_log_header(self.path(last).read_bytes(), "")
        self.generation = self.checkpoint = last
        self.created, self.stream, self.dbtime, self.now = header.created.raw, active.stream, active.dbtime, active.now
        self.content, self.full_mark = dict(active.content), active.full_mark
        shutil.copyfile(active.database, self.database)
        self.flush(self.content)

    def become_active(self) -> None:
        """Take over: go on behind the last complete log that is here."""
        last = self.path(self.generation).read_bytes()
        previous, self.generation = self.created, self.generation + 1
        self.role = CopyRole.ACTIVE
        self.tick(5)
        self._begin_log(previous, segment_checksums(last))
        self.checkpoint = self.generation
        self.write_header()

    # --- the writer --------------------------------------------------------------------------------

    def describe(self) -> tuple[DatabaseStatus, ...]:
        return (
            DatabaseStatus(
                self.name,
                "00000000-0000-4000-8000-000000000001",
                str(self.database),
                str(self.folder),
                "E00",
                str(self.folder / "E00.chk"),
                self.state,
                circular_logging=bool(self.flags & 2),
                role=self.role,
                node=self.node,
                copies=self.copies,
            ),
        )

    def prepare(self, databases: Sequence[str], kind: BackupKind) -> str:
        self._fail("prepare")
        if self.state is not DatabaseState.MOUNTED or list(databases) != [self.name]:
            raise NonRetryable(f"{databases} cannot be backed up")
        if self.role is CopyRole.ACTIVE:
            self.roll()
        name = f"set-{len(self.completed)}-{self.generation}"
        self.sets[name] = kind
        return name

    def freeze(self, backup_set: str) -> Frozen:  # noqa: ARG002
        self._fail("freeze")
        self.tick(1)
        self.snapshot_mark = self._mark()
        self.write_header()
        return Frozen(20.0, {self.name: self.generation})

    def thaw(self, backup_set: str) -> None:  # noqa: ARG002
        self._fail("thaw")
        self.frozen_mark, self.snapshot_mark = self.snapshot_mark, bytes(24)
        self.write_header()

    def complete(self, backup_set: str, succeeded: Sequence[str]) -> tuple[CompletedDatabase, ...]:  # noqa: ARG002
        self._fail("complete")
        kind = self.sets.pop(backup_set)
        self.completed.append((kind, self.generation))
        if kind is BackupKind.COPY:
            return (CompletedDatabase(self.name, True),)
        if kind is BackupKind.FULL:
            self.full_mark = self.frozen_mark
            self.write_header()
        there = sorted(int(path.stem[3:], 16) for path in self.folder.glob("E00????????.log"))
        gone = [number for number in there if number < self.checkpoint] if not self.blockers else []
        for number in gone:
            self.path(number).unlink()
        blockers = self.blockers or (Blocker(BlockerKind.CHECKPOINT, self.checkpoint),)
        return (CompletedDatabase(self.name, True, (gone[0], gone[-1]) if gone else None, blockers),)

    def abort(self, backup_set: str) -> None:
        if self.sets.pop(backup_set, None) is not None:
            self.snapshot_mark = bytes(24)
            self.write_header()

    def stamp_full(self) -> None:
        """Note a full backup in the header, as whatever product makes one."""
        self.tick(1)
        self.full_mark = self._mark()
        self.write_header()

    def _mark(self) -> bytes:
        mark = struct.pack("<HHi", 0, 1, self.generation) + log_time(self.now)
        return mark + struct.pack("<II", self.checkpoint, self.generation)

    def _fail(self, call: str) -> None:
        if call in self.busy_at:
            # Clients work between the calls, and the checkpoint follows them.
            self.work(2)
            self.flush()
        if self.fail_at == call:
            kind = FailedAtFreeze if call == "freeze" else WriterTimeout
            raise kind(f"failing at {call}", hint="look at the writer")
