"""When to checkpoint: often enough that the WAL stays small, seldom enough that it costs little."""

from __future__ import annotations

from pathlib import Path

__all__ = ["Recycling"]

_MIN_PAGES = 1000
_FIRST_DELAY_NS = 1_000_000_000
_LONGEST_DELAY_NS = 60_000_000_000
_ALARM_FACTOR = 4


class Recycling:
    """Decides when the WAL is due, and backs off while another process keeps it from being recycled.

    Args:
        threshold: Bytes of WAL after which it is due, if that is more than 1000 pages.
    """

    def __init__(self, threshold: int) -> None:
        self._threshold = threshold
        self._done = 0
        self._not_before = 0
        self._delay = _FIRST_DELAY_NS
        self._blocked = False

    def due(self, frames: int, page_size: int, now: int) -> bool:
        """Whether to try now, with ``frames`` frames in the WAL."""
        pages = max(self._threshold // page_size, _MIN_PAGES) if self._threshold else 1
        return frames - self._done >= pages and now >= self._not_before

    def tried(self, frames: int, now: int, *, complete: bool) -> None:
        """Note how a try went."""
        self._blocked = not complete
        if complete:
            self._done, self._not_before, self._delay = frames, 0, _FIRST_DELAY_NS
            return
        self._not_before = now + self._delay
        self._delay = min(2 * self._delay, _LONGEST_DELAY_NS)

    def restarted(self) -> None:
        """The WAL starts again at frame 1."""
        self._done = 0

    def warning(self, source: Path, size: int) -> str:
        """What a person should know, or nothing."""
        if not self._blocked or size < _ALARM_FACTOR * self._threshold:
            return ""
        return (
            f"the write-ahead log of {source} has grown to {size / 1e6:.0f} MB: another process has been reading the "
            "database in one transaction all the while, or never lets a write lock go, so SQLite cannot recycle it. "
            "Protection goes on; end that transaction before the disk is full"
        )
