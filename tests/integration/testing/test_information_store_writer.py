"""The writer of the simulated information store follows the engine's rules for backups and truncation."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from perdure.ese.database import Database
from perdure.ese.folders import verify_files
from perdure.snapshots.writer import BackupKind, BlockerKind, FailedAtFreeze, NonRetryable, Retryable, WriterTimeout
from perdure.testing.information_store.administration import (
    move,
    repair,
    reset_log_stream,
    switch_circular_logging,
)
from perdure.testing.information_store.backup_writer import BackupWriter
from perdure.testing.information_store.clock import SteppingClock
from perdure.testing.information_store.journal import Journal
from perdure.testing.information_store.layout import LogLayout, StorePlan
from perdure.testing.information_store.store import InformationStore, StoreOptions
from perdure.testing.information_store.stream_end import closed_logs

NAME = "Mailbox-01"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[InformationStore]:
    """A small store that writes its pages soon, so that its checkpoint follows."""
    options = StoreOptions(checkpoint_depth=1, log_resilience=0, write_chance=0.5)
    made = InformationStore(
        tmp_path / "store", StorePlan(page_size=4096, seed=7), clock=SteppingClock(), options=options
    )
    made.add_database(NAME, mailboxes=2)
    made.work(120)
    work_through_logs(made)
    yield made
    made.stop()


def work_through_logs(store: InformationStore) -> None:
    """Work, with the log closed now and then, so that pages of older logs have to be written."""
    for _ in range(4):
        store.work(25)
        for engine in {id(one.engine): one.engine for one in store.databases.values()}.values():
            assert engine is not None
            engine.roll()
            engine.maintain()


def logs_of(store: InformationStore, name: str = NAME) -> list[int]:
    hosted = store.databases[name]
    return list(closed_logs(hosted.log_folder, hosted.place.base))


def back_up(store: InformationStore, writer: BackupWriter, kind: BackupKind, *, image: Path | None = None):  # noqa: ANN201
    made = writer.prepare([NAME], kind)
    writer.freeze(made)
    if image is not None:
        image.mkdir()
        hosted = store.databases[NAME]
        shutil.copy(hosted.path, image)
        for path in hosted.log_folder.glob("E00*.log"):
            shutil.copy(path, image)
    writer.thaw(made)
    work_through_logs(store)
    return writer.complete(made, [NAME])[0]


def test_a_frozen_image_is_dirty_and_has_the_logs_it_needs(store: InformationStore, tmp_path: Path) -> None:
    """An image taken between freeze and thaw is dirty, says that a backup runs, and verifies with its logs."""
    writer = BackupWriter(store)
    back_up(store, writer, BackupKind.COPY, image=tmp_path / "image")
    report = verify_files([tmp_path / "image"])
    assert [str(finding) for finding in report.findings] == []
    with Database(tmp_path / "image" / f"{NAME}.edb") as image:
        assert image.header.state_text == "dirty shutdown"
        assert image.header.current_snapshot_backup
    store.work(20)
    with Database(store.databases[NAME].path) as live:
        assert not live.header.current_snapshot_backup


def test_a_full_backup_truncates_what_lies_below_the_checkpoint(store: InformationStore) -> None:
    """After a full backup the logs below the checkpoint are gone, the others stay, and the header remembers it."""
    writer = BackupWriter(store)
    done = back_up(store, writer, BackupKind.FULL)
    engine = store.databases[NAME].engine
    assert engine is not None
    assert done.stamped
    assert done.truncated is not None
    assert logs_of(store)[0] == done.truncated[1] + 1
    assert done.truncated[1] < engine.checkpoint.generation
    (status,) = writer.describe()
    assert status.last_full is not None
    assert status.last_full.generation_high >= done.truncated[1]


def test_an_incremental_backup_adds_to_the_full_one_and_truncates(store: InformationStore) -> None:
    """An incremental backup begins where the full one ended, and a later full backup makes the header forget it."""
    writer = BackupWriter(store)
    with pytest.raises(NonRetryable, match="no full backup"):
        writer.prepare([NAME], BackupKind.INCREMENTAL)
    back_up(store, writer, BackupKind.FULL)
    store.work(200)
    assert back_up(store, writer, BackupKind.INCREMENTAL).truncated is not None
    (status,) = writer.describe()
    assert status.last_full is not None
    assert status.last_incremental is not None
    assert status.last_incremental.generation_low == status.last_full.generation_high + 1
    back_up(store, writer, BackupKind.FULL)
    assert writer.describe()[0].last_incremental is None


def test_a_copy_and_an_aborted_backup_truncate_nothing(store: InformationStore) -> None:
    """Neither a copy nor an aborted full backup deletes a log, and only the copy is remembered, as a copy."""
    writer = BackupWriter(store)
    first = logs_of(store)[0]
    assert back_up(store, writer, BackupKind.COPY).truncated is None
    made = writer.prepare([NAME], BackupKind.FULL)
    writer.freeze(made)
    writer.abort(made)
    writer.abort(made)
    store.work(20)
    assert logs_of(store)[0] == first
    (status,) = writer.describe()
    assert (status.last_full, status.last_copy is not None) == (None, True)


def test_it_thaws_by_itself_and_the_set_has_failed(store: InformationStore) -> None:
    """A writer whose freeze lasts too long thaws by itself; the set can then neither be thawed nor completed."""
    writer = BackupWriter(store, freeze_limit_s=0.05)
    made = writer.prepare([NAME], BackupKind.FULL)
    writer.freeze(made)
    store.work(5)  # returns only because the writer has thawed
    with pytest.raises(WriterTimeout):
        writer.thaw(made)
    with pytest.raises(WriterTimeout):
        writer.complete(made, [NAME])
    assert writer.describe()[0].last_full is None


def test_two_backups_of_one_stream_at_a_time_are_refused(store: InformationStore) -> None:
    """While a backup of a database is under way another one is refused for now, and a set is frozen only once."""
    writer = BackupWriter(store)
    made = writer.prepare([NAME], BackupKind.FULL)
    with pytest.raises(Retryable):
        writer.prepare([NAME], BackupKind.COPY)
    writer.freeze(made)
    with pytest.raises(FailedAtFreeze):
        writer.freeze(made)
    writer.abort(made)
    writer.abort(writer.prepare([NAME], BackupKind.COPY))


def test_circular_logging_deletes_logs_and_refuses_incremental(store: InformationStore) -> None:
    """With circular logging the engine deletes logs by itself, and a backup that would need them is refused."""
    switch_circular_logging(store, circular=True)
    before = logs_of(store)
    work_through_logs(store)
    store.work(50)
    writer = BackupWriter(store)
    assert logs_of(store)[0] > before[0]
    with pytest.raises(NonRetryable, match="circular"):
        writer.prepare([NAME], BackupKind.INCREMENTAL)
    done = back_up(store, writer, BackupKind.FULL)
    assert [blocker.kind for blocker in done.blockers] == [BlockerKind.CIRCULAR_LOGGING]


def test_a_dismounted_database_is_not_backed_up_and_comes_back(store: InformationStore) -> None:
    """A dismounted database refuses a backup and is clean; mounted again it goes on in its stream."""
    store.dismount(NAME)
    writer = BackupWriter(store)
    with pytest.raises(NonRetryable, match="dismounted"):
        writer.prepare([NAME], BackupKind.FULL)
    with Database(store.databases[NAME].path) as closed:
        assert closed.header.clean
    store.mount(NAME)
    store.work(20)
    assert back_up(store, writer, BackupKind.FULL).stamped


def test_logs_that_another_database_of_the_stream_needs_stay(tmp_path: Path) -> None:
    """On a shared stream a full backup of one database deletes nothing that the other was never backed up with."""
    plan = StorePlan(page_size=4096, layout=LogLayout.SHARED)
    options = StoreOptions(checkpoint_depth=1, log_resilience=0, write_chance=0.5)
    store = InformationStore(tmp_path / "store", plan, clock=SteppingClock(), options=options)
    store.add_database("A", mailboxes=1)
    store.add_database("B", mailboxes=1)
    store.work(200)
    writer = BackupWriter(store)
    for name in ("A", "B"):
        made = writer.prepare([name], BackupKind.FULL)
        writer.freeze(made)
        writer.thaw(made)
        work_through_logs(store)
        (done,) = writer.complete(made, [name])
        if name == "A":
            assert done.truncated is None
            assert BlockerKind.NO_FULL_BACKUP in {blocker.kind for blocker in done.blockers}
        else:
            assert done.truncated is not None
    store.stop()


@pytest.mark.parametrize("order", ["move", "dismount"])
def test_a_database_comes_and_goes_while_another_of_the_stream_works(tmp_path: Path, order: str) -> None:
    """Moving or dismounting one database leaves the transactions of the others on its stream as they are."""
    plan = StorePlan(page_size=4096, layout=LogLayout.SHARED, seed=4)
    store = InformationStore(tmp_path / "store", plan, clock=SteppingClock())
    names = ("Mailbox-01", "Mailbox-02")
    for name in names:
        store.add_database(name, mailboxes=1)
    goes, stays = (store.databases[name] for name in names)
    for round_ in range(3):
        store.work(20)
        while not any(client.session.level for client in stays.clients):
            stays.step()
        if order == "move":
            move(store, goes.name, file=f"moved-{round_}/{goes.name}.edb")
        else:
            store.dismount(goes.name)
        assert any(client.session.level for client in stays.clients)
        stays.work(20)
        if order == "dismount":
            store.mount(goes.name)
    store.crash()
    back = InformationStore.open(tmp_path / "store", clock=SteppingClock())
    back.work(5)
    back.stop()
    for name in names:
        assert Journal.load(back.journal_path(name)).compare(back.databases[name].path) == []


def test_repair_and_reset_begin_a_new_stream_and_a_move_does_not(store: InformationStore) -> None:
    """A moved database goes on in its stream; reset, it begins a new one; repaired, it has a new identity too."""
    hosted = store.databases[NAME]

    def identity() -> tuple[object, object, int]:
        with Database(hosted.path) as database:
            header = database.header
            return header.signature, header.log_signature, max(logs_of(store), default=0)

    before = identity()
    move(store, NAME, file="moved/Mailbox.edb", log_folder="moved/log")
    store.work(100)
    moved = identity()
    assert (moved[0], moved[1]) == (before[0], before[1])
    assert moved[2] > before[2]
    reset_log_stream(store, NAME)
    store.work(20)
    reset = identity()
    assert reset[0] == moved[0]
    assert reset[1] != moved[1]
    assert reset[2] < moved[2]
    repair(store, NAME)
    store.work(20)
    repaired = identity()
    assert repaired[0] != reset[0]
    assert repaired[1] != reset[1]
    store.dismount(NAME)
    with Database(hosted.path) as database:
        assert database.header.repairs.count == 1
    assert Journal.load(store.journal_path(NAME)).compare(hosted.path) == []
