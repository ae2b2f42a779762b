"""What travels between a requester and a writer: one JSON document per line, a request and then its answer.

A request is ``{"call": NAME, "arguments": {...}}``, an answer ``{"result": ...}`` or
``{"failure": {"kind": NAME, "message": TEXT, "hint": TEXT}}``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from perdure.snapshots.writer import FailedAtFreeze, NonRetryable, Retryable, WriterError, WriterTimeout

__all__ = ["LONGEST_LINE", "Answer", "Failure", "Request", "failure_of", "raise_failure", "short_socket_path"]

LONGEST_LINE = 16 << 20
"""Bytes of the longest line that either side accepts."""

_LONGEST_SOCKET_PATH = 100

_KINDS: dict[str, type[WriterError]] = {
    "retryable": Retryable,
    "non-retryable": NonRetryable,
    "timeout": WriterTimeout,
    "failed-at-freeze": FailedAtFreeze,
}


class Request(msgspec.Struct, frozen=True):
    """One call of a method of the writer."""

    call: str
    arguments: msgspec.Raw = msgspec.Raw(b"{}")


class Failure(msgspec.Struct, frozen=True):
    """A writer's error on the wire."""

    kind: str
    message: str
    hint: str = ""


class Answer(msgspec.Struct, frozen=True):
    """What a call returned, or its failure."""

    result: msgspec.Raw = msgspec.Raw(b"null")
    failure: Failure | None = None


def failure_of(error: Exception) -> Failure:
    """An exception as it is sent; one that is none of the protocol's becomes non-retryable."""
    for kind, of in _KINDS.items():
        if isinstance(error, of):
            return Failure(kind, error.message, error.hint)
    return Failure("non-retryable", f"the writer failed: {str(error) or type(error).__name__}")


def raise_failure(failure: Failure) -> None:
    """Raise what the writer raised.

    Raises:
        WriterError: Always; of the kind that the failure names.
    """
    raise _KINDS.get(failure.kind, NonRetryable)(failure.message, hint=failure.hint)


@contextmanager
def short_socket_path(path: Path) -> Iterator[str]:
    """A name of a socket that the system accepts however deep its folder lies (a socket's path has 107 bytes)."""
    if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
