"""Recovery to any place of the log, under load and while everything that a cluster can do is done."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from perdure.model.targets import AtPosition, AtTime, Latest, Target
from perdure.protection.home import Home
from perdure.protection.image_verbs import protect, synchronize
from perdure.protection.points import timeline_rows
from perdure.protection.protected import Protected
from perdure.protection.recovery import recover
from perdure.protection.watch import watch
from perdure.protection.watch_events import WatchEvent
from perdure.repository.pool import Pool
from perdure.testing.postgres_load import Entry, PostgresLoad, opened
from perdure.testing.postgres_server import PostgresServer

SKEW_NS = 50_000_000
"""Two transactions that end within this may get their times in another order than their places in the log."""


@contextmanager
def watching(p: Protected, every_s: float = 2.0) -> Iterator[list[WatchEvent]]:
    events: list[WatchEvent] = []
    stop = threading.Event()
    thread = threading.Thread(
        target=watch,
        args=([p],),
        kwargs={"stop": stop, "on_event": events.append, "ship_every_ms": 50, "express_full_every_s": every_s},
    )
    thread.start()
    try:
        yield events
    finally:
        stop.set()
        thread.join()


class Truth(NamedTuple):
    ledger: dict[int, Entry]
    unsure: set[int]


def check_recovered(p: Protected, room: Path, major: int, to: Target, truth: Truth) -> None:
    """Recover, open, and compare with the ledger and with PostgreSQL's own checks."""
    ledger, unsure = truth
    target = room / f"recovered-{time.monotonic_ns()}"
    report = recover(p, to=to, target=target)
    assert report.verification is not None
    assert (report.verification.passed, report.verification.means) == (True, "pg_verifybackup")
    assert report.position is not None
    with opened(PostgresServer(major, target)) as copy:
        rows = {int(row[0]) for row in copy.execute("SELECT id FROM ledger")}
        place = report.position.place
        missing = {each.id for each in ledger.values() if each.after <= place} - rows
        surplus = {each.id for each in ledger.values() if each.before >= place} & rows
        assert (missing, surplus) == (set(), set())
        assert rows <= ledger.keys() | unsure
        if isinstance(to, AtTime):
            assert not {row for row in rows & ledger.keys() if ledger[row].time_ns > to.time_ns}
            assert not {each.id for each in ledger.values() if each.time_ns < to.time_ns - SKEW_NS} - rows
        balance, amounts = copy.execute("SELECT (SELECT sum(balance) FROM account), (SELECT sum(amount) FROM ledger)")[
            0
        ]
        assert balance == (amounts or 0)
        copy.program(
            "pg_amcheck", "-h", "127.0.0.1", "-p", str(copy.port), "--all", "--install-missing", "--heapallindexed"
        )


def commotion(server: PostgresServer, room: Path) -> None:
    """Everything that moves files about."""
    space = room / "space"
    server.run(["mkdir", "-p", str(space)])
    server.execute(
        "CHECKPOINT",
        "CREATE TABLE big (id int PRIMARY KEY, filler text)",
        "INSERT INTO big SELECT g, repeat('b', 500) FROM generate_series(1, 20000) g",
        f"CREATE TABLESPACE apart LOCATION '{space}'",
        "CREATE TABLE there (id int PRIMARY KEY, filler text) TABLESPACE apart",
        "INSERT INTO there SELECT g, repeat('t', 100) FROM generate_series(1, 5000) g",
        "DELETE FROM big WHERE id > 4000",
        "VACUUM big",
        "INSERT INTO big SELECT g, repeat('n', 700) FROM generate_series(4001, 9000) g",
        "SELECT lo_from_bytea(0, repeat('object', 10000)::bytea)",
        "CREATE UNLOGGED TABLE fleeting AS SELECT generate_series(1, 1000) AS n",
        "CREATE DATABASE other",
        "ALTER TABLE there SET TABLESPACE pg_default",
        "VACUUM FULL big",
        "CREATE INDEX ON big (filler)",
        "TRUNCATE there",
        "CHECKPOINT",
        "DROP TABLE there",
        "SELECT pg_switch_wal()",
        "VACUUM FREEZE account",
    )
    with server.connect() as connection:
        connection.execute("BEGIN")
        connection.execute("INSERT INTO big VALUES (-1, 'prepared')")
        connection.execute("PREPARE TRANSACTION 'two'")
        connection.execute("CHECKPOINT")
        connection.execute("COMMIT PREPARED 'two'")


@pytest.mark.slow
def test_any_place_has_exactly_its_transactions(
    server: PostgresServer, major: int, room: Path, home: Home, pool: Pool
) -> None:
    """Under load, with files coming and going, any time and position recovers exactly what was committed by then."""
    load = PostgresLoad(server).prepare()
    with load:
        load.wait_for(50)
        p, _ = protect(home, pool, "postgresql", server.conninfo)
        with watching(p) as events:
            load.wait_for(100)
            commotion(server, room)
            load.wait_for(300)
            server.restart()
            load.wait_for(200)
    synchronize(p)
    assert not [event for event in events if "tracking lost" in event.message]
    ledger = load.settle()
    rows = timeline_rows(pool, p.source.id, commits=True)
    first = min(row.time_ns for row in rows)
    chance = random.Random(major)
    later = [each for each in ledger.values() if each.time_ns > first + SKEW_NS]
    targets: list[Target] = [Latest()]
    targets += [AtTime(each.time_ns + chance.randrange(-3_000_000, 3_000_000)) for each in chance.sample(later, 2)]
    targets += [AtPosition(row.position) for row in chance.sample(rows, 2) if row.position is not None]
    for target in targets:
        check_recovered(p, room, major, target, Truth(ledger, load.unsure))
