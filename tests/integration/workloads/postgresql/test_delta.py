"""Recovery onto a data directory that is there: only what differs is written, and the result is the same."""

from __future__ import annotations

import os
import shutil
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from protected_cluster import ProtectedCluster
from shop import Shop, count

from perdure.model.errors import Damaged, PerdureError
from perdure.protection.recovery import recover
from perdure.repository.pool import Pool
from perdure.testing.postgres_server import PostgresServer, free_port, owner

CONTROL = Path("global/pg_control")
TABLESPACE_ROWS = "SELECT count(*) FROM there"


def content(directory: Path) -> dict[str, bytes]:
    """Every file but those that a recovery keeps aside and the list of times."""
    files = (path for path in directory.rglob("*") if path.is_file() and "before-recovery" not in str(path))
    return {str(path.relative_to(directory)): path.read_bytes() for path in files if path.name != "backup_manifest"}


def used(shop: Shop, directory: Path) -> None:
    """A recovered server is worked with and stopped, and then its files are spoilt in every way."""
    with PostgresServer(18, directory, free_port()) as server:
        server.start().wait_until_primary()
        with server.connect(f"{server.conninfo} dbname=shop") as connection:
            connection.execute("DELETE FROM orders WHERE id % 50 = 0")
            connection.execute("CREATE TABLE later AS SELECT generate_series(1, 1000) AS n")
            connection.execute("DROP TABLE customer CASCADE")
            orders = connection.execute("SELECT pg_relation_filepath('orders')").fetchall()[0][0]
        server.stop()
    table = directory / str(orders)
    with table.open("r+b") as file:
        file.seek(3 * 8192 + 100)
        file.write(b"spoilt")
        file.truncate(table.stat().st_size - 8192)
    (directory / "PG_VERSION").chmod(0o644)
    (directory / "base" / "stray").write_bytes(b"x")
    (directory / "strays").mkdir()
    (directory / "strays" / "stray").symlink_to("/etc/hostname")
    shutil.rmtree(directory / "pg_multixact")


def test_a_used_directory_becomes_what_a_new_one_would_be(shop: Shop) -> None:
    """After damage, deletion and additions every file is that of a fresh recovery; little was written, WAL is kept."""
    directory, _ = shop.recover(shop.at(shop.end))
    used(shop, directory)
    fresh, full = shop.recover(shop.at(shop.middle))
    _, report = shop.recover(shop.at(shop.middle), target=directory, delta="yes")
    assert report.verification is not None
    assert (report.verification.passed, report.verification.means) == (True, "pg_verifybackup")
    assert content(directory) == content(fresh)
    modes = [{str(path.relative_to(top)): path.stat().st_mode for path in top.rglob("*")} for top in (directory, fresh)]
    assert {name: mode for name, mode in modes[0].items() if name in modes[1]} == modes[1]
    written = int(report.notes[0].split()[0].replace(",", ""))
    assert 8192 <= written < full.bytes // 4, report.notes
    kept = list((directory / "pg_wal").glob("before-recovery-*/0*"))
    assert kept
    with shop.started(directory) as server:
        server.wait_until_primary()
        assert count(server) == 20500
    shutil.rmtree(fresh)


def test_nothing_but_the_same_stopped_cluster_is_written_onto(shop: Shop, tmp_path: Path) -> None:
    """A running server, another cluster, and what is no data directory are refused and stay as they are."""
    other = tmp_path / "other"
    (other / "global").mkdir(parents=True)
    (other / CONTROL).write_bytes(struct.pack("<Q", 7) + bytes(100))
    for target, code in (
        (shop.server.data, "target-in-use"),
        (other, "another-cluster"),
        (tmp_path, "not-a-data-directory"),
        (tmp_path / "none", "target-missing"),
    ):
        with pytest.raises(PerdureError) as refusal:
            shop.recover(target=target, delta="yes")
        assert refusal.value.code == code
    assert [path.name for path in other.rglob("*")] == ["global", "pg_control"]
    assert count(shop.server) > 0


