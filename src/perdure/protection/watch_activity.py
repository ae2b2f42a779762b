"""What ``watch`` writes about itself for ``status``: about once a second, one small file per source."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable

import numpy as np

from perdure.protection.home import Activity, LagMs
from perdure.protection.live_results import Shipped
from perdure.protection.protected import Protected

__all__ = ["ActivityRecord"]

_EVERY_S = 1.0
_MINUTE_NS = 60 * 10**9


class ActivityRecord:
    """Collects and writes the activity of one source."""

    def __init__(self, protected: Protected, clock: Callable[[], int]) -> None:
        self._protected, self._clock = protected, clock
        self._since_ns = clock()
        self._lags: deque[tuple[int, tuple[int, ...]]] = deque()
        self._last: Shipped | None = None
        self._written = 0.0
        self._warning = ""

    def shipped(self, shipped: Shipped) -> None:
        """Note log that became durable; it ends a warning about the pool."""
        self._last = shipped
        self._warning = ""
        self._lags.append((shipped.durable_ns, shipped.lags_ns))

    def warn(self, message: str) -> None:
        """Note that the pool takes nothing."""
        self._warning = message

    def refresh(self, wal_bytes: int, warning: str, next_express_full_ns: int) -> None:
        """Write the file if the last one is a second old."""
        now = time.monotonic()
        if now - self._written < _EVERY_S:
            return
        self._written = now
        last = self._last
        activity = Activity(
            pid=os.getpid(),
            since_ns=self._since_ns,
            last_position=str(last.last) if last is not None else "",
            last_commit_ns=last.newest_commit_ns if last is not None else 0,
            last_durable_ns=last.durable_ns if last is not None else 0,
            lag_ms=self._lag(),
            wal_bytes=wal_bytes,
            warning=self._warning or warning,
            next_express_full_ns=next_express_full_ns,
            updated_ns=self._clock(),
        )
        self._protected.home.save_activity(self._protected.source.id, activity)

    def ended(self) -> None:
        """Note that nobody watches any more."""
        self._protected.home.save_activity(self._protected.source.id, Activity(0, self._since_ns))

    def _lag(self) -> LagMs:
        oldest = time.time_ns() - _MINUTE_NS
        while self._lags and self._lags[0][0] < oldest:
            self._lags.popleft()
        lags = np.array([lag for _, part in self._lags for lag in part], dtype=np.float64) / 1e6
        if not len(lags):
            return LagMs()
        return LagMs(float(np.percentile(lags, 50)), float(np.percentile(lags, 99)), float(lags.max()))
