"""Notes about single entries, bounded in number so that a broken tree cannot grow a recovery point's record."""

from __future__ import annotations

import os

__all__ = ["Notes", "readable", "reason"]

_MOST = 1000


class Notes:
    """Lines for people, in the order they were made; beyond 1,000 only their number is kept."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._left_out = 0

    def add(self, text: str, path: bytes = b"") -> None:
        """Note something about a path, or about the whole tree."""
        if len(self._lines) >= _MOST:
            self._left_out += 1
            return
        self._lines.append(f"{readable(path)}: {text}" if path else text)

    def lines(self) -> tuple[str, ...]:
        """All notes."""
        more = (f"and {self._left_out} more notes like these",) if self._left_out else ()
        return (*self._lines, *more)


def readable(path: bytes) -> str:
    """A path as text that is always valid Unicode; bytes that are not UTF-8 show as escapes."""
    return path.decode("utf-8", "backslashreplace")


def reason(error: OSError) -> str:
    """Why a system call failed, without the path, which the note already names."""
    return os.strerror(error.errno).lower() if error.errno else str(error)
