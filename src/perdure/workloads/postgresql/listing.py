"""The listing of an image: which files it has, where their pages lie in its one large file, and what recovery needs."""

from __future__ import annotations

import msgspec

from perdure.model.errors import Damaged
from perdure.workloads.postgresql.segment_index import StoredChanges

__all__ = ["DATA", "LISTING", "WAL", "ListedFile", "Listing", "decode_listing", "encode_listing"]

DATA, LISTING, WAL = "data", "listing", "wal"
"""Names of the files of an image: the pages of all files, this listing, the WAL that makes the pages consistent."""

VERSION = 1


class ListedFile(msgspec.Struct, frozen=True, array_like=True):
    """One file of a cluster.

    Args:
        path: Below the data directory.
        size: Bytes.
        mode: Permissions.
        mtime_ns: Modification time.
        runs: Where its pages lie in ``data``: first page and number of pages, alternating. There may be more
            pages than the size needs; it grows into them.
        digests: For a file whose changes are not in the WAL, 16 bytes of BLAKE3 per MiB; zeros where unknown.
    """

    path: str
    size: int
    mode: int
    mtime_ns: int
    runs: list[int]
    digests: bytes = b""


class Listing(msgspec.Struct, frozen=True, array_like=True):
    """An image's listing.

    Args:
        version: Of this layout.
        system: System identifier.
        server: Server version as a number.
        timeline: Timeline at start and end.
        segment_size: Bytes of a WAL file.
        start: LSN from which replay starts.
        checkpoint: LSN of the checkpoint record.
        stop: LSN at which the image is consistent.
        wal_begin: LSN of the first byte of ``wal``.
        stopped_ns: The server's clock at the end, nanoseconds since 1970 UTC.
        checksums: Whether pages have checksums.
        label: ``backup_label``.
        tablespace_map: ``tablespace_map``; may be empty.
        control: ``global/pg_control``.
        directories: Paths and modes.
        files: The files.
        tablespaces: OID, name and directory of each.
        outside: Configuration files that lie outside of the data directory: ``postgresql.conf``, ``pg_hba.conf``,
            ``pg_ident.conf``.
        history: The timeline's history file.
        during: Blocks that changed between ``start`` and ``stop``.
        bin: Where the server's programs were.
        owner: User and group that own the data directory.
        superuser: The role that owns the cluster.
    """

    version: int
    system: str
    server: int
    timeline: int
    segment_size: int
    start: int
    checkpoint: int
    stop: int
    wal_begin: int
    stopped_ns: int
    checksums: bool
    label: str
    tablespace_map: str
    control: bytes
    directories: list[tuple[str, int]]
    files: list[ListedFile]
    tablespaces: list[tuple[int, str, str]]
    outside: dict[str, bytes]
    history: bytes
    during: StoredChanges
    bin: str = ""
    owner: tuple[int, int] = (0, 0)
    superuser: str = ""

    @property
    def major(self) -> int:
        return self.server // 10000


_decoder = msgspec.msgpack.Decoder(Listing)


def encode_listing(listing: Listing) -> bytes:
    """Write a listing: msgpack arrays in the order of the fields."""
    return msgspec.msgpack.encode(listing)


def decode_listing(data: bytes) -> Listing:
    """Read a listing.

    Raises:
        Damaged: It is not one that this version reads.
    """
    try:
        listing = _decoder.decode(data)
    except msgspec.DecodeError as error:
        raise Damaged("the listing of a PostgreSQL image cannot be read", code="damaged-listing") from error
    if listing.version != VERSION:
        raise Damaged(
            f"a PostgreSQL image has listing version {listing.version}; this perdure reads version {VERSION}",
            code="damaged-listing",
            hint="a newer perdure wrote it: use that version",
        )
    return listing
