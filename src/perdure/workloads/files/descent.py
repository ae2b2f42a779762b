"""Going down and up a directory tree by descriptors, so that a swapped symbolic link cannot lead outside."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Self

__all__ = ["OPEN_DIRECTORY", "Descent"]

OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_OPEN_LEVELS = 64


class Descent:
    """The chain of directories from a root to the current one, each opened relative to its parent.

    Only the deepest 64 levels stay open, so that a tree may be deeper than the limit of open files; a level
    above is opened again through ``..`` and must still be the same directory.

    Args:
        root: Descriptor of the root directory; closed by this object.
    """

    def __init__(self, root: int) -> None:
        self._open = [root]
        self._identity = [_identity(root)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for descriptor in self._open:
            if descriptor >= 0:
                os.close(descriptor)
        self._open = []

    @property
    def current(self) -> int:
        """Descriptor of the current directory."""
        return self._open[-1]

    def enter(self, name: bytes, flags: int = OPEN_DIRECTORY) -> os.stat_result:
        """Go down into a directory; on an error the current directory stays.

        Raises:
            OSError: It is missing, not a directory (a symbolic link is none), or may not be opened.
        """
        descriptor = os.open(name, flags, dir_fd=self._open[-1])
        found = os.fstat(descriptor)
        self._open.append(descriptor)
        self._identity.append((found.st_dev, found.st_ino))
        above = len(self._open) - 1 - _OPEN_LEVELS
        if above >= 0 and self._open[above] >= 0:
            os.close(self._open[above])
            self._open[above] = -1
        return found

    def leave(self) -> None:
        """Go back up.

        Raises:
            OSError: The directory above had been closed and is no longer there. The level is left all the same.
        """
        left = self._open.pop()
        self._identity.pop()
        try:
            if self._open and self._open[-1] < 0:
                self._open[-1] = self._reopen(left)
        finally:
            if left >= 0:
                os.close(left)

    def _reopen(self, child: int) -> int:
        descriptor = os.open(b"..", OPEN_DIRECTORY, dir_fd=child)
        if _identity(descriptor) != self._identity[-1]:
            os.close(descriptor)
            raise OSError("a directory was moved while it was being read")
        return descriptor


def _identity(descriptor: int) -> tuple[int, int]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino
