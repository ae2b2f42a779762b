"""Copies of one database on several nodes are one data source."""

from __future__ import annotations

import pytest
from protected_store import ProtectedStore, is_whole

from perdure.model.errors import BadInput
from perdure.model.points import RecoveryPoint
from perdure.protection.points import timeline_of
from perdure.snapshots.writer import BackupKind, CopyRole, DatabaseState
from perdure.testing.small_store import SmallStore


@pytest.fixture
def passive(scene: ProtectedStore) -> SmallStore:
    """A passive copy on EX2 of the scene's database on EX1; both writers are served."""
    scene.store.node = "EX1"
    scene.store.work(3)
    copy = scene.store.passive_copy(scene.root / "EX2", "EX2")
    scene.serve(copy)
    return copy


def protect(scene: ProtectedStore, *copies: SmallStore, **options: str) -> RecoveryPoint:
    """Protect the database with its copies."""
    given = {key.replace("_", "-"): [value] for key, value in options.items()}
    return scene.protect({"copy": [str(copy.folder) for copy in copies], **given})


def gaps(scene: ProtectedStore) -> int:
    """Breaks in the timeline."""
    return len(timeline_of(scene.vault, scene.protected.source.id).gaps())


def test_images_come_from_the_passive_copy(scene: ProtectedStore, passive: SmallStore) -> None:
    """An image burdens the passive copy only, is its full backup, and the active copy's log leads on from it."""
    point = protect(scene, passive)
    assert point.notes == ("taken from the copy on EX2 (passive)",)
    assert passive.completed == [(BackupKind.FULL, 3)]
    assert scene.store.completed == []
    scene.store.work(3)
    assert scene.sync().segments == 3
    passive.catch_up(scene.store)
    point = scene.full()
    assert "compared" not in point.cause
    assert gaps(scene) == 0
    target, _ = scene.recover()
    assert is_whole(target)


def test_an_image_behind_the_log_fits_into_the_timeline(scene: ProtectedStore, passive: SmallStore) -> None:
    """A passive copy that lags behind what is shipped gives an image in the middle of the log."""
    protect(scene, passive)
    scene.store.work(6)
    scene.sync()
    passive.catch_up(scene.store, upto=6)
    point = scene.full()
    assert point.position is not None
    assert point.position.generation == 6
    scene.store.work(2)
    scene.sync()
    assert gaps(scene) == 0
    target, report = scene.recover()
    assert report.point.number == point.number
    assert is_whole(target)


def test_a_failover_is_followed(scene: ProtectedStore, passive: SmallStore) -> None:
    """After a failover that lost nothing the log goes on from the other node, without a new first copy."""
    protect(scene, passive)
    scene.store.work(2)
    scene.sync()
    passive.catch_up(scene.store)
    scene.store.role = CopyRole.PASSIVE
    passive.become_active()
    passive.work(3)
    assert scene.sync().cause == ""
    assert "active copy is on EX2 now" in scene.home.attention(scene.protected.source.id)
    scene.store.catch_up(passive)
    point = scene.full()
    assert point.notes == ("taken from the copy on EX1 (passive)",)
    assert point.changed < point.size
    assert gaps(scene) == 0
    target, _ = scene.recover()
    assert is_whole(target)


def test_a_failover_that_lost_log_is_explained(scene: ProtectedStore, passive: SmallStore) -> None:
    """When the new active copy lacks log that is in the pool, the break is named and what it has begins a new chain."""
    protect(scene, passive)
    scene.store.work(3)
    scene.sync()
    passive.catch_up(scene.store, upto=5)
    scene.store.state = DatabaseState.FAILED
    scene.store.role = CopyRole.PASSIVE
    passive.become_active()
    passive.work(2)
    assert "a failover" in scene.sync().cause
    assert gaps(scene) == 1
    passive.work(2)
    assert scene.sync().cause == ""
    target, _ = scene.recover()
    assert is_whole(target)


def test_exactly_one_copy_is_full(scene: ProtectedStore, passive: SmallStore) -> None:
    """Only the named node's backups are full; while it is away images come from others as copies, and it is said."""
    third = scene.store.passive_copy(scene.root / "EX3", "EX3")
    scene.serve(third)
    protect(scene, passive, third, full_copy="EX3")
    assert [kind for kind, _ in third.completed] == [BackupKind.FULL]
    assert passive.completed == []
    third.state = DatabaseState.FAILED
    scene.full()
    assert [kind for kind, _ in passive.completed] == [BackupKind.COPY]
    assert "only backups on EX3 truncate log" in scene.home.ledger(scene.protected.source.id).blockers[0]


def test_a_lagged_copy_is_the_last_choice(scene: ProtectedStore, passive: SmallStore) -> None:
    """Images are taken from a lagged copy only when there is nothing better."""
    lagged = scene.store.passive_copy(scene.root / "EX3", "EX3", CopyRole.LAGGED)
    scene.serve(lagged)
    point = protect(scene, passive, lagged)
    assert "EX2" in point.notes[0]
    passive.state = scene.store.state = DatabaseState.FAILED
    assert "EX3 (lagged)" in scene.full().notes[0]


def test_log_that_one_node_lost_comes_from_another(scene: ProtectedStore, passive: SmallStore) -> None:
    """A log that is missing or damaged on the active node is shipped from a passive copy."""
    protect(scene, passive)
    scene.store.work(4)
    passive.catch_up(scene.store)
    scene.store.path(5).unlink()
    raw = bytearray(scene.store.path(6).read_bytes())
    raw[4096:8192] = bytes(4096)
    scene.store.path(6).write_bytes(raw)
    assert scene.sync().cause == ""
    assert gaps(scene) == 0
    target, _ = scene.recover()
    assert is_whole(target)


def test_a_folder_without_a_copy_is_refused(scene: ProtectedStore) -> None:
    """A folder that is named as a node and has no copy of the database is a mistake, and told as one."""
    other = SmallStore(scene.root / "EX9", "Other", seed=77)
    with pytest.raises(BadInput, match="no copy of 'Mailboxes'"):
        protect(scene, other)
