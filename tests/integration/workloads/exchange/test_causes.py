"""Whatever happens to a database has a state with a cause, and a sentence that says what to do."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Callable

import pytest
from protected_store import ProtectedStore, is_whole

from perdure.ese.checksums import xor32
from perdure.model.errors import BadInput, ImageFailed, SourceUnusable
from perdure.model.targets import AtPoint
from perdure.protection.points import timeline_of
from perdure.snapshots.writer import BackupKind, Blocker, BlockerKind, DatabaseState
from perdure.testing.ese_logs import log_time
from perdure.testing.small_store import SmallStore
from perdure.workloads.exchange import ExchangeWorkload
from perdure.workloads.exchange.folders import LogFolder
from perdure.workloads.exchange.next_logs import BATCH
from perdure.workloads.exchange.session import ExchangeSession


def attention(scene: ProtectedStore) -> str:
    """What the status shows beside the state."""
    return scene.home.attention(scene.protected.source.id)


def attention_of(verb: Callable[[], object], scene: ProtectedStore) -> str:
    """What the status shows after a verb."""
    verb()
    return attention(scene)


def gaps(scene: ProtectedStore) -> int:
    """Breaks in the timeline."""
    return len(timeline_of(scene.vault, scene.protected.source.id).gaps())


def test_stream_reset(scene: ProtectedStore) -> None:
    """A log stream that begins anew is a break with a cause; what follows is recovered, and so is what went before."""
    scene.protect()
    scene.store.work(4)
    scene.sync()
    scene.store.reset_stream()
    scene.store.work(2)
    result = scene.sync()
    assert "stream" in result.cause
    assert "was reset" in result.cause
    assert "What to do: find out who deleted or moved the logs" in result.cause
    assert scene.state == "ok"
    assert gaps(scene) == 1
    scene.store.work(2)
    assert scene.sync().cause == ""
    target, _ = scene.recover()
    assert is_whole(target)
    target, report = scene.recover(AtPoint(1))
    assert report.point.number == 1


def test_repaired_database(scene: ProtectedStore) -> None:
    """A database that was repaired by force is compared, since its pages were changed outside of the log."""
    scene.protect()
    scene.store.work(2)
    scene.sync()
    scene.store.repairs = 1
    scene.store.content[77] = scene.store._page(77, 3)
    scene.store.flush([77])
    result = scene.sync()
    assert "eseutil /p" in result.cause
    assert "What to do: compare mailboxes with a recovery point from before the repair" in result.cause
    assert gaps(scene) == 1
    target, _ = scene.recover()
    page = slice(78 * 4096, 79 * 4096)
    assert (target / "Mailboxes.edb").read_bytes()[page] == scene.store.content[77]


def test_replaced_database(scene: ProtectedStore) -> None:
    """Another database under the same name is seen by its identity."""
    scene.protect()
    scene.store.signature = bytes(range(28))
    scene.store.write_header()
    cause = scene.sync().cause
    assert "is another database now" in cause
    assert "What to do: if that is meant, protect the new database" in cause


def test_a_log_that_is_just_renamed_is_not_missing(scene: ProtectedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine completes a log between two looks, and for an instant there is no current one: nothing is lost."""
    scene.protect()
    with ExchangeWorkload().open(scene.protected.source) as session:
        session.resume(scene.vault.log_end(scene.protected.source.id))
        holds, looks = LogFolder.holds, []

        def renamed_after_the_first_look(logs: LogFolder, generation: int) -> bool:
            seen = holds(logs, generation)
            if not looks:
                scene.store.work(1)
                logs.current.unlink()
            looks.append(seen)
            return seen

        monkeypatch.setattr(LogFolder, "holds", renamed_after_the_first_look)
        assert isinstance(session, ExchangeSession)
        assert session._token is not None
        session._check_unbroken(session._token)
        assert looks == [False, True]


