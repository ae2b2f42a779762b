"""Progress: how the verbs tell their caller how far long work has come."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Progress", "quiet"]


class Progress(Protocol):
    """Called from any thread while bytes are dealt with.

    Args:
        stage: What is being done, a word or two: ``copying``, ``comparing``, ``restoring``.
        done: Bytes dealt with since the last call.
        total: Bytes of this stage in all; 0 when that is not known.
    """

    def __call__(self, stage: str, done: int, total: int, /) -> None: ...


def quiet(stage: str, done: int, total: int, /) -> None:
    """Tell nobody."""
