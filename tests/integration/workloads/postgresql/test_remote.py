"""Images over the network, by the replication protocol alone."""

from __future__ import annotations

import numpy as np
import pytest
from protected_cluster import ProtectedCluster, watching

from perdure.model.replica import ReplicaState
from perdure.protection.image_verbs import check
from perdure.protection.live_session import open_session
from perdure.testing.postgres_load import PostgresLoad, commits_of, wal_file
from perdure.testing.postgres_server import PostgresServer
from perdure.workloads.postgresql.checksums import page_checksums

REMOTE = {"images": ["remote"]}
ROWS = "SELECT id FROM ledger"


def amcheck(copy: PostgresServer) -> None:
    copy.program(
        "pg_amcheck", "-h", "127.0.0.1", "-p", str(copy.port), "--all", "--install-missing", "--heapallindexed"
    )


def exact(scene: ProtectedCluster, rows: set[int]) -> None:
    """The newest point has these rows, by PostgreSQL's own checks a sound cluster."""
    directory, report = scene.recover()
    assert report.verification is not None
    assert (report.verification.passed, report.verification.means) == (True, "pg_verifybackup")
    with scene.start(directory) as copy:
        assert {row[0] for row in copy.execute(ROWS)} == rows
        amcheck(copy)


@pytest.mark.slow
def test_images_over_the_network_are_exact(each_version: ProtectedCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under load, with a tablespace, the first image and those after it, sent incrementally from 17 on, are exact."""
    scene = each_version
    monkeypatch.setenv("PERDURE_PG_BIN", str(scene.server.bin))
    first = wal_file(scene.server)
    space = scene.root / "space"
    scene.server.run(["mkdir", str(space)])
    scene.server.execute(
        f"CREATE TABLESPACE apart LOCATION '{space}'",
        "CREATE TABLE there (id int PRIMARY KEY, filler text) TABLESPACE apart",
        "INSERT INTO there SELECT g, repeat('t', 300) FROM generate_series(1, 20000) g",
        "CREATE UNLOGGED TABLE fleeting AS SELECT generate_series(1, 1000) AS n",
        "ALTER SYSTEM SET log_replication_commands = on",
        "SELECT pg_reload_conf()",
    )
    with PostgresLoad(scene.server, seed=4) as load:
        load.wait_for(30)
        scene.protect(REMOTE)
        with watching(scene.protected):
            load.wait_for(60)
            scene.server.execute("UPDATE there SET filler = 'new' WHERE id % 1000 = 0", "CREATE TABLE made AS SELECT 1")
        scene.full()
        load.wait_for(20)
        scene.full()
    scene.sync()
    assert ("INCREMENTAL" in scene.server.log.read_text()) == (scene.server.major >= 17)
    with open_session(scene.protected) as live:
        stored = live.express_full("a test")
    found, whole = stored.found["data"], next(file.size for file in stored.point.files if file.name == "data")
    assert not found.compared
    assert len(found.pages) * 8192 < whole // 2
    commits = commits_of(scene.server, first)
    exact(scene, load.rows_before(commits, len(commits)))
    assert scene.gaps() == 0


@pytest.mark.slow
def test_a_check_over_the_network_compares_everything(scene: ProtectedCluster) -> None:
    """A check asks for a whole backup and finds the page that no log explains; so does an image that was in doubt."""
    scene.server.execute("CREATE TABLE t(id int PRIMARY KEY, filler text)")
    scene.server.execute("INSERT INTO t SELECT n, repeat('x', 200) FROM generate_series(1, 5000) n", "VACUUM t")
    # VACUUM does not wait for its log to be flushed, and what is flushed after protection began would explain the page.
    scene.server.execute("CHECKPOINT")
    scene.protect(REMOTE)
    change_page(scene, 3)
    assert check(scene.protected).pages == 1
    change_page(scene, 4)
    scene.protected.note_state(ReplicaState.INCONSISTENT, "a test")
    assert scene.sync().cause == "consistency check: a test"
    assert check(scene.protected).pages == 0


def change_page(scene: ProtectedCluster, number: int) -> None:
    """Change an unused byte of a page on the disk, and its checksum with it, without log."""
    path = scene.server.data / str(scene.server.execute("SELECT pg_relation_filepath('t')")[0][0])
    scene.server.stop()
    raw = bytearray(path.read_bytes())
    page = raw[number * 8192 : (number + 1) * 8192]
    lower, upper = int.from_bytes(page[12:14], "little"), int.from_bytes(page[14:16], "little")
    assert lower < upper
    page[lower] ^= 0xFF
    whole = np.frombuffer(bytes(page), np.uint8).reshape(1, 8192)
    page[8:10] = int(page_checksums(whole, np.array([number]))[0]).to_bytes(2, "little")
    raw[number * 8192 : (number + 1) * 8192] = page
    path.write_bytes(raw)
    scene.server.start()
