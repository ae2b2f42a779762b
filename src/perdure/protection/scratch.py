"""Scratch directories that do not outlive their process by more than one command."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["scratch_directory"]


@contextlib.contextmanager
def scratch_directory(parent: Path, purpose: str) -> Iterator[Path]:
    """A private directory below ``parent``, removed at the end.

    Its process holds a lock on it; those of the same purpose that a killed process left are removed first.

    Args:
        parent: Where it is made.
        purpose: Begins its name.
    """
    prefix = f"perdure-{purpose}-"
    for left in parent.glob(f"{prefix}*"):
        _remove_if_abandoned(left)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=parent) as name, _open(Path(name)) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield Path(name)


def _remove_if_abandoned(directory: Path) -> None:
    try:
        with _open(directory) as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(directory, ignore_errors=True)
    except OSError:
        # In use, or gone meanwhile, or somebody else's.
        return


@contextlib.contextmanager
def _open(directory: Path) -> Iterator[int]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
