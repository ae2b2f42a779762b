"""The mail store's ledger: what was committed and when, kept outside the database and outside perdure.

Every writer appends to a file of its own, ``<writer>.ledger``, one JSON array per line:

``["intent", n, monotonic_ns, before_ns, [operation, …]]``
    Written, and given to the kernel, before ``COMMIT``; ``before_ns`` is the wall clock just before it.
``["done", n, after_ns]``
    Written after ``COMMIT`` returned; ``after_ns`` is the wall clock at that moment.
``["undone", n]``
    The transaction was rolled back.

``n`` is read inside the transaction from the database's commit counter, so it is the exact global commit
order. A writer that is killed leaves at most one intent without its ``done``. It was committed if the counter
went on from it (a later transaction saw ``n``); it was not if a later transaction got the same ``n``; if
nothing came after, it is *unknown*, and only the database can tell. Its operations are known either way.
The ledger survives the death of its writers, not that of the machine.
"""

from __future__ import annotations

import json
import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from time import monotonic_ns, time_ns
from types import TracebackType
from typing import Any

import apsw

from perdure.testing.mailstore_content import digest
from perdure.testing.mailstore_operations import TABLES, Operation, Row, State, decode, encode

__all__ = ["Bounds", "Commit", "Ledger", "LedgerBroken", "LedgerWriter"]

MOST_DIFFERENCES = 20
"""Differences named one by one for each table; the rest are counted."""

_FAR_FUTURE = 1 << 62


class LedgerBroken(Exception):
    """The ledger contradicts itself: nothing can be checked against it."""


@dataclass(frozen=True, slots=True)
class Commit:
    """One transaction.

    Args:
        n: Its place in the global commit order, from 1.
        writer: Who made it.
        before_ns: Wall clock just before ``COMMIT``.
        after_ns: Wall clock just after ``COMMIT`` returned; ``None`` when the writer died in between.
        operations: What it did.
    """

    n: int
    writer: str
    before_ns: int
    after_ns: int | None
    operations: tuple[Operation, ...]


@dataclass(frozen=True, slots=True)
class Bounds:
    """What can be said about a moment: ``committed`` surely was, ``not_yet`` surely was not, between them may be.

    Args:
        committed: The last commit that had returned by then; 0: none.
        not_yet: The first commit that had not begun by then; one past the last when all had.
    """

    committed: int
    not_yet: int

    def __contains__(self, n: object) -> bool:
        return isinstance(n, int) and self.committed <= n < self.not_yet


