"""BASE_BACKUP, the replication protocol's own way to an image, unpacked into a scratch directory as it comes.

For servers whose data directory cannot be seen from here, and for standbys. The server sends one tar archive for the
data directory and one for each tablespace. From 17 on it can leave out the blocks that did not change since an earlier
image, whose manifest it is given; it knows them from its WAL summaries. Of a file that comes in this form only the
blocks that came are in the scratch directory, at their places; the rest of the file is a hole.
"""

from __future__ import annotations

import io
import os
import struct
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np
from numpy.typing import NDArray

from perdure.model.errors import ImageFailed, SourceUnusable
from perdure.workloads.postgresql.copying import Copying
from perdure.workloads.postgresql.lsn import parse_lsn
from perdure.workloads.postgresql.wal_pages import PAGE

__all__ = ["BaseBackup", "Unpacked"]

_INCREMENTAL = "INCREMENTAL."
_INCREMENTAL_HEADER = struct.Struct("<III")
"""Magic number, number of blocks, and the least number of blocks that the file had since the image before."""
_MAGIC = 0xD3AE1F0D
_PIECE = 1 << 20


@dataclass(slots=True)
class Unpacked:
    """What came of a base backup.

    Args:
        directory: A data directory of it, tablespaces below ``pg_tblspc``.
        blocks: For each file of which only some blocks came, their sorted numbers.
        stop: LSN at which the backup ended.
        owner: User and group of the server's data directory, as far as the archive tells.
    """

    directory: Path
    blocks: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    stop: int = 0
    owner: tuple[int, int] = (0, 0)

    def take(self, name: str) -> bytes:
        """Read a file of the backup that is not part of the cluster, and remove it; empty if there is none."""
        path = self.directory / name
        if not path.exists():
            return b""
        content = path.read_bytes()
        path.unlink()
        return content


class BaseBackup:
    """One base backup over a connection of its own.

    Args:
        location: The server, a primary or a standby.
        manifest: Manifest of the image that this one builds on, from 17 on; empty for a whole backup.

    Attributes:
        start: LSN from which replay starts.
        timeline: On which timeline.

    Raises:
        Refusal: The server does not give it, or not incrementally.
        SourceUnusable: It cannot be reached.
    """

    def __init__(self, location: str, manifest: bytes = b"") -> None:
        self._replication = Copying(location)
        try:
            if manifest:
                self._replication.send_copy("UPLOAD_MANIFEST", manifest)
            options = "LABEL 'perdure express full', CHECKPOINT 'fast', WAIT 0, TABLESPACE_MAP 1"
            options += ", INCREMENTAL 1" if manifest else ""
            begun = self._replication.begin_copy(f"BASE_BACKUP ({options})")
            self.start, self.timeline = parse_lsn(begun[0][0]), int(begun[0][1])
        except BaseException:
            self._replication.close()
            raise

    def close(self) -> None:
        """End the connection, and with it a backup that is not complete."""
        self._replication.close()

    def unpack(self, directory: Path, progress: Callable[[], None] = lambda: None) -> Unpacked:
        """Receive everything.

        Args:
            directory: An empty directory that gets it.
            progress: Called now and then; may raise.

        Raises:
            ImageFailed: The directory's file system is full.
            SourceUnusable: The server ended the backup.
        """
        unpacked = Unpacked(directory)
        messages = _Messages(self._replication, progress)
        try:
            while (space := messages.next_archive()) is not None:
                self._unpack_archive(messages, unpacked, space)
        except OSError as error:
            raise ImageFailed(
                f"the base backup cannot be kept in {directory}: {error.strerror}",
                code="scratch-full",
                hint="a remote image needs room for what is sent: set TMPDIR to a larger file system",
            ) from error
        rows = self._replication.end_copy()
        unpacked.stop = parse_lsn(rows[0][0])
        return unpacked

    @staticmethod
    def _unpack_archive(messages: _Messages, unpacked: Unpacked, space: str) -> None:
        root = PurePosixPath("pg_tblspc") / space if space else PurePosixPath()
        (unpacked.directory / root).mkdir(parents=True, exist_ok=True)
        with tarfile.open(fileobj=messages, mode="r|", bufsize=_PIECE) as archive:
            for member in archive:
                _unpack_member(archive, member, root / member.name, unpacked)
        messages.drain()


