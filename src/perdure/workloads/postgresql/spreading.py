"""Writing a cluster's files from the pages of an image, and the WAL that goes with them."""

from __future__ import annotations

import contextlib
import os
import re
import threading
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

__all__ = [
    "KEPT_LISTING",
    "WalWriter",
    "finish_spreading",
    "make_file",
    "safe_path",
    "spread_image",
    "write_at",
    "write_log",
]

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
        make_file(directory / safe_path(file.path), file.size, file.mode)
    layout = Layout({file.path: file.runs for file in listing.files})

    def take_pages(offset: int, view: memoryview) -> None:
        for path, begin, at, count in layout.parts(offset, len(view)):
            inside = min(count, sizes[path] - begin)
            if inside > 0:
                write_at(directory / path, view[at : at + inside], begin)

    wal = WalWriter(directory, listing.segment_size)

    def take_wal(offset: int, view: memoryview) -> None:
        wal.write(listing.timeline, listing.wal_begin + offset, view)

    yield {DATA: take_pages, WAL: take_wal}
    finish_spreading(listing, raw, wal, directory)
    make_file(directory / CONTROL, 0, 0o600, listing.control)


def finish_spreading(listing: Listing, raw: bytes, wal: WalWriter, directory: Path) -> None:
    """Write what an image has besides its pages, but for the control file.

    Args:
        listing: The image's listing.
        raw: The same as it is stored.
        wal: Wrote the image's WAL.
        directory: The data directory.
    """
    wal.pad(listing.timeline, listing.wal_begin, listing.stop)
    for file in listing.files:
        os.utime(directory / file.path, ns=(file.mtime_ns, file.mtime_ns))
    make_file(directory / "backup_label", 0, 0o600, listing.label.encode())
    if listing.history:
        make_file(directory / "pg_wal" / history_name(listing.timeline), 0, 0o600, listing.history)
    make_file(directory / KEPT_LISTING, 0, 0o600, raw)


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
    writer: WalWriter | None = None
    index: SegmentIndex | None = None
    for segment in log.segments():
        if segment.after >= upto:
            break
        if reached is not None and segment.after > reached:
            raise Damaged(f"the log has a gap between {reached} and {segment.after}", code="log-gap")
        index = decode_index(segment.index)
        writer = writer or WalWriter(directory, index.segment_size)
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


class WalWriter:
    """Writes WAL files; several threads may write different places.

    Args:
        directory: The data directory.
        segment_size: Bytes of a WAL file.
    """

    def __init__(self, directory: Path, segment_size: int) -> None:
        self._folder = directory / "pg_wal"
        self._size = segment_size
        self._newest: tuple[int, int] | None = None
        self._guard = threading.Lock()

    def write(self, timeline: int, lsn: int, view: memoryview) -> None:
        """Write bytes at their place."""
        while view:
            begin = segment_start(lsn, self._size)
            count = min(len(view), begin + self._size - lsn)
            path = self._folder / segment_name(timeline, lsn, self._size)
            with self._guard:
                if not path.exists():
                    self._begin_file(path, begin)
            write_at(path, view[:count], lsn - begin)
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
        make_file(path, self._size, 0o600)
        if self._newest is not None and self._newest[1] == begin:
            before = self._folder / segment_name(self._newest[0], begin, self._size)
            write_at(path, memoryview(before.read_bytes()), 0)


def _write_history(directory: Path, index: SegmentIndex) -> None:
    path = directory / "pg_wal" / history_name(index.timeline)
    if not path.exists():
        make_file(path, 0, 0o600, index.history)


def _make_directories(listing: Listing, directory: Path) -> None:
    directory.chmod(0o700)
    for path, mode in listing.directories:
        if path:
            place = directory / safe_path(path)
            place.mkdir(exist_ok=True)
            place.chmod(mode)
    for path in ("pg_wal", "pg_wal/archive_status"):
        (directory / path).mkdir(exist_ok=True, mode=0o700)


def make_file(path: Path, size: int, mode: int, content: bytes = b"") -> None:
    """Make a file that is not there, of zeros or of a content."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        if content:
            os.write(descriptor, content)
        else:
            os.ftruncate(descriptor, size)
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def write_at(path: Path, view: memoryview, offset: int) -> None:
    """Write all bytes of a view into a file."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        while view:
            written = os.pwrite(descriptor, view, offset)
            view, offset = view[written:], offset + written
    finally:
        os.close(descriptor)


def safe_path(path: str) -> str:
    """A path that stays below the directory.

    Raises:
        Damaged: It does not.
    """
    if not _SAFE.fullmatch(path) or ".." in path.split("/"):
        raise Damaged(f"the listing of a PostgreSQL image names {path!r}", code="damaged-listing")
    return path
