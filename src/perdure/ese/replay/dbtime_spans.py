"""Which numbers of a database's modification counter appear in its logs: every change has one of its own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perdure.ese.logs.record_types import RECORD_TYPES, Head
from perdure.ese.logs.records import Records

__all__ = ["DbtimeSpans"]

Times = NDArray[np.uint64]

_UNDO_INFO, _NEW_PAGE = 36, 95
_HAS_HEAD = np.isin(
    np.arange(256),
    [kind.number for kind in RECORD_TYPES.values() if kind.head is not Head.NONE and kind.number != _UNDO_INFO],
)
_DBID_AT, _TIME_AT, _NEW_PAGE_TIME_AT = 3, 8, 12


class DbtimeSpans:
    """Collects the numbers of many logs as spans without a gap."""

    def __init__(self) -> None:
        self._first: Times = np.empty(0, np.uint64)
        self._last: Times = np.empty(0, np.uint64)

    def add(self, records: Records, end: int, dbid: int) -> None:
        """Take the numbers of the first records of a log.

        Args:
            records: The log's.
            end: How many of them.
            dbid: Number of the database.
        """
        starts = records.starts[:end]
        types = records.content[starts]
        found = [
            _times(records.content, starts[_HAS_HEAD[types]], _TIME_AT, dbid),
            _times(records.content, starts[types == _NEW_PAGE], _NEW_PAGE_TIME_AT, dbid),
        ]
        times = np.unique(np.concatenate(found))
        if not len(times):
            return
        breaks = np.flatnonzero(np.diff(times) > 1)
        self._merge(times[np.concatenate([[0], breaks + 1])], times[np.concatenate([breaks, [len(times) - 1]])])

    def missing(self) -> tuple[int, int]:
        """How many numbers between the first and the last appear nowhere, and the first of them (0 for none)."""
        gaps = self._first[1:] - self._last[:-1] - np.uint64(1)
        return (int(gaps.sum()), int(self._last[0]) + 1) if len(gaps) else (0, 0)

    def _merge(self, first: Times, last: Times) -> None:
        first = np.concatenate([self._first, first])
        last = np.concatenate([self._last, last])
        order = np.argsort(first, kind="stable")
        first, reach = first[order], np.maximum.accumulate(last[order])
        opens = np.concatenate([[True], first[1:] > reach[:-1] + np.uint64(1)])
        self._first = first[opens]
        self._last = reach[np.concatenate([np.flatnonzero(opens)[1:] - 1, [len(first) - 1]])]


def _times(content: NDArray[np.uint8], starts: NDArray[np.int64], at: int, dbid: int) -> Times:
    own = starts[content[starts + _DBID_AT] == dbid]
    octets = content[own[:, None] + np.arange(at, at + 8)]
    return np.ascontiguousarray(octets).view("<u8")[:, 0].astype(np.uint64) if len(own) else np.empty(0, np.uint64)
