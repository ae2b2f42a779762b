"""A simulated information store is protected under load, lost, and brought back row for row to many places."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from simulated_store import NAME, SimulatedStore, log_position

from perdure.model.errors import NotFound
from perdure.model.positions import Position
from perdure.model.targets import AtPoint, AtTime, Latest
from perdure.protection.browse import browse
from perdure.protection.drill import drill
from perdure.protection.points import timeline_of
from perdure.workloads.exchange.shipping import read_log_files


@pytest.fixture(params=[4096, 32768])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SimulatedStore]:
    """A store that has worked for a while."""
    made = SimulatedStore(tmp_path, request.param, transactions=100)
    with made:
        yield made


def sampled(store: SimulatedStore, count: int) -> list[Position]:
    """Some places of the timeline, those of all images among them."""
    images = {point.position for point in store.vault.points(store.protected.source.id) if point.position}
    places = store.positions()
    return sorted(images | {places[-1]} | set(store.random.sample(places, min(count, len(places)))))


@pytest.mark.slow
def test_every_place_holds_the_rows_of_the_journal(store: SimulatedStore) -> None:
    """Whatever place of the timeline is recovered and replayed, its rows are those that the journal has there."""
    store.protect(folder=store.folder)
    for number in range(4):
        store.engine.work(120)
        point = store.full() if number % 2 else store.sync().point
        assert point is None or "compared" not in point.cause
    store.engine.work(100)
    store.sync()
    store.crash()
    assert timeline_of(store.vault, store.protected.source.id).gaps() == []
    for position in sampled(store, 3):
        assert store.differences_at(position) == []


def test_no_place_lies_inside_of_a_record(tmp_path: Path) -> None:
    """Records may end with zeros; the place behind a segment is the end of its last record all the same."""
    store = SimulatedStore(tmp_path, 4096, transactions=350)
    store.crash()
    (folder,) = {path.parent for path in store.folder.rglob("E*.log")}
    zeros = 0
    for file in read_log_files(sorted(folder.glob("E*.log"))):
        records = file.log.records
        assert records is not None
        segments, begins = records.places // 4096, records.places % 4096
        ends = begins + records.sizes
        inside = ends <= 4096
        places = file.places[segments[inside] - 1].astype(np.int64)
        assert (places >= segments[inside] << 16 | ends[inside]).all()
        content = np.frombuffer(file.content, np.uint8)
        last = content[records.places[inside] + records.sizes[inside] - 1]
        zeros += np.count_nonzero((places == segments[inside] << 16 | ends[inside]) & (last == 0))
    assert zeros


@pytest.mark.slow
def test_images_taken_under_load(store: SimulatedStore) -> None:
    """Images that are frozen while clients work, and log shipped beside them, bring back the journal's rows."""
    with store.working():
        store.protect(folder=store.folder)
        store.sync()
        store.full()
        store.sync()
    store.crash()
    for position in sampled(store, 1):
        assert store.differences_at(position) == []


def test_log_is_deleted_only_when_the_pool_has_it(tmp_path: Path) -> None:
    """The engine truncates what is durable, and everything that it deleted is recovered from the pool."""
    with SimulatedStore(tmp_path, 32768, depth=1, transactions=100) as store:
        store.protect(folder=store.folder)
        before = {path.name for path in store.folder.rglob("E00*.log")}
        for _ in range(3):
            store.engine.work(150)
            store.full()
        ledger = store.home.ledger(store.protected.source.id)
        assert 0 < ledger.truncated <= ledger.durable
        assert before - {path.name for path in store.folder.rglob("E00*.log")}
        store.crash()
        assert store.differences_at(store.positions()[1]) == []


def test_a_time_shows_nothing_later(store: SimulatedStore) -> None:
    """A recovery to a time holds every commit up to the place that it names, and none after the time."""
    store.protect(folder=store.folder)
    store.engine.work(300)
    store.sync()
    store.crash()
    commits = store.journal.commits
    middle = commits[len(commits) * 3 // 4]
    database, reached = store.clean_copy(AtTime(int(middle.moment * 1e9)))
    assert reached is not None
    assert store.journal.compare(database, log_position(reached)) == []
    later = [commit for commit in commits if commit.moment > middle.moment]
    assert all(commit.position >= log_position(reached) for commit in later)


def test_roll_forward_after_a_crash_loses_nothing(store: SimulatedStore) -> None:
    """With the log that survived a crash every durable commit comes back, also those that were never shipped."""
    store.protect(folder=store.folder)
    store.engine.work(150)
    store.sync()
    store.engine.work(150)
    store.engine.databases[NAME].engine.make_durable()  # type: ignore[union-attr]
    store.crash()
    for path in store.folder.rglob("*.edb"):
        path.unlink()
    target, report = store.recover(**{"roll-forward": "yes", "clean": "yes"})
    assert report.position is not None
    assert store.journal.compare(target / f"{NAME}.edb") == []


def test_browse_lists_the_mailboxes(store: SimulatedStore) -> None:
    """The tables and the mailboxes of a point are listed from its replay."""
    store.protect(folder=store.folder)
    tables = {item.name for item in browse(store.protected).items}
    assert "mailboxes" in tables
    names = [item.name for item in browse(store.protected, path="mailboxes").items]
    assert len(names) == 3
    assert all("Mailbox" in name for name in names)
    with pytest.raises(NotFound, match="the database has no table 'Nothing'") as refused:
        browse(store.protected, path="Nothing")
    assert "perdure browse" in refused.value.hint


def test_a_drill_replays_and_verifies(store: SimulatedStore) -> None:
    """A drill verifies logs and pages, replays to clean shutdown, and checks the trees of what came of it."""
    store.protect(folder=store.folder)
    store.engine.work(50)
    store.sync()
    verdict = drill(store.protected, to=Latest())
    assert verdict.passed
    assert any("replay" in step.name for step in verdict.steps)


def test_an_express_full_is_a_point_of_its_own(store: SimulatedStore) -> None:
    """A point is replayed from what it holds alone, with all log of the pool gone."""
    store.protect(folder=store.folder)
    store.engine.work(100)
    point = store.full()
    source = store.protected.source.id
    store.vault.delete_log(source, store.vault.spans(source))
    store.crash()
    database, reached = store.clean_copy(AtPoint(point.number))
    assert reached is not None
    assert store.journal.compare(database, log_position(reached)) == []
