"""Which entries of a tree are protected: exclude and include patterns in the style of gitignore."""

from __future__ import annotations

import os
from collections.abc import Sequence

from pathspec import GitIgnoreSpec

from perdure.model.errors import BadInput

__all__ = ["Patterns"]


class Patterns:
    """Exclude and include patterns, relative to the root of the tree.

    An excluded directory is not entered, so nothing below it can be brought back. Without include patterns
    everything is included; with them only entries that match one, or lie below a directory that does. What
    matches both is excluded.

    Args:
        exclude: Patterns of what to leave out.
        include: Patterns of what to keep.

    Raises:
        BadInput: A pattern cannot be read.
    """

    def __init__(self, exclude: Sequence[str] = (), include: Sequence[str] = ()) -> None:
        self._exclude = _compile("exclude", exclude)
        self._include = _compile("include", include)

    @property
    def all_included(self) -> bool:
        """Whether no include pattern narrows the tree."""
        return self._include is None

    @property
    def nothing_excluded(self) -> bool:
        """Whether there is no exclude pattern."""
        return self._exclude is None

    def excludes(self, path: bytes, *, directory: bool) -> bool:
        """Whether an exclude pattern matches the path, which is relative to the root."""
        return self._exclude is not None and self._exclude.match_file(_as_text(path, directory))

    def includes(self, path: bytes, *, directory: bool) -> bool:
        """Whether an include pattern matches the path itself, or there is none."""
        return self._include is None or self._include.match_file(_as_text(path, directory))


def _as_text(path: bytes, directory: bool) -> str:
    return os.fsdecode(path) + ("/" if directory else "")


def _compile(which: str, patterns: Sequence[str]) -> GitIgnoreSpec | None:
    if not patterns:
        return None
    try:
        return GitIgnoreSpec.from_lines(patterns)
    except ValueError as error:
        raise BadInput(
            f"an {which} pattern cannot be read: {error}",
            code="bad-pattern",
            hint="patterns are written as in a .gitignore file, for example *.tmp or /cache/",
        ) from error
