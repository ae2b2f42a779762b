"""A full disk: told plainly, nothing damaged, and the next run goes on when there is room."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from perdure.testing.command_line import CommandLine, query, wait_until_said, write
from perdure.testing.small_disk import MAY_MOUNT, filled, small_disk

pytestmark = pytest.mark.skipif(not MAY_MOUNT, reason="needs root and mount to make a small file system")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MiB."""
    with contextlib.ExitStack() as held:
        try:
            place = held.enter_context(small_disk(tmp_path / "small", 6))
        except OSError as error:
            pytest.skip(str(error))
        yield place


@pytest.fixture
def perdure(tmp_path: Path) -> CommandLine:
    """The command line with a home and a passphrase of its own."""
    passphrase = tmp_path / "passphrase"
    passphrase.write_text("full of it\n")
    passphrase.chmod(0o600)
    return CommandLine(tmp_path / "home", passphrase)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A database with 2 MiB of incompressible rows."""
    path = tmp_path / "app.db"
    write(path, "PRAGMA journal_mode=WAL", "CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)", *grow(2))
    return path


def grow(mebibytes: int) -> tuple[str, ...]:
    """Statements that add incompressible rows."""
    return tuple(
        "INSERT INTO t(v) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 256) "
        "SELECT randomblob(4000) FROM n"
        for _ in range(mebibytes)
    )


def test_a_pool_that_fills_up_during_the_first_replica(small: Path, perdure: CommandLine, database: Path) -> None:
    """Protect says that the pool is full and leaves no point; with room again the same command succeeds."""
    pool = small / "pool"
    perdure.document("pool", "create", pool)
    protect = ("protect", f"sqlite:{database}", "--pool", pool, "--as", "app")
    with filled(small):
        refusal = perdure.refusal(*protect, status=6)

    assert refusal.code == "pool-full"
    assert "room" in refusal.hint or "space" in refusal.hint

    perdure.document(*protect)
    perdure.document("verify", pool, "--data")


def test_a_pool_that_fills_up_later_keeps_what_was_acknowledged(
    small: Path, perdure: CommandLine, database: Path, tmp_path: Path
) -> None:
    """Sync and express full fail plainly; earlier points recover; afterwards everything is taken in."""
    pool = small / "pool"
    perdure.document("pool", "create", pool)
    perdure.document("protect", f"sqlite:{database}", "--pool", pool, "--as", "app")
    before = perdure.document("points", "app")
    write(database, *grow(1))
    with filled(small):
        for verb in ("sync", "express-full"):
            assert perdure.refusal(verb, "app", status=6).code == "pool-full"
        assert perdure.document("points", "app") == before
        perdure.document("recover", "app", "--to", "1", "--target", tmp_path / "first.db")

    perdure.document("express-full", "app")
    perdure.document("recover", "app", "--to", "latest", "--target", tmp_path / "now.db")
    perdure.document("verify", pool, "--data")
    assert query(tmp_path / "first.db", "SELECT count(*) FROM t") == [[2 * 256]]
    assert query(tmp_path / "now.db", "SELECT count(*) FROM t") == [[3 * 256]]


def test_watch_holds_the_log_while_the_pool_is_full(
    small: Path, perdure: CommandLine, database: Path, tmp_path: Path
) -> None:
    """Watch goes on through a full pool and ships everything once there is room."""
    pool = small / "pool"
    perdure.document("pool", "create", pool)
    events = tmp_path / "events"
    with events.open("wb") as output:
        watch = subprocess.Popen(
            perdure.command("protect", f"sqlite:{database}", "--pool", pool, "--as", "app", "--watch", "--json"),
            env=perdure.environment(),
            stdout=output,
        )
    try:
        wait_until_said(events, '"express full"')
        with filled(small):
            write(database, *grow(1))
            wait_until_said(events, "held and shipped when the pool can be used")
        shipped = events.read_text().count('"kind":"log"')
        wait_until_said(events, '"kind":"log"', more_than=shipped)
    finally:
        watch.terminate()
        assert watch.wait(60) == 0
    perdure.document("recover", "app", "--to", "latest", "--target", tmp_path / "now.db")
    assert query(tmp_path / "now.db", "SELECT count(*) FROM t") == [[3 * 256]]


def test_a_second_copy_that_fills_up_is_completed_when_there_is_room(
    small: Path, perdure: CommandLine, database: Path, tmp_path: Path
) -> None:
    """Copy says that the copy's pool is full and leaves no point; with room again the same command completes it."""
    pool, second = tmp_path / "pool", small / "second"
    perdure.document("pool", "create", pool)
    perdure.document("pool", "create", second)
    perdure.document("protect", f"sqlite:{database}", "--pool", pool, "--as", "app")
    with filled(small):
        assert perdure.refusal("copy", pool, second, status=6).code == "pool-full"

    assert perdure.document("copy", pool, second)["sources"][0]["copied"] == [1]
    perdure.document("verify", second, "--data")
    perdure.document("recover", "app", "--to", "latest", "--target", tmp_path / "now.db", "--pool", second)
    assert query(tmp_path / "now.db", "SELECT count(*) FROM t") == [[2 * 256]]


def test_a_full_target_leaves_no_half_file(small: Path, perdure: CommandLine, database: Path, tmp_path: Path) -> None:
    """A recovery that does not fit says so and removes what it wrote; a folder likewise."""
    pool = tmp_path / "pool"
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "big").write_bytes(os.urandom(3 << 20))
    perdure.document("pool", "create", pool)
    perdure.document("protect", f"sqlite:{database}", "--pool", pool, "--as", "app")
    perdure.document("protect", f"files:{folder}", "--pool", pool, "--as", "folder")
    with filled(small):
        for name in ("app", "folder"):
            refusal = perdure.refusal("recover", name, "--to", "latest", "--target", small / "out", status=8)
            assert refusal.code == "target-full"
            assert sorted(path.name for path in small.iterdir()) == ["ballast"]

    perdure.document("recover", "app", "--to", "latest", "--target", small / "out")
    assert query(small / "out", "SELECT count(*) FROM t") == [[2 * 256]]
