"""The log under load while the server is killed, the network is cut, a standby is promoted."""

from __future__ import annotations

import pytest
from protected_cluster import ProtectedCluster, watching
from standbys import caught_up, either, standby_of, until

from perdure.model.targets import AtPosition
from perdure.protection.log_serving import serve_log
from perdure.protection.points import timeline_of
from perdure.protection.watch_events import WatchKind
from perdure.testing.cutting_proxy import CuttingProxy
from perdure.testing.postgres_load import PostgresLoad, commits_of, wal_file
from perdure.testing.postgres_server import PostgresServer
from perdure.workloads.postgresql.history import parse_history
from perdure.workloads.postgresql.lsn import segment_name

ROWS = "SELECT id FROM ledger"


def rows(scene: ProtectedCluster, to: AtPosition | None = None) -> set[int]:
    return {row[0] for row in scene.rows_at(ROWS, to)}


def no_gap(scene: ProtectedCluster) -> bool:
    timeline = timeline_of(scene.vault, scene.protected.source.id)
    first, last = timeline.stretches[0].start, timeline.end()
    return last is not None and timeline.continues(first, last)


@pytest.mark.slow
def test_crashes_of_the_server_and_cuts_of_the_network_cost_nothing(each_version: ProtectedCluster) -> None:
    """A server that is killed and a network that is cut again and again leave no gap and no transaction out."""
    scene = each_version
    first = wal_file(scene.server)
    with CuttingProxy(f"tcp://127.0.0.1:{scene.server.port}") as proxy:
        port = proxy.endpoint.rpartition(":")[2]
        scene.protect(location=f"//postgres@127.0.0.1:{port}/postgres")
        with PostgresLoad(scene.server, seed=2, through_failures=True) as load, watching(scene.protected):
            for _ in range(3):
                load.wait_for(40)
                proxy.vanish()
                load.wait_for(20)
                proxy.return_()
                load.wait_for(20)
                scene.server.kill()
                scene.server.start()
            load.wait_for(30)
        scene.sync()
    assert no_gap(scene)
    assert len(timeline_of(scene.vault, scene.protected.source.id).points) == 1
    commits = commits_of(scene.server, first)
    assert rows(scene) == load.rows_before(commits, len(commits)) >= load.acknowledged


@pytest.mark.slow
def test_promotion_is_followed_without_a_gap(each_version: ProtectedCluster) -> None:
    """After a switch to a standby the log goes on with its new timeline, and either timeline can be recovered."""
    scene = each_version
    with standby_of(scene) as standby:
        standby.start()
        scene.protect(location=either(scene.server, standby))
        with watching(scene.protected) as events:
            with PostgresLoad(scene.server) as load:
                load.wait_for(50)
            caught_up(standby, scene.server)
            scene.server.stop()
            standby.execute("SELECT pg_promote()")
            standby.wait_until_primary()
            with PostgresLoad(standby, first_row=100_000) as after:
                after.wait_for(50)
            until(lambda: str(timeline_of(scene.vault, scene.protected.source.id).end()).startswith("2:"))
        scene.sync()
        assert not [event for event in events if event.kind is WatchKind.EXPRESS_FULL]
        assert no_gap(scene)
        assert load.acknowledged | after.acknowledged == rows(scene)
        point = scene.full()
        assert point.position is not None
        assert point.position.generation == 2
        with after:
            after.wait_for(20)
        scene.sync()
        assert load.acknowledged | after.acknowledged == rows(scene)
        serves_the_new_timeline(scene, standby)


def serves_the_new_timeline(scene: ProtectedCluster, server: PostgresServer) -> None:
    """What a server would fetch: the history, and the file in which the timelines meet, with the bytes of both."""
    (history,) = serve_log(scene.protected, "00000002.history", None)
    assert bytes(history.content) == (server.data / "pg_wal" / history.name).read_bytes()
    switch = parse_history(2, bytes(history.content)).ends[-1][1]
    file = next(serve_log(scene.protected, segment_name(2, switch, 16 << 20), None))
    assert switch % (16 << 20) < file.known
    assert bytes(file.content[: file.known]) == (server.data / "pg_wal" / file.name).read_bytes()[: file.known]


@pytest.mark.slow
def test_branch_before_the_end_of_the_log_is_compared(scene: ProtectedCluster) -> None:
    """A standby promoted while it was behind is compared anew; what only the old primary had stays recoverable."""
    with standby_of(scene) as standby:
        standby.start()
        scene.protect(location=either(scene.server, standby))
        caught_up(standby, scene.server)
        standby.stop()
        with PostgresLoad(scene.server) as load:
            load.wait_for(40)
        scene.sync()
        lost = timeline_of(scene.vault, scene.protected.source.id).end()
        assert lost is not None
        scene.server.kill()
        standby.start()
        standby.execute("SELECT pg_promote()")
        standby.wait_until_primary()
        with PostgresLoad(standby, first_row=100_000) as after:
            after.wait_for(20)
        result = scene.sync()
        assert result.point is not None
        assert "branched off timeline 1" in result.point.cause
        assert rows(scene, AtPosition(lost)) == load.acknowledged
        with after:
            after.wait_for(20)
        scene.sync()
        assert rows(scene) == after.acknowledged
