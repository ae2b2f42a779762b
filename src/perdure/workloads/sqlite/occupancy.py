"""Whether any process uses a database, and what lies beside it: asked before it is replaced."""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

from perdure.model.errors import Refused
from perdure.workloads.sqlite.files import companions, held_by_session

__all__ = ["clear_companions", "refuse_if_in_use"]

_FLOCK = struct.Struct("hhqqi")
_DATABASE_LOCKS = (0x40000000, 512)
_INDEX_LOCKS = (120, 9)


def refuse_if_in_use(path: Path) -> None:
    """Refuse if a process holds a SQLite lock on the database, or has it open as far as ``/proc`` shows.

    The kernel is only asked (``F_GETLK``); no lock is taken. A process of another user that opened the database and
    never
    read from it has no lock and cannot be seen without root.

    Raises:
        Refused: It is in use; the message names the process.
    """
    if not path.exists():
        return
    if held_by_session(path):
        raise _in_use(path, "perdure itself is protecting it in this process", "stop that session first")
    files = [file for file in (path, *companions(path)) if file.exists()]
    holder = _lock_holder(path, _DATABASE_LOCKS)
    shm = companions(path)[1]
    if not holder and shm.exists():
        holder = _lock_holder(shm, _INDEX_LOCKS)
    holder = holder or _opener(files)
    if holder:
        raise _in_use(path, f"process {holder} has it open ({_command(holder)})", "stop the application first")
    if _watched(path):
        raise _in_use(path, "another perdure process is protecting it", "stop `perdure watch` for it first")


def clear_companions(path: Path) -> None:
    """Remove the ``-wal`` and ``-shm`` of a database that is about to be replaced.

    To be called before the new file takes the old one's place: SQLite would take the old WAL for the new
    file's and write its frames into it. Nothing in a WAL says to which file it belongs.
    """
    for file in companions(path):
        file.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _in_use(path: Path, who: str, hint: str) -> Refused:
    return Refused(
        f"{path} is in use: {who}; replacing it now would damage what that process does",
        code="source-in-use",
        hint=hint,
    )


def _lock_holder(file: Path, span: tuple[int, int]) -> int:
    """The process that holds a record lock in the span, or 0."""
    fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, *span, 0)
        kind, _whence, _start, _length, holder = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, asked))
    finally:
        os.close(fd)
    return holder if kind != fcntl.F_UNLCK else 0


def _opener(files: list[Path]) -> int:
    """A process other than this one that has one of the files open, or 0."""
    wanted = {(status.st_dev, status.st_ino) for status in (file.stat() for file in files)}
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        try:
            for link in (process / "fd").iterdir():
                status = link.stat()
                if (status.st_dev, status.st_ino) in wanted:
                    return int(process.name)
        except OSError:
            continue
    return 0


def _watched(path: Path) -> bool:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _command(process: int) -> str:
    try:
        return (Path("/proc") / str(process) / "comm").read_text().strip()
    except OSError:
        return "unknown program"
