"""Recovery to the original location: the old files are kept in a folder beside, the recovered ones take their place.

The database comes last: a crash in between leaves no database there, so that nothing can be mounted that is half.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from perdure.ese.headers.kinds import FileKind, kind_by_name
from perdure.model.errors import Refused, SourceUnusable
from perdure.snapshots.writer import CopyRole, DatabaseState, DatabaseStatus
from perdure.workloads.exchange.copies import StoreCopy, Survey, lost_active, survey
from perdure.workloads.exchange.folders import LogFolder
from perdure.workloads.exchange.options import SourceOptions

__all__ = ["OriginalPlace", "original_place"]

_MOUNT = (
    "in the Exchange Management Shell: Set-MailboxDatabase DATABASE -AllowFileRestore $true; Mount-Database DATABASE "
    "(the engine replays the logs when it mounts)"
)

_OF_A_STREAM = {
    FileKind.LOG,
    FileKind.CHECKPOINT,
    FileKind.FLUSH_MAP,
    FileKind.RESERVE_LOG,
    FileKind.UNFINISHED_LOG,
}


def original_place(options: SourceOptions, names: Sequence[str]) -> OriginalPlace:
    """Where the source's own files are, or would be if they are lost.

    Args:
        options: Of the source.
        names: Names of the restored database file; used when no file of the source is left.

    Raises:
        Refused: It is in use, or other databases write to the same log.
    """
    lost = lost_active(options.folders, options.database)
    try:
        found = survey(options.folders, options.database)
    except SourceUnusable:
        if lost is not None:
            return _lost_place(lost, None)
        folder = options.folders[0]
        return OriginalPlace(folder / names[0] if names else folder / "database.edb", None, ())
    if lost is not None:
        return _lost_place(lost, found)
    copy = found.active or found.copies[0]
    _refuse_in_use(copy)
    sharing = [
        other.path
        for other in found.others
        if other.header is not None and other.header.log_signature == copy.header.log_signature
    ]
    if sharing:
        raise Refused(
            f"{', '.join(map(str, sharing))} writes to the same log stream as {copy.database}, which an in-place "
            "recovery would take from it; nothing was changed",
            code="stream-shared",
            hint="recover to a folder with --target, and let the engine replay it there",
        )
    others = tuple(one.node for one in found.copies if one is not copy and one.role is not CopyRole.ACTIVE)
    return OriginalPlace(copy.database, copy.logs, others)


class OriginalPlace:
    """The place of a database's own files.

    Args:
        database: The ``.edb``, which may be gone.
        logs: Its log, ``None`` if there is none.
        other_nodes: Nodes with copies that have to be reseeded afterwards.
    """

    def __init__(self, database: Path, logs: LogFolder | None, other_nodes: tuple[str, ...]) -> None:
        self.database, self.logs, self.other_nodes = database, logs, other_nodes

    @property
    def log_folder(self) -> Path:
        return self.logs.folder if self.logs is not None else self.database.parent

    def take(self, directory: Path, name: str) -> tuple[tuple[Path, ...], tuple[str, ...]]:
        """Put restored files in place; see :meth:`perdure.workloads.contract.DirectoryWorkload.take_place`."""
        stamp = f".before-recovery-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        kept: list[Path] = []
        for path in self._own_files():
            aside = path.parent / f"{self.database.stem}{stamp}"
            aside.mkdir(mode=0o700, exist_ok=True)
            path.rename(aside / path.name)
            kept.append(aside)
        _sync({self.database.parent, self.log_folder, *kept})
        logs = [path for path in sorted(directory.iterdir()) if path.name != name]
        placed = [_place(path, self.log_folder / path.name) for path in logs]
        _sync({self.log_folder})
        placed.append(_place(directory / name, self.database))
        _sync({self.database.parent})
        notes = [f"the files that were there are kept in {aside}" for aside in dict.fromkeys(kept)]
        notes += self._what_next()
        return tuple(placed), tuple(notes)

    def _own_files(self) -> list[Path]:
        found = [self.database] if self.database.exists() else []
        base = self.logs.base if self.logs is not None else ""
        for folder in {self.log_folder, self.database.parent}:
            for path in sorted(folder.iterdir()) if folder.is_dir() else []:
                kind = kind_by_name(path.name) if path.is_file() else None
                own = base and path.name.upper().startswith(base.upper())
                if kind in _OF_A_STREAM and (own or path.stem == self.database.stem):
                    found.append(path)
        return list(dict.fromkeys(found))

    def _what_next(self) -> list[str]:
        lines = [_MOUNT]
        lines += [
            f"the copy on {node} does not belong to this database any more: Update-MailboxDatabaseCopy "
            f"DATABASE\\{node} -DeleteExistingFiles"
            for node in self.other_nodes
        ]
        return lines


def _lost_place(lost: DatabaseStatus, found: Survey | None) -> OriginalPlace:
    """The place of an active copy whose file is gone, as its engine knows it."""
    if lost.state is DatabaseState.MOUNTED:
        raise _in_use(lost.database_path, "it is mounted")
    others = tuple(one.node for one in found.copies) if found is not None else ()
    return OriginalPlace(Path(lost.database_path), LogFolder(Path(lost.log_folder), lost.log_base), others)


def _refuse_in_use(copy: StoreCopy) -> None:
    who = "it is mounted" if copy.in_use else _opener(copy)
    if who:
        raise _in_use(str(copy.database), who)


def _in_use(database: str, who: str) -> Refused:
    return Refused(
        f"{database} is in use ({who}); nothing was changed",
        code="source-in-use",
        hint="dismount it first (Dismount-Database), or recover to a folder with --target",
    )


def _opener(copy: StoreCopy) -> str:
    """Which other process has the database open, as far as ``/proc`` shows."""
    wanted = copy.database.stat()
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        try:
            for link in (process / "fd").iterdir():
                status = link.stat()
                if (status.st_dev, status.st_ino) == (wanted.st_dev, wanted.st_ino):
                    return f"process {process.name} has it open"
        except OSError:
            continue
    return ""


def _place(source: Path, target: Path) -> Path:
    shutil.move(source, target)
    return target


def _sync(folders: set[Path]) -> None:
    for folder in folders:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
