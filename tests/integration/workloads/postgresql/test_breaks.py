"""What happens to the log when the server, its slot or its timeline do what they should not."""

from __future__ import annotations

import pytest
from protected_cluster import ProtectedCluster

from perdure.model.errors import SourceUnusable, TrackingLost
from perdure.model.positions import Position
from perdure.model.replica import ReplicaState
from perdure.model.targets import AtPosition, AtTime
from perdure.protection.image_verbs import check
from perdure.protection.live import LiveSource
from perdure.protection.live_session import open_session
from perdure.testing.postgres_load import wal_file
from perdure.testing.postgres_server import PostgresServer
from perdure.workloads.postgresql.session import PostgresqlSession
from perdure.workloads.postgresql.slot import slot_name

COUNT = "SELECT count(*), max(id) FROM t"


def begin(scene: ProtectedCluster) -> None:
    """A table with ten rows, protected."""
    scene.server.execute("CREATE TABLE t(id int PRIMARY KEY)")
    add(scene, 1, 10)
    scene.protect()


def add(scene: ProtectedCluster, first: int, last: int) -> None:
    scene.server.execute(f"INSERT INTO t SELECT generate_series({first}, {last})")


def ship_on(live: LiveSource) -> None:
    """Ship until the source is gone; what had arrived before may still be shipped."""
    while True:
        live.ship()


def drop_slot(scene: ProtectedCluster) -> None:
    scene.server.execute(f"SELECT pg_drop_replication_slot('{slot_name(scene.protected.source.id)}')")


def remove_old_wal(scene: ProtectedCluster) -> None:
    scene.server.execute("ALTER SYSTEM SET wal_keep_size = 0", "SELECT pg_reload_conf()")
    for _ in range(3):
        scene.server.execute("SELECT pg_switch_wal()", "CREATE TABLE filler()", "DROP TABLE filler", "CHECKPOINT")


def test_a_server_that_was_killed_is_followed_again(scene: ProtectedCluster) -> None:
    """After a crash of the server the log goes on without a gap, and what was committed is there."""
    begin(scene)
    with open_session(scene.protected) as live:
        add(scene, 11, 20)
        live.ship()
        add(scene, 21, 30)
        scene.server.kill()
        with pytest.raises(SourceUnusable):
            ship_on(live)
    scene.server.start()
    add(scene, 31, 40)
    assert scene.sync().cause == ""
    assert scene.gaps() == 0
    scene.full()
    assert scene.rows_at(COUNT) == [(40, 40)]


def test_a_slot_that_is_gone_with_its_log_is_noticed(scene: ProtectedCluster) -> None:
    """When the slot was dropped and the server removed log, the cause is recorded and a compared image begins anew."""
    begin(scene)
    add(scene, 11, 15)
    before = scene.sync().last
    drop_slot(scene)
    add(scene, 16, 20)
    remove_old_wal(scene)
    result = scene.sync()
    assert "replication slot" in result.cause
    assert "removed" in result.cause
    assert scene.gaps() == 1
    add(scene, 21, 30)
    assert scene.sync().cause == ""
    assert scene.rows_at(COUNT) == [(30, 30)]
    assert before is not None
    assert scene.rows_at(COUNT, AtPosition(before)) == [(15, 15)]


def test_a_slot_that_is_gone_alone_costs_nothing(scene: ProtectedCluster) -> None:
    """When the slot was dropped and all log is still there, it is shipped without a gap."""
    begin(scene)
    drop_slot(scene)
    add(scene, 11, 20)
    assert scene.sync().cause == ""
    assert scene.gaps() == 0
    assert scene.rows_at(COUNT) == [(20, 20)]


def test_a_slot_dropped_under_a_session_is_noticed(scene: ProtectedCluster) -> None:
    """While it is used the server does not drop the slot; perdure holds on to it."""
    begin(scene)
    with open_session(scene.protected) as live:
        live.ship()
        with pytest.raises(Exception, match="is active"):
            drop_slot(scene)


