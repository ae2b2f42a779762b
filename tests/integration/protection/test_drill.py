"""Drills: a point is proven by recovering it, and what was found stays with it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from perdure.model.errors import BadInput, Refused
from perdure.model.targets import AtPoint, Latest
from perdure.protection.drill import drill
from perdure.protection.home import Home
from perdure.protection.image_verbs import express_full, protect
from perdure.protection.points import timeline_rows
from perdure.protection.protected import Protected
from perdure.protection.scratch import scratch_directory
from perdure.protection.status import status
from perdure.repository.opening import create_pool
from perdure.repository.pool import Pool
from perdure.repository.verify import verify_pool
from perdure.storage.local import LocalStorage


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def pool(tmp_path: Path, home: Home) -> Iterator[Pool]:
    pool, _ = create_pool(LocalStorage(tmp_path / "pool", create=True), b"a drill", home.cache_dir("pool"))
    with pool:
        yield pool


@pytest.fixture
def shop(tmp_path: Path, home: Home, pool: Pool) -> Protected:
    """A protected database with two points; the second has a row that refers to nothing."""
    path = tmp_path / "shop.db"
    connection = sqlite3.connect(path)
    connection.executescript(
        "PRAGMA journal_mode=WAL; CREATE TABLE customer(id INTEGER PRIMARY KEY);"
        "CREATE TABLE orders(id INTEGER PRIMARY KEY, customer INTEGER REFERENCES customer);"
        "INSERT INTO customer VALUES (1); INSERT INTO orders VALUES (1, 1);"
    )
    protected, _ = protect(home, pool, "sqlite", str(path))
    connection.executescript("PRAGMA foreign_keys=OFF; INSERT INTO orders VALUES (2, 77);")
    express_full(protected)
    connection.close()
    return protected


def test_a_drill_proves_a_point_and_its_verdict_stays(home: Home, pool: Pool, shop: Protected) -> None:
    """Recovery, integrity and the user's checks pass; points and status show it; nothing stays behind."""
    verdict = drill(shop, to=AtPoint(1), checks=["SELECT count(*) = 1 FROM orders"])
    assert verdict.passed, verdict
    assert [step.name for step in verdict.steps][:4] == ["recover", "open", "integrity_check", "foreign_key_check"]
    assert verdict.recovery_seconds == sum(step.seconds for step in verdict.steps[:2])
    assert pool.drills(shop.source.id) == [verdict]
    shown = {row.number: row.drill for row in timeline_rows(pool, shop.source.id) if row.number}
    assert shown == {1: verdict, 2: None}
    (seen,) = status(home, lambda _: pool)
    assert seen.drill == verdict
    assert not list(home.cache_dir(pool.id).glob("*drill-*"))
    assert verify_pool(pool, data=True).sound


def test_a_drill_finds_what_verification_cannot(shop: Protected) -> None:
    """An order without a customer is sound bytes; the drill says which row breaks which rule."""
    verdict = drill(shop, to=Latest())
    assert not verdict.passed
    assert verdict.failure == "foreign_key_check: orders 2 customer 0"


@pytest.mark.parametrize(
    ("check", "said"),
    [
        ("SELECT count(*) = 7 FROM orders", "it gave 0"),
        ("SELECT id FROM orders WHERE id > 100", "it gave no row"),
        ("SELECT NULL", "it gave None"),
        ("SELECT * FROM nowhere", "no such table: nowhere"),
        ("DELETE FROM orders", "attempt to write a readonly database"),
    ],
)
def test_a_check_that_is_not_true_fails_the_drill(shop: Protected, check: str, said: str) -> None:
    """A false, empty or failing answer fails, and the verdict says what the answer was."""
    verdict = drill(shop, to=AtPoint(1), checks=[check])
    assert (verdict.steps[-1].passed, verdict.steps[-1].details) == (False, (said,))
    assert verdict.failure == f"{check}: {said}"


def test_a_damaged_pool_fails_the_drill(tmp_path: Path, pool: Pool, shop: Protected) -> None:
    """A point whose chunks are gone is a failed drill, kept like any other."""
    for pack in (tmp_path / "pool" / "packs").rglob("*"):
        if pack.is_file():
            pack.chmod(0o600)
            pack.write_bytes(b"\0" * pack.stat().st_size)
    verdict = drill(shop, to=AtPoint(1))
    assert [step.name for step in verdict.steps] == ["recover"]
    assert not verdict.passed
    assert pool.drills(shop.source.id)[-1].failure == verdict.failure != ""


def test_a_verdict_goes_with_its_point(pool: Pool, shop: Protected) -> None:
    """Deleting a point deletes its drills, and only its."""
    first, second = drill(shop, to=AtPoint(1)), drill(shop, to=AtPoint(2))
    assert pool.drills(shop.source.id) == [first, second]
    pool.delete_points(shop.source.id, [1])
    assert pool.drills(shop.source.id) == [second]


def test_a_damaged_verdict_is_named_by_verification(tmp_path: Path, pool: Pool, shop: Protected) -> None:
    """A verdict that was altered is never shown, and verification says so."""
    drill(shop, to=AtPoint(1))
    (file,) = [path for path in (tmp_path / "pool" / "drills").rglob("*") if path.is_file()]
    file.chmod(0o600)
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    assert pool.drills(shop.source.id) == []
    assert [damage.kind for damage in verify_pool(pool, data=False).damage] == ["drill"]


def test_a_drill_without_room_is_refused(shop: Protected, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scratch directory that is too small is no verdict on the point."""
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1})())
    with pytest.raises(Refused) as refused:
        drill(shop, to=AtPoint(1))
    assert refused.value.code == "no-room"
    assert shop.vault.drills(shop.source.id) == []


def test_a_folder_is_drilled_too(tmp_path: Path, home: Home, pool: Pool) -> None:
    """A folder is recovered whole to the scratch place; own checks have nothing to run on."""
    folder = tmp_path / "share"
    folder.mkdir()
    (folder / "letter").write_text("dear")
    protected, _ = protect(home, pool, "files", str(folder))
    assert drill(protected, to=Latest()).passed
    with pytest.raises(BadInput):
        drill(protected, to=Latest(), checks=["SELECT 1"])


def test_what_a_killed_drill_left_is_removed_by_the_next(home: Home, pool: Pool, shop: Protected) -> None:
    """The copy of a killed process does not stay in the cache; that of a running one is not touched."""
    cache = home.cache_dir(pool.id)
    killed = cache / "perdure-drill-killed"
    killed.mkdir()
    (killed / "copy").write_bytes(b"left")
    with scratch_directory(cache, "drill") as running:
        (running / "copy").write_bytes(b"at work")
        killed.mkdir(exist_ok=True)
        assert drill(shop, to=AtPoint(1)).passed
        assert not killed.exists()
        assert (running / "copy").read_bytes() == b"at work"
    assert not list(cache.glob("perdure-drill-*"))
