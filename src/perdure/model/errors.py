"""Errors that reach a person: each carries a stable code, an exit status and a hint.

The text says what happened, to which thing, and what it means; the hint says what to do.
Exit statuses are grouped so that scripts can tell the groups apart:

======  =====================================================================
status  meaning
======  =====================================================================
0       done, and everything that was asked for is verified
1       a bug in perdure (an unexpected exception)
2       the command line or its input is wrong
3       the named thing does not exist (source, point, pool, item)
4       refused, because going on could damage something
5       the data source cannot be protected as it is
6       the storage pool cannot be used (missing, locked, full, newer format)
7       damage was found
8       the work was done only in part
======  =====================================================================
"""

from __future__ import annotations

__all__ = [
    "BadInput",
    "Damaged",
    "ImageFailed",
    "NotFound",
    "Partial",
    "PerdureError",
    "PoolUnusable",
    "Refused",
    "SourceUnusable",
    "TrackingLost",
]


class PerdureError(Exception):
    """Base of every error that a person is meant to read.

    Args:
        message: What happened, to what, and what it means for recoverability.
        code: Stable identifier in ``kebab-case``; scripts match on it.
        hint: What to do about it; may be empty.
    """

    exit_status = 1
    default_code = "error"

    def __init__(self, message: str, *, code: str | None = None, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.hint = hint


class BadInput(PerdureError):
    """What the caller asked for makes no sense."""

    exit_status = 2
    default_code = "bad-input"


class NotFound(PerdureError):
    """A source, point, pool or item that does not exist."""

    exit_status = 3
    default_code = "not-found"


class Refused(PerdureError):
    """Going on could damage something, so perdure does not."""

    exit_status = 4
    default_code = "refused"


class SourceUnusable(PerdureError):
    """The data source is missing, unreadable, or not in a state that can be protected."""

    exit_status = 5
    default_code = "source-unusable"


class TrackingLost(PerdureError):
    """The log no longer continues what the pool holds: the replica is inconsistent until it is compared.

    Raised by a workload when it resumes or polls; ``protection`` records the cause and runs a
    consistency check, so a person sees it only as the cause in the timeline.
    """

    exit_status = 5
    default_code = "tracking-lost"


class ImageFailed(PerdureError):
    """No image of the source could be taken now. It is here, its log goes on, and earlier recovery points stay."""

    exit_status = 5
    default_code = "image-failed"


class PoolUnusable(PerdureError):
    """The storage pool is missing, read-only, full, locked with another key, or of a newer format."""

    exit_status = 6
    default_code = "pool-unusable"


class Damaged(PerdureError):
    """Bytes in the pool are not what was written."""

    exit_status = 7
    default_code = "damaged"


class Partial(PerdureError):
    """The work was done, but not all of it."""

    exit_status = 8
    default_code = "partial"
