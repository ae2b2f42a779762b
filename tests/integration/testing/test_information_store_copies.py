"""Availability groups of the simulated information store: copies follow the log, take over, and hold the right rows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from perdure.ese.folders import verify_files
from perdure.snapshots.writer import BackupKind, BlockerKind, CopyRole, NonRetryable, WriterTimeout
from perdure.testing.information_store.availability import AvailabilityGroup
from perdure.testing.information_store.clock import SteppingClock
from perdure.testing.information_store.journal import Journal
from perdure.testing.information_store.layout import StorePlan
from perdure.testing.information_store.node_writer import NodeWriter
from perdure.testing.information_store.store import StoreOptions

NAME = "Mailbox-01"


@pytest.fixture
def group(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AvailabilityGroup]:
    """Two nodes, a copy on each."""
    folders = {name: tmp_path / name for name in ("one", "two")}
    options = StoreOptions(checkpoint_depth=1, log_resilience=0, write_chance=0.5)
    clock = SteppingClock(step=timedelta(milliseconds=20))
    plan = StorePlan(page_size=getattr(request, "param", 4096), seed=3)
    made = AvailabilityGroup(folders, plan, tmp_path / "journal", clock, options)
    made.add_database(NAME, "one", mailboxes=2)
    made.hosted(NAME).work(60)
    made.add_copy(NAME, "two")
    work(made, 3)
    yield made
    made.stop()


def work(group: AvailabilityGroup, rounds: int) -> None:
    for _ in range(rounds):
        group.hosted(NAME).work(40)
        group.ship()


def close_log(group: AvailabilityGroup) -> None:
    engine = group.hosted(NAME).engine
    assert engine is not None
    engine.roll()
    group.ship()


def assert_rows_are_right(group: AvailabilityGroup) -> None:
    store = group.active(NAME).store
    store.dismount(NAME)
    path = store.databases[NAME].path
    assert Journal.load(store.journal_path(NAME)).compare(path) == []
    assert [str(finding) for finding in verify_files([path], trees=True).findings] == []
    store.mount(NAME)


def test_a_copy_replays_what_is_shipped(group: AvailabilityGroup) -> None:
    """A passive copy holds every closed log, replayed, and its dirty image verifies with its own logs."""
    close_log(group)
    (copy,) = group.replicas(NAME)
    engine = group.hosted(NAME).engine
    assert engine is not None
    assert (copy.failure, copy.inspected, copy.replayed) == ("", engine.stream.generation - 1, copy.inspected)
    assert [str(finding) for finding in verify_files([copy.folder]).findings] == []


@pytest.mark.parametrize("group", [4096, 32768], indirect=True)
def test_a_switch_loses_nothing_and_can_be_switched_back(group: AvailabilityGroup) -> None:
    """After a switch and a switch back all committed rows are there, and both copies go on without being seeded."""
    for node in ("two", "one"):
        group.switch(NAME, node)
        assert group.active(NAME).name == node
        work(group, 2)
        assert_rows_are_right(group)
    close_log(group)
    assert [copy.failure for copy in group.replicas(NAME)] == [""]


class Killed(BaseException):
    """The end of the process, at a write of its."""


@pytest.mark.parametrize(("writes", "clean"), [(0, False), (1, False), (0, True), (1, True)])
def test_a_group_that_is_killed_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int, clean: bool
) -> None:
    """Killed at work, and while a copy replays, a group starts again: no commit is lost and the copies go on."""
    folders = {name: tmp_path / name for name in ("one", "two")}
    options = StoreOptions(checkpoint_depth=1, log_resilience=0, write_chance=0.5)
    plan = StorePlan(page_size=4096, seed=writes)

    def start() -> AvailabilityGroup:
        return AvailabilityGroup(folders, plan, tmp_path / "journal", SteppingClock(), options)

    killed = start()
    killed.add_database(NAME, "one", mailboxes=1)
    killed.add_copy(NAME, "two")
    if clean:
        # After a switch the old active copy is clean, and replays on from there.
        killed.switch(NAME, "two")
        killed.switch(NAME, "one")
    killed.hosted(NAME).work(60)
    engine = killed.hosted(NAME).engine
    assert engine is not None
    engine.roll()
    left, write = writes, os.pwrite

    def write_until_killed(descriptor: int, content: bytes, offset: int) -> int:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed
        return write(descriptor, content, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", write_until_killed)
        with pytest.raises(Killed):
            killed.ship()
    for node in killed.nodes.values():
        node.store.crash()
    group = start()
    assert [copy.failure for copy in group.replicas(NAME)] == [""]
    work(group, 1)
    close_log(group)
    (copy,) = group.replicas(NAME)
    assert (copy.failure, copy.replayed) == ("", copy.inspected)
    assert_rows_are_right(group)
    group.switch(NAME, "two")
    assert_rows_are_right(group)
    group.stop()


def test_a_failover_loses_only_the_last_log(group: AvailabilityGroup) -> None:
    """When the active node dies its copy has the commits of shipped logs; the old copy has failed until reseeded."""
    close_log(group)
    shipped = len(Journal.load(group.active(NAME).store.journal_path(NAME)).commits)
    group.hosted(NAME).work(5)
    group.fail_over(NAME, "two")
    assert_rows_are_right(group)
    kept = len(Journal.load(group.active(NAME).store.journal_path(NAME)).commits)
    assert kept <= shipped + 5
    (old,) = group.replicas(NAME)
    assert "failed" in old.failure
    with pytest.raises(NonRetryable, match="has failed"):
        NodeWriter(group, "one").prepare([NAME], BackupKind.COPY)
    group.reseed(NAME, "one")
    work(group, 2)
    close_log(group)
    assert (old.failure, old.inspected) == ("", old.replayed)
    assert_rows_are_right(group)


def test_a_backup_of_a_passive_copy_truncates_on_both_nodes(group: AvailabilityGroup) -> None:
    """A full backup on the passive node is remembered by both headers, and log goes on both, but not what is needed."""
    for _ in range(6):
        work(group, 1)
        close_log(group)
    writer = NodeWriter(group, "two")
    assert [(status.role, status.node) for status in writer.describe()] == [(CopyRole.PASSIVE, "two")]
    work(group, 2)
    made = writer.prepare([NAME], BackupKind.FULL)
    writer.freeze(made)
    frozen = group.replicas(NAME)[0].path.read_bytes()
    work(group, 2)
    assert group.replicas(NAME)[0].path.read_bytes() == frozen
    writer.thaw(made)
    work(group, 2)
    (done,) = writer.complete(made, [NAME])
    assert done.stamped
    assert done.truncated is not None
    (copy,) = group.replicas(NAME)
    assert min(copy.logs()) > 1
    for node in ("one", "two"):
        assert NodeWriter(group, node).describe()[0].last_full is not None
    work(group, 1)
    assert copy.failure == ""


def test_a_copy_frozen_for_too_long_thaws_and_the_set_fails(group: AvailabilityGroup) -> None:
    """The freeze of a passive copy ends by itself too, and the set cannot be completed then."""
    writer = NodeWriter(group, "two", freeze_limit_s=0.01)
    made = writer.prepare([NAME], BackupKind.FULL)
    writer.freeze(made)
    while group.replicas(NAME)[0].frozen.is_set():
        pass
    with pytest.raises(WriterTimeout):
        writer.thaw(made)
    with pytest.raises(WriterTimeout):
        writer.complete(made, [NAME])


def test_log_that_a_copy_has_not_got_stays(group: AvailabilityGroup) -> None:
    """A full backup of the active copy deletes no log that a copy has not replayed, or a lagged one not inspected."""
    copy = group.replicas(NAME)[0]
    behind = copy.replayed
    copy.frozen.set()
    work(group, 4)
    writer = NodeWriter(group, "one")
    for lag, kind in ((0.0, BlockerKind.COPY_NOT_REPLAYED), (3600.0, BlockerKind.LAGGED_COPY)):
        copy.lag_s = lag
        made = writer.prepare([NAME], BackupKind.FULL)
        writer.freeze(made)
        writer.thaw(made)
        (done,) = writer.complete(made, [NAME])
        assert kind in {blocker.kind for blocker in done.blockers}
        has = copy.inspected if lag else behind
        assert done.truncated is None or done.truncated[1] <= has
    copy.frozen.clear()
    copy.lag_s = 0.0
    work(group, 1)
    assert copy.failure == ""


def test_a_lagged_copy_inspects_at_once_and_replays_later(group: AvailabilityGroup) -> None:
    """A lagged copy has the logs, but not yet in its database; when their time has come it replays them."""
    copy = group.replicas(NAME)[0]
    copy.lag_s = 3600.0
    before = copy.replayed
    work(group, 3)
    close_log(group)
    assert copy.inspected > before
    assert copy.replayed == before
    clock = group.clock
    assert isinstance(clock, SteppingClock)
    clock.moment += timedelta(hours=2)
    group.ship()
    assert copy.replayed == copy.inspected
