"""The copy that a replay works on: shares its blocks with the image where the file system can."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from perdure.ese.replay.errors import ReplayRefused

__all__ = ["copy_image", "new_file"]

_FICLONE = 0x40049409
_AT_ONCE = 64 << 20
_CANNOT_SHARE = {errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.ETXTBSY}


def new_file(path: Path) -> int:
    """Make an empty file that was not there, open for reading and writing.

    Raises:
        ReplayRefused: There is something of that name.
    """
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise ReplayRefused(
            f"{path} exists: replay writes a new file and never over another one",
            code="ese-replay-output-exists",
            hint="name a file that does not exist yet",
        ) from None


def copy_image(image: Path, descriptor: int) -> bool:
    """Fill an empty file with an image.

    Returns:
        Whether the two share their blocks until one is changed, so that no byte was copied.
    """
    with image.open("rb") as opened:
        source = opened.fileno()
        try:
            fcntl.ioctl(descriptor, _FICLONE, source)
        except OSError as error:
            if error.errno not in _CANNOT_SHARE:
                raise
        else:
            return True
        size = os.fstat(source).st_size
        os.ftruncate(descriptor, size)
        _copy_data(source, descriptor, size)
        return False


def _copy_data(source: int, descriptor: int, size: int) -> None:
    """Copy what is no hole."""
    at = 0
    while at < size:
        try:
            at = os.lseek(source, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        end = os.lseek(source, at, os.SEEK_HOLE)
        while at < end:
            at += _copy_some(source, descriptor, at, min(_AT_ONCE, end - at))


def _copy_some(source: int, descriptor: int, at: int, size: int) -> int:
    try:
        done = os.copy_file_range(source, descriptor, size, at, at)
    except OSError as error:
        if error.errno not in _CANNOT_SHARE:
            raise
        done = os.pwrite(descriptor, os.pread(source, min(size, 1 << 20), at), at)
    if not done:
        raise OSError(errno.EIO, "the image became shorter while it was copied")
    return done
