"""The journal of a simulated database: every committed row, with the log position that makes it durable.

A line is written before the log that it tells of becomes durable, so after a crash the journal may know commits that
the log has lost. They lie behind the end of what was recovered, which a *cut* records; the next generation begins
behind every place that a lost commit could have.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TypeAlias

import msgspec

from perdure.ese.catalog import read_catalog
from perdure.ese.database import Database
from perdure.ese.rows import rows_of
from perdure.ese.structures import LogPosition
from perdure.testing.information_store.log_stream import log_position, place_of

_COMMIT_SIZE = 8

__all__ = [
    "Commit",
    "Journal",
    "JournalRow",
    "JournalWriter",
    "Rows",
    "differences",
    "digest_of",
    "last_stream",
    "read_rows",
]

JournalRow: TypeAlias = dict[str, int | str | bool]
"""A row by column name; bytes are their :func:`digest_of`, null columns are missing."""

Rows: TypeAlias = dict[str, dict[str, JournalRow]]
"""Rows by table and by hexadecimal key."""


class _Line(msgspec.Struct, omit_defaults=True):
    """A commit at a place, a cut at one, or the beginning of a log stream."""

    place: int = 0
    rows: list[tuple[str, str, JournalRow | None]] = []
    cut: bool = False
    stream: str = ""
    moment: float = 0.0


_decoder = msgspec.json.Decoder(_Line)
_encoder = msgspec.json.Encoder()


def last_stream(path: Path) -> str:
    """Signature of the log stream that a journal tells of last, in hexadecimal digits; empty if it tells of none."""
    last = ""
    if path.exists():
        for raw in path.read_bytes().split(b"\n"):
            if b'"stream"' in raw and raw.endswith(b"}"):
                last = _decoder.decode(raw).stream or last
    return last


def digest_of(content: bytes) -> str:
    """What a journal says of bytes: their number and a hash."""
    return f"{len(content)}:{hashlib.blake2b(content, digest_size=12).hexdigest()}"


@dataclass(eq=False, repr=False)
class JournalWriter:
    """Writes the journal of one database.

    Args:
        path: The file; it is continued if it is there.
    """

    path: Path
    _file: IO[bytes] = field(init=False)
    _waiting: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._file = self.path.open("ab", buffering=0)

    def commit(self, place: int, rows: list[tuple[str, str, JournalRow | None]], moment: float) -> None:
        """Note a commit; ``None`` for a row that is gone. It is in the file after :meth:`flush`."""
        self._waiting.append(_encoder.encode(_Line(place, rows, moment=moment)))

    def cut(self, place: int) -> None:
        """Note that the log ended at a place: later commits before this line never were."""
        self._waiting.append(_encoder.encode(_Line(place, cut=True)))
        self.flush()

    def begin_stream(self, signature: bytes) -> None:
        """Note that what follows is in another log stream, whose places begin anew."""
        self._waiting.append(_encoder.encode(_Line(stream=signature.hex())))
        self.flush()

    def flush(self) -> None:
        """Write what is waiting."""
        if self._waiting:
            self._file.write(b"\n".join([*self._waiting, b""]))
            self._waiting.clear()

    def close(self) -> None:
        """Write what is waiting and let go of the file."""
        self.flush()
        self._file.close()


@dataclass(frozen=True, slots=True)
class Commit:
    """One committed transaction.

    Args:
        stream: Signature of its log stream, in hexadecimal digits.
        position: Of its last record: it counts where the log is replayed beyond it.
        moment: When, in seconds since 1970.
        rows: Table, key and row of what it changed.
    """

    stream: str
    position: LogPosition
    moment: float
    rows: tuple[tuple[str, str, JournalRow | None], ...]


@dataclass(frozen=True, slots=True)
class Journal:
    """What a database held at any position.

    Args:
        commits: In order of their positions.
    """

    commits: tuple[Commit, ...]

    @staticmethod
    def load(path: Path) -> Journal:
        """Read a journal; a last line that a crash has cut short does not count."""
        streams: list[tuple[str, list[_Line]]] = [("", [])]
        for raw in path.read_bytes().split(b"\n"):
            if not raw.endswith(b"}"):
                continue
            line = _decoder.decode(raw)
            if line.stream:
                streams.append((line.stream, []))
            elif line.cut:
                kept = [commit for commit in streams[-1][1] if commit.place < line.place]
                streams[-1] = (streams[-1][0], kept)
            else:
                streams[-1][1].append(line)
        return Journal(
            tuple(
                Commit(stream, log_position(line.place), line.moment, tuple(line.rows))
                for stream, lines in streams
                for line in sorted(lines, key=lambda line: line.place)
            )
        )

    def rows_at(self, end: LogPosition | None = None, *, stream: str = "") -> Rows:
        """All rows after every commit whose last record ends at or before a position, or after all.

        Args:
            end: The position.
            stream: The log stream that it lies in; the newest if it is not given.
        """
        rows: Rows = {}
        of = stream or (self.commits[-1].stream if self.commits else "")
        for commit in self.commits:
            if end is not None and commit.stream == of and place_of(commit.position) + _COMMIT_SIZE > place_of(end):
                break
            for table, key, row in commit.rows:
                if row is None:
                    rows.get(table, {}).pop(key, None)
                else:
                    rows.setdefault(table, {})[key] = row
        return rows

    def compare(self, database: Path, end: LogPosition | None = None) -> list[str]:
        """How the rows in a database differ from those that it should hold at a position, a sentence each."""
        return differences(self.rows_at(end), read_rows(database))


def read_rows(path: Path, tables: Iterable[str] | None = None) -> Rows:
    """All rows of the tables that are not the engine's, as a journal states them."""
    found: Rows = {}
    with Database(path) as database:
        for table in read_catalog(database).tables:
            if table.system or (tables is not None and table.name not in tables):
                continue
            rows = {row.key.hex(): _stated(row.values()) for row in rows_of(database, table)}
            if rows:
                found[table.name] = rows
    return found


def differences(
    expected: Mapping[str, Mapping[str, JournalRow]], found: Mapping[str, Mapping[str, JournalRow]]
) -> list[str]:
    """What differs between two sets of rows."""
    told: list[str] = []
    for table in sorted({*expected, *found}):
        should, does = expected.get(table, {}), found.get(table, {})
        for key in sorted({*should, *does}):
            one, other = should.get(key), does.get(key)
            if one == other:
                continue
            if one is None:
                told.append(f"{table} {key} should not be there: {other}")
            elif other is None:
                told.append(f"{table} {key} is missing: {one}")
            else:
                told.append(f"{table} {key} is {other}, not {one}")
    return told


def _stated(values: Mapping[str, object]) -> JournalRow:
    row: JournalRow = {}
    for name, value in values.items():
        if isinstance(value, bytes):
            row[name] = digest_of(value)
        elif isinstance(value, int | str):
            row[name] = value
        else:
            raise TypeError(f"column {name} holds {value!r}, which no mailbox table has")
    return row
