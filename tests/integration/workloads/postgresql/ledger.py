"""A load that keeps a ledger, and the true order of its commits, which pg_waldump reads from the WAL."""

from __future__ import annotations

import contextlib
import random
import re
import threading
from dataclasses import dataclass, field
from datetime import datetime

import psycopg

from perdure.testing.postgres_server import PostgresServer
from perdure.workloads.postgresql.lsn import parse_lsn

_COMMIT = re.compile(r"tx:\s*(\d+), lsn: ([0-9A-F]+/[0-9A-F]+),.* desc: COMMIT(?:_PREPARED (\d+):)? (\S+ \S+) UTC")


@dataclass(frozen=True)
class Commit:
    """A commit: where its record begins, whose it is, and its time in nanoseconds since 1970 UTC."""

    lsn: int
    xid: int
    time_ns: int


@dataclass
class Load:
    """Writers that note under which transaction each row was committed.

    Attributes:
        rows: For each transaction the row that it committed.
    """

    server: PostgresServer
    seed: int
    rows: dict[int, int] = field(default_factory=dict)
    _next: int = 0
    _guard: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)

    def __enter__(self) -> Load:
        self.server.execute("CREATE TABLE IF NOT EXISTS ledger(id int PRIMARY KEY, filler text)")
        self._threads = [threading.Thread(target=self._write, args=(n,)) for n in range(2)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self.failures:
            raise self.failures[0]

    def wait_for(self, count: int) -> None:
        """Wait until so many more rows were committed."""
        goal = len(self.rows) + count
        while len(self.rows) < goal and not self.failures:
            self._threads[0].join(0.005)

    def _write(self, number: int) -> None:
        chance = random.Random(f"{self.seed} {number}")
        try:
            with self.server.connect() as connection:
                while not self._stop.is_set():
                    self._one(connection, chance, number)
        except BaseException as error:  # noqa: BLE001 - raised again by the test
            self.failures.append(error)

    def _one(self, connection: psycopg.Connection[tuple[object, ...]], chance: random.Random, number: int) -> None:
        with self._guard:
            self._next += 1
            row = self._next
        kind = chance.random()
        connection.execute("BEGIN")
        xid = int(str(connection.execute("SELECT pg_current_xact_id()::text").fetchall()[0][0]))
        filler = "x" * chance.randrange(2000)
        connection.execute("INSERT INTO ledger VALUES (%s, %s)", (row, filler))
        if kind < 0.1:
            connection.execute("ROLLBACK")
            return
        if kind < 0.2:
            connection.execute("SAVEPOINT s")
            connection.execute("INSERT INTO ledger VALUES (%s, 'sub')", (-row,))
            connection.execute("ROLLBACK TO s")
        elif kind < 0.3:
            connection.execute("UPDATE ledger SET filler = filler || 'y' WHERE id = %s", (row - chance.randrange(50),))
        elif kind < 0.35:
            connection.execute("SELECT lo_from_bytea(0, %s)", (chance.randbytes(5000),))
        elif kind < 0.4:
            connection.execute(f"CREATE TABLE extra_{row} AS SELECT generate_series(1, 500) AS n")
            connection.execute(f"CREATE INDEX ON extra_{row}(n)")
        if 0.4 <= kind < 0.5:
            connection.execute(f"PREPARE TRANSACTION 'p{row}'")
            connection.execute(f"COMMIT PREPARED 'p{row}'")
        else:
            connection.execute("COMMIT")
        self.rows[xid] = row
        if 0.5 <= kind < 0.52:
            connection.execute("VACUUM ledger")
        elif 0.52 <= kind < 0.53:
            connection.execute("CHECKPOINT")
        elif 0.53 <= kind < 0.55:
            with contextlib.suppress(psycopg.errors.UndefinedTable):
                connection.execute(f"DROP TABLE extra_{abs(row - chance.randrange(100))}")

    # --- the truth -------------------------------------------------------------------------------

    def commits(self, first: str) -> list[Commit]:
        """All commits from the WAL file ``first`` on, in the order of the log."""
        return commits_of(self.server, first)

    def rows_before(self, commits: list[Commit], count: int) -> set[int]:
        """The rows of the first so many commits."""
        return {self.rows[commit.xid] for commit in commits[:count] if commit.xid in self.rows}


def commits_of(server: PostgresServer, first: str) -> list[Commit]:
    """What pg_waldump says; the server must still have the files."""
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


def wal_file(server: PostgresServer) -> str:
    """The WAL file that the server writes now."""
    return str(server.execute("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")[0][0])
