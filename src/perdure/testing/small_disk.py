"""Small file systems that tests fill up."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

__all__ = ["MAY_MOUNT", "filled", "small_disk"]

MAY_MOUNT = os.geteuid() == 0 and shutil.which("mount") is not None
"""Whether this process may make one."""


@contextlib.contextmanager
def small_disk(place: Path, mebibytes: int) -> Iterator[Path]:
    """Mount a file system of that size at a new directory.

    Raises:
        OSError: It cannot be mounted here.
    """
    place.mkdir()
    made = _run(["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(place)])
    if made.returncode:
        raise OSError(f"a tmpfs cannot be mounted here: {made.stderr.decode().strip()}")
    try:
        yield place
    finally:
        _run(["umount", "-l", str(place)]).check_returncode()


def _run(command: list[str]) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, capture_output=True, check=False)


@contextlib.contextmanager
def filled(place: Path) -> Iterator[None]:
    """Take all the room that is left."""
    ballast = place / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    try:
        yield
    finally:
        ballast.unlink()
