"""An image of a running cluster, read from its data directory.

It is not frozen: files change while they are read, as in every base backup. The WAL from the backup's start to its end,
which is part of the image, makes it consistent. So the end, and with it the image's position, is known only after the
pages were read: asking for the size of the listing, the file after the pages, ends the backup.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from perdure.model.errors import ImageFailed, SourceUnusable
from perdure.model.positions import Position
from perdure.workloads.contract import ImageReader
from perdure.workloads.postgresql.checksums import bad_pages
from perdure.workloads.postgresql.layout import PAGE, Layout, pages_of
from perdure.workloads.postgresql.listing import DATA, LISTING, WAL
from perdure.workloads.postgresql.scanning import relation_of
from perdure.workloads.postgresql.spooling import Spool

__all__ = ["ClusterImage", "Ended", "PagesReader"]

_SEGMENT_PAGES = 131072
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Ended:
    """What is known when a backup has ended.

    Args:
        position: Where the image is consistent.
        chain: The continuity token there.
        time_ns: The server's clock, nanoseconds since 1970 UTC.
        listing: The encoded listing.
        wal: The WAL that makes the pages consistent.
    """

    position: Position
    chain: bytes
    time_ns: int
    listing: bytes
    wal: Spool

    @property
    def wal_size(self) -> int:
        """Bytes of WAL from its beginning to the position."""
        return self.position.place - self.wal.begin


class PagesReader:
    """The pages of all files; implements ``ImageReader``.

    Args:
        data: The data directory.
        sizes: Bytes of every file.
        runs: Where its pages lie.
        pages: Pages of the common space.
        changed: As in the contract.
        start: LSN at which the backup started, or ``None`` where pages have no checksums.
        sent: For each file of which only some pages are there, their sorted numbers.
    """

    name = DATA
    page_size = PAGE

    def __init__(
        self,
        data: Path,
        sizes: Mapping[str, int],
        runs: Mapping[str, Sequence[int]],
        *,
        pages: int,
        changed: NDArray[np.int64] | None,
        start: int | None,
        sent: Mapping[str, NDArray[np.int64]] | None = None,
    ) -> None:
        self._data, self._sizes, self._start, self._sent = data, sizes, start, sent or {}
        self._layout = Layout(runs)
        self.size = pages * PAGE
        self.changed = changed
        self.vanished: set[str] = set()
        self.damaged: list[tuple[str, int]] = []
        self._guard = threading.Lock()
        self._closed = False

    def read(self, offset: int, length: int) -> bytes | bytearray | memoryview:
        if self._closed:
            raise SourceUnusable("pages were asked for after the backup had ended", code="image-abandoned")
        length = max(0, min(length, self.size - offset))
        whole = bytearray(length)
        view = memoryview(whole)
        for path, begin, at, count in self._layout.parts(offset, length):
            inside = min(count, self._sizes[path] - begin)
            if inside > 0:
                self._read_file(path, begin, view[at : at + inside])
        return whole

    def close(self) -> None:
        """The backup ends: what is read later would not belong to the image."""
        self._closed = True

    def notes(self) -> tuple[str, ...]:
        """What a person should know: pages whose checksum is wrong."""
        damaged = sorted(set(self.damaged))
        notes = [f"page {page} of {path} has a wrong checksum on the server's disk" for path, page in damaged[:_SHOWN]]
        if len(damaged) > _SHOWN:
            notes.append(f"{len(damaged) - _SHOWN} more pages have wrong checksums")
        return tuple(notes)

    def _read_file(self, path: str, begin: int, into: memoryview) -> None:
        """Read from a file. What was cut off or removed meanwhile reads as zeros: replay cuts it off or removes it."""
        if path in self._sent:
            self._require_sent(path, begin // PAGE, pages_of(begin + len(into)))
        try:
            descriptor = os.open(self._data / path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            with self._guard:
                self.vanished.add(path)
            return
        try:
            _read_into(descriptor, begin, into)
            if self._start is not None and begin % PAGE == 0:
                self._check(descriptor, path, begin, into)
        finally:
            os.close(descriptor)

    def _require_sent(self, path: str, first: int, end: int) -> None:
        """A page that was not sent must never be taken for one of zeros."""
        begin, stop = np.searchsorted(self._sent[path], [first, end])
        if stop - begin != end - first:
            raise ImageFailed(f"pages {first} to {end - 1} of {path} were not sent", code="image-abandoned")

    def _check(self, descriptor: int, path: str, begin: int, content: memoryview) -> None:
        identity = relation_of(path)
        whole = len(content) // PAGE * PAGE
        if identity is None or not whole or self._start is None:
            return
        first = identity.segment * _SEGMENT_PAGES + begin // PAGE
        for row in bad_pages(content[:whole], first, self._start).tolist():
            # It may have been read while it was written.
            page = content[row * PAGE : (row + 1) * PAGE]
            _read_into(descriptor, begin + row * PAGE, page)
            if len(bad_pages(page, first + row, self._start)):
                with self._guard:
                    self.damaged.append((path, begin // PAGE + row))


class _LateReader:
    """A file of the image that is there only when the backup has ended; implements ``ImageReader``."""

    page_size = PAGE

    def __init__(self, name: str, ended: Callable[[], Ended]) -> None:
        self.name = name
        self._ended = ended

    @property
    def size(self) -> int:
        ended = self._ended()
        return len(ended.listing) if self.name == LISTING else ended.wal_size

    @property
    def changed(self) -> NDArray[np.int64]:
        return np.arange(-(-self.size // PAGE), dtype=np.int64)

    def read(self, offset: int, length: int) -> bytes | bytearray | memoryview:
        ended = self._ended()
        if self.name == LISTING:
            return ended.listing[offset : offset + length]
        return ended.wal.read(offset, max(0, min(length, ended.wal_size - offset)))


class EndBackup(Protocol):
    """Ends a backup."""

    def __call__(self) -> Ended: ...


class ClusterImage:
    """Implements :class:`perdure.workloads.contract.Image`.

    Args:
        pages: The pages.
        end: Ends the backup; called once, from the thread that asks first.
        accountable: Pages that may differ from the image before only if its readers say so; called after the end.
    """

    def __init__(self, pages: PagesReader, end: EndBackup, accountable: Callable[[], NDArray[np.int64]]) -> None:
        self._pages = pages
        self._accountable = accountable
        self._end = end
        self._known: Ended | None = None
        self._guard = threading.Lock()
        self.files: Sequence[ImageReader] = (
            pages,
            _LateReader(LISTING, self._ended),
            _LateReader(WAL, self._ended),
        )

    @property
    def position(self) -> Position:
        return self._ended().position

    @property
    def chain(self) -> bytes:
        return self._ended().chain

    @property
    def time_ns(self) -> int:
        return self._ended().time_ns

    @property
    def notes(self) -> tuple[str, ...]:
        return self._pages.notes()

    def unexplained(self, name: str, pages: NDArray[np.int64]) -> NDArray[np.int64]:
        """As in :class:`perdure.workloads.contract.MovingImage`."""
        if name != DATA or self._pages.changed is None:
            return np.empty(0, np.int64)
        self._ended()
        return np.intersect1d(np.setdiff1d(pages, self._pages.changed), self._accountable())

    def _ended(self) -> Ended:
        with self._guard:
            if self._known is None:
                self._known = self._end()
            return self._known


def _read_into(descriptor: int, offset: int, into: memoryview) -> None:
    """Read as much as there is, and zeros behind it."""
    done = 0
    while done < len(into):
        count = os.preadv(descriptor, [into[done:]], offset + done)
        if count == 0:
            into[done:] = bytes(len(into) - done)
            return
        done += count
