"""What is remembered on this machine."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from perdure.model.errors import BadInput, NotFound, PerdureError, Refused
from perdure.model.points import DataSource
from perdure.model.replica import Replica, ReplicaState
from perdure.protection.home import Home, KnownPool
from perdure.protection.protected import parse_location


def source(number: int, name: str) -> DataSource:
    return DataSource(f"{number:032x}", name, "sqlite", f"/srv/{name}")


def test_pools_sources_and_replicas_are_remembered(tmp_path: Path) -> None:
    """Another Home on the same directory knows what the first one was told; a moved pool is known where it is."""
    home = Home(tmp_path / "home")
    home.remember_pool("p", "/old")
    home.remember_pool("p", "/new")
    home.remember_source(source(1, "app.db"), "p")
    home.save_replica("1", Replica().to(ReplicaState.INITIALIZING, "first replica", 5))

    again = Home(tmp_path / "home")

    assert again.pools() == [KnownPool("p", "/new")]
    assert again.find_source("app.db").pool_id == "p"
    assert again.replica("1").cause == "first replica"


def test_nobody_else_may_look(tmp_path: Path) -> None:
    """Directories are 0700 and files 0600."""
    home = Home(tmp_path / "home")
    home.remember_pool("p", "/pool")
    home.save_replica("1", Replica())

    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "home").rglob("*.json")}

    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE((tmp_path / "home" / "replicas").stat().st_mode) == 0o700


def test_unknown_and_ambiguous_names(tmp_path: Path) -> None:
    """A name that is nearly right is proposed; one that two pools have is not guessed."""
    home = Home(tmp_path)
    home.remember_source(source(1, "mail.db"), "p")
    home.remember_source(source(2, "share"), "p")
    home.remember_source(source(3, "share"), "q")

    with pytest.raises(NotFound) as unknown:
        home.find_source("mial.db")
    with pytest.raises(BadInput) as ambiguous:
        home.find_source("share")

    assert "mail.db" in unknown.value.hint
    assert ambiguous.value.code == "ambiguous-source"
    assert home.find_source(f"{3:032x}").pool_id == "q"


def test_a_lock_is_held_by_one(tmp_path: Path) -> None:
    """The second holder is refused; after the first is done it is free."""
    home = Home(tmp_path)
    with home.lock("1", "watch"), pytest.raises(Refused, match=r"\(watch\)"), home.lock("1", "sync"):
        pass
    with home.lock("1", "sync"):
        pass


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    """Damage in the home is an error that names the file."""
    home = Home(tmp_path)
    (tmp_path / "sources.json").write_text("{")

    with pytest.raises(PerdureError, match=r"sources\.json is damaged"):
        home.sources()


def test_locations_have_a_kind() -> None:
    """KIND:LOCATION is split at the first colon; a plain path is refused."""
    assert parse_location("sqlite:/srv/a:b.db") == ("sqlite", "/srv/a:b.db")
    with pytest.raises(BadInput):
        parse_location("/srv/app.db")
