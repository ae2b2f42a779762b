"""Recovery of a mailbox database: layouts, surviving log, the original location."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from protected_store import ProtectedStore, is_whole, logs_of

from perdure.ese.headers.log import read_log_header
from perdure.model.errors import BadInput, Damaged, Refused
from perdure.model.targets import AtPoint, Latest
from perdure.protection.browse import browse
from perdure.protection.recovery import recover
from perdure.snapshots.writer import DatabaseState
from perdure.testing.small_store import SmallStore


def recover_in_place(scene: ProtectedStore, **options: str) -> tuple[str, ...]:
    """Recover the latest moment onto the source."""
    report = recover(scene.protected, to=Latest(), in_place=True, yes=True, options=options)
    assert report.verification is not None
    assert report.verification.passed
    return report.notes


def test_recovery_database_layout(scene: ProtectedStore) -> None:
    """The layout for a recovery database has the logs where Exchange wants them, and the commands that mount it."""
    scene.protect()
    scene.store.work(3)
    scene.sync()
    target, report = scene.recover(layout="recovery-database")
    assert {path.name for path in target.iterdir()} == {"Mailboxes.edb", "_restoredLogs"}
    assert "E00.log" in logs_of(target / "_restoredLogs")
    assert any("New-MailboxDatabase -Recovery" in note for note in report.notes)
    assert any("New-MailboxRestoreRequest" in note for note in report.notes)


def test_roll_forward_adds_the_log_that_survived(scene: ProtectedStore) -> None:
    """Log that is newer than the pool's and survived in production is joined, up to the log that was being written."""
    scene.protect()
    scene.store.work(2)
    scene.sync()
    scene.store.work(3)
    scene.store.change([1, 2, 3])
    survived = logs_of(scene.store.folder)
    scene.store.database.unlink()
    scene.stop_serving()
    target, report = scene.recover(**{"roll-forward": "yes"})
    recovered = logs_of(target)
    assert recovered["E00.log"] == survived["E00.log"]
    assert {name: recovered[name] for name in survived if name in recovered} == {
        name: content for name, content in survived.items() if name in recovered
    }
    assert report.position is not None
    assert report.position.generation == read_log_header(recovered["E00.log"], "").generation
    assert any("4 logs that survived" in note for note in report.notes)


def test_roll_forward_refuses_log_that_does_not_continue(scene: ProtectedStore) -> None:
    """Log of the right name that does not continue what is in the pool is refused, and nothing is left behind."""
    scene.protect()
    scene.store.work(2)
    scene.sync()
    other = SmallStore(scene.root / "other", seed=5)
    other.stream, other.signature = scene.store.stream, scene.store.signature
    other.work(5)
    for path in scene.store.folder.glob("E00*.log"):
        path.unlink()
    for name, content in logs_of(other.folder).items():
        (scene.store.folder / name).write_bytes(content)
    scene.store.database.unlink()
    with pytest.raises(Refused, match="surviving log cannot be used"):
        scene.recover(**{"roll-forward": "yes"})
    assert not [path for path in scene.root.iterdir() if path.name.startswith("recovered")]


def test_roll_forward_with_nothing_left(scene: ProtectedStore) -> None:
    """When no log survived the recovery gives what is in the pool, and says so."""
    scene.protect()
    scene.store.work(2)
    scene.sync()
    for path in scene.store.folder.iterdir():
        path.unlink()
    scene.stop_serving()
    target, report = scene.recover(**{"roll-forward": "yes"})
    assert is_whole(target)
    assert any("no log newer than the pool's" in note for note in report.notes)


def test_in_place_is_refused_while_mounted(scene: ProtectedStore) -> None:
    """A mounted database is never replaced."""
    scene.protect()
    with pytest.raises(Refused, match="it is mounted"):
        recover_in_place(scene)


def test_in_place_recovery_keeps_what_was_there(scene: ProtectedStore) -> None:
    """In place the recovered files get the old places, and every old file is kept in a folder beside."""
    scene.protect()
    scene.store.work(3)
    scene.sync()
    scene.store.dismount()
    old = {path.name: path.read_bytes() for path in scene.store.folder.iterdir() if path.is_file()}
    notes = recover_in_place(scene)
    kept = [path for path in scene.store.folder.iterdir() if path.is_dir()]
    assert len(kept) == 1
    assert {path.name: path.read_bytes() for path in kept[0].iterdir()} == old
    here = {path.name for path in scene.store.folder.iterdir() if path.suffix in (".edb", ".log")}
    assert "Mailboxes.edb" in here
    assert "E00.log" in here
    assert any("Mount-Database" in note for note in notes)
    assert is_whole(scene.store.folder)


