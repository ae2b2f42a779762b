"""Full disks, of the pool and of the server."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
from protected_cluster import ProtectedCluster, watching

from perdure.model.replica import ReplicaState
from perdure.model.targets import Latest
from perdure.protection.image_verbs import protect, synchronize
from perdure.protection.points import timeline_of
from perdure.protection.recovery import recover
from perdure.repository.opening import create_pool
from perdure.storage.local import LocalStorage
from perdure.testing.postgres_load import PostgresLoad, commits_of, wal_file
from perdure.testing.postgres_server import PostgresServer
from perdure.testing.small_disk import MAY_MOUNT, filled, small_disk

pytestmark = pytest.mark.skipif(not MAY_MOUNT, reason="needs root and mount to make a small file system")

ROWS = "SELECT id FROM ledger"


def mounted(held: ExitStack, place: Path, mebibytes: int) -> Path:
    try:
        return held.enter_context(small_disk(place, mebibytes))
    except OSError as error:
        pytest.skip(str(error))


def test_a_full_pool_holds_the_log_on_the_server(scene: ProtectedCluster) -> None:
    """While the pool is full nothing is acknowledged and the slot keeps the WAL; with room again all is shipped."""
    with ExitStack() as held:
        disk = mounted(held, scene.root / "disk", 64)
        pool = create_pool(LocalStorage(disk / "pool", create=True), b"x", scene.root / "cache")[0]
        p, _ = protect(scene.home, pool, "postgresql", scene.location)
        first = wal_file(scene.server)
        with PostgresLoad(scene.server) as load, watching(p) as events:
            load.wait_for(20)
            with filled(disk):
                load.wait_for(20)
                while not any("held and shipped when the pool can be used" in event.message for event in events):
                    time.sleep(0.01)
                load.wait_for(20)
            load.wait_for(20)
        synchronize(p)
        assert timeline_of(pool, p.source.id).gaps() == []
        commits = commits_of(scene.server, first)
        recover(p, to=Latest(), target=scene.root / "all")
        with scene.start(scene.root / "all") as copy:
            assert {row[0] for row in copy.execute(ROWS)} == load.rows_before(commits, len(commits))


def test_a_server_whose_disk_is_full_loses_nothing(room: Path) -> None:
    """A server that dies of a full disk is a missing source with a cause; when it is back the log goes on."""
    with ExitStack() as held:
        disk = mounted(held, room / "disk", 256)
        disk.chmod(0o777)
        server = held.enter_context(PostgresServer(18, disk / "data").initialize(max_prepared_transactions="10"))
        scene = held.enter_context(ProtectedCluster(server.start(), room))
        scene.protect()
        with PostgresLoad(server, through_failures=True) as load:
            load.wait_for(20)
            scene.sync()
            with filled(disk), pytest.raises(psycopg.Error):
                server.execute("CREATE TABLE much AS SELECT repeat('x', 1000) FROM generate_series(1, 100000)")
            server.kill()
            with pytest.raises(Exception, match="cannot be reached"):
                scene.sync()
            assert scene.protected.replica.state is ReplicaState.MISSING
            server.start()
            load.wait_for(20)
        assert scene.sync().cause == ""
        assert scene.gaps() == 0
        assert {row[0] for row in scene.rows_at(ROWS)} >= load.acknowledged
