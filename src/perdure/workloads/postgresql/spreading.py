"""Writing a cluster's files from the pages of an image, and the WAL that goes with them."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from perdure.model.errors import Damaged
from perdure.model.positions import Position
from perdure.workloads.contract import LogReader
from perdure.workloads.postgresql.layout import Layout
from perdure.workloads.postgresql.listing import DATA, LISTING, WAL, Listing, decode_listing
from perdure.workloads.postgresql.lsn import history_name, segment_name, segment_start
from perdure.workloads.postgresql.scanning import CONTROL
from perdure.workloads.postgresql.segment_index import SegmentIndex, decode_index

__all__ = ["KEPT_LISTING", "spread_image", "write_log"]

KEPT_LISTING = "perdure.listing"
"""The image's listing, in the directory until that is arranged."""

_SAFE = re.compile(r"[^/\0]+(?:/[^/\0]+)*")

Take = Callable[[int, memoryview], None]


@contextlib.contextmanager
def spread_image(content: Callable[[str], bytes], directory: Path) -> Iterator[Mapping[str, Take]]:
    """Make all files of a cluster in an empty directory, then take their bytes.

    Raises:
        Damaged: The listing is not one.
    """
    raw = content(LISTING)
    listing = decode_listing(raw)
    _make_directories(listing, directory)
    sizes = {file.path: file.size for file in listing.files}
    for file in listing.files:
        _make_file(directory / _safe(file.path), file.size, file.mode)
    layout = Layout({file.path: file.runs for file in listing.files})

    def take_pages(offset: int, view: memoryview) -> None:
        for path, begin, at, count in layout.parts(offset, len(view)):
            inside = min(count, sizes[path] - begin)
            if inside > 0:
                _write(directory / path, view[at : at + inside], begin)

    wal = _WalWriter(directory, listing.segment_size)

    def take_wal(offset: int, view: memoryview) -> None:
        wal.write(listing.timeline, listing.wal_begin + offset, view)

    yield {DATA: take_pages, WAL: take_wal}
    wal.pad(listing.timeline, listing.wal_begin, listing.stop)
    for file in listing.files:
        os.utime(directory / file.path, ns=(file.mtime_ns, file.mtime_ns))
    _make_file(directory / CONTROL, 0, 0o600, listing.control)
    _make_file(directory / "backup_label", 0, 0o600, listing.label.encode())
    if listing.history:
        _make_file(directory / "pg_wal" / history_name(listing.timeline), 0, 0o600, listing.history)
    _make_file(directory / KEPT_LISTING, 0, 0o600, raw)


def write_log(directory: Path, log: LogReader, upto: Position) -> int | None:
    """Write WAL files into ``pg_wal`` so that replay ends exactly at a position.

    Args:
        directory: The data directory, its image spread.
        log: The segments after the image.
        upto: The last position; what lies behind it is left out, so that the WAL ends there.

    Returns:
        The timeline at ``upto``; ``None`` if there was nothing to write.

    Raises:
        Damaged: The log has a gap, or a segment is not what its index says.
    """
    # What lies before the image's end is there already, and files before it must not appear.
    known = decode_listing((directory / KEPT_LISTING).read_bytes()).stop
    reached: Position | None = None
    writer: _WalWriter | None = None
    index: SegmentIndex | None = None
    for segment in log.segments():
        if segment.after >= upto:
            break
        if reached is not None and segment.after > reached:
            raise Damaged(f"the log has a gap between {reached} and {segment.after}", code="log-gap")
        index = decode_index(segment.index)
        writer = writer or _WalWriter(directory, index.segment_size)
        if index.history:
            _write_history(directory, index)
        end = min(segment.last.place, upto.place) if segment.last.generation == upto.generation else segment.last.place
        at = segment.after.place
        for block in log.blocks(segment):
            if at >= end:
                break
            begin = max(at, known)
            writer.write(index.timeline, begin, memoryview(block)[begin - at : end - at])
            at += len(block)
        if at < end:
            raise Damaged(f"log segment {segment.span.name} is cut off", code="bad-segment")
        reached = segment.last
    if writer is not None and index is not None:
        writer.end_at(index.timeline, upto.place)
    return None if index is None else index.timeline


class _WalWriter:
    """Writes WAL files.

    Args:
        directory: The data directory.
        segment_size: Bytes of a WAL file.
    """

    def __init__(self, directory: Path, segment_size: int) -> None:
        self._folder = directory / "pg_wal"
        self._size = segment_size
        self._newest: tuple[int, int] | None = None

    def write(self, timeline: int, lsn: int, view: memoryview) -> None:
        """Write bytes at their place."""
        while view:
            begin = segment_start(lsn, self._size)
            count = min(len(view), begin + self._size - lsn)
            path = self._folder / segment_name(timeline, lsn, self._size)
            if not path.exists():
                self._begin_file(path, begin)
            _write(path, view[:count], lsn - begin)
            self._newest = (timeline, begin)
            view, lsn = view[count:], lsn + count

    def end_at(self, timeline: int, lsn: int) -> None:
        """Nothing may follow ``lsn``: an image's WAL may reach farther than a target in the log does."""
        begin = segment_start(lsn, self._size)
        path = self._folder / segment_name(timeline, lsn, self._size)
        if path.exists() and lsn > begin:
            os.truncate(path, lsn - begin)
            os.truncate(path, self._size)

    def pad(self, timeline: int, first: int, end: int) -> None:
        """Every WAL file from ``first`` to ``end`` has its full size."""
        for lsn in range(first, end, self._size):
            path = self._folder / segment_name(timeline, lsn, self._size)
            if not path.exists():
                self._begin_file(path, lsn)

    def _begin_file(self, path: Path, begin: int) -> None:
        """A new file. The first of a timeline begins with what its parent wrote, as on the server."""
        _make_file(path, self._size, 0o600)
        if self._newest is not None and self._newest[1] == begin:
            before = self._folder / segment_name(self._newest[0], begin, self._size)
            _write(path, memoryview(before.read_bytes()), 0)


def _write_history(directory: Path, index: SegmentIndex) -> None:
    path = directory / "pg_wal" / history_name(index.timeline)
    if not path.exists():
        _make_file(path, 0, 0o600, index.history)


def _make_directories(listing: Listing, directory: Path) -> None:
    directory.chmod(0o700)
    for path, mode in listing.directories:
        if path:
            place = directory / _safe(path)
            place.mkdir(exist_ok=True)
            place.chmod(mode)
    for path in ("pg_wal", "pg_wal/archive_status"):
        (directory / path).mkdir(exist_ok=True, mode=0o700)


def _make_file(path: Path, size: int, mode: int, content: bytes = b"") -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        if content:
            os.write(descriptor, content)
        else:
            os.ftruncate(descriptor, size)
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def _write(path: Path, view: memoryview, offset: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        while view:
            written = os.pwrite(descriptor, view, offset)
            view, offset = view[written:], offset + written
    finally:
        os.close(descriptor)


def _safe(path: str) -> str:
    """A path that stays below the directory.

    Raises:
        Damaged: It does not.
    """
    if not _SAFE.fullmatch(path) or ".." in path.split("/"):
        raise Damaged(f"the listing of a PostgreSQL image names {path!r}", code="damaged-listing")
    return path
