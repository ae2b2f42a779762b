"""A role that may do no more than it has to."""

from __future__ import annotations

import pytest
from protected_cluster import ProtectedCluster

from perdure.model.errors import SourceUnusable
from perdure.workloads.postgresql.workload import PostgresqlWorkload

COUNT = "SELECT count(*) FROM t"


def test_a_limited_role_is_told_what_it_lacks_and_that_is_enough(each_version: ProtectedCluster) -> None:
    """Each missing right is named with its statement; those statements, and no more, make the role sufficient."""
    scene = each_version
    scene.server.execute("CREATE TABLE t(id int)", "INSERT INTO t VALUES (1)", "CREATE ROLE modest LOGIN")
    location = f"//modest@127.0.0.1:{scene.server.port}/postgres"
    with pytest.raises(SourceUnusable) as refusal:
        scene.protect(location=location)
    assert refusal.value.code == "not-prepared"
    lines = PostgresqlWorkload().preparation(location)
    statements = [line for line in lines if not line.startswith("--") and ("ROLE" in line or "GRANT" in line)]
    assert len(statements) == 4
    for statement in statements:
        assert statement.rstrip(";") in (refusal.value.hint or "")
        scene.server.execute(statement)
    scene.protect(location=location)
    scene.server.execute("INSERT INTO t VALUES (2)")
    assert scene.sync().cause == ""
    scene.full()
    assert scene.rows_at(COUNT) == [(2,)]


def test_a_role_that_loses_its_right_is_a_state(scene: ProtectedCluster) -> None:
    """A role that may not replicate any more leaves a missing source with the server's own words, and no gap later."""
    scene.server.execute("CREATE TABLE t(id int)", "CREATE ROLE modest LOGIN SUPERUSER")
    scene.protect(location=f"//modest@127.0.0.1:{scene.server.port}/postgres")
    scene.server.execute("ALTER ROLE modest NOSUPERUSER NOREPLICATION")
    with pytest.raises(SourceUnusable) as refusal:
        scene.sync()
    assert refusal.value.code == "no-replication"
    assert "replication" in scene.protected.replica.cause
    scene.server.execute("INSERT INTO t VALUES (1)", "ALTER ROLE modest SUPERUSER")
    assert scene.sync().cause == ""
    assert scene.rows_at(COUNT) == [(1,)]
