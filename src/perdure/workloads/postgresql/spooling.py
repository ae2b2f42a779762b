"""A copy of the WAL that comes in while an image is read: with it the image stands alone."""

from __future__ import annotations

import os
import tempfile

from perdure.model.errors import SourceUnusable
from perdure.workloads.postgresql.blocks import BlockChanges
from perdure.workloads.postgresql.lsn import format_lsn
from perdure.workloads.postgresql.replication import Received

__all__ = ["Spool"]


class Spool:
    """Bytes of WAL from a segment's beginning on, in a nameless temporary file.

    One thread adds while another waits and then reads.

    Args:
        begin: LSN of its first byte: where a segment begins.
        known: Bytes that continue ``begin`` and are known already.

    Attributes:
        changes: What the records that came in change.
    """

    def __init__(self, begin: int, known: bytes) -> None:
        self.begin = begin
        self.changes: list[BlockChanges] = []
        self._file = tempfile.TemporaryFile(prefix="perdure-wal-")  # noqa: SIM115 - closed by close()
        self._end = begin
        self._write(known)

    @property
    def end(self) -> int:
        """LSN up to which it holds bytes."""
        return self._end

    def add(self, received: Received) -> None:
        """Take in what continues it; the rest is left out."""
        self.write(received.start, received.data)

    def write(self, start: int, data: bytes | memoryview) -> None:
        """As ``add``, with the LSN of the first byte."""
        skip = self._end - start
        if skip < 0:
            raise SourceUnusable(
                f"WAL between {format_lsn(self._end)} and {format_lsn(start)} was not received", code="server-gone"
            )
        if skip < len(data):
            self._write(data[skip:])

    def read(self, offset: int, length: int) -> bytes:
        """Bytes by their offset from ``begin``."""
        return os.pread(self._file.fileno(), length, offset)

    def close(self) -> None:
        """Give the room back."""
        self._file.close()

    def _write(self, data: bytes | memoryview) -> None:
        at = self._end - self.begin
        view = memoryview(data)
        while view:
            written = os.pwrite(self._file.fileno(), view, at)
            view, at = view[written:], at + written
        self._end = self.begin + at