def test_missing_log(scene: ProtectedStore) -> None:
    """A log that was deleted before it was shipped breaks the chain, by name, and the next image begins a new one."""
    scene.protect()
    scene.store.work(5)
    scene.store.flush()
    scene.store.path(4).unlink()
    result = scene.sync()
    assert "E0000000004.log is missing" in result.cause
    assert "What to do: let only one product truncate" in result.cause
    assert gaps(scene) == 1
    target, _ = scene.recover()
    assert is_whole(target)


def test_a_log_is_missing_in_a_backlog(scene: ProtectedStore) -> None:
    """All log before one that is missing is shipped, although more is read ahead, and nothing behind it."""
    scene.protect()
    scene.store.work(2 * BATCH, per_log=1)
    scene.store.flush()
    missing = BATCH + 7
    scene.store.path(missing).unlink()
    assert f"E00{missing:08X}.log is missing" in scene.sync().cause
    held = {span.generation for span in scene.vault.spans(scene.protected.source.id)}
    assert {number for number in held if number < 2 * BATCH} == set(range(min(held), missing))


def test_log_of_another_stream_with_the_right_name(
    scene: ProtectedStore, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A log of another stream is never taken for one of this, whatever its name."""
    scene.protect()
    scene.store.work(3)
    other = SmallStore(tmp_path_factory.mktemp("other"), seed=9)
    other.work(3)
    shutil.copyfile(other.path(3), scene.store.path(3))
    scene.store.flush()
    cause = scene.sync().cause
    assert "belongs to another log stream" in cause
    assert "What to do: if the right log still lies somewhere, put it back" in cause
    assert gaps(scene) == 1
    target, _ = scene.recover()
    assert is_whole(target)


def test_lossy_failover(scene: ProtectedStore) -> None:
    """A log that goes on from another log of the same number than the pool has breaks the chain."""
    scene.protect()
    scene.store.work(3)
    scene.sync()
    scene.store.flush()
    scene.store._begin_log(log_time(scene.store.now), 12345)
    scene.store.write_header()
    cause = scene.sync().cause
    assert "went on from another log 4 than the pool has" in cause
    assert "What to do: nothing; what was lost in the failover" in cause
    assert gaps(scene) == 1
    scene.store.work(2)
    assert scene.sync().cause == ""


def test_circular_logging_switched_on_and_off(scene: ProtectedStore) -> None:
    """Circular logging leaves express fulls only, says so, and log is shipped again when it is switched off."""
    scene.protect()
    scene.store.flags = 2
    scene.store.work(2)
    result = scene.sync()
    assert "circular logging was switched on" in result.cause
    assert "What to do: Set-MailboxDatabase -CircularLoggingEnabled $false" in result.cause
    assert "circular logging is on" in attention(scene)
    scene.store.work(2)
    assert scene.sync().segments == 0
    assert scene.state == "ok"
    scene.store.flags = 0
    scene.store.work(2)
    scene.sync()
    scene.store.work(2)
    assert scene.sync().segments > 0
    assert attention(scene) == ""


def test_dismounted_database(scene: ProtectedStore) -> None:
    """A cleanly dismounted database is captured as it lies; its last log is shipped, and no backup is reported."""
    scene.protect()
    scene.store.work(2)
    scene.store.dismount()
    point = scene.full()
    assert [file.name for file in point.files] == ["Mailboxes.edb"]
    assert "dismounted" in attention(scene)
    target, report = scene.recover()
    assert any("clean shutdown" in note for note in report.notes)
    assert (target / "Mailboxes.edb").read_bytes() == scene.store.database.read_bytes()
    scene.store.state = DatabaseState.MOUNTED
    scene.store.write_header()
    scene.store.work(3)
    assert scene.sync().cause == ""
    assert gaps(scene) == 0


def test_a_dirty_database_without_a_writer_is_refused(scene: ProtectedStore) -> None:
    """Nobody but its writer can hold a mounted database still: without one no image is taken, and log goes on."""
    scene.protect()
    scene.store.work(2)
    scene.stop_serving()
    assert scene.sync().segments == 2 + 1 - 1
    with pytest.raises(ImageFailed, match="no writer answers"):
        scene.full()
    assert "no writer answers" in attention(scene)
    assert scene.state == "ok"


@pytest.mark.parametrize("call", ["prepare", "freeze", "thaw"])
def test_a_writer_that_fails_leaves_everything_as_it_was(scene: ProtectedStore, call: str) -> None:
    """A writer that fails at any step makes no point and truncates nothing; the next attempt works."""
    scene.protect()
    scene.store.work(2)
    scene.store.fail_at = call
    with pytest.raises(ImageFailed, match=f"failing at {call}"):
        scene.full()
    assert "the express full failed" in attention(scene)
    assert scene.store.sets == {}
    assert scene.store.completed == [(BackupKind.FULL, 2)]
    scene.store.fail_at = ""
    scene.full()
    assert attention(scene) == ""


def test_a_damaged_page_ends_the_image(scene: ProtectedStore) -> None:
    """A page that is damaged in production never gets into a point; the writer hears of an abort."""
    scene.protect()
    scene.store.change([60])
    scene.store.flush()
    raw = bytearray(scene.store.database.read_bytes())
    raw[61 * 4096 + 500] ^= 0xFF
    scene.store.database.write_bytes(raw)
    with pytest.raises(ImageFailed, match=r"page 60 of Mailboxes\.edb is damaged"):
        scene.full()
    assert len(scene.vault.points(scene.protected.source.id)) == 1
    assert len(scene.store.completed) == 1


def test_a_damaged_log_breaks_the_chain(scene: ProtectedStore) -> None:
    """A log that does not verify is not shipped: it is a cause, and the image after it begins a new chain."""
    scene.protect()
    scene.store.work(3)
    raw = bytearray(scene.store.path(3).read_bytes())
    raw[4096 + 100 : 4096 + 120] = bytes(20)
    scene.store.path(3).write_bytes(raw)
    os.utime(scene.store.path(3), (1, 1))
    scene.store.flush()
    result = scene.sync()
    assert "E0000000003.log" in result.cause
    assert "What to do: look at the disk that the log is on" in result.cause
    assert gaps(scene) == 1


def test_another_products_full_backup(scene: ProtectedStore) -> None:
    """After another product's full backup perdure truncates nothing until it is told to take over."""
    scene.protect()
    scene.store.stamp_full()
    scene.store.work(2)
    scene.full()
    assert scene.store.completed[-1][0] is BackupKind.COPY
    ledger = scene.home.ledger(scene.protected.source.id)
    assert ledger.foreign_full
    assert "another product made a full backup" in attention(scene)


def test_an_added_database_on_the_stream(scene: ProtectedStore) -> None:
    """A database that was added to the stream is named, since it keeps log from being truncated."""
    scene.protect()
    added = bytearray(scene.store.database.read_bytes())
    for at in (0, 4096):
        added[at + 24 : at + 52] = bytes(range(28))
        struct.pack_into("<I", added, at, 0)
        struct.pack_into("<I", added, at, xor32(bytes(added[at : at + 4096])))
    (scene.store.folder / "Archive.edb").write_bytes(added)
    scene.sync()
    assert "Archive.edb writes to the same log stream" in attention(scene)


def test_moved_paths(scene: ProtectedStore) -> None:
    """A database whose file was moved below the store's folder is followed by its identity."""
    scene.protect()
    scene.store.work(2)
    place = scene.store.folder / "disk2"
    place.mkdir()
    scene.store.database = scene.store.database.rename(place / "Mailboxes.edb")
    assert scene.sync().cause == ""
    scene.full()
    target, _ = scene.recover()
    assert is_whole(target)


def test_a_database_that_was_moved_away(scene: ProtectedStore) -> None:
    """A database that its writer says lies outside of the protected folder is missing, and its new place is named."""
    scene.protect()
    scene.store.work(1)
    scene.store.database = scene.store.database.rename(scene.root / "elsewhere.edb")
    with pytest.raises(SourceUnusable, match="was moved: its writer says that it lies at") as moved:
        scene.sync()
    assert scene.state == "missing"
    assert "was moved" in scene.cause
    assert str(scene.store.database) in moved.value.message
    assert "protect it at its new place" in moved.value.hint


def test_a_failed_database(scene: ProtectedStore) -> None:
    """A database that the engine could not keep mounted gives no image; that is said, and its log is still shipped."""
    scene.protect()
    scene.store.work(2)
    scene.store.state = DatabaseState.FAILED
    with pytest.raises(ImageFailed, match="no copy of 'Mailboxes' is in a state") as failed:
        scene.full()
    assert "mount the database" in failed.value.hint
    assert "the database has failed: mount it, or recover it" in attention_of(scene.sync, scene)
    assert {span.generation for span in scene.vault.spans(scene.protected.source.id)} >= {2, 3}


def test_a_database_that_was_dismounted_in_disorder(scene: ProtectedStore) -> None:
    """A dismounted database in dirty shutdown gives no image, and the message says how it becomes clean."""
    scene.protect()
    scene.store.work(1)
    scene.store.state = DatabaseState.DISMOUNTED
    with pytest.raises(ImageFailed, match="is dismounted in dirty shutdown") as failed:
        scene.full()
    assert "eseutil /r" in failed.value.hint


def test_the_log_disk_ran_full(scene: ProtectedStore) -> None:
    """When the engine had to use its reserve logs, that is said before it has to dismount."""
    scene.protect()
    scene.store.flags = 1
    scene.store.work(2)
    assert scene.sync().cause == ""
    assert "the log disk ran full" in attention(scene)
    scene.store.flags = 0
    scene.store.work(1)
    scene.sync()
    assert attention(scene) == ""


def test_a_required_log_is_gone_at_the_freeze(scene: ProtectedStore) -> None:
    """An image whose database needs a log that nobody has is no recovery point."""
    scene.protect()
    scene.store.work(3)
    scene.sync()
    scene.store.path(3).unlink()
    with pytest.raises(ImageFailed, match="cannot be recovered from its logs") as failed:
        scene.full()
    assert "perdure ese verify" in failed.value.hint
    assert len(scene.vault.points(scene.protected.source.id)) == 1
    assert len(scene.store.completed) == 1


def test_a_database_that_is_gone(scene: ProtectedStore) -> None:
    """A database whose file is nowhere is missing, and the message names the folder."""
    scene.protect()
    scene.store.database.unlink()
    with pytest.raises(SourceUnusable, match="is not there"):
        scene.sync()
    assert scene.state == "missing"


def test_blockers_are_explained(scene: ProtectedStore) -> None:
    """What the engine says keeps its log is in the ledger, in words."""
    scene.store.blockers = (Blocker(BlockerKind.LAGGED_COPY, 3, "EX3"),)
    scene.store.work(3)
    scene.protect()
    ledger = scene.home.ledger(scene.protected.source.id)
    assert ledger.blockers == ("the lagged copy on EX3 has not replayed 3 yet",)
    assert ledger.truncated == 0


def test_a_file_is_no_store(scene: ProtectedStore) -> None:
    """Whoever names the database's file is told to name its folder."""
    with pytest.raises(SourceUnusable, match=r"Mailboxes\.edb is a file and no folder") as refused:
        scene.protect(folder=scene.store.database)
    assert "name the folder" in refused.value.hint


def test_several_databases_have_to_be_named(scene: ProtectedStore) -> None:
    """A folder with several databases is not guessed about."""
    SmallStore(scene.store.folder / "second", "Archive", seed=4)
    with pytest.raises(BadInput, match="several databases"):
        scene.protect()
    scene.protect({"database": ["Mailboxes"]})
    assert scene.protected.source.location.endswith("store#Mailboxes")
