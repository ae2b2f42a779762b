"""Which pages changed since an image, as one session saw it ship them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from perdure.model.logs import StoredSegment
from perdure.model.positions import Position
from perdure.workloads.sqlite.payload import decode_index

__all__ = ["ChangedPages", "pages_of_log"]

_LIMIT = 8 << 20
"""Page numbers kept at most (64 MiB); older ones are read back from the log when they are wanted."""


class ChangedPages:
    """The pages of the segments after :attr:`start`, newest last, bounded in memory."""

    def __init__(self, start: Position) -> None:
        self.start = start
        self._segments: deque[tuple[Position, NDArray[np.int64]]] = deque()
        self._kept = 0

    def add(self, last: Position, pages: NDArray[np.int64]) -> None:
        """Note a segment that ends at ``last``."""
        self._segments.append((last, pages))
        self._kept += len(pages)
        while self._kept > _LIMIT:
            self._drop_oldest()

    def since(self, position: Position) -> NDArray[np.int64] | None:
        """Pages changed after ``position``, sorted; ``None`` if that is before what is kept."""
        if position < self.start:
            return None
        return _union(pages for last, pages in self._segments if last > position)

    def forget_before(self, position: Position) -> None:
        """Drop what no later image can ask for: images are deltas of ever newer ones."""
        while self._segments and self._segments[0][0] <= position:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        self.start, pages = self._segments.popleft()
        self._kept -= len(pages)


def pages_of_log(segments: Iterable[StoredSegment], after: Position, upto: Position) -> NDArray[np.int64] | None:
    """Pages that the stored log in ``(after, upto]`` writes, sorted; ``None`` if it does not reach without a gap."""
    found: list[NDArray[np.int64]] = []
    reached = after
    for segment in segments:
        if segment.after != reached:
            return None
        found.append(decode_index(segment.index).changed())
        reached = segment.last
    return _union(found) if reached == upto else None


def _union(parts: Iterable[NDArray[np.int64]]) -> NDArray[np.int64]:
    kept = list(parts)
    return np.unique(np.concatenate(kept)) if kept else np.empty(0, np.int64)