def test_a_server_that_was_set_back_begins_anew(scene: ProtectedCluster) -> None:
    """When the server was itself recovered to an earlier moment, the break is named; both its lives come back."""
    begin(scene)
    add(scene, 11, 15)
    early = scene.sync().last
    assert early is not None
    add(scene, 16, 20)
    late = scene.sync().last
    directory, _ = scene.recover(AtPosition(early))
    scene.server.stop()
    scene.server = PostgresServer(18, directory, scene.server.port)
    with scene.server.start() as server:
        server.wait_until_primary()
        add(scene, 101, 105)
        assert "branched off" in scene.sync().cause
        add(scene, 106, 110)
        scene.sync()
        assert scene.rows_at(COUNT) == [(25, 110)]
        assert late is not None
        assert scene.rows_at(COUNT, AtPosition(Position(late.generation, late.place))) == [(20, 20)]


def test_another_cluster_at_the_address_is_refused(scene: ProtectedCluster) -> None:
    """A cluster with another system identifier never becomes part of the replica."""
    begin(scene)
    scene.server.stop()
    with PostgresServer(18, scene.root / "other", scene.server.port).initialize(fresh=True) as other:
        other.start()
        with pytest.raises(SourceUnusable, match="is another cluster"):
            scene.sync()


def test_a_slot_that_keeps_too_much_is_given_up(scene: ProtectedCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit that a person set the slot is dropped, and what can still be had is shipped afterwards."""
    scene.server.execute("CREATE TABLE t(id int PRIMARY KEY)")
    scene.protect({"give-up-at": ["20MB"], "warn-at": ["1MB"]})
    with open_session(scene.protected) as live, monkeypatch.context() as impatient:
        assert isinstance(live.session, PostgresqlSession)
        impatient.setattr("perdure.workloads.postgresql.session._LOOK_S", 0.0)
        add(scene, 1, 10)
        for _ in range(3):
            scene.server.execute("SELECT pg_switch_wal()", "CREATE TABLE filler()", "DROP TABLE filler")
        with pytest.raises(TrackingLost, match="more than the limit"):
            live.session.poll()
        assert "bytes of WAL on the server's disk" in live.session.warning
    assert scene.server.execute("SELECT count(*) FROM pg_replication_slots") == [(0,)]
    scene.sync()
    assert scene.rows_at(COUNT) == [(10, 10)]


def test_a_slot_that_the_server_invalidated_is_replaced(scene: ProtectedCluster) -> None:
    """Where max_slot_wal_keep_size took the slot's WAL, the cause says so, and a compared image begins anew."""
    begin(scene)
    scene.server.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '32MB'")
    remove_old_wal(scene)
    assert scene.server.execute("SELECT wal_status FROM pg_replication_slots") == [("lost",)]
    assert "max_slot_wal_keep_size" in scene.sync().cause
    add(scene, 11, 20)
    assert scene.sync().cause == ""
    assert scene.rows_at(COUNT) == [(20, 20)]


def test_a_check_finds_what_no_log_explains(scene: ProtectedCluster) -> None:
    """A page that changed on the disk without log is found by a consistency check, and nothing else is."""
    scene.server.execute("CREATE TABLE t(id int PRIMARY KEY, filler text)")
    scene.server.execute("INSERT INTO t SELECT n, repeat('x', 200) FROM generate_series(1, 5000) n", "VACUUM t")
    scene.protect()
    scene.server.execute("UPDATE t SET filler = 'y' WHERE id % 50 = 0", "CHECKPOINT")
    scene.sync()
    clean = check(scene.protected)
    assert (clean.pages, clean.repaired_by) == (0, None)
    path = scene.server.data / str(scene.server.execute("SELECT pg_relation_filepath('t')")[0][0])
    raw = bytearray(path.read_bytes())
    raw[3 * 8192 + 6000] ^= 0xFF
    path.write_bytes(raw)
    report = check(scene.protected)
    assert report.pages == 1
    assert report.repaired_by is not None


def test_a_recovered_cluster_stays_out_of_its_origins_tablespaces(each_version: ProtectedCluster) -> None:
    """A tablespace that was made after the image is replayed into the recovered directory, not into the live one."""
    scene = each_version
    begin(scene)
    space = scene.root / "space"
    scene.server.run(["mkdir", str(space)])
    scene.server.execute(
        f"CREATE TABLESPACE apart LOCATION '{space}'",
        "CREATE TABLE there(id int) TABLESPACE apart",
        "INSERT INTO there SELECT generate_series(1, 5000)",
    )
    scene.sync()
    scene.server.execute("DELETE FROM there WHERE id > 10", "VACUUM there", "CHECKPOINT")
    directory, report = scene.recover()
    assert any(str(space) in note for note in report.notes)
    with scene.start(directory) as recovered:
        assert recovered.execute("SELECT count(*) FROM there") == [(5000,)]
        recovered.execute("INSERT INTO there SELECT generate_series(1, 20000)", "CHECKPOINT")
        assert not any(path.is_symlink() for path in (directory / "pg_tblspc").iterdir())
    assert scene.server.execute("SELECT count(*) FROM there") == [(10,)]
    scene.server.restart()
    assert scene.server.execute("SELECT count(*) FROM there") == [(10,)]
    scene.full()
    directory, _ = scene.recover()
    with scene.start(directory) as recovered:
        assert recovered.execute("SELECT count(*) FROM there") == [(10,)]


def test_a_recovered_cluster_waits_for_nobody(scene: ProtectedCluster) -> None:
    """A copy of a server that commits synchronously to perdure commits by itself."""
    begin(scene)
    scene.server.configure({"synchronous_standby_names": "perdure"})
    scene.server.execute("SELECT pg_reload_conf()")
    scene.full()
    directory, _ = scene.recover()
    with scene.start(directory) as recovered:
        recovered.execute("INSERT INTO t VALUES (11)")
        assert recovered.execute(COUNT) == [(11, 11)]


def test_time_is_the_transactions_own_even_when_shipped_late(scene: ProtectedCluster) -> None:
    """After a pause of perdure, a moment within the pause comes back exactly, also behind much log without a commit."""
    begin(scene)
    with scene.server.connect() as connection:
        connection.execute("BEGIN")
        connection.execute("CREATE TABLE much AS SELECT n, repeat('x', 1000) FROM generate_series(1, 30000) n")
        connection.execute("ROLLBACK")
    add(scene, 11, 20)
    between = scene.server.execute("SELECT (extract(epoch from clock_timestamp()) * 1000000)::bigint")[0][0]
    add(scene, 21, 30)
    scene.sync()
    assert scene.rows_at(COUNT, AtTime(int(between) * 1000)) == [(20, 20)]


def test_damaged_wal_is_never_acknowledged(scene: ProtectedCluster) -> None:
    """A record whose checksum is wrong ends the chain before it; a compared image goes on behind it."""
    begin(scene)
    add(scene, 11, 15)
    before = scene.sync().last
    scene.server.execute("CREATE TABLE marked(what text)", "INSERT INTO marked VALUES (repeat('damage', 20))")
    path = scene.server.data / "pg_wal" / wal_file(scene.server)
    # It sends what it still has in memory from there.
    scene.server.stop()
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"damage" * 20) + 7] ^= 0x01
    path.write_bytes(raw)
    scene.server.start()
    add(scene, 16, 20)
    result = scene.sync()
    assert "has a wrong checksum" in result.cause
    assert scene.protected.replica.state is ReplicaState.OK
    assert scene.gaps() == 1
    add(scene, 21, 30)
    assert scene.sync().cause == ""
    assert scene.rows_at(COUNT) == [(30, 30)]
    assert before is not None
    assert scene.rows_at(COUNT, AtPosition(before)) == [(15, 15)]
