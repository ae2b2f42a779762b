"""Load on a PostgreSQL server with a ledger of who committed what, and the true order of commits, read from the WAL."""

from __future__ import annotations

import contextlib
import random
import re
import threading
import time
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType

import psycopg

from perdure.testing.postgres_server import PostgresServer
from perdure.workloads.postgresql.lsn import parse_lsn

__all__ = ["Commit", "PostgresLoad", "commits_of", "reached_by", "wal_file"]

_NEW = """
CREATE TABLE IF NOT EXISTS ledger (id int PRIMARY KEY, amount int NOT NULL, filler text);
CREATE TABLE IF NOT EXISTS account (id int PRIMARY KEY, balance bigint NOT NULL DEFAULT 0, filler text);
INSERT INTO account SELECT g, 0, repeat('f', 200) FROM generate_series(1, 1000) g ON CONFLICT DO NOTHING;
"""
_COMMIT = re.compile(r"tx:\s*(\d+), lsn: ([0-9A-F]+/[0-9A-F]+),.* desc: COMMIT(?:_PREPARED (\d+):)? (\S+ \S+) UTC")
_STILL_S = 60.0

Connection = psycopg.Connection[tuple[object, ...]]


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit: where its record begins, whose it is, and its time in nanoseconds since 1970 UTC."""

    lsn: int
    xid: int
    time_ns: int


@dataclass(slots=True)
class PostgresLoad:
    """Clients that move money and write it down, among them subtransactions, DDL, large objects and two-phase commits.

    Args:
        server: The server; it needs ``max_prepared_transactions``.
        seed: What they do.
        clients: How many.
        first_row: Number of the first row that they write.
        through_failures: They connect again when the server goes away. Else its first error is raised at the end.

    Attributes:
        rows: For each transaction that was about to be committed, the row that it writes.
        acknowledged: The rows whose commit has returned.
    """

    server: PostgresServer
    seed: int = 0
    clients: int = 2
    first_row: int = 1
    through_failures: bool = False
    rows: dict[int, int] = field(default_factory=dict)
    acknowledged: set[int] = field(default_factory=set)
    _taken: int = 0
    _guard: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _failures: list[BaseException] = field(default_factory=list)

    def __enter__(self) -> PostgresLoad:
        self._stop.clear()
        self.server.execute(_NEW)
        self._threads = [threading.Thread(target=self._client, args=(number,)) for number in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if error is None and self._failures:
            raise self._failures[0]

    def wait_for(self, count: int) -> None:
        """Wait until so many transactions more were acknowledged."""
        wanted = len(self.acknowledged) + count
        deadline = time.monotonic() + _STILL_S
        while len(self.acknowledged) < wanted and not self._failures:
            if time.monotonic() > deadline:
                raise AssertionError("the load stands still")
            self._stop.wait(0.005)

    def rows_before(self, commits: list[Commit], count: int) -> set[int]:
        """The rows of the first so many commits."""
        return {self.rows[commit.xid] for commit in commits[:count] if commit.xid in self.rows}

    # --- clients ---------------------------------------------------------------------------------

    def _client(self, number: int) -> None:
        chance = random.Random(f"{self.seed} {number}")  # noqa: S311 - load, not secrets
        while not self._stop.is_set():
            try:
                with self.server.connect() as connection:
                    while not self._stop.is_set():
                        self._transaction(connection, chance)
            except psycopg.Error as error:
                if not self.through_failures:
                    self._failures.append(error)
                    return
                self._stop.wait(0.02)
            except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
                self._failures.append(error)
                return

    def _transaction(self, connection: Connection, chance: random.Random) -> None:
        with self._guard:
            row, self._taken = self.first_row + self._taken, self._taken + 1
        kind = chance.random()
        connection.execute("BEGIN")
        xid = int(str(connection.execute("SELECT pg_current_xact_id()::text").fetchall()[0][0]))
        amount, account = chance.randrange(1, 100), chance.randrange(1, 1001)
        connection.execute("UPDATE account SET balance = balance + %s WHERE id = %s", (amount, account))
        connection.execute("INSERT INTO ledger VALUES (%s, %s, %s)", (row, amount, "x" * chance.randrange(2000)))
        if kind < 0.1:
            connection.execute("ROLLBACK")
            return
        _something_else(connection, chance, kind, row)
        # Until the server has answered nobody knows whether it is committed; the WAL will tell.
        self.rows[xid] = row
        if 0.4 <= kind < 0.5:
            connection.execute(f"PREPARE TRANSACTION 'p{row}'")
            connection.execute(f"COMMIT PREPARED 'p{row}'")
        else:
            connection.execute("COMMIT")
        self.acknowledged.add(row)
        _housekeeping(connection, chance, kind, row)


def _something_else(connection: Connection, chance: random.Random, kind: float, row: int) -> None:
    """What else a transaction may do."""
    if 0.1 <= kind < 0.2:
        connection.execute("SAVEPOINT s")
        connection.execute("INSERT INTO ledger VALUES (%s, 0, 'sub')", (-row,))
        connection.execute("ROLLBACK TO s")
    elif 0.2 <= kind < 0.3:
        connection.execute("UPDATE ledger SET filler = filler || 'y' WHERE id = %s", (row - chance.randrange(50),))
    elif 0.3 <= kind < 0.35:
        connection.execute("SELECT lo_from_bytea(0, %s)", (chance.randbytes(5000),))
    elif 0.35 <= kind < 0.4:
        connection.execute(f"CREATE TABLE extra_{row} AS SELECT generate_series(1, 500) AS n")
        connection.execute(f"CREATE INDEX ON extra_{row}(n)")


def _housekeeping(connection: Connection, chance: random.Random, kind: float, row: int) -> None:
    """What a client does between transactions."""
    if 0.5 <= kind < 0.52:
        connection.execute("VACUUM ledger")
    elif 0.52 <= kind < 0.53:
        connection.execute("CHECKPOINT")
    elif 0.53 <= kind < 0.55:
        with contextlib.suppress(psycopg.errors.UndefinedTable):
            connection.execute(f"DROP TABLE extra_{abs(row - chance.randrange(100))}")


# --- the truth -----------------------------------------------------------------------------------


def commits_of(server: PostgresServer, first: str) -> list[Commit]:
    """All commits from the WAL file ``first`` on, in the order of the log; the server must still have the files."""
    # After a switch the next file is named before it is there.
    server.execute("CHECKPOINT")
    last = wal_file(server)
    server.execute("SELECT pg_switch_wal()")
    arguments = ["--path", str(server.data / "pg_wal"), "--rmgr", "Transaction", first, last]
    found = []
    for line in server.program("pg_waldump", *arguments).splitlines():
        match = _COMMIT.search(line)
        if match is not None:
            moment = datetime.fromisoformat(match[4] + "+00:00")
            time_ns = int(moment.replace(microsecond=0).timestamp()) * 10**9 + moment.microsecond * 1000
            found.append(Commit(parse_lsn(match[2]), int(match[3] or match[1]), time_ns))
    return found


def reached_by(commits: list[Commit], time_ns: int) -> int:
    """How many commits PostgreSQL replays for a time: it stops at the first one that is later."""
    return next((row for row, commit in enumerate(commits) if commit.time_ns > time_ns), len(commits))


def wal_file(server: PostgresServer) -> str:
    """The WAL file that the server writes now."""
    return str(server.execute("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")[0][0])