def test_in_place_recovery_of_a_lost_database(scene: ProtectedStore) -> None:
    """After a disaster that took the files, an in-place recovery with roll-forward brings all of the log back."""
    scene.protect()
    scene.store.work(2)
    scene.sync()
    scene.store.work(2)
    scene.store.database.unlink()
    scene.stop_serving()
    recover_in_place(scene, **{"roll-forward": "yes"})
    newest = read_log_header((scene.store.folder / "E00.log").read_bytes(), "")
    assert newest.generation == scene.store.generation
    assert scene.store.database.exists()


def test_in_place_recovery_of_a_lost_active_copy(scene: ProtectedStore) -> None:
    """A lost active copy comes back where its engine has it, not where a passive copy is, which is to be reseeded."""
    scene.store.node = "EX1"
    scene.store.work(2)
    place = scene.store.folder / "disk2"
    place.mkdir()
    scene.store.database = scene.store.database.rename(place / "Mailboxes.edb")
    passive = scene.store.passive_copy(scene.root / "EX2", "EX2")
    scene.serve(passive)
    scene.protect({"copy": [str(passive.folder)]})
    scene.store.work(2)
    scene.store.database.unlink()
    with pytest.raises(Refused, match="it is mounted"):
        recover_in_place(scene, **{"roll-forward": "yes"})
    scene.store.state = DatabaseState.DISMOUNTED
    untouched = logs_of(passive.folder)
    notes = recover_in_place(scene, **{"roll-forward": "yes"})
    assert any("the copy on EX2 does not belong to this database any more" in note for note in notes)
    assert scene.store.database.exists()
    assert (scene.store.folder / "E00.log").exists()
    assert logs_of(passive.folder) == untouched
    assert is_whole(scene.store.folder)


def test_a_shared_stream_is_not_taken_away(scene: ProtectedStore) -> None:
    """In place is refused when another database writes to the same log."""
    scene.protect({"database": ["Mailboxes"]})
    scene.store.dismount()
    other = SmallStore(scene.root / "other", "Archive", seed=9)
    other.stream = scene.store.stream
    other.dismount()
    (scene.store.folder / "Archive.edb").write_bytes(other.database.read_bytes())
    with pytest.raises(Refused, match=r"Archive\.edb writes to the same log stream"):
        recover_in_place(scene)


def test_damage_after_recovery_is_found(scene: ProtectedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the target's disk does to a page while it is written fails the recovery, which leaves nothing behind."""
    scene.protect()
    real = os.fsync
    struck: list[Path] = []

    def fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path.name == "Mailboxes.edb" and not struck:
            struck.append(path)
            with path.open("r+b") as file:
                file.seek(30 * 4096 + 99)
                file.write(b"\x77\x88\x99")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(Damaged, match="page 29"):
        scene.recover()
    assert struck
    assert not [path for path in scene.root.iterdir() if path.name.startswith("recovered")]


def test_unknown_options_are_refused(scene: ProtectedStore) -> None:
    """An option that the workload does not know, or that does not go with another, is refused and nothing is left."""
    scene.protect()
    with pytest.raises(BadInput, match="not recovered with --tablespace"):
        scene.recover(tablespace="x")
    with pytest.raises(BadInput, match="needs no logs"):
        scene.recover(clean="yes", layout="recovery-database")


def test_a_point_can_be_recovered_when_its_log_is_gone(scene: ProtectedStore) -> None:
    """A point stands alone: it needs none of the log that was shipped."""
    scene.store.work(3)
    scene.protect()
    scene.store.work(3)
    point = scene.full()
    source = scene.protected.source.id
    scene.vault.delete_log(source, scene.vault.spans(source))
    target, _ = scene.recover(AtPoint(point.number))
    assert is_whole(target)


def test_browsing_lists_what_is_in_the_catalog(scene: ProtectedStore) -> None:
    """A database without a catalog is told as damaged rather than shown as empty."""
    scene.protect()
    with pytest.raises(Damaged):
        browse(scene.protected)
