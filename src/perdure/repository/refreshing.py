"""Bringing the index up to date when a reader misses something."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic

__all__ = ["Refreshing"]

_FRUITLESS_S = 10.0
"""Seconds for which a chunk that is missing is not looked for in a new listing, after that did not help another one."""


class Refreshing:
    """Refreshes the index for readers that miss something; those that miss it at the same time share one refresh."""

    def __init__(self, refresh: Callable[[], None]) -> None:
        self._refresh = refresh
        self._lock = threading.Lock()
        self._count = 0
        self._fruitless = -_FRUITLESS_S

    def run(self, *, unless_fruitless: bool) -> bool:
        """Refresh the index, or return ``False`` at once if that did not help a moment ago and need not be tried."""
        if unless_fruitless and monotonic() - self._fruitless < _FRUITLESS_S:
            return False
        seen = self._count
        with self._lock:
            if self._count == seen:
                self._refresh()
                self._count += 1
        return True

    def helped(self, found: bool) -> None:
        """Say whether the refresh brought what was missing."""
        self._fruitless = -_FRUITLESS_S if found else monotonic()
