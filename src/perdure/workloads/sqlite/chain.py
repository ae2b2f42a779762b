"""The continuity token: what must still be true of a WAL for its log to continue at a position.

A token names a place by the WAL's salts and the cumulative checksum of all frames up to it. Every restart of a WAL
changes
its salts, so equal salts and checksum prove that everything after the place is still there.

Where the WAL was empty or wholly copied into the database, the token also carries the database file's identity. If
the file
has not been touched since, no checkpoint has happened since, so even a WAL with other salts holds everything that
came after: this is how an idle database stays continuous although SQLite removes its WAL. A change in the same
clock tick as the token would not show in the times; such a token proves nothing and is not believed.
"""

from __future__ import annotations

import os

import msgspec

__all__ = ["ChainToken", "FileIdentity", "decode_token", "encode_token", "identity_of"]

_SETTLED_NS = 1_000_000_000


class FileIdentity(msgspec.Struct, frozen=True, array_like=True):
    """A database file that no checkpoint has touched: device, inode, size and times in nanoseconds."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    def settled_before(self, time_ns: int) -> bool:
        """Whether a later change is certain to show in the change time."""
        return self.ctime_ns + _SETTLED_NS < time_ns


class ChainToken(msgspec.Struct, frozen=True, array_like=True):
    """A place in a WAL.

    Args:
        salts: The WAL's salts, 8 bytes.
        checksum: Cumulative checksum at the place.
        page_size: Bytes per page.
        pages: Database size in pages at the place.
        settled: The database file's identity, if it held everything up to the place.
    """

    salts: bytes
    checksum: tuple[int, int]
    page_size: int
    pages: int
    settled: FileIdentity | None = None


_decoder = msgspec.msgpack.Decoder(ChainToken)


def encode_token(token: ChainToken) -> bytes:
    """Write a token (a msgpack array in the order of the fields)."""
    return msgspec.msgpack.encode(token)


def decode_token(data: bytes) -> ChainToken | None:
    """Read a token; ``None`` if it is not one."""
    try:
        return _decoder.decode(data)
    except msgspec.DecodeError:
        return None


def identity_of(status: os.stat_result) -> FileIdentity:
    """The identity that a ``stat`` shows."""
    return FileIdentity(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
