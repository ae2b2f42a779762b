"""Recovery to any moment has exactly the transactions that were committed by then."""

from __future__ import annotations

import random

import pytest
from protected_cluster import ProtectedCluster, watching

from perdure.model.targets import AtPlace, AtTime, Target
from perdure.protection.image_verbs import check
from perdure.protection.points import timeline_of
from perdure.testing.postgres_load import Commit, PostgresLoad, commits_of, reached_by, wal_file
from perdure.testing.postgres_server import PostgresServer
from perdure.workloads.postgresql.lsn import format_lsn


def commotion(scene: ProtectedCluster) -> None:
    """Everything that moves files about."""
    space = scene.root / "space"
    scene.server.run(["mkdir", "-p", str(space)])
    scene.server.execute(
        "CHECKPOINT",
        "CREATE TABLE big (id int PRIMARY KEY, filler text)",
        "INSERT INTO big SELECT g, repeat('b', 500) FROM generate_series(1, 10000) g",
        f"CREATE TABLESPACE apart LOCATION '{space}'",
        "CREATE TABLE there (id int PRIMARY KEY, filler text) TABLESPACE apart",
        "INSERT INTO there SELECT g, repeat('t', 100) FROM generate_series(1, 5000) g",
        "DELETE FROM big WHERE id > 4000",
        "VACUUM big",
        "INSERT INTO big SELECT g, repeat('n', 700) FROM generate_series(4001, 7000) g",
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
    with scene.server.connect() as connection:
        connection.execute("BEGIN")
        connection.execute("INSERT INTO big VALUES (-1, 'prepared')")
        connection.execute("PREPARE TRANSACTION 'two'")
        connection.execute("CHECKPOINT")
        connection.execute("COMMIT PREPARED 'two'")


def busy(scene: ProtectedCluster) -> tuple[PostgresLoad, list[Commit]]:
    """Watch a cluster under load, with express fulls; the ledger and the truth."""
    first = wal_file(scene.server)
    with PostgresLoad(scene.server, seed=18, through_failures=True) as load:
        load.wait_for(30)
        scene.protect()
        with watching(scene.protected, express_full_every_s=2) as events:
            load.wait_for(100)
            commotion(scene)
            load.wait_for(200)
            scene.server.restart()
            load.wait_for(100)
        scene.full()
        load.wait_for(30)
    scene.sync()
    assert not [event for event in events if "tracking lost" in event.message]
    return load, commits_of(scene.server, first)


def check_recovered(scene: ProtectedCluster, to: Target | None, rows: set[int]) -> None:
    """Recover, open, and compare with the ledger and with PostgreSQL's own checks."""
    directory, report = scene.recover(to)
    assert report.verification is not None
    assert (report.verification.passed, report.verification.means) == (True, "pg_verifybackup")
    with scene.start(directory) as copy:
        assert {row[0] for row in copy.execute("SELECT id FROM ledger")} == rows
        sums = copy.execute("SELECT (SELECT sum(balance) FROM account), (SELECT sum(amount) FROM ledger)")
        assert sums[0][0] == sums[0][1]
        amcheck(copy)


def amcheck(copy: PostgresServer) -> None:
    arguments = ["-h", "127.0.0.1", "-p", str(copy.port), "--all", "--install-missing", "--heapallindexed"]
    copy.program("pg_amcheck", *arguments)


@pytest.mark.slow
def test_any_moment_is_exact(each_version: ProtectedCluster) -> None:
    """Under load, with files coming and going, LSNs, transactions and times have exactly what was committed by then."""
    scene = each_version
    load, commits = busy(scene)
    assert scene.gaps() == 0
    assert check(scene.protected).pages == 0
    image = timeline_of(scene.vault, scene.protected.source.id).stretches[0].start
    mine = [row for row, commit in enumerate(commits) if commit.xid in load.rows and commit.lsn >= image.place]
    chance = random.Random(scene.server.major)
    for kind in ("lsn", "time", "xid", "latest"):
        row = chance.choice(mine)
        to: Target | None
        if kind == "lsn":
            to, count = AtPlace("lsn", format_lsn(commits[row].lsn)), row
        elif kind == "xid":
            to, count = AtPlace("xid", str(commits[row].xid)), row + 1
        elif kind == "time":
            to, count = AtTime(commits[row].time_ns), reached_by(commits, commits[row].time_ns)
        else:
            to, count = None, len(commits)
        check_recovered(scene, to, load.rows_before(commits, count))
