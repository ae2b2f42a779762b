"""The directory in which the chunk index is cached, shared by all processes of one user on one machine."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from perdure.repository.index_segment import Segment, load_segment, private, write_segment

__all__ = ["IndexCache"]

_VERSION = 2


class _Named(msgspec.Struct, frozen=True):
    file: str
    digest: bytes


class _Manifest(msgspec.Struct, frozen=True):
    version: int
    segments: list[_Named]


class IndexCache:
    """The manifest and the files of the segments that it names.

    Args:
        directory: Where they are; it is made when something is written.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from changing the cache meanwhile, as far as the file system can lock."""
        try:
            descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            yield
            return
        try:
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def make(self) -> None:
        """Make the directory.

        Raises:
            OSError: It cannot be made.
        """
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def segments(self, loaded: Sequence[Segment]) -> list[Segment]:
        """The sound segments that the manifest names, as they are in memory already or read now.

        Args:
            loaded: Segments that need not be read again.
        """
        at_hand = {segment.file: segment for segment in loaded if segment.file}
        found = []
        for named in self._read_manifest().segments:
            segment = at_hand.get(named.file) or load_segment(self._directory, named.file, named.digest)
            if segment is not None:
                found.append(segment)
        return found

    def write(self, parts: Sequence[tuple[Segment, NDArray[np.bool_]]]) -> Segment:
        """Write one segment (see :func:`write_segment`); it counts when :meth:`name` has named it."""
        return write_segment(self._directory, parts)

    def name(self, segments: Sequence[Segment]) -> None:
        """Make these the segments of the cache, and remove all other files.

        Raises:
            OSError: It cannot be written.
        """
        manifest = _Manifest(_VERSION, [_Named(segment.file, segment.digest) for segment in segments])
        _replace_file(self._directory / "manifest", msgspec.msgpack.encode(manifest))
        used = {segment.file for segment in segments}
        # Whoever writes holds the lock, so what is under construction besides was left by somebody who died.
        for path in [*self._directory.glob("*.idx"), *self._directory.glob("*.tmp")]:
            if path.name not in used:
                path.unlink(missing_ok=True)

    def _read_manifest(self) -> _Manifest:
        try:
            manifest = msgspec.msgpack.decode((self._directory / "manifest").read_bytes(), type=_Manifest)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return _Manifest(_VERSION, [])
        return manifest if manifest.version == _VERSION else _Manifest(_VERSION, [])


def _replace_file(path: Path, data: bytes) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    with open(temporary, "wb", opener=private) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
