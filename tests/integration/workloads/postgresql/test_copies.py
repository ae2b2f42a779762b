"""A primary and its standbys are one source with copies."""

from __future__ import annotations

import pytest
from protected_cluster import ProtectedCluster, watching
from standbys import caught_up, either, standby_of, until

from perdure.testing.postgres_load import PostgresLoad

ROWS = "SELECT id FROM ledger"


def backups(log: str) -> int:
    return log.count("received replication command: BASE_BACKUP")


@pytest.mark.slow
def test_images_come_from_a_standby(each_version: ProtectedCluster) -> None:
    """Of several hosts a standby gives the images while the primary is followed, and what they give is exact."""
    scene = each_version
    with standby_of(scene) as standby:
        standby.configure({"log_replication_commands": "on"})
        scene.server.execute("ALTER SYSTEM SET log_replication_commands = on", "SELECT pg_reload_conf()")
        standby.start()
        with PostgresLoad(scene.server, seed=7) as load:
            load.wait_for(20)
            scene.protect(location=either(scene.server, standby))
            with watching(scene.protected):
                load.wait_for(60)
            scene.full()
            load.wait_for(20)
        scene.full()
        assert backups(standby.log.read_text()) == 3
        assert backups(scene.server.log.read_text()) == 0
        assert {row[0] for row in scene.rows_at(ROWS)} == load.acknowledged
        with load:
            load.wait_for(20)
        standby.stop()
        scene.full()
        scene.sync()
        assert backups(scene.server.log.read_text()) == 0
        assert {row[0] for row in scene.rows_at(ROWS)} == load.acknowledged
    assert scene.gaps() == 0


@pytest.mark.slow
def test_a_standby_may_be_all_that_is_followed(scene: ProtectedCluster) -> None:
    """Log and images may come from a standby alone; when it is promoted both go on without a new first copy."""
    with standby_of(scene) as standby:
        standby.start()
        with PostgresLoad(scene.server) as load:
            load.wait_for(20)
            scene.protect(location=f"//postgres@127.0.0.1:{standby.port}/postgres")
            with watching(scene.protected):
                load.wait_for(40)
            scene.full()
            load.wait_for(10)
        caught_up(standby, scene.server)
        scene.sync()
        assert {row[0] for row in scene.rows_at(ROWS)} == load.acknowledged
        scene.server.stop()
        standby.execute("SELECT pg_promote()")
        standby.wait_until_primary()
        with PostgresLoad(standby, first_row=100_000) as after:
            after.wait_for(20)
        assert scene.sync().cause == ""
        until(lambda: scene.gaps() == 0)
        scene.full()
        assert {row[0] for row in scene.rows_at(ROWS)} == load.acknowledged | after.acknowledged
