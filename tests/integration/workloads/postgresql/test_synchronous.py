"""perdure as a synchronous standby: a commit returns when it is in the pool."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from protected_cluster import ProtectedCluster, watching

from perdure.workloads.postgresql.lsn import parse_lsn

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE 'INSERT%'"


def durable(scene: ProtectedCluster) -> int:
    end = scene.vault.log_end(scene.protected.source.id)
    assert end is not None
    return end.position.place


def test_a_commit_waits_for_the_pool(each_version: ProtectedCluster) -> None:
    """With perdure in synchronous_standby_names no commit returns before the pool has it, however long that takes."""
    scene = each_version
    scene.server.execute("CREATE TABLE t(id int)")
    scene.protect({"application-name": ["pool"]})
    scene.server.execute("ALTER SYSTEM SET synchronous_standby_names = 'pool'", "SELECT pg_reload_conf()")
    with watching(scene.protected), scene.server.connect() as connection, ThreadPoolExecutor(1) as beside:
        for number in range(10):
            with connection.transaction():
                connection.execute("INSERT INTO t VALUES (%s)", (number,))
                before = parse_lsn(str(connection.execute("SELECT pg_current_wal_insert_lsn()").fetchall()[0][0]))
            assert durable(scene) > before
        scene.vault.full = True
        committed = beside.submit(connection.execute, "INSERT INTO t VALUES (10)")
        with scene.server.connect() as onlooker:
            while not onlooker.execute(WAITING).fetchall()[0][0]:
                assert not committed.done()
                time.sleep(0.01)
            assert onlooker.execute("SELECT count(*) FROM t").fetchall() == [(10,)]
        scene.vault.full = False
        committed.result(timeout=60)
    assert scene.rows_at("SELECT count(*) FROM t") == [(11,)]
