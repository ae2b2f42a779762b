"""Recovery to any moment has exactly the transactions that were committed by then."""

from __future__ import annotations

import random

import pytest
from ledger import Commit, Load, commits_of, wal_file
from protected_cluster import ProtectedCluster

from perdure.model.targets import AtPlace, AtTime, Target
from perdure.protection.image_verbs import check
from perdure.workloads.postgresql.lsn import format_lsn

ROWS = "SELECT id FROM ledger"


def busy(scene: ProtectedCluster) -> tuple[Load, list[Commit]]:
    """Protect a cluster under load: some express fulls and log between them; the ledger and the truth."""
    scene.server.configure({"max_prepared_transactions": "10", "wal_keep_size": "2GB"})
    scene.server.restart()
    first = wal_file(scene.server)
    scene.protect()
    with Load(scene.server, seed=18) as load:
        for _ in range(2):
            load.wait_for(150)
            scene.sync()
            load.wait_for(100)
            scene.full()
        load.wait_for(150)
        scene.sync()
        load.wait_for(50)
    scene.sync()
    return load, commits_of(scene.server, first)


@pytest.mark.slow
def test_any_moment_is_exact(each_version: ProtectedCluster) -> None:
    """Under load with checkpoints, vacuum, DDL and two-phase commits, LSNs, transactions and times are exact."""
    scene = each_version
    load, commits = busy(scene)
    assert scene.gaps() == 0
    assert check(scene.protected).pages == 0
    mine = [row for row, commit in enumerate(commits) if commit.xid in load.rows]
    chance = random.Random(scene.server.major)
    for kind in ("lsn", "time", "xid", "latest"):
        row = chance.choice(mine[len(mine) // 8 :])
        to: Target | None
        if kind == "lsn":
            to, count = AtPlace("lsn", format_lsn(commits[row].lsn)), row
        elif kind == "xid":
            to, count = AtPlace("xid", str(commits[row].xid)), row + 1
        elif kind == "time":
            to, count = AtTime(commits[row].time_ns), reached_by(commits, commits[row].time_ns)
        else:
            to, count = None, len(commits)
        got = {row[0] for row in scene.rows_at(ROWS, to, "thorough")}
        assert got == load.rows_before(commits, count), kind


def reached_by(commits: list[Commit], time_ns: int) -> int:
    """How many commits PostgreSQL replays for a time: it stops at the first one that is later."""
    return next((row for row, commit in enumerate(commits) if commit.time_ns > time_ns), len(commits))
