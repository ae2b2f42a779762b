"""The SQLite workload apart from sessions: discovering, preparing, targets, checks and items."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from perdure.model.errors import NotFound, Refused, SourceUnusable
from perdure.testing.sqlite_writer import SqliteWriter
from perdure.workloads.contract import ImageWorkload
from perdure.workloads.sqlite import SqliteWorkload, clear_companions


def make(path: Path, mode: str) -> Path:
    connection = apsw.Connection(str(path))
    connection.pragma("journal_mode", mode)
    connection.execute(
        'CREATE TABLE "a ""b"(id INTEGER PRIMARY KEY, v TEXT); INSERT INTO "a ""b" VALUES (1, \'x\'), (2, \'y\')'
    )
    connection.execute('CREATE VIEW w AS SELECT v FROM "a ""b"')
    connection.close()
    return path


def test_implements_the_contract() -> None:
    """The class satisfies the protocol."""
    workload: ImageWorkload = SqliteWorkload()
    assert workload.kind == "sqlite"


def test_discover(tmp_path: Path) -> None:
    """A database in WAL mode is described, and nothing is made beside it."""
    path = make(tmp_path / "app.db", "wal")
    info = SqliteWorkload().discover(str(path))
    assert info.location == str(path)
    assert info.default_name == "app"
    assert "4096-byte pages" in info.description
    assert [file.name for file in tmp_path.iterdir()] == ["app.db"]


@pytest.mark.parametrize(
    ("content", "code"), [(b"", "empty-file"), (b"not a database" * 100, "not-a-database"), (None, "source-missing")]
)
def test_discover_bad_files(tmp_path: Path, content: bytes | None, code: str) -> None:
    """Each kind of wrong file has a code of its own."""
    path = tmp_path / "x"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SourceUnusable) as refusal:
        SqliteWorkload().discover(str(path))
    assert refusal.value.code == code


def test_discover_directory(tmp_path: Path) -> None:
    """A directory is named as one."""
    with pytest.raises(SourceUnusable, match="is a directory"):
        SqliteWorkload().discover(str(tmp_path))


def test_prepare_switches_to_wal(tmp_path: Path) -> None:
    """A database in rollback mode is refused with the way out, and prepare takes it."""
    path = make(tmp_path / "app.db", "delete")
    with pytest.raises(SourceUnusable) as refusal:
        SqliteWorkload().discover(str(path))
    assert refusal.value.code == "not-wal"
    assert "--prepare" in refusal.value.hint
    assert "was switched" in SqliteWorkload().prepare(str(path))
    SqliteWorkload().discover(str(path))
    assert "already" in SqliteWorkload().prepare(str(path))


def test_target_with_companions_is_refused(tmp_path: Path) -> None:
    """A stray -wal beside the target would be replayed into the recovered database."""
    target = tmp_path / "out.db"
    assert SqliteWorkload().target_paths(["database"], target) == {"database": target}
    (tmp_path / "out.db-wal").touch()
    with pytest.raises(Refused):
        SqliteWorkload().target_paths(["database"], target)
    clear_companions(target)
    SqliteWorkload().target_paths(["database"], target)


def test_verify_and_items(tmp_path: Path) -> None:
    """A sound database passes, its tables and columns are listed; a damaged one fails with details."""
    path = make(tmp_path / "app.db", "wal")
    workload = SqliteWorkload()
    assert workload.verify({"database": path}, True).passed
    assert [(item.name, item.kind, item.size) for item in workload.items({"database": path}, "")] == [
        ('a "b', "table", 2),
        ("w", "view", 0),
    ]
    assert [item.name for item in workload.items({"database": path}, 'a "b')] == ["id", "v"]
    with pytest.raises(NotFound):
        workload.items({"database": path}, "nothing")
    data = bytearray(path.read_bytes())
    data[4096:4200] = b"\xff" * 104
    path.write_bytes(data)
    damaged = workload.verify({"database": path}, False)
    assert not damaged.passed
    assert damaged.details
    path.write_bytes(data[:-512])
    assert not workload.verify({"database": path}, True).passed


def test_in_place_is_refused_while_in_use(tmp_path: Path) -> None:
    """A database that a process has open is not replaced, and the process is named; afterwards it may be."""
    path = tmp_path / "app.db"
    with SqliteWriter(path, "journal_mode=WAL") as writer:
        writer.run("CREATE TABLE t(v)")
        with pytest.raises(Refused, match=r"process [0-9]+ has it open"):
            SqliteWorkload().in_place_target(str(path))
    assert SqliteWorkload().in_place_target(str(path)) == path
