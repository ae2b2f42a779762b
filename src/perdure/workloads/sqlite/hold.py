"""Our connections to the live database: the read hold that keeps the WAL, and the checkpoints that recycle it.

The hold is an open read transaction. When it begins, SQLite gives it one of two locks, and both keep every
later frame in the WAL until the hold moves, without anything being written into the user's database:

* A *read mark* at the last frame M. Nobody can restart the WAL, and checkpoints copy at most the frames up to M.
* *Read lock 0*, if the WAL was completely copied into the database already. Then nobody can checkpoint at all (a
  checkpointer needs that lock exclusively), so the database file is frozen. A writer that finds no frame behind M
  restarts the WAL; with a frame in the new one, no further restart is possible, for nothing of it gets copied.

So under a hold the WAL restarts at most once, only exactly at M, and never with a frame behind M in the old one. A hold
moves only when every frame up to its new M is durable, therefore nothing is lost by the restart.

Connections are opened once and reused: SQLite cannot really close a connection's descriptor while the process has locks
on the file, so connections that come and go would use up descriptors.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

from perdure.model.errors import Refused, SourceUnusable

__all__ = ["Connections", "require_safe_library"]

_SAFE = (3, 51, 3)
_BUSY_MS = 5000
_WRITE_LOCK_MS = 250


def require_safe_library() -> None:
    """Refuse to run on a SQLite that has the WAL-reset bug.

    Raises:
        Refused: The library is older than 3.51.3.
    """
    version = apsw.sqlite_lib_version()
    if tuple(int(part) for part in version.split(".")[:3]) < _SAFE:
        raise Refused(
            f"perdure's SQLite library is {version}; before 3.51.3 it can corrupt a database while it checkpoints",
            code="sqlite-too-old",
            hint="install apsw 3.51.3 or newer",
        )


class Connections:
    """Two connections that take turns in holding, one that can take the write lock and one that checkpoints.

    Args:
        path: The database.

    Raises:
        SourceUnusable: SQLite cannot open or read it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._all: list[apsw.Connection] = []
        try:
            for _ in range(4):
                self._all.append(_connect(path))
            self._held, self._spare, self._writer, self._checkpointer = self._all
            self._writer.set_busy_timeout(_WRITE_LOCK_MS)
            for connection in self._all:
                # Until it has read once a connection does not know that there is a WAL, and its checkpoints do nothing.
                _begin_read(connection)
                if connection is not self._held:
                    connection.execute("ROLLBACK")
            if self._held.pragma("journal_mode") != "wal":
                raise SourceUnusable(  # noqa: TRY301 - connections are closed below
                    f"{path} is not in WAL mode any more, so it has no log to ship",
                    code="not-wal",
                    hint="switch it back with `perdure protect … --prepare`",
                )
        except apsw.Error as error:
            self.close()
            raise _unusable(path, error) from error
        except SourceUnusable:
            self.close()
            raise

    def take_next_hold(self) -> None:
        """Begin a second hold at the present end of the WAL, beside the one that is kept."""
        try:
            _begin_read(self._spare)
        except apsw.Error as error:
            self.drop_next_hold()
            raise _unusable(self._path, error) from error

    def release_old_hold(self) -> None:
        """End the older hold; the next one is the only one now."""
        self._held.execute("ROLLBACK")
        self._held, self._spare = self._spare, self._held

    def drop_next_hold(self) -> None:
        """Give the second hold up again."""
        if self._spare.in_transaction:
            self._spare.execute("ROLLBACK")

    @contextmanager
    def write_lock(self) -> Iterator[bool]:
        """Keep writers out for a moment; yields whether that worked. Nothing is ever written."""
        try:
            self._writer.execute("BEGIN IMMEDIATE")
        except (apsw.BusyError, apsw.LockedError):
            yield False
            return
        try:
            yield True
        finally:
            self._writer.execute("ROLLBACK")

    def checkpoint(self) -> bool:
        """Copy frames into the database, as far as holds and readers allow; whether that was everything.

        Only ever PASSIVE. SQLite's WAL-reset bug (3.7.0 to 3.51.2) needs a complete checkpoint, a second
        checkpoint that starts, and a commit that restarts the WAL at the same instant. Our complete checkpoints
        happen while we hold the write lock or a read mark, either of which forbids the restart; afterwards read lock 0
        refuses every other process the checkpoint, and later a read mark forbids restarts again. So while a session
        is open not even a program with an old library can meet the bug.
        """
        try:
            log, copied = self._checkpointer.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_PASSIVE)
        except (apsw.BusyError, apsw.LockedError):
            return False
        return log == copied >= 0

    def close(self) -> None:
        """Close all; the WAL stays as it is."""
        for connection in self._all:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            connection.close()
        self._all = []


def _connect(path: Path) -> apsw.Connection:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    connection.set_busy_timeout(_BUSY_MS)
    connection.wal_autocheckpoint(0)
    # The last connection to close would checkpoint and delete the WAL, frames that are not shipped included.
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    connection.pragma("mmap_size", 0)
    return connection


def _begin_read(connection: apsw.Connection) -> None:
    connection.execute("BEGIN")
    connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()


def _unusable(path: Path, error: apsw.Error) -> SourceUnusable:
    if isinstance(error, apsw.BusyError):
        return SourceUnusable(
            f"{path} is locked by another process, so it cannot be followed",
            code="source-locked",
            hint="a program with PRAGMA locking_mode=EXCLUSIVE keeps everybody else out; let it use the normal mode",
        )
    if isinstance(error, (apsw.NotADBError, apsw.CorruptError)):
        return SourceUnusable(f"SQLite cannot read {path}: {error}", code="source-damaged", hint="recover it")
    if isinstance(error, apsw.IOError):
        return SourceUnusable(
            f"SQLite cannot read {path} ({error}): its -wal or -shm was probably removed while an application uses it",
            code="companions-damaged",
            hint="stop all applications that use it, then start them again; what they committed may be lost",
        )
    return SourceUnusable(
        f"SQLite cannot open {path}: {error}",
        code="no-permission",
        hint="perdure needs to read and write the database, its -wal and its -shm, and to create files beside it",
    )
