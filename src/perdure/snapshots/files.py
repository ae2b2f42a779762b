"""Snapshots of single files: copies that share their blocks where the file system can, real copies where it cannot."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

from perdure.model.errors import Refused
from perdure.snapshots.writer import FailedAtFreeze

__all__ = ["clone_file", "copy_file", "copy_ranges", "link_file", "refuse_without_room", "write_back"]

_FICLONE = 0x40049409
_CANNOT = {errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM, errno.ETXTBSY}
_PIECE = 8 << 20
_MARGIN = 256 << 20
"""Bytes that a copy leaves free: a database's disk must not run full because it is backed up."""


def clone_file(source: Path, target: Path) -> bool:
    """Make ``target`` a copy of a file that shares its blocks (reflink): at once, and frozen from then on.

    Returns:
        Whether the file system can; if not, ``target`` does not exist.

    Raises:
        FileExistsError: The target exists.
        OSError: The source cannot be read, or the target not be made.
    """
    with source.open("rb") as original:
        descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.ioctl(descriptor, _FICLONE, original.fileno())
        except OSError as error:
            target.unlink()
            if error.errno in _CANNOT:
                return False
            raise
        finally:
            os.close(descriptor)
    return True


def write_back(path: Path) -> None:
    """Let the disk have what the cache holds of a file: a clone would wait for that, with the writer's writes held."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def copy_file(source: Path, target: Path, deadline: float) -> None:
    """Copy a whole file while it is frozen; holes stay holes.

    Args:
        source: The frozen file.
        target: Does not exist yet.
        deadline: When the copy must be done, as ``time.monotonic()``.

    Raises:
        FailedAtFreeze: It was not done in time.
        OSError: A disk is full or fails.
    """
    size = source.stat().st_size
    copy_ranges(source, target, [(at, min(_PIECE, size - at)) for at in range(0, size, _PIECE)], deadline)


def copy_ranges(source: Path, target: Path, ranges: Iterable[tuple[int, int]], deadline: float) -> None:
    """Copy some ranges of a frozen file to their places in a new, else empty file of the same size.

    Args:
        source: The frozen file.
        target: Does not exist yet.
        ranges: Offsets and lengths, bytes.
        deadline: When the copy must be done, as ``time.monotonic()``.

    Raises:
        FailedAtFreeze: It was not done in time.
        OSError: A disk is full or fails.
    """
    with source.open("rb") as original, target.open("xb") as copy:
        copy.truncate(os.fstat(original.fileno()).st_size)
        for offset, length in ranges:
            for at in range(offset, offset + length, _PIECE):
                if time.monotonic() > deadline:
                    raise FailedAtFreeze(
                        f"{source} could not be copied in the time for which its writer may hold its writes",
                        hint="put the store on a file system that can share blocks between files (XFS, btrfs), so that "
                        "a snapshot takes no time",
                    )
                content = os.pread(original.fileno(), min(_PIECE, offset + length - at), at)
                if content.strip(b"\0"):
                    os.pwrite(copy.fileno(), content, at)


def link_file(source: Path, target: Path, deadline: float) -> None:
    """Keep a file that never changes any more: by another name for it, or a copy where that cannot be.

    Raises:
        FailedAtFreeze: The copy was not done in time.
        OSError: A disk is full or fails.
    """
    try:
        os.link(source, target)
    except OSError:
        copy_file(source, target, deadline)


def refuse_without_room(folder: Path, size: int, what: str) -> None:
    """Refuse a copy that would fill a disk.

    Raises:
        Refused: There is less room than the copy needs and a margin of 256 MiB.
    """
    free = shutil.disk_usage(folder).free
    if free < size + _MARGIN:
        raise Refused(
            f"{what} takes a temporary copy of {size:,} bytes, and {folder} has {free:,} free; nothing was begun",
            code="no-room",
            hint="put the store on a file system that can share blocks between files (XFS, btrfs), or name a folder "
            "on a larger disk with --snapshot-folder",
        )
