"""Moments: nanoseconds since 1970 UTC, and how they are written for people."""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["moment_text", "rfc3339"]


def rfc3339(time_ns: int) -> str:
    """A moment in UTC with all nine digits of its fraction, for machines and exact targets."""
    seconds, fraction = divmod(time_ns, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"


def moment_text(time_ns: int) -> str:
    """A moment in the user's time zone, rounded up to the millisecond, with its offset.

    Rounded up, so that the text given back as a target still reaches what happened at the moment.
    """
    seconds, milliseconds = divmod(-(-time_ns // 10**6), 1000)
    local = datetime.fromtimestamp(seconds, UTC).astimezone()
    return f"{local:%Y-%m-%d %H:%M:%S}.{milliseconds:03d}{local:%z}"
