"""What an administrator does to databases of a store, and what that does to their log streams."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import msgspec

from perdure.snapshots.writer import DatabaseState
from perdure.testing.information_store.engine import CLEAN, Engine
from perdure.testing.information_store.header_fields import NOWHERE, BackupStamp, DatabaseFields, log_time_bytes
from perdure.testing.information_store.hosted import HostedDatabase
from perdure.testing.information_store.store import InformationStore

__all__ = ["move", "repair", "reset_log_stream", "switch_circular_logging"]


def move(store: InformationStore, name: str, *, file: str | None = None, log_folder: str | None = None) -> None:
    """Move the file of a database, its log, or both, to other paths below the store's folder, and mount it there."""
    hosted = _dismounted(store, name)
    place = hosted.place.moved(file=file, log_folder=log_folder)
    if file is not None:
        _move(hosted.path, store.folder / file)
    if log_folder is not None:
        assert not _others_on_stream(store, hosted), "the log of several databases cannot be moved with one of them"
        target = store.folder / log_folder
        target.mkdir(parents=True, exist_ok=True)
        for path in sorted(hosted.log_folder.glob(f"{place.base}*")):
            if path.suffix in (".log", ".chk", ".jrs"):
                _move(path, target / path.name)
    store.remember(place)
    store.mount(name)


def repair(store: InformationStore, name: str) -> None:
    """Repair a database by force (``eseutil /p``): it has a new identity then, and belongs to no log any more.

    Its log is gone; the stream that begins at its next mount starts with generation 1 and has a new signature.
    """
    hosted = _dismounted(store, name)
    fields = Engine.read_fields(hosted.path, store.plan.page_size)
    fields.signature = Engine.new_signature(store.chance, store.clock)
    fields.repairs += 1
    fields.repair_time = log_time_bytes(store.clock())
    _leave_stream(fields)
    _write_header(hosted.path, fields)
    _delete_log(store, hosted)
    store.mount(name)


def reset_log_stream(store: InformationStore, name: str) -> None:
    """Throw the log of a clean database away: a new stream begins at its next mount, with generation 1."""
    hosted = _dismounted(store, name)
    _delete_log(store, hosted)
    store.mount(name)


def switch_circular_logging(store: InformationStore, *, circular: bool) -> None:
    """Switch circular logging on or off; the databases are dismounted and mounted again for it."""
    mounted = [name for name, one in store.databases.items() if one.state is DatabaseState.MOUNTED]
    for name in mounted:
        store.dismount(name)
    was = store.plan.was_circular or store.plan.circular
    store.plan = msgspec.structs.replace(store.plan, circular=circular, was_circular=was)
    for name in mounted:
        store.mount(name)


def _dismounted(store: InformationStore, name: str) -> HostedDatabase:
    hosted = store.databases[name]
    if hosted.state is DatabaseState.MOUNTED:
        store.dismount(name)
    return hosted


def _move(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(source, target)


def _others_on_stream(store: InformationStore, hosted: HostedDatabase) -> list[str]:
    place = hosted.place
    return [
        name
        for name, other in store.databases.items()
        if name != place.name and (other.place.log_folder, other.place.base) == (place.log_folder, place.base)
    ]


def _delete_log(store: InformationStore, hosted: HostedDatabase) -> None:
    assert not _others_on_stream(store, hosted), "other databases need this log"
    for path in hosted.log_folder.glob(f"{hosted.place.base}*"):
        if path.suffix in (".log", ".chk"):
            path.unlink()


def _leave_stream(fields: DatabaseFields) -> None:
    fields.log_signature = bytes(28)
    fields.state = CLEAN
    fields.consistent = fields.attach = fields.detach = NOWHERE
    fields.full = fields.incremental = fields.copy = fields.snapshot = BackupStamp()
    fields.min_required = fields.max_required = fields.max_committed = fields.min_consistent = 0


def _write_header(path: Path, fields: DatabaseFields) -> None:
    content = replace(fields).encode()
    with path.open("r+b") as file:
        file.write(content * 2)
