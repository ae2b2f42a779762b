"""Servers that fetch their log from the pool while they recover, and standbys that go on doing so."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
from protected_cluster import ProtectedCluster
from shop import Shop, count

from perdure.cli.app import run
from perdure.model.errors import Damaged, NotFound, Refused
from perdure.model.positions import Position
from perdure.protection.image_verbs import synchronize
from perdure.protection.log_serving import serve_log
from perdure.testing.postgres_server import PostgresServer, free_port
from perdure.workloads.postgresql.lsn import segment_start
from perdure.workloads.postgresql.starting import start_server

SEGMENT = 16 << 20


def test_served_files_are_the_servers_own(each_version: ProtectedCluster) -> None:
    """Every full WAL file comes back byte for byte, the last one as far as it goes, and none that does not exist."""
    scene = each_version
    scene.server.configure({"wal_keep_size": "1GB"})
    scene.server.restart()
    scene.protect()
    scene.server.execute("CREATE TABLE t AS SELECT g, repeat('x', 1000) FROM generate_series(1, 20000) g")
    scene.sync()
    scene.server.execute("CREATE TABLE u AS SELECT g, repeat('x', 1000) FROM generate_series(1, 20000) g")
    end = scene.sync().last
    assert end is not None
    begin = scene.vault.points(scene.protected.source.id)[0].position
    assert begin is not None
    first = f"{1:08X}{0:08X}{begin.place // SEGMENT:08X}"
    files = list(serve_log(scene.protected, first, None))
    assert len(files) == end.place // SEGMENT - begin.place // SEGMENT + 1 > 3
    for file in files[:-1]:
        assert file.whole
        assert bytes(file.content) == (scene.server.data / "pg_wal" / file.name).read_bytes(), file.name
    last, known = files[-1], end.place - segment_start(end.place, SEGMENT)
    assert (last.whole, len(last.content)) == (False, SEGMENT)
    assert bytes(last.content[:known]) == (scene.server.data / "pg_wal" / last.name).read_bytes()[:known]
    assert not any(last.content[known:])
    for absent in ("00000002.history", "00000002" + first[8:], f"{1:08X}{0:08X}{end.place // SEGMENT + 1:08X}", "x"):
        with pytest.raises(NotFound) as refusal:
            next(serve_log(scene.protected, absent, None))
        assert refusal.value.code == "wal-not-found"


def test_a_hole_is_never_taken_for_the_end(scene: ProtectedCluster) -> None:
    """Log that is damaged, or that no longer leads to where recovery is to end, is an error and not an absent file."""
    scene.protect()
    scene.server.execute("CREATE TABLE t AS SELECT g, repeat('x', 1000) FROM generate_series(1, 20000) g")
    end = scene.sync().last
    assert end is not None
    name = f"{1:08X}{0:08X}{end.place // SEGMENT:08X}"
    logs = scene.vault.logs[scene.protected.source.id]
    segment, blocks = logs[-1]
    logs[-1] = (segment, blocks[:-1])
    with pytest.raises(Damaged):
        next(serve_log(scene.protected, name, end))
    logs[-1] = (segment, blocks)
    with pytest.raises(Refused, match="does not lead to position"):
        next(serve_log(scene.protected, name, Position(end.generation, end.place + 8)))
    del logs[-2]
    with pytest.raises(Refused, match="does not lead to position"):
        next(serve_log(scene.protected, name, end))


def test_a_server_fetches_its_log_and_stops_where_it_should(shop: Shop) -> None:
    """With the log left in the pool, and most of it fetched ahead, exactly the wanted moment comes back."""
    shop.give_pool_to_server()
    directory, report = shop.recover(shop.at(shop.middle), fetch_wal=shop.fetch_command())
    assert report.verification is not None
    assert report.verification.passed
    assert len(list((directory / "pg_wal").glob("0*"))) == 1
    with shop.started(directory) as server:
        server.wait_until_primary()
        assert count(server) == 20500
        assert not (directory / "pg_wal" / "perdure-spool").exists()


def test_a_server_that_cannot_fetch_does_not_take_writes(shop: Shop) -> None:
    """When the pool cannot be read, the server stops and says why; it never ends its recovery with less log."""
    shop.give_pool_to_server()
    directory, _ = shop.recover(fetch_wal=shop.fetch_command(pool=shop.room / "gone"), port=str(free_port()))
    with pytest.raises(Exception, match="exit code 200") as failure:
        start_server(directory, str(shop.server.bin))
    assert getattr(failure.value, "code", "") == "server-not-started"
    assert "there is no storage pool" in (directory / "perdure-start.log").read_text(encoding="utf-8")
    assert not list((directory / "pg_wal").glob("00000002*")), "it began a timeline of its own"
    shutil.rmtree(directory)


@pytest.mark.parametrize(
    "case",
    [
        (("00000001000000000000FFFF", "{target}"), 1, ""),
        (("000000010000000000000001", "{target}"), 1, ""),
        (("00000001000000000000FFFF", "{target}", "--absent-status", "44"), 44, ""),
        (("00000009.history", "{target}"), 1, ""),
        (("000000010000000000000001",), 200, "requires an argument"),
        (("000000010000000000000002", "{target}", "--upto", "nonsense"), 200, "not a log position"),
        (("000000010000000000000002", "{target}", "--upto", "7:1"), 200, "does not lead to position"),
        (("000000010000000000000002", "{target}", "--ahead", "-1"), 200, "no number of files"),
        (("000000010000000000000003", "/nowhere/at/all", "--ahead", "0"), 200, "No such file"),
    ],
)
def test_statuses_are_those_that_postgresql_understands(
    shop: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str], case: tuple[tuple[str, ...], int, str]
) -> None:
    """Only a file that the log really does not have gives 1; every error gives a status at which a server stops."""
    arguments, status, said = case
    target = tmp_path / "fetched"
    words = ["wal-fetch", "main", *(each.format(target=target) for each in arguments)]
    words += ["--pool", str(shop.room / "pool"), "--passphrase-file", str(shop.key)]
    assert run([*words, "--spool", str(tmp_path / "spool")]) == status
    assert said in capsys.readouterr().err
    assert not target.exists()


@pytest.mark.slow
def test_a_standby_follows_the_pool_and_then_its_primary(shop: Shop) -> None:
    """A standby made from the pool replays what is shipped; with a primary it streams; promoted, it leads."""
    shop.give_pool_to_server()
    directory, report = shop.recover(fetch_wal=shop.fetch_command(), standby="yes")
    assert any("standby" in note for note in report.notes)
    with shop.started(directory) as standby:
        until_it_has(standby, 21000)
        shop.server.execute("CREATE TABLE IF NOT EXISTS sign()")
        more(shop, 100)
        synchronize(shop.protected)
        shop.give_pool_to_server()
        until_it_has(standby, 21100)
        assert standby.execute("SELECT pg_is_in_recovery(), count(*) FROM pg_stat_wal_receiver") == [(True, 0)]
        primary = shop.server.conninfo.replace("'", "''")
        standby.execute(f"ALTER SYSTEM SET primary_conninfo = '{primary}'", "SELECT pg_reload_conf()")
        more(shop, 100)
        until_it_has(standby, 21200)
        standby.execute("SELECT pg_promote()")
        standby.wait_until_primary()
        more(shop, -200)


def more(shop: Shop, change: int) -> None:
    """Add orders, or take the newest away."""
    with shop.server.connect(f"{shop.server.conninfo} dbname=shop") as connection:
        if change > 0:
            connection.execute(f"INSERT INTO orders (amount) SELECT g FROM generate_series(1, {change}) g")
        else:
            connection.execute(
                f"DELETE FROM orders WHERE id IN (SELECT id FROM orders ORDER BY id DESC LIMIT {-change})"
            )


def until_it_has(server: PostgresServer, orders: int) -> None:
    """Wait until so many orders are replayed."""
    deadline = time.monotonic() + 60
    while count(server) != orders:
        assert time.monotonic() < deadline, server.log.read_text(errors="replace")[-3000:]
        time.sleep(0.05)
