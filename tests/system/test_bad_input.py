"""Bad input at the command line: a clear message, a stable code and exit status, and nothing damaged."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from perdure.repository.container import FORMAT_VERSION
from perdure.repository.descriptor import NAMES, Descriptor, write_descriptor
from perdure.storage.local import LocalStorage
from perdure.testing.command_line import CommandLine, Refusal, WithinProcess, fingerprint, query, unprivileged, write


@dataclass(frozen=True, slots=True)
class Scene:
    """A pool that protects the database ``app`` and the folder ``share``."""

    place: Path
    pool: Path
    database: Path
    share: Path
    perdure: CommandLine

    def secret(self, text: str, name: str = "another passphrase") -> Path:
        file = self.place / name
        file.write_text(text)
        file.chmod(0o600)
        return file

    def sources(self) -> str:
        return fingerprint(self.database, self.share)

    def objects(self) -> str:
        return fingerprint(*(path for path in self.pool.iterdir() if path.name != "tmp"))

    def new_database(self, name: str, mode: str = "WAL") -> Path:
        path = self.place / name
        write(path, f"PRAGMA journal_mode={mode}", "CREATE TABLE notes (text)", "INSERT INTO notes VALUES ('first')")
        return path


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    # Not pytest's own directory: that one is closed to the unprivileged user of some tests.
    place = Path(tempfile.mkdtemp(prefix="perdure-bad-input-"))
    place.chmod(0o755)
    passphrase = place / "passphrase"
    passphrase.write_text("open sesame\n")
    passphrase.chmod(0o600)
    perdure = WithinProcess(place / "home", passphrase)
    made = Scene(place, place / "pool", place / "app.db", place / "share", perdure)
    made.new_database("app.db")
    (made.share / "sub").mkdir(parents=True)
    (made.share / "sub" / "a.txt").write_text("one")
    perdure.document("pool", "create", made.pool)
    perdure.document("protect", f"sqlite:{made.database}", "--pool", made.pool)
    perdure.document("protect", f"files:{made.share}", "--pool", made.pool)
    assert perdure.document("verify", made.pool, "--data")["sound"] is True
    yield made
    # A pool that a test left as it was, byte by byte, is as sound as before; the others may add to it.
    assert perdure.document("verify", made.pool, "--data")["sound"] is True
    shutil.rmtree(place)


@pytest.fixture
def unharmed(scene: Scene) -> Iterator[Scene]:
    """The scene, of which neither the pool nor a source may change in any byte."""
    pool, sources = scene.objects(), scene.sources()
    yield scene
    assert scene.sources() == sources
    assert scene.objects() == pool


@pytest.fixture
def nobody(scene: Scene) -> CommandLine:
    """The program run by a user whom file modes bind."""
    prefix = unprivileged()
    if prefix is None:
        pytest.skip("root without a working setpriv cannot become an unprivileged user")
    passphrase = scene.secret("open sesame\n", "passphrase for all")
    passphrase.chmod(0o644)
    home = scene.place / "home of nobody"
    home.mkdir(exist_ok=True)
    home.chmod(0o777)
    return dataclasses.replace(scene.perdure, home=home, passphrase=passphrase, prefix=prefix)


def says(refusal: Refusal, code: str, *parts: object) -> None:
    """The code is the stable one, the message names the thing, and the hint says what to do."""
    text = f"{refusal.message}\n{refusal.hint}"
    assert refusal.code == code, text
    assert refusal.hint, refusal.message
    for part in parts:
        assert str(part) in text


# --- what cannot be protected ------------------------------------------------------------------------


def test_a_missing_file_is_not_protected(unharmed: Scene) -> None:
    """A database that is not there is named, and nothing is registered."""
    missing = unharmed.place / "missing.db"
    refusal = unharmed.perdure.refusal("protect", f"sqlite:{missing}", "--pool", unharmed.pool, status=5)
    says(refusal, "source-missing", missing, "check the path")


@pytest.mark.parametrize(
    ("content", "code", "part"),
    [
        (b"no database, but long enough to hold a header" * 9, "not-a-database", "not a SQLite database"),
        (b"short", "not-a-database", "not a SQLite database"),
        (b"SQLite format 3\0" + b"\xff" * 200, "not-a-database", "not a SQLite database"),
        (b"", "empty-file", "is empty"),
    ],
    ids=["text", "short", "only the magic", "empty"],
)
def test_a_file_that_is_no_database_is_not_protected(unharmed: Scene, content: bytes, code: str, part: str) -> None:
    """A file that SQLite would not open is refused before anything is registered, and left as it is."""
    file = unharmed.place / "odd.db"
    file.write_bytes(content)
    refusal = unharmed.perdure.refusal("protect", f"sqlite:{file}", "--pool", unharmed.pool, status=5)
    says(refusal, code, file, part)
    assert file.read_bytes() == content


def test_a_directory_is_no_database_and_a_file_no_folder(unharmed: Scene) -> None:
    """Each kind of source says which kind fits the other."""
    perdure, pool = unharmed.perdure, unharmed.pool
    directory = perdure.refusal("protect", f"sqlite:{unharmed.share}", "--pool", pool, status=5)
    says(directory, "not-a-file", unharmed.share, "a directory", "files:")
    file = perdure.refusal("protect", f"files:{unharmed.database}", "--pool", pool, status=5)
    says(file, "source-not-a-folder", unharmed.database)
    gone = perdure.refusal("protect", f"files:{unharmed.place}/nowhere", "--pool", pool, status=5)
    says(gone, "source-missing", unharmed.place / "nowhere")


def test_a_database_without_wal_is_switched_only_on_request(scene: Scene) -> None:
    """Protecting offers to switch to WAL mode but changes no byte of the file until ``--prepare`` is given."""
    database = scene.new_database("rollback.db", "DELETE")
    before = database.read_bytes()
    refusal = scene.perdure.refusal("protect", f"sqlite:{database}", "--pool", scene.pool, status=5)
    says(refusal, "not-wal", database, "--prepare")
    assert database.read_bytes() == before
    assert not database.with_name("rollback.db-wal").exists()
    scene.perdure.document("protect", f"sqlite:{database}", "--pool", scene.pool, "--prepare")
    assert query(database, "PRAGMA journal_mode") == [["wal"]]
    assert query(database, "SELECT text FROM notes") == [["first"]]


def test_locations_and_names_that_make_no_sense(unharmed: Scene) -> None:
    """A location without a kind, an unknown kind, a name that is taken and an empty name are told apart."""
    perdure, pool = unharmed.perdure, unharmed.pool
    other = unharmed.new_database("other.db")
    says(perdure.refusal("protect", other, "--pool", pool, status=2), "bad-location", other, "sqlite:")
    unknown = perdure.refusal("protect", f"oracle:{other}", "--pool", pool, status=2)
    says(unknown, "unknown-workload", "oracle", "sqlite")
    taken = perdure.refusal("protect", f"sqlite:{other}", "--pool", pool, "--as", "share", status=4)
    says(taken, "name-taken", "share", "--as")
    twice = perdure.refusal("protect", f"sqlite:{unharmed.database}", "--pool", pool, "--as", "again", status=4)
    says(twice, "already-protected", "'app'", unharmed.database)
    for name in ("", "two\nlines", "x" * 300):
        odd = perdure.refusal("protect", f"sqlite:{other}", "--pool", pool, "--as", name, status=2)
        says(odd, "bad-name", "--as")
    says(perdure.refusal("protect", f"sqlite:{other}", status=2), "bad-usage", "--pool", "--help")


def test_a_folder_that_holds_the_pool_is_not_protected_whole(unharmed: Scene) -> None:
    """A pool is never copied into itself, which would double it with every point."""
    for folder in (unharmed.pool, unharmed.place):
        refusal = unharmed.perdure.refusal("protect", f"files:{folder}", "--pool", unharmed.pool, status=4)
        says(refusal, "pool-inside-source", folder, "--pool")


def test_a_source_without_permission_is_named(unharmed: Scene, nobody: CommandLine) -> None:
    """A database or folder that this user may not read is refused, with whom to run as."""
    pool = unharmed.place / "pool of nobody"
    pool.mkdir()
    pool.chmod(0o777)
    nobody.document("pool", "create", pool)
    database = unharmed.new_database("closed.db")
    database.chmod(0o000)
    folder = unharmed.place / "closed"
    folder.mkdir()
    folder.chmod(0o000)
    try:
        closed = nobody.refusal("protect", f"sqlite:{database}", "--pool", pool, status=5)
        says(closed, "no-permission", database, "user")
        folder_closed = nobody.refusal("protect", f"files:{folder}", "--pool", pool, status=5)
        says(folder_closed, "source-unreadable", folder, "user")
        assert nobody.document("verify", pool, "--data")["sound"] is True
    finally:
        database.chmod(0o600)
        folder.chmod(0o700)


# --- passphrases -------------------------------------------------------------------------------------


def test_a_wrong_passphrase_opens_nothing(unharmed: Scene) -> None:
    """A wrong passphrase or recovery key is called that, for every command that opens the pool."""
    wrong = unharmed.secret("open barley\n")
    perdure, pool = unharmed.perdure, unharmed.pool
    for command in (("pool", "info", pool), ("verify", pool), ("sync", "app"), ("points", "app"), ("browse", "app")):
        says(perdure.refusal(*command, "--passphrase-file", wrong, status=6), "wrong-passphrase", "passphrase")
    key = unharmed.secret("PERDURE1-AAAAA-BBBBB\n", "key")
    says(perdure.refusal("pool", "info", pool, "--passphrase-file", key, status=2), "bad-recovery-key", "recovery key")


def test_a_passphrase_that_cannot_be_had(unharmed: Scene) -> None:
    """Without a terminal a missing, empty or unreadable passphrase is an error that says how to give one."""
    perdure, pool = dataclasses.replace(unharmed.perdure, passphrase=None), unharmed.pool
    says(perdure.refusal("pool", "info", pool, status=2), "passphrase-needed", pool, "--passphrase-file")
    empty, blank = unharmed.secret("", "empty"), unharmed.secret("\nsecond line\n", "blank")
    for file in (empty, blank):
        refusal = perdure.refusal("pool", "info", pool, "--passphrase-file", file, status=2)
        says(refusal, "passphrase-empty", file)
        new = perdure.refusal("pool", "create", unharmed.place / "new pool", "--passphrase-file", file, status=2)
        says(new, "passphrase-empty", file)
    missing = perdure.refusal("pool", "info", pool, "--passphrase-file", unharmed.place / "none", status=2)
    says(missing, "passphrase-file-unreadable", unharmed.place / "none")
    directory = perdure.refusal("pool", "info", pool, "--passphrase-file", unharmed.share, status=2)
    says(directory, "passphrase-file-unreadable", unharmed.share)
    assert not (unharmed.place / "new pool").exists()


# --- the pool ----------------------------------------------------------------------------------------


def test_a_pool_that_is_not_there(unharmed: Scene) -> None:
    """A missing directory, another directory, a file and a URL are each refused as what they are."""
    perdure = unharmed.perdure
    for place in (unharmed.place / "no pool", unharmed.share, unharmed.database):
        for command in (("pool", "info", place), ("pool", "open", place), ("verify", place)):
            says(perdure.refusal(*command, status=3), "pool-missing", place, "perdure pool create")
        refusal = perdure.refusal("protect", f"files:{unharmed.share}", "--pool", place, "--as", "x", status=3)
        says(refusal, "pool-missing", place)
    says(perdure.refusal("pool", "create", "ftp://host/pool", status=2), "unsupported-storage", "ftp", "s3://")
    says(perdure.refusal("pool", "create", "", status=2), "bad-input", "directory")


def test_a_pool_is_made_only_in_an_empty_place(unharmed: Scene) -> None:
    """A pool is never made over a pool, in a directory in use, or in place of a file."""
    perdure = unharmed.perdure
    says(perdure.refusal("pool", "create", unharmed.pool, status=4), "pool-exists", unharmed.pool, "pool open")
    says(perdure.refusal("pool", "create", unharmed.share, status=4), "pool-exists", unharmed.share)
    for place in (unharmed.database, unharmed.database / "below"):
        says(perdure.refusal("pool", "create", place, status=6), "storage-failed", place)


def test_a_pool_that_moved_away_is_found_by_open(unharmed: Scene, tmp_path: Path) -> None:
    """A pool that is gone is named, nothing is written in its place, and ``pool open`` continues at the new one."""
    moved = tmp_path / "moved"
    unharmed.pool.rename(moved)
    try:
        for command in (
            ("sync", "app"),
            ("points", "app"),
            ("recover", "app", "--to", "1", "--target", tmp_path / "t"),
        ):
            says(unharmed.perdure.refusal(*command, status=3), "pool-missing", unharmed.pool)
        assert unharmed.perdure.document("status")["sources"][0]["problem"]
        assert not unharmed.pool.exists()
        unharmed.perdure.document("pool", "open", moved)
        unharmed.perdure.document("recover", "app", "--to", "1", "--target", tmp_path / "t")
    finally:
        moved.rename(unharmed.pool)
        unharmed.perdure.document("pool", "open", unharmed.pool)


def test_a_pool_of_a_newer_format_is_left_alone(unharmed: Scene, tmp_path: Path) -> None:
    """A pool that a later perdure wrote is neither read nor written, and the message says to update."""
    newer = tmp_path / "newer"
    shutil.copytree(unharmed.pool, newer)
    written = LocalStorage(tmp_path / "descriptor", create=True)
    write_descriptor(written, Descriptor(FORMAT_VERSION + 1, "ab" * 16, 1))
    for name in NAMES:
        (newer / name).write_bytes(written.read(name))
    before = fingerprint(newer)
    for command in (
        ("pool", "info", newer),
        ("verify", newer),
        ("protect", f"sqlite:{unharmed.database}", "--pool", newer),
    ):
        refusal = unharmed.perdure.refusal(*command, status=6)
        says(refusal, "newer-format", f"format {FORMAT_VERSION + 1}", "newer perdure")
    assert fingerprint(newer) == before


def test_a_pool_that_cannot_be_written_still_recovers(scene: Scene, nobody: CommandLine, tmp_path: Path) -> None:
    """In a read-only pool nothing can be protected, which is said, and everything can be listed and recovered."""
    place = Path(tempfile.mkdtemp(prefix="read-only-", dir=scene.place))
    place.chmod(0o777)
    share, pool = place / "documents", place / "pool"
    share.mkdir()
    share.chmod(0o777)
    (share / "a.txt").write_text("one")
    (share / "a.txt").chmod(0o666)
    nobody.document("pool", "create", pool)
    nobody.document("protect", f"files:{share}", "--pool", pool)
    (share / "a.txt").write_text("two")
    every = [pool, *pool.rglob("*")]
    modes = [path.stat().st_mode for path in every]
    for path in every:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        before = fingerprint(pool)
        for command in (("sync", "documents"), ("express-full", "documents"), ("check", "documents")):
            says(nobody.refusal(*command, status=6), "pool-read-only", pool, "recovery still works")
        refusal = nobody.refusal("protect", f"files:{scene.share}", "--pool", pool, "--as", "more", status=6)
        says(refusal, "pool-read-only", pool)
        assert len(nobody.document("points", "documents")["points"]) == 1
        assert nobody.document("verify", pool, "--data")["sound"] is True
        nobody.document("recover", "documents", "--to", "latest", "--target", place / "back")
        assert (place / "back" / "a.txt").read_text() == "one"
        assert fingerprint(pool) == before
    finally:
        for path, mode in zip(every, modes, strict=True):
            path.chmod(mode)
    assert nobody.document("sync", "documents")["point"]["number"] == 2


def test_a_home_that_cannot_be_used_is_named(unharmed: Scene) -> None:
    """A ``PERDURE_HOME`` that is a file, or damaged, is reported with what to do; the pool is not involved."""
    perdure = dataclasses.replace(unharmed.perdure, home=unharmed.database)
    says(perdure.refusal("status", status=1), "home-unusable", unharmed.database, "PERDURE_HOME")
    damaged = unharmed.place / "damaged home"
    damaged.mkdir()
    (damaged / "sources.json").write_text("{]")
    refusal = dataclasses.replace(unharmed.perdure, home=damaged).refusal("status", status=1)
    says(refusal, "home-damaged", damaged / "sources.json", "rebuilt from the pools")


def test_a_home_without_permission_is_named(unharmed: Scene, nobody: CommandLine) -> None:
    """A ``PERDURE_HOME`` that this user may not write is reported."""
    closed = unharmed.place / "home of root"
    closed.mkdir()
    closed.chmod(0o555)
    try:
        perdure = dataclasses.replace(nobody, home=closed / "below")
        says(perdure.refusal("status", status=1), "home-unusable", closed / "below", "PERDURE_HOME")
    finally:
        closed.chmod(0o755)


# --- what is asked for -------------------------------------------------------------------------------


def test_names_and_moments_that_do_not_exist(unharmed: Scene) -> None:
    """Unknown sources, points, positions, times and items are each told apart, with what there is instead."""
    perdure, target = unharmed.perdure, unharmed.place / "target"

    def recover(name: str, to: str, *more: object, status: int) -> Refusal:
        refusal = perdure.refusal("recover", name, "--to", to, "--target", target, *more, status=status)
        assert not list(unharmed.place.glob("target*"))
        return refusal

    for command in ("sync", "express-full", "check", "points", "browse", "watch"):
        says(perdure.refusal(command, "ap", status=3), "source-not-found", "'ap'", "did you mean app?")
    says(recover("nothing-like-it", "latest", status=3), "source-not-found", "nothing-like-it", "share")
    for to in ("99", "#99", "0", str(10**30)):
        says(recover("app", to, status=3), "point-not-found", to.strip("#"), "perdure points")
    says(recover("app", "999:1", status=3), "beyond-last-position", "999:1", "latest")
    for to in ("1999-01-01", "1999-01-01T10:00:00+05:30", "20 years ago", "0001-01-01", "1970-01-01T00:00:00Z"):
        says(recover("app", to, status=3), "before-first-point", "--to 1")
        says(recover("share", to, status=3), "before-first-point", "--to 1")
    for to in ("gibberish", "", "2026-13-45", "25:61 o'clock", "9" * 5000, "a" * 5000):
        refusal = recover("app", to, status=2)
        says(refusal, "bad-target", "10 minutes ago")
        assert len(refusal.message) < 300
    says(recover("share", "1:1", status=2), "bad-input", "position")
    says(recover("share", "latest", "--item", "none/such", status=3), "item-not-found", "none", "perdure browse")
    says(recover("share", "latest", "--item", "../etc", status=2), "bad-input", "../etc")
    says(recover("app", "latest", "--item", "notes", status=4), "no-item-recovery", "--target")
    says(perdure.refusal("browse", "share", "none", status=3), "item-not-found", "none")
    says(perdure.refusal("browse", "app", "none", status=3), "item-not-found", "none")


def test_a_place_in_a_gap_of_the_log_is_told_apart(scene: Scene) -> None:
    """What was written while nothing was watched cannot be recovered: a position there is refused, a time says so."""
    database = scene.new_database("gap.db")
    scene.perdure.document("protect", f"sqlite:{database}", "--pool", scene.pool)
    # The last connection that closes empties the log, which nobody had shipped.
    write(database, "INSERT INTO notes VALUES ('second')", "PRAGMA wal_checkpoint(TRUNCATE)")
    lost = scene.perdure.document("sync", "gap")
    assert "tracking lost" in lost["cause"]
    before, after = (row for row in scene.perdure.document("points", "gap")["points"] if row["number"])
    inside = f"{int(before['position'].split(':')[0])}:1000000"
    refusal = scene.perdure.refusal("recover", "gap", "--to", inside, "--target", scene.place / "gap", status=4)
    says(refusal, "position-in-gap", inside, before["position"], after["position"])
    assert not (scene.place / "gap").exists()
    report = scene.perdure.document("recover", "gap", "--to", before["time"], "--target", scene.place / "before.db")
    assert "gap" in report["notes"][0]
    assert query(scene.place / "before.db", "SELECT text FROM notes") == [["first"]]
    scene.perdure.document("recover", "gap", "--to", after["time"], "--target", scene.place / "after.db")
    assert query(scene.place / "after.db", "SELECT text FROM notes") == [["first"], ["second"]]


@pytest.mark.parametrize("how", ["moved", "replaced", "noise", "emptied"])
def test_a_source_that_went_away_says_so_and_comes_back(scene: Scene, how: str) -> None:
    """A source that was moved, replaced or destroyed is refused or compared, never mistaken; its points recover."""
    name = f"going-{how}"
    database, perdure = scene.new_database(f"{name}.db"), scene.perdure
    perdure.document("protect", f"sqlite:{database}", "--pool", scene.pool)
    for companion in ("-wal", "-shm"):
        database.with_name(database.name + companion).unlink(missing_ok=True)
    database.rename(scene.place / f"{name}.elsewhere")
    codes = {"moved": "source-missing", "noise": "not-a-database", "emptied": "empty-file"}
    if how == "replaced":
        scene.new_database(f"{name}.db")
        write(database, "INSERT INTO notes VALUES ('another file')")
        assert perdure.document("sync", name)["point"]["number"] == 2
    else:
        if how != "moved":
            database.write_bytes(os.urandom(8192) if how == "noise" else b"")
        for command in ("sync", "express-full", "check"):
            says(perdure.refusal(command, name, status=5), codes[how], database)
        state = next(row for row in perdure.document("status")["sources"] if row["source"]["name"] == name)
        assert state["state"] != "ok"
        assert str(database) in state["cause"]
    perdure.document("recover", name, "--to", "1", "--target", scene.place / f"{name}.back")
    assert query(scene.place / f"{name}.back", "SELECT text FROM notes") == [["first"]]


def test_a_folder_whose_root_vanished_says_so_and_comes_back(scene: Scene) -> None:
    """A folder that is gone is not recorded as empty; its points recover."""
    folder = scene.place / "vanishing"
    folder.mkdir()
    (folder / "a.txt").write_text("one")
    scene.perdure.document("protect", f"files:{folder}", "--pool", scene.pool)
    folder.rename(scene.place / "vanished")
    for command in ("sync", "express-full", "check"):
        says(scene.perdure.refusal(command, "vanishing", status=5), "source-missing", folder)
    assert len(scene.perdure.document("points", "vanishing")["points"]) == 1
    scene.perdure.document("recover", "vanishing", "--to", "latest", "--in-place", "--yes")
    assert (folder / "a.txt").read_text() == "one"
    scene.perdure.document("sync", "vanishing")


def test_a_target_that_exists_is_never_written(unharmed: Scene) -> None:
    """Files, folders, links, left-over logs and missing directories stop a recovery before it writes."""
    place, perdure = unharmed.place, unharmed.perdure
    file, folder, link, dangling = place / "file", place / "folder", place / "link", place / "dangling"
    file.write_text("mine")
    folder.mkdir()
    link.symlink_to(file)
    dangling.symlink_to(place / "nowhere")
    (place / "log.db-wal").write_text("mine")
    before = fingerprint(file, folder, link, dangling)
    for target in (file, folder, link, dangling):
        for name in ("app", "share"):
            refusal = perdure.refusal("recover", name, "--to", "latest", "--target", target, status=4)
            says(refusal, "target-exists", target, "does not exist")
    says(
        perdure.refusal("recover", "app", "--to", "1", "--target", place / "log.db", status=4), "target-exists", "-wal"
    )
    for name in ("app", "share"):
        nowhere = perdure.refusal("recover", name, "--to", "1", "--target", place / "no" / "such" / "t", status=4)
        says(nowhere, "target-unusable", place / "no" / "such")
    assert fingerprint(file, folder, link, dangling) == before
    assert not list(place.glob("*.perdure-partial*"))


def test_the_live_source_is_replaced_only_when_both_words_are_given(unharmed: Scene) -> None:
    """Neither a target that is the source under any name, nor ``--in-place`` alone, changes the source."""
    perdure, database = unharmed.perdure, unharmed.database
    link, hard = unharmed.place / "to app", unharmed.place / "hard link"
    link.symlink_to(database)
    os.link(database, hard)
    try:
        for target in (database, link, hard, database.parent / "share" / ".." / "app.db"):
            refusal = perdure.refusal("recover", "app", "--to", "latest", "--target", target, status=4)
            says(refusal, "would-overwrite-source", "'app'", "--in-place --yes")
        folder = perdure.refusal("recover", "share", "--to", "latest", "--target", f"{unharmed.share}/", status=4)
        says(folder, "would-overwrite-source", "'share'")
        alone = perdure.refusal("recover", "app", "--to", "latest", "--in-place", status=4)
        says(alone, "confirmation-needed", "'app'", "--yes")
        for words in ((), ("--in-place", "--yes", "--target", unharmed.place / "t"), ("--yes",)):
            says(perdure.refusal("recover", "app", "--to", "latest", *words, status=2), "target-needed", "--target")
    finally:
        hard.unlink()


def test_a_target_without_permission_is_named(scene: Scene, nobody: CommandLine) -> None:
    """A directory that this user may not write to is named, and nothing is left there."""
    place = Path(tempfile.mkdtemp(prefix="targets-", dir=scene.place))
    place.chmod(0o777)
    share, closed = place / "pictures", place / "closed"
    share.mkdir()
    share.chmod(0o755)
    closed.mkdir()
    closed.chmod(0o555)
    database = place / "db"
    nobody.document("pool", "create", place / "pool")
    nobody.document("protect", f"files:{share}", "--pool", place / "pool")
    refusal = nobody.refusal("recover", "pictures", "--to", "latest", "--target", closed / "t", status=4)
    says(refusal, "target-unusable", closed, "may be written")
    assert list(closed.iterdir()) == []
    assert not database.exists()
