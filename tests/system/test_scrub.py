"""Scrubbing and healing as an administrator does it, with the installed program."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from perdure.testing.command_line import CommandLine, query, write

HELD_OPEN = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("SELECT count(*) FROM notes").fetchall()
sys.stdin.read()
"""
"""An application that keeps its connection while everything else happens."""


class Scene:
    """A database that is in use and a folder, protected in one pool."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.pool, self.database, self.share = (place / name for name in ("pool", "app.db", "share"))
        passphrase = place / "passphrase"
        passphrase.write_text("open sesame\n")
        passphrase.chmod(0o600)
        self.perdure = CommandLine(place / "home", passphrase)
        self.perdure.document("pool", "create", self.pool)
        write(
            self.database,
            "PRAGMA journal_mode=WAL",
            "CREATE TABLE notes (text, noise)",
            "INSERT INTO notes VALUES ('first', randomblob(300000))",
        )
        self.share.mkdir()
        (self.share / "small").write_bytes(os.urandom(3000))
        (self.share / "large").write_bytes(os.urandom(900_000))

    def protect(self) -> None:
        self.perdure.document("protect", f"sqlite:{self.database}", "--pool", self.pool)
        self.perdure.document("protect", f"files:{self.share}", "--pool", self.pool)

    def packs(self) -> list[Path]:
        """The packs that begin with data of the database, or of the large file, in the order of their making."""
        found = (path for path in (self.pool / "packs").rglob("*") if path.is_file() and path.stat().st_size > 250_000)
        return sorted(found, key=lambda path: path.stat().st_mtime_ns)

    def flip(self, path: Path, place: int) -> None:
        data = bytearray(path.read_bytes())
        data[place] ^= 8
        path.write_bytes(data)

    def recovered(self, name: str) -> Path:
        target = self.place / f"recovered-{name}-{len(list(self.place.iterdir()))}"
        self.perdure.document("recover", name, "--to", "#1", "--target", target)
        return target


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    application = subprocess.Popen([sys.executable, "-c", HELD_OPEN, str(scene.database)], stdin=subprocess.PIPE)
    try:
        scene.protect()
        yield scene
    finally:
        application.communicate()


@pytest.mark.slow
def test_damage_is_known_everywhere_and_heals_from_the_live_sources(scene: Scene) -> None:
    """Status and points show what a scrub found, and the live sources give back what is damaged."""
    perdure, pool = scene.perdure, scene.pool
    for pack in scene.packs():
        scene.flip(pack, 200)

    found = perdure.document("verify", pool, "--data", status=7)

    assert {label for each in found["damage"] for label in each["points_affected"]} == {"app #1", "share #1"}
    said = perdure.run("status").stdout
    assert "app: DAMAGED: 1 recovery point (#1); see: perdure points app" in said
    assert [each["damage"]["points"] for each in perdure.document("status")["sources"]] != [{}, {}]
    assert "DAMAGED #1: packs/" in perdure.run("points", "share").stdout
    plan = perdure.document("prune", "--plan")["sources"]
    assert all(not each["dropped"] for each in plan)

    healed = perdure.document("verify", pool, "--data", "--heal")

    assert healed["sound"] is True
    assert {each["kind"] for each in healed["healed"]} == {"pack"}
    assert {"live source app" in each["how"] or "live source share" in each["how"] for each in healed["healed"]} == {
        True
    }
    assert perdure.document("verify", pool, "--data")["sound"] is True
    assert "DAMAGED" not in perdure.run("status").stdout + perdure.run("points", "app").stdout
    assert query(scene.recovered("app"), "SELECT text, length(noise) FROM notes") == [["first", 300_000]]
    for name in ("small", "large"):
        assert (scene.recovered("share") / name).read_bytes() == (scene.share / name).read_bytes()
    perdure.document("gc", pool, "--grace", "0s")
    assert perdure.document("verify", pool, "--data")["sound"] is True


def test_what_the_live_source_no_longer_has_stays_damaged(scene: Scene) -> None:
    """Content that has changed since is not taken, the point stays named, and others are not touched."""
    perdure, pool = scene.perdure, scene.pool
    (scene.share / "large").write_bytes(os.urandom(900_000))
    scene.flip(scene.packs()[-1], 200)

    left = perdure.document("verify", pool, "--data", "--heal", status=7)

    assert {label for each in left["damage"] for label in each["points_affected"]} == {"share #1"}
    text = perdure.run("verify", pool, "--heal").stdout
    assert "NOT HEALED: 1 place." in text
    assert "affects share #1" in text
    assert query(scene.recovered("app"), "SELECT text FROM notes") == [["first"]]
    # The next point stores what the pool cannot be relied on to have.
    perdure.document("sync", "share")
    target = scene.place / "again"
    perdure.document("recover", "share", "--to", "#2", "--target", target)
    assert (target / "large").read_bytes() == (scene.share / "large").read_bytes()


@pytest.mark.slow
def test_nightly_runs_cover_the_pool_in_turn(scene: Scene) -> None:
    """A run with a time limit reads at least something, says how far it is, and the next one goes on."""
    perdure, pool = scene.perdure, scene.pool

    first = perdure.document("verify", pool, "--data", "--max-duration", "1ms")

    assert first["sound"] is True
    assert 1 <= first["read"] < first["to_read"]
    assert first["oldest"] is None
    for _ in range(first["to_read"]):
        last = perdure.document("verify", pool, "--data", "--max-duration", "1ms")
    assert last["oldest"] is not None
    assert "the oldest was last read on" in perdure.run("verify", pool, "--data", "--max-duration", "1ms").stdout
    assert "Read whole: " in perdure.run("verify", pool, "--data").stdout


def test_options_that_make_no_sense_are_refused(scene: Scene) -> None:
    """A limit without --data, and another pool without --heal or the pool itself, are refused."""
    for arguments in (["--max-duration", "1h"], ["--from", scene.pool], ["--heal", "--from", scene.pool]):
        result = scene.perdure.run("verify", scene.pool, *arguments, "--json")
        assert result.returncode == 2, result.stdout
        assert json.loads(result.stdout)["error"]["code"] == "bad-usage"
