"""A mailbox database is protected, followed, imaged and recovered."""

from __future__ import annotations

import pytest
from protected_store import ProtectedStore, at, is_whole, logs_of

from perdure.ese.headers.database import read_database_header
from perdure.model.targets import AtPoint
from perdure.protection.points import timeline_of
from perdure.snapshots.writer import BackupKind
from perdure.workloads.exchange.next_logs import BATCH


def pages_of(database: bytes, page_size: int) -> bytes:
    """A database without its header."""
    return database[2 * page_size :]


def test_the_first_image_stands_alone(scene: ProtectedStore) -> None:
    """The first point holds the database as it was frozen and every log that it needs, under the engine's names."""
    scene.store.work(3)
    scene.store.change([7, 8, 9])
    frozen = scene.store.database.read_bytes()
    scene.protect()
    target, _ = scene.recover()
    recovered = (target / "Mailboxes.edb").read_bytes()
    assert pages_of(recovered, 4096) == pages_of(frozen, 4096)
    header, _ = read_database_header(recovered[:8192], "")
    assert header.state_text == "dirty shutdown"
    assert logs_of(target).keys() == {*(f"E00{number:08X}.log" for number in range(1, 5)), "E00.log"}


def test_synchronization_ships_complete_logs(scene: ProtectedStore) -> None:
    """Every log that is complete is in the pool after a synchronization, byte for byte, and comes back."""
    scene.protect()
    count = 3 * BATCH + 5
    scene.store.work(count, per_log=1)
    logs = logs_of(scene.store.folder)
    result = scene.sync()
    assert result.segments == count
    target, report = scene.recover()
    recovered = logs_of(target)
    assert report.position == result.last
    last = max(name for name in logs if name != "E00.log")
    assert recovered.pop("E00.log") == logs[last]
    assert recovered
    assert all(logs[name] == content for name, content in recovered.items())