def _unpack_member(archive: tarfile.TarFile, member: tarfile.TarInfo, name: PurePosixPath, unpacked: Unpacked) -> None:
    if ".." in name.parts or name.is_absolute():
        raise SourceUnusable(f"the server sent a file called {name}", code="server-refused")
    path = unpacked.directory / name
    if member.isdir():
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(member.mode)
    elif member.isreg():
        content = archive.extractfile(member)
        assert content is not None
        if name.name == "PG_VERSION" and len(name.parts) == 1:
            unpacked.owner = (member.uid, member.gid)
        if name.name.startswith(_INCREMENTAL):
            path = path.with_name(name.name[len(_INCREMENTAL) :])
            _write_blocks(content, path, unpacked)
        else:
            _write_whole(content, path)
        path.chmod(member.mode)
        os.utime(path, (member.mtime, member.mtime))
    # Links are those to tablespaces, which have archives of their own, and perhaps of pg_wal, which stays empty.


def _write_whole(content: IO[bytes], path: Path) -> None:
    with path.open("wb") as file:
        while data := content.read(_PIECE):
            file.write(data)


def _write_blocks(content: IO[bytes], path: Path, unpacked: Unpacked) -> None:
    """Write the blocks of an incremental file to their places."""
    read = content.read
    magic, count, least = _INCREMENTAL_HEADER.unpack(read(_INCREMENTAL_HEADER.size))
    if magic != _MAGIC:
        raise SourceUnusable(f"the server sent {path.name} in a form that perdure does not know", code="server-refused")
    blocks = np.frombuffer(read(4 * count), "<u4").astype(np.int64)
    used = _INCREMENTAL_HEADER.size + 4 * count
    if count:
        read(-used % PAGE)
    with path.open("wb") as file:
        for block in blocks.tolist():
            file.seek(block * PAGE)
            file.write(read(PAGE))
        file.truncate(max(least, int(blocks.max()) + 1 if count else 0) * PAGE)
    unpacked.blocks[str(path.relative_to(unpacked.directory))] = np.sort(blocks)


class _Messages(io.RawIOBase):
    """The archives among the messages of a base backup, one file after another."""

    def __init__(self, replication: Copying, progress: Callable[[], None]) -> None:
        self._pieces = self._received(replication, progress)
        self._rest = memoryview(b"")
        self._next: str | None = None
        self._ended = False
        self._advance()

    @staticmethod
    def _received(replication: Copying, progress: Callable[[], None]) -> Iterator[tuple[str, memoryview]]:
        """Kind and content of each message that matters."""
        wanted = False
        for message in replication.copied():
            progress()
            kind = bytes(message[:1])
            if kind == b"n":
                name, space, _ = bytes(message[1:]).split(b"\0", 2)
                wanted = True
                # The archive of a tablespace is called by its OID.
                yield "archive", memoryview(name.partition(b".")[0] if space else b"")
            elif kind == b"m":
                wanted = False
            elif kind == b"d" and wanted:
                yield "data", message[1:]

    def _advance(self) -> None:
        """Go on to the next piece of data, or the beginning of the next archive."""
        kind, content = next(self._pieces, ("end", memoryview(b"")))
        self._next = bytes(content).decode() if kind == "archive" else None
        self._ended = kind == "end"
        self._rest = content if kind == "data" else memoryview(b"")

    def next_archive(self) -> str | None:
        """The OID of the next archive's tablespace, empty for the data directory; ``None`` after the last one."""
        if self._ended:
            return None
        space, self._next = self._next, None
        assert space is not None
        self._advance()
        return space

    def drain(self) -> None:
        """Leave out what is behind the end of an archive."""
        while self._rest:
            self._advance()

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """Bytes of this archive; fewer only at its end."""
        found = bytearray()
        while self._rest and (size < 0 or len(found) < size):
            take = len(self._rest) if size < 0 else min(len(self._rest), size - len(found))
            found += self._rest[:take]
            self._rest = self._rest[take:]
            if not self._rest:
                self._advance()
        return bytes(found)
