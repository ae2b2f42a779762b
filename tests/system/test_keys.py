"""Keys of a pool that is in use, by the installed program; and who may read what perdure writes."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from perdure.testing.command_line import CommandLine, query, write

# The most careless environment: nothing is taken away from the mode that a file is made with.
CARELESS = ("sh", "-c", 'umask 0; exec "$@"', "sh")


@pytest.fixture
def perdure(tmp_path: Path) -> CommandLine:
    passphrase = tmp_path / "passphrase"
    passphrase.write_text("open sesame\n")
    passphrase.chmod(0o600)
    return CommandLine(tmp_path / "state" / "perdure" / "home", passphrase, CARELESS)


@pytest.mark.slow
def test_a_protected_database_goes_through_a_rotation(perdure: CommandLine, tmp_path: Path) -> None:
    """Points from before and after a rotation recover, by a key file alone; nobody but the owner may read anything."""
    pool, database, key_file = tmp_path / "pool", tmp_path / "app.db", tmp_path / "pool.key"
    write(database, "PRAGMA journal_mode=WAL", "CREATE TABLE notes (text)", "INSERT INTO notes VALUES ('one')")
    perdure.document("pool", "create", pool)
    perdure.document("protect", f"sqlite:{database}", "--pool", pool)
    perdure.document("key", "add-file", pool, key_file)
    refusal = perdure.refusal("key", "rotate", pool, status=4)
    assert refusal.code == "confirmation-needed"
    perdure.document("key", "rotate", pool, "--keep", key_file)
    write(database, "INSERT INTO notes VALUES ('two')")
    point = perdure.document("express-full", "app")["point"]
    perdure.document("key", "passphrase", pool, "--new-passphrase-file", perdure.passphrase)

    by_file = CommandLine(tmp_path / "another home", key_file, CARELESS)
    by_file.document("pool", "open", pool)
    assert by_file.document("verify", pool, "--data")["sound"] is True
    for number, expected in ((1, [["one"]]), (point["number"], [["one"], ["two"]])):
        target = tmp_path / f"recovered {number}.db"
        by_file.document("recover", "app", "--to", f"#{number}", "--target", target)
        assert query(target, "SELECT text FROM notes ORDER BY rowid") == expected

    assert key_file.stat().st_mode & 0o777 == 0o600
    assert open_to_others(pool, tmp_path / "state", by_file.home) == []


def open_to_others(*roots: Path) -> list[str]:
    """Directories and files that others than the owner may use; the index cache counts by its directory."""
    found = []
    for root in roots:
        for path in (root, *root.rglob("*")):
            mode = path.stat().st_mode
            if mode & 0o077 and (stat.S_ISDIR(mode) or path.parent.name != "index"):
                found.append(f"{path}: {stat.filemode(mode)}")
    return found
