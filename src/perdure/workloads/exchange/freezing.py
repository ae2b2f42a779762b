"""Taking the image of one copy of a database: with its writer while it is in use, as it lies when it is not.

The order is that of the writer sequence: prepare, freeze, snapshot, thaw; only then is anything read and checked.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perdure.ese.errors import EseDamaged, NotAnEseFile
from perdure.ese.headers.database import DatabaseHeader
from perdure.model.errors import ImageFailed
from perdure.snapshots.files import (
    clone_file,
    copy_file,
    copy_ranges,
    link_file,
    refuse_without_room,
    write_back,
)
from perdure.snapshots.writer import BackupKind, CopyRole, DatabaseState
from perdure.workloads.exchange.backup_set import BackupSet, begin_backup
from perdure.workloads.exchange.copies import StoreCopy
from perdure.workloads.exchange.folders import LogFolder, read_header
from perdure.workloads.exchange.image import DatabaseReader
from perdure.workloads.exchange.shipping import LogFile, read_log_files

__all__ = ["SNAPSHOT_FOLDER", "ChoosePages", "FrozenCopy", "freeze_copy", "remove_snapshots"]

SNAPSHOT_FOLDER = ".perdure-snapshot"
"""Folder beside a database that holds a snapshot while it is read; what is left of one may be deleted."""

_FOREVER = float("inf")

ChoosePages = Callable[[DatabaseReader, DatabaseHeader, LogFile | None], NDArray[np.int64] | None]
"""Says which pages of the frozen file have to be stored; ``None``: any may have changed."""


@dataclass(frozen=True, slots=True)
class FrozenCopy:
    """What was frozen.

    Args:
        copy: The copy.
        header: The database's header at that moment.
        database: Reads the database.
        current: The log that was being written, ``None`` if there is none or this copy does not write it.
        logs: Complete logs that the database needs, by generation; they never change.
        time_ns: When, nanoseconds since 1970 UTC.
        backup: The backup set, ``None`` for a database that was not in use.
    """

    copy: StoreCopy
    header: DatabaseHeader
    database: DatabaseReader
    current: LogFile | None
    logs: dict[int, Path]
    time_ns: int
    backup: BackupSet | None


@contextmanager
def freeze_copy(
    copy: StoreCopy,
    kind: BackupKind,
    *,
    name: str,
    choose: ChoosePages,
    check: bool,
    folder: Path | None,
    clock: Callable[[], int],
    found: list[str],
) -> Iterator[FrozenCopy]:
    """Freeze a copy and let it go on; the snapshot is there while the context is open.

    Args:
        copy: Which.
        kind: What the backup is to be to the engine.
        name: Name of the database in the image.
        choose: Asked while it is frozen.
        check: Whether a damaged page ends the image.
        folder: Where snapshots are kept that have to be copies; beside the database unless given.
        clock: Nanoseconds since 1970 UTC.
        found: Is told what a person should know of the pages.

    Raises:
        ImageFailed: It cannot be frozen as it is.
        Refused: There is no room for a snapshot.
    """
    with contextlib.ExitStack() as held:
        if _is_in_service(copy):
            backup = held.enter_context(begin_backup(copy.folder, copy.name, kind))
            place = held.enter_context(_snapshot_folder(folder or copy.database.parent))
            taken = _Snapshot(copy, name, place, choose, check=check, found=found, clock=clock)
            with contextlib.suppress(OSError):
                write_back(copy.database)
            deadline = backup.freeze()
            taken.take(deadline)
            backup.thaw()
            yield taken.result(held, backup)
            return
        _refuse_dirty(copy)
        place = held.enter_context(_snapshot_folder(folder or copy.database.parent))
        taken = _Snapshot(copy, name, place, choose, check=check, found=found, clock=clock)
        taken.take_at_rest()
        yield taken.result(held, None)


def remove_snapshots(database: Path, folder: Path | None) -> None:
    """Remove what a killed process left of a snapshot."""
    shutil.rmtree((folder or database.parent) / SNAPSHOT_FOLDER, ignore_errors=True)


def _is_in_service(copy: StoreCopy) -> bool:
    """Whether an engine writes this copy: it has the database mounted, or replays log into it."""
    if copy.status is None or copy.status.state is DatabaseState.FAILED:
        return False
    return copy.in_use or copy.status.role in (CopyRole.PASSIVE, CopyRole.LAGGED)


def _refuse_dirty(copy: StoreCopy) -> None:
    header = read_header(copy.database)
    if header.clean:
        return
    if copy.status is None:
        raise ImageFailed(
            f"{copy.database} is in {header.state_text} and no writer answers in {copy.folder}: either it is in use, "
            "and then only its writer can hold it still, or its engine crashed",
            code="no-writer",
            hint="start the service that owns the store so that its writer answers, or dismount the database cleanly",
        )
    raise ImageFailed(
        f"the database {copy.name!r} is {copy.status.state.value} in {header.state_text}: no image of it can be taken",
        code="database-dismounted",
        hint="mount it, or bring it to a clean shutdown (eseutil /r); the recovery points that there are stay",
    )


@contextmanager
def _snapshot_folder(beside: Path) -> Iterator[Path]:
    place = beside / SNAPSHOT_FOLDER
    shutil.rmtree(place, ignore_errors=True)
    try:
        place.mkdir(mode=0o700)
    except OSError as error:
        raise ImageFailed(
            f"the folder {place} for a snapshot cannot be made: {error.strerror or error}",
            code="no-snapshot",
            hint="let perdure write there, or name another folder with --snapshot-folder",
        ) from error
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


class _Snapshot:
    """What is taken while a copy is frozen."""

    def __init__(
        self,
        copy: StoreCopy,
        name: str,
        place: Path,
        choose: ChoosePages,
        *,
        check: bool,
        found: list[str],
        clock: Callable[[], int],
    ) -> None:
        self._copy, self._name, self._place, self._choose = copy, name, place, choose
        self._check, self._found, self._clock = check, found, clock
        self._logs: dict[int, Path] = {}
        self._current: LogFile | None = None
        self._file = copy.database
        self._changed: NDArray[np.int64] | None = None
        self._decided = False
        self._unchanged_since = 0

    def take(self, deadline: float) -> None:
        """Keep everything that the engine would go on to change."""
        self._time_ns = self._clock()
        target = self._place / self._copy.database.name
        try:
            self._look(deadline)
            self._keep(target, deadline)
        except OSError as error:
            raise ImageFailed(
                f"the snapshot of {self._copy.database} in {self._place} failed: {error.strerror or error}",
                code="no-snapshot",
                hint="free some space, or name a folder on another disk with --snapshot-folder",
            ) from error
        self._file = target

    def take_at_rest(self) -> None:
        """A database that nobody has open is its own snapshot for as long as it is not written."""
        self._time_ns = self._clock()
        self._unchanged_since = self._copy.database.stat().st_mtime_ns
        self._look(_FOREVER)

    def result(self, held: contextlib.ExitStack, backup: BackupSet | None) -> FrozenCopy:
        """What was taken; what can be decided on the snapshot is decided only now, after the thaw."""
        if not self._decided:
            self._decide(self._file)
        descriptor = os.open(self._file, os.O_RDONLY | os.O_CLOEXEC)
        held.callback(os.close, descriptor)
        reader = self._reader(descriptor, self._changed)
        return FrozenCopy(self._copy, self._header, reader, self._current, self._logs, self._time_ns, backup)

    def _look(self, deadline: float) -> None:
        try:
            self._header = read_header(self._copy.database)
        except (EseDamaged, NotAnEseFile, OSError) as error:
            raise ImageFailed(f"{self._copy.database} cannot be read: {error}", code="source-damaged") from error
        logs = self._copy.logs
        if logs is None:
            return
        if self._copy.role is CopyRole.ACTIVE and logs.current.exists():
            self._current = read_log_files([logs.current])[0]
        self._keep_logs(logs, deadline)

    def _keep_logs(self, logs: LogFolder, deadline: float) -> None:
        """The complete logs from the first that the database needs, without a gap; they may be deleted meanwhile."""
        generation = self._header.min_required
        if self._header.clean or not generation:
            return
        until = self._current.header.generation if self._current is not None and self._current.log.header else None
        while generation != until and logs.holds(generation):
            path = logs.closed(generation)
            link_file(path, self._place / path.name, deadline)
            self._logs[generation] = self._place / path.name
            generation += 1

    def _keep(self, target: Path, deadline: float) -> None:
        self._decided = not clone_file(self._copy.database, target)
        if not self._decided:
            return
        self._decide(self._copy.database)
        size = self._copy.database.stat().st_size
        if self._changed is None:
            refuse_without_room(self._place, size, f"a snapshot of {self._copy.database}")
            copy_file(self._copy.database, target, deadline)
            return
        page = self._header.page_size
        refuse_without_room(self._place, len(self._changed) * page, f"a snapshot of {self._copy.database}")
        copy_ranges(self._copy.database, target, _ranges(self._changed, page, size), deadline)

    def _decide(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._changed = self._choose(self._reader(descriptor, None), self._header, self._current)
        finally:
            os.close(descriptor)

    def _reader(self, descriptor: int, changed: NDArray[np.int64] | None) -> DatabaseReader:
        size = os.fstat(descriptor).st_size
        return DatabaseReader(
            name=self._name,
            descriptor=descriptor,
            size=size - size % self._header.page_size,
            page_size=self._header.page_size,
            changed=changed,
            check=self._check,
            found=self._found,
            unchanged_since=self._unchanged_since,
        )


def _ranges(pages: NDArray[np.int64], page_size: int, size: int) -> list[tuple[int, int]]:
    """Runs of pages as offsets and lengths."""
    if not len(pages):
        return []
    starts = np.concatenate([[0], np.flatnonzero(np.diff(pages) != 1) + 1])
    lengths = np.diff(np.append(starts, len(pages)))
    offsets = pages[starts] * page_size
    return [
        (offset, min(count * page_size, size - offset))
        for offset, count in zip(offsets.tolist(), lengths.tolist(), strict=True)
        if offset < size
    ]