def test_every_place_can_be_recovered(scene: ProtectedStore) -> None:
    """A recovery to any place of the timeline gives a store that verifies and whose log ends just there."""
    scene.protect()
    scene.store.work(3, per_log=40)
    scene.sync()
    scene.store.flush()
    scene.full()
    scene.store.work(2, per_log=40)
    scene.sync()
    places = scene.positions()
    images = {point.position for point in scene.vault.points(scene.protected.source.id)}
    assert len(places) > 20
    for place in places[:: max(1, len(places) // 12)]:
        target, report = scene.recover(at(place))
        assert report.position == place
        current = (target / "E00.log").read_bytes()
        segment, used = place.place >> 16, place.place & 0xFFFF
        assert int.from_bytes(current[4:8], "little") == place.generation
        assert used == 0 or not any(current[(segment + 1) * 4096 :]) or place in images


def test_an_express_full_stores_only_what_changed(scene: ProtectedStore) -> None:
    """With whole tracking an express full reads and stores the header and the pages that changed, and no others."""
    scene.store.work(2)
    scene.store.flush()
    scene.protect()
    scene.store.change([20, 30, 40])
    scene.store.flush()
    scene.sync()
    point = scene.full()
    database = next(file for file in point.files if file.name.endswith(".edb"))
    logs = sum(file.size for file in point.files if file is not database)
    # Those that were changed shortly before the first image may have been on their way to the file then.
    assert point.changed - logs <= (2 + 3 + 15) * 4096
    target, _ = scene.recover(AtPoint(point.number))
    assert (target / "Mailboxes.edb").read_bytes() == scene_image(scene, target)


def scene_image(scene: ProtectedStore, target: object) -> bytes:
    """What the whole file should be: its own header, and the pages as the store has them on disk."""
    recovered = (scene.root / str(target) / "Mailboxes.edb").read_bytes()
    return recovered[: 2 * 4096] + pages_of(scene.store.database.read_bytes(), 4096)


def test_logs_that_change_nothing(scene: ProtectedStore) -> None:
    """An express full after logs without any change of a page stores the header and nothing else of the database."""
    scene.store.flush()
    scene.store.roll()
    scene.protect()
    scene.store.roll()
    scene.sync()
    scene.store.roll()
    point = scene.full()
    assert "compared" not in point.cause
    logs = sum(file.size for file in point.files if not file.name.endswith(".edb"))
    assert point.changed - logs <= 2 * 4096


def test_pages_that_were_on_their_way_at_the_base_are_found(scene: ProtectedStore) -> None:
    """A page changed before the first image and written after it is in the next one, though no later log names it."""
    scene.store.change([50, 51])
    scene.store.roll()
    scene.protect()
    scene.store.flush([50])
    scene.store.change([3])
    scene.store.roll()
    scene.store.flush([51])
    point = scene.full()
    assert "compared" not in point.cause
    target, _ = scene.recover(AtPoint(point.number))
    assert (target / "Mailboxes.edb").read_bytes() == scene_image(scene, target)


def test_pages_that_were_written_before_the_base_are_not_stored_again(scene: ProtectedStore) -> None:
    """What a log changed that the older image still needs is left out, unless the page was written since, or again."""
    scene.store.flush()
    scene.protect()
    scene.store.change(range(10, 61))
    scene.store.roll()
    scene.store.flush(range(10, 60))
    scene.full()
    scene.store.change([20, 21])
    scene.store.roll()
    scene.store.flush([20, 60])
    point = scene.full()
    assert "compared" not in point.cause
    logs = sum(file.size for file in point.files if not file.name.endswith(".edb"))
    assert point.changed - logs <= (2 + 3) * 4096
    target, _ = scene.recover(AtPoint(point.number))
    assert (target / "Mailboxes.edb").read_bytes() == scene_image(scene, target)


def test_a_change_outside_the_log_ends_the_map(scene: ProtectedStore) -> None:
    """When a page that no log names is newer than the log, the map is not believed and the database is compared."""
    scene.protect()
    scene.store.change([5])
    scene.store.roll()
    scene.store.dbtime += 100_000
    for page in range(100, 201):
        scene.store.content[page] = scene.store._page(page, scene.store.dbtime)
    scene.store.flush(range(100, 201))
    scene.store.flush()
    point = scene.full()
    assert "compared" in point.cause
    target, _ = scene.recover(AtPoint(point.number))
    assert (target / "Mailboxes.edb").read_bytes() == scene_image(scene, target)


def test_log_is_truncated_only_when_it_is_durable(scene: ProtectedStore) -> None:
    """The engine hears of a full backup once its point is committed, and the ledger tells what it truncated."""
    scene.store.work(5)
    scene.store.flush()
    scene.protect()
    assert scene.store.completed == [(BackupKind.FULL, 7)]
    ledger = scene.home.ledger(scene.protected.source.id)
    assert ledger.events[-1].truncated == (1, 6)
    assert ledger.durable == 6
    scene.store.work(3)
    scene.store.fail_at = "complete"
    scene.full()
    scene.store.fail_at = ""
    ledger = scene.home.ledger(scene.protected.source.id)
    assert "did not take the backup as complete" in ledger.blockers[0]
    scene.store.flush()
    scene.full()
    target, _ = scene.recover()
    assert is_whole(target)


def test_logs_are_followed_over_many_sessions(scene: ProtectedStore) -> None:
    """Synchronizations and express fulls in turn, each in a session of its own, make one timeline without a gap."""
    scene.protect()
    for number in range(6):
        scene.store.work(2)
        if number % 2:
            scene.store.flush()
            scene.full()
        else:
            scene.sync()
    timeline = timeline_of(scene.vault, scene.protected.source.id)
    assert timeline.gaps() == []
    assert len(timeline.stretches) == 4
    assert scene.state == "ok"


def held(scene: ProtectedStore) -> set[int]:
    """The generations whose log is in the pool."""
    return {span.generation for span in scene.vault.spans(scene.protected.source.id)}


def truncated(scene: ProtectedStore) -> set[int]:
    """The generations that the engine deleted because of perdure's backups after the first image."""
    events = scene.home.ledger(scene.protected.source.id).events
    gone = [event.truncated for event in events if event.truncated is not None]
    return {number for first, last in gone[1:] for number in range(first, last + 1)}


@pytest.mark.parametrize("verb", ["full", "sync"])
def test_log_that_is_completed_during_a_backup_is_shipped_before_it_goes(scene: ProtectedStore, verb: str) -> None:
    """When logs are completed and the checkpoint moves between the calls of a backup, nothing unshipped is deleted."""
    scene.store.work(2)
    scene.store.flush()
    scene.protect({"truncate-every": ["0.001s"]})
    scene.store.busy_at = ("freeze", "thaw")
    for _ in range(3):
        scene.store.work(2)
        getattr(scene, verb)()
    assert scene.store.completed[-1][0] is (BackupKind.FULL if verb == "full" else BackupKind.INCREMENTAL)
    assert truncated(scene)
    assert truncated(scene) <= held(scene)
    target, _ = scene.recover()
    assert is_whole(target)
