"""From a running server to a recovered one."""

from __future__ import annotations

from protected_cluster import ProtectedCluster


def test_everything_committed_comes_back(each_version: ProtectedCluster) -> None:
    """What was committed before the first image, and what was shipped after it, is in the recovered server."""
    scene = each_version
    scene.server.execute("CREATE TABLE t(id int PRIMARY KEY)", "INSERT INTO t SELECT generate_series(1, 1000)")
    scene.protect()
    scene.server.execute("INSERT INTO t SELECT generate_series(1001, 1500)")
    scene.sync()
    assert scene.rows_at("SELECT count(*), max(id) FROM t", verify="thorough") == [(1500, 1500)]