class LedgerWriter:
    """Appends to one writer's file. Lines reach the kernel before the call returns."""

    def __init__(self, folder: Path, writer: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = os.open(folder / f"{writer}.ledger", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def __enter__(self) -> LedgerWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    def intent(self, n: int, operations: Sequence[Operation]) -> None:
        """Say what is about to be committed as ``n``."""
        told = json.dumps([encode(operation) for operation in operations], separators=(",", ":"))
        self._append(f'["intent",{n},{monotonic_ns()},{time_ns()},{told}]\n')

    def done(self, n: int) -> None:
        """Say that the commit of ``n`` has returned, now."""
        self._append(f'["done",{n},{time_ns()}]\n')

    def undone(self, n: int) -> None:
        """Say that ``n`` was rolled back."""
        self._append(f'["undone",{n}]\n')

    def _append(self, line: str) -> None:
        raw = line.encode()
        written = os.write(self._file, raw)
        if written != len(raw):
            raise OSError(f"the ledger could not be written: {written} of {len(raw)} bytes")


class Ledger:
    """All writers' files merged: the history of the database.

    Args:
        commits: Every transaction, in order, from 1 without a gap.
        last_sure: The last of them that surely was committed; at most one follows, and is *unknown*.
    """

    def __init__(self, commits: Sequence[Commit], last_sure: int) -> None:
        self.commits = tuple(commits)
        self.last_sure = last_sure
        self._begun = list(accumulate((commit.before_ns for commit in self.commits), max))
        self._returned = list(accumulate(reversed([self._upper(i) for i in range(len(self.commits))]), min))[::-1]
        self._replayed = State()

    @classmethod
    def load(cls, folder: Path, *, live: bool = False) -> Ledger:
        """Merge the files in ``folder``.

        Args:
            folder: Where the writers keep their files.
            live: The writers are still at work: end before the first commit that was not seen in any file.

        Raises:
            LedgerBroken: A commit is missing, or two writers say that they made the same one.
        """
        intents: dict[int, tuple[int, Commit]] = {}
        done: dict[int, tuple[str, int]] = {}
        for path in sorted(folder.glob("*.ledger")):
            _read(path, intents, done)
        commits: list[Commit] = []
        for n in range(1, max(intents, default=0) + 1):
            if n not in intents:
                if live:
                    break
                raise LedgerBroken(f"commit {n} is in nobody's ledger, but a later one is")
            commits.append(_completed(intents[n][1], done.get(n)))
        last = len(commits)
        return cls(commits, last if last and commits[-1].after_ns is not None else max(0, last - 1))

    @property
    def last(self) -> int:
        """The highest ``n`` that the database may hold."""
        return len(self.commits)

    @property
    def unknown(self) -> range:
        """The commits (none or one) of which only the database knows whether they happened."""
        return range(self.last_sure + 1, self.last + 1)

    def commit(self, n: int) -> Commit:
        """Commit number ``n``."""
        return self.commits[n - 1]

    def bounds_at(self, time_ns: int) -> Bounds:
        """What surely was and surely was not committed at a moment."""
        return Bounds(bisect_right(self._returned, time_ns), bisect_right(self._begun, time_ns) + 1)

    def before_time(self, time_ns: int) -> int:
        """The first commit that began at or after a moment; one past the last when there is none."""
        return bisect_left(self._begun, time_ns) + 1

    def state_at(self, n: int) -> dict[str, dict[int, Row]]:
        """The expected contents after commit ``n``: for each table its rows by primary key, bodies as digests.

        Asking in ascending order replays every commit once.
        """
        return self._replay(n).tables()

    def compare(self, database: Path, n: int) -> list[str]:
        """How a database differs from the contents after commit ``n``; empty when it does not.

        Reads every row of every table, hashes every body and runs ``PRAGMA integrity_check``. The database is
        opened through the project's own SQLite library and is not changed.
        """
        connection = apsw.Connection(_address(database), flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
        try:
            return list(_differences(connection, self._replay(n)))
        except apsw.Error as error:
            return [f"{database.name} cannot be read: {error}"]
        finally:
            connection.close()

    def _upper(self, index: int) -> int:
        after = self.commits[index].after_ns
        if after is not None:
            return after
        # A later transaction could begin only when this one had ended.
        return self.commits[index + 1].before_ns if index + 1 < len(self.commits) else _FAR_FUTURE

    def _replay(self, n: int) -> State:
        if not 0 <= n <= self.last:
            raise LedgerBroken(f"the ledger knows commits 1 to {self.last}, not {n}")
        reached = self._replayed.clock[1][0]
        if reached > n:
            self._replayed, reached = State(), 0
        for commit in self.commits[reached:n]:
            for operation in commit.operations:
                operation.replay(self._replayed)
        self._replayed.clock[1] = (n,)
        return self._replayed


def _read(path: Path, intents: dict[int, tuple[int, Commit]], done: dict[int, tuple[str, int]]) -> None:
    """Add one writer's lines: the latest intent for every ``n``, and who completed it."""
    for line in path.read_bytes().splitlines(keepends=True):
        if not line.endswith(b"\n"):
            return  # the writer was killed inside this line: what it would have said did not happen
        word, n, *rest = json.loads(line)
        if word == "intent":
            moment, before, told = rest
            if n not in intents or intents[n][0] < moment:
                intents[n] = (moment, Commit(n, path.stem, before, None, tuple(map(decode, told))))
        elif word == "done":
            if n in done:
                raise LedgerBroken(f"commit {n} was made by {done[n][0]} and by {path.stem}")
            done[n] = (path.stem, rest[0])
        elif n in intents and intents[n][1].writer == path.stem:
            del intents[n]


def _completed(commit: Commit, done: tuple[str, int] | None) -> Commit:
    if done is None:
        return commit
    writer, after = done
    if writer != commit.writer:
        raise LedgerBroken(f"commit {commit.n} was made by {writer}, but {commit.writer} began it later")
    return Commit(commit.n, writer, commit.before_ns, after, commit.operations)


def _address(database: Path) -> str:
    # Without a log beside it the file is complete, and needs no shared memory file to be made for it.
    alone = not Path(f"{database}-wal").exists()
    return f"{database.absolute().as_uri()}?mode=ro{'&immutable=1' if alone else ''}"


def _differences(connection: apsw.Connection, expected: State) -> Iterator[str]:
    for (finding,) in connection.execute("PRAGMA integrity_check"):
        if finding != "ok":
            yield f"integrity_check: {finding}"
    found = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    for table in sorted(found ^ set(TABLES)):
        yield f"table {table} is {'not expected' if table in found else 'missing'}"
    for table in TABLES:
        if table in found:
            yield from _table_differences(connection, table, getattr(expected, table))


def _table_differences(connection: apsw.Connection, table: str, expected: dict[int, Row]) -> Iterator[str]:
    different, seen = 0, 0
    for key, row in _rows(connection, table):
        wanted = expected.get(key)
        seen += wanted is not None
        if row != wanted:
            different += 1
            if different <= MOST_DIFFERENCES:
                yield f"{table} {key}: " + ("is not expected" if wanted is None else f"{row} instead of {wanted}")
    if different > MOST_DIFFERENCES:
        yield f"{table}: {different} rows differ"
    if seen < len(expected):
        yield f"{table}: {len(expected) - seen} of {len(expected)} rows are missing"


def _rows(connection: apsw.Connection, table: str) -> Iterator[tuple[int, Row]]:
    for key, *columns in connection.execute(f"SELECT * FROM {table} ORDER BY id"):  # noqa: S608 (one of TABLES)
        values: list[Any] = list(columns)
        if table == "messages":
            values[-1] = digest(values[-1])
        yield key, tuple(values)
