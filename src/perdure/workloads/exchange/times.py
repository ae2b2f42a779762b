"""The engine's times as nanoseconds, many at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perdure.ese.structures import LogTime

__all__ = ["time_ns", "times_ns"]

_MILLISECOND = 1_000_000


def times_ns(raw: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Engine times as nanoseconds since 1970; 0 where none is set or it is no date.

    Args:
        raw: ``uint8[n, 8]``.
    """
    second, minute, hour, day, month, year = (raw[:, column].astype(np.int64) for column in range(6))
    valid = (month >= 1) & (month <= 12) & (day >= 1) & (day <= 31) & (hour < 24) & (minute < 60) & (second < 60)
    milliseconds = raw[:, 6].astype(np.int64) >> 1 | (raw[:, 7].astype(np.int64) >> 1 & 7) << 7
    months = (year - 70) * 12 + np.where(valid, month, 1) - 1
    days = months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64) + day - 1
    seconds = ((days * 24 + hour) * 60 + minute) * 60 + second
    return np.where(valid, (seconds * 1000 + milliseconds) * _MILLISECOND, 0)


def time_ns(time: LogTime) -> int:
    """One engine time as nanoseconds since 1970; 0 if it is not set."""
    return int(times_ns(np.frombuffer(time.raw, np.uint8).reshape(1, 8))[0]) if time else 0
