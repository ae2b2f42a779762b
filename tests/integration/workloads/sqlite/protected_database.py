"""A live database with a writer process and a session on it, and what was shipped, to restore from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import apsw

from perdure.model.logs import LogEnd, LogSegment
from perdure.model.positions import Position
from perdure.testing.memory_log import MemoryLog
from perdure.workloads.contract import BaseImage
from perdure.workloads.sqlite import SqliteSession, SqliteWorkload

STEP = 10_000_000


@dataclass
class Clock:
    """Time that passes only when it is asked for, far enough that files are settled."""

    now: int = 4_000_000_000_000_000_000

    def __call__(self) -> int:
        self.now += STEP
        return self.now


@dataclass
class ProtectedDatabase:
    """Plays protection and pool for one database."""

    path: Path
    clock: Clock = field(default_factory=Clock)
    log: MemoryLog = field(default_factory=MemoryLog)
    recycle_bytes: int = 0
    base: bytes = b""
    base_position: Position = field(default_factory=lambda: Position(0, 0))
    page_size: int = 0
    chain: bytes = b""
    copies: int = 0

    def __enter__(self) -> ProtectedDatabase:
        self.open(None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.session.close()

    def open(self, end: LogEnd | None) -> None:
        self.session = SqliteSession(str(self.path), clock=self.clock, recycle_bytes=self.recycle_bytes)
        self.session.resume(end)

    def end(self) -> LogEnd:
        return self.log.end() if self.log.stored else LogEnd(self.base_position, self.chain)

    def ship(self, segment: LogSegment) -> None:
        self.log.append(segment)

    def sync(self) -> Position:
        self.session.poll()
        for segment in self.session.log():
            self.ship(segment)
            self.session.acknowledge(segment.last)
        return self.session.position

    def maintain(self) -> None:
        self.sync()
        self.session.maintain(self.ship)

    def full(self) -> None:
        """Ship, then take an image; with a base only its changed pages are read."""
        self.sync()
        previous = None
        if self.base:
            position = self.base_position
            previous = BaseImage(
                position,
                {"database": len(self.base)},
                {"database": self.page_size},
                lambda: self.log.after(position).segments(),
            )
        with self.session.image(previous) as image:
            (reader,) = image.files
            if previous is None or reader.changed is None:
                content = bytearray(b"".join(self._read(reader.size, reader.read)))
            else:
                content = bytearray(self.base[: reader.size].ljust(reader.size, b"\0"))
                for page in reader.changed.tolist():
                    start = page * reader.page_size
                    content[start : start + reader.page_size] = reader.read(start, reader.page_size)
                whole = b"".join(self._read(reader.size, reader.read))
                assert bytes(content) == whole, "the pages named as changed are all that changed"
            self.base, self.base_position, self.page_size = bytes(content), image.position, reader.page_size
            self.chain = image.chain

    @staticmethod
    def _read(size: int, read: object) -> Iterator[bytes]:
        assert callable(read)
        for offset in range(0, size, 100_003):
            yield bytes(read(offset, 100_003))

    def restore(self, upto: Position) -> Path:
        self.copies += 1
        target = self.path.parent / f"restored-{self.copies}.db"
        target.write_bytes(self.base)
        workload = SqliteWorkload()
        paths = {"database": target}
        workload.apply_log(paths, self.log.after(self.base_position), upto)
        checked = workload.verify(paths, True)
        assert checked.passed, checked
        return target

    def rows(self, upto: Position, query: str = "SELECT id FROM t ORDER BY id") -> list[tuple[object, ...]]:
        connection = apsw.Connection(
            f"file:{self.restore(upto)}?immutable=1", flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        )
        try:
            return [tuple(row) for row in connection.execute(query)]
        finally:
            connection.close()
