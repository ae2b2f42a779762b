"""Entries of a folder tree, as the pool keeps them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from perdure.model.points import StreamRef

__all__ = ["Entry", "EntryKind", "Piece"]


class EntryKind(StrEnum):
    """What an entry is. Sockets, fifos and devices are skipped with a note, so they have no kind."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of a file's content.

    Args:
        chunk: Chunk id, or ``b""`` for a hole.
        start: First byte inside the chunk (several small files may share one).
        length: Bytes.
    """

    chunk: bytes
    start: int
    length: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One file, directory or symbolic link.

    Args:
        name: Name in its directory, raw bytes as the file system has it.
        kind: What it is.
        mode: Permission bits (``st_mode & 0o7777``).
        uid: Owner.
        gid: Group.
        mtime_ns: Modification time, nanoseconds since 1970 UTC.
        ctime_ns: Change time; only to find unchanged files, never restored.
        inode: Inode number; only to find unchanged files.
        size: Bytes of a file's content.
        link: Non-zero number shared by all names of one hard-linked file in this tree (its inode and device hashed).
        target: A symbolic link's text.
        xattrs: Extended attributes, ACLs among them (``system.posix_acl_access``).
        content: A file's content in order, when it has few pieces.
        content_map: Else the msgpack list of pieces as a stream.
        listing: A directory's entries.
        gap: Why the content is missing or not to be trusted; empty when it is whole.
    """

    name: bytes
    kind: EntryKind
    mode: int = 0
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0
    inode: int = 0
    size: int = 0
    link: int = 0
    target: bytes = b""
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    content: tuple[Piece, ...] = ()
    content_map: StreamRef | None = None
    listing: StreamRef | None = None
    gap: str = ""
