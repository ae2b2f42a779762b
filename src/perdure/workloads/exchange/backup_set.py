"""One backup set with a writer: prepared, frozen, thawed, complete or aborted, in that order and no other."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from perdure.model.errors import ImageFailed
from perdure.snapshots.writer import BackupKind, CompletedDatabase, StoreWriter, WriterError
from perdure.snapshots.writer_client import SocketWriter, find_writer

__all__ = ["BackupSet", "begin_backup"]

_SAFETY_S = 1.5
"""Seconds before the writer thaws by itself at which a snapshot must be done."""

_LONGEST_CALL_S = 120.0


def begin_backup(folder: Path, database: str, kind: BackupKind) -> BackupSet:
    """Ask the writer of a folder to begin a backup of a database.

    Raises:
        ImageFailed: No writer answers, or it does not want to.
    """
    writer = find_writer(folder, _LONGEST_CALL_S)
    if writer is None:
        raise ImageFailed(
            f"the writer of {folder} has stopped answering; nothing was begun",
            code="no-writer",
            hint="start the service that owns the store, and see that it serves its writer",
        )
    try:
        return BackupSet(writer, database, kind)
    except BaseException:
        writer.close()
        raise


class BackupSet:
    """A set of one database. Close it, or use it in a ``with`` statement: what is not complete then is aborted.

    Args:
        writer: Its writer; closed with the set.
        database: What the writer calls it.
        kind: What the backup is to be.

    Raises:
        WriterError: The writer does not begin it.
    """

    def __init__(self, writer: SocketWriter | StoreWriter, database: str, kind: BackupKind) -> None:
        self.kind = kind
        self._writer, self._database = writer, database
        self._id = writer.prepare([database], kind)

    def __enter__(self) -> BackupSet:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def freeze(self) -> float:
        """Hold all writes; returns until when a snapshot must be done, as ``time.monotonic()``."""
        began = time.monotonic()
        frozen = self._writer.freeze(self._id)
        return began + frozen.seconds_left - _SAFETY_S

    def thaw(self) -> None:
        """Let writes go on.

        Raises:
            WriterTimeout: They went on before; nothing that was read meanwhile counts.
        """
        self._writer.thaw(self._id)

    def complete(self) -> CompletedDatabase:
        """The database is durable elsewhere; ends the set.

        Raises:
            WriterError: The writer does not accept it; nothing was truncated.
        """
        backup_set, self._id = self._id, ""
        done = self._writer.complete(backup_set, [self._database])
        return next((one for one in done if one.name == self._database), CompletedDatabase(self._database, False))

    def close(self) -> None:
        """Abort what is not complete, and let the writer go."""
        if self._id:
            with contextlib.suppress(WriterError):
                self._writer.abort(self._id)
            self._id = ""
        if isinstance(self._writer, SocketWriter):
            self._writer.close()
