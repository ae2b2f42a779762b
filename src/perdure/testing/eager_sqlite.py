"""The SQLite workload with a clock that can be turned and a WAL that is recycled at every opportunity, for tests."""

from __future__ import annotations

import time
from collections.abc import Callable

from perdure.model.points import DataSource
from perdure.workloads.sqlite import SqliteWorkload
from perdure.workloads.sqlite.session import SqliteSession

__all__ = ["EagerSqliteWorkload"]


class EagerSqliteWorkload(SqliteWorkload):
    """Like its base in everything but when it recycles and what time it is.

    Args:
        recycle_bytes: The WAL is checkpointed when more than this is in it; 0: whenever there is something.
        clock: The time, nanoseconds since 1970 UTC.
    """

    def __init__(self, *, recycle_bytes: int = 0, clock: Callable[[], int] = time.time_ns) -> None:
        self._recycle_bytes, self._clock = recycle_bytes, clock

    def open(self, source: DataSource) -> SqliteSession:
        return SqliteSession(source.location, clock=self._clock, recycle_bytes=self._recycle_bytes)
