"""An object under construction for an object store: in memory while it is small, else in a file without a name.

The file is in ``TMPDIR``, else in ``/var/tmp`` (``/tmp`` is often memory). It has no name, so nothing is left of it
when the process ends, however that happens. It is uploaded through a memory map: its pages belong to the file and
not to the process, which therefore needs little memory for any number of packs on their way.
"""

from __future__ import annotations

import errno
import io
import mmap
import os
import tempfile
from pathlib import Path

from perdure.storage.contract import Buffer, StorageFailed, StorageFull

__all__ = ["SpooledObject"]

_IN_MEMORY = 1 << 20
"""Objects up to this size never see a disk: records, most log segments."""


def _directory() -> str:
    return os.environ.get("TMPDIR") or ("/var/tmp" if os.access("/var/tmp", os.W_OK) else tempfile.gettempdir())  # noqa: S108 (the file has no name)


class SpooledObject:
    """Written once by one thread, then uploaded or discarded."""

    def __init__(self) -> None:
        self.size = 0
        self._file: io.BufferedIOBase | None = io.BytesIO()
        self._on_disk = False

    def write(self, *buffers: Buffer) -> None:
        assert self._file is not None
        try:
            coming = sum(map(len, buffers))
            if not self._on_disk and self.size + coming > _IN_MEMORY:
                self._to_disk()
            for buffer in buffers:
                self.size += self._file.write(buffer)
        except OSError as error:
            self.discard()
            raise _translated(error) from error

    def _to_disk(self) -> None:
        assert isinstance(self._file, io.BytesIO)
        head = self._file.getvalue()
        self._file = tempfile.TemporaryFile(prefix="perdure-", dir=_directory())  # noqa: SIM115 (closed by discard)
        self._file.write(head)
        self._on_disk = True

    def content(self) -> bytes | memoryview:
        """Everything that was written, to be uploaded."""
        assert self._file is not None
        if isinstance(self._file, io.BytesIO):
            return self._file.getvalue()
        try:
            self._file.flush()
            return memoryview(mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ))
        except OSError as error:
            raise _translated(error) from error

    def discard(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _translated(error: OSError) -> StorageFailed | StorageFull:
    """What a failure of the spool means."""
    place = Path(_directory())
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull(
            f"{place} has no room for an object on its way to the storage pool",
            hint=f"free a gigabyte in {place}, or name another directory in TMPDIR",
        )
    return StorageFailed(
        f"cannot write to {place}, where objects wait for their upload: {error.strerror or error}",
        hint="name a directory that can be written in TMPDIR",
    )