class _Broken:
    """A pool of which chunks cannot be read."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def for_each_chunk(self, *_: object, **__: object) -> None:
        raise Damaged("a chunk cannot be read", code="damaged-chunk")


def test_a_recovery_that_breaks_off_leaves_nothing_that_starts(shop: Shop) -> None:
    """A directory that is half one state and half the other has no control file; recovering again makes it whole."""
    directory, _ = shop.recover(shop.at(shop.end))
    broken = replace(shop.protected, vault=_Broken(shop.pool))
    with pytest.raises(Damaged, match="recover onto it again"):
        recover(broken, to=shop.at(shop.middle), target=directory, options={"delta": "yes"})
    assert not (directory / CONTROL).exists()
    _, report = shop.recover(shop.at(shop.middle), target=directory, delta="yes")
    assert report.verification is not None
    assert report.verification.passed
    shutil.rmtree(directory)


def test_a_cluster_is_put_back_to_where_it_was(each_version: ProtectedCluster) -> None:
    """Onto the origin's own directory its tablespace is written where it is, once a person has confirmed that."""
    scene = each_version
    space = scene.root / "space"
    scene.server.run(["mkdir", str(space)])
    scene.server.execute(
        f"CREATE TABLESPACE apart LOCATION '{space}'",
        "CREATE TABLE there TABLESPACE apart AS SELECT g AS id FROM generate_series(1, 5000) g",
        f"CREATE TABLESPACE unused LOCATION '{make(scene, 'unused')}'",
    )
    # Images of either way.
    scene.protect({"images": ["remote" if scene.server.major == 15 else "local"]})
    scene.server.execute("INSERT INTO there SELECT generate_series(5001, 6000)")
    good = scene.sync().last
    assert good is not None
    scene.server.execute("DELETE FROM there WHERE id > 10", "VACUUM FULL there", "DROP TABLESPACE unused")
    scene.server.stop()
    directory = scene.server.data
    with pytest.raises(PerdureError) as refusal:
        recover(scene.protected, to=scene.at(good.place), target=directory, options={"delta": "yes"})
    assert (refusal.value.code, (directory / CONTROL).exists()) == ("confirmation-needed", True)
    report = recover(scene.protected, to=scene.at(good.place), target=directory, yes=True, options={"delta": "yes"})
    assert report.verification is not None
    assert report.verification.passed
    link = next(path for path in (directory / "pg_tblspc").iterdir() if path.resolve() == space)
    assert any(note.startswith("tablespace unused") for note in report.notes)
    with scene.server.start() as server:
        server.wait_until_primary()
        assert server.execute(TABLESPACE_ROWS) == [(6000,)]
        assert any(link.resolve().rglob("PG_*/*/*"))


def make(scene: ProtectedCluster, name: str) -> Path:
    path = scene.root / name
    scene.server.run(["mkdir", str(path)])
    return path


def test_a_failed_verification_leaves_nothing_behind(
    scene: ProtectedCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When pg_verifybackup finds fault, neither the directory nor that of its tablespaces stays."""
    scene.server.execute(f"CREATE TABLESPACE apart LOCATION '{make(scene, 'space')}'")
    scene.protect()
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "postgres").symlink_to(scene.server.bin / "postgres")
    (programs / "pg_verifybackup").write_text("#!/bin/sh\necho it is not as it should be; exit 1\n", encoding="ascii")
    (programs / "pg_verifybackup").chmod(0o755)
    monkeypatch.setenv("PERDURE_PG_BIN", str(programs))
    with pytest.raises(Damaged, match="it is not as it should be"):
        scene.recover()
    assert not [path.name for path in scene.root.iterdir() if path.name.startswith("recovered")]
    monkeypatch.delenv("PERDURE_PG_BIN")
    directory, report = scene.recover()
    assert report.verification is not None
    assert report.verification.passed
    if os.geteuid() == 0:
        assert directory.with_name(f"{directory.name}.tablespaces").stat().st_uid == owner()["user"]
