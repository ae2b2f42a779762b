"""How a directory's entries and a file's pieces are encoded in the pool.

A listing is the msgpack array of a directory's entries in ascending order of their raw names, each a map
with the field names of :class:`~perdure.model.entries.Entry` as keys. A directory with very many entries
has an index instead: the msgpack map ``{"parts": [...]}`` of the streams that hold its entries in order.
Where a part ends depends on the names alone (see :func:`ends_part`), so that one new file in a directory
of a million changes one part. A long file's pieces are the msgpack array of
:class:`~perdure.model.entries.Piece`.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from perdure.model.entries import Entry, EntryKind, Piece
from perdure.model.errors import Damaged
from perdure.model.extents import ID_SIZE
from perdure.model.points import StreamRef

__all__ = [
    "INLINE_PIECES",
    "StreamSink",
    "StreamSource",
    "content_pieces",
    "ends_part",
    "load_root",
    "put_index",
    "put_listing",
    "put_pieces",
    "read_listing",
    "read_node",
    "store_root",
]

INLINE_PIECES = 32
"""A file with more pieces than this keeps them in a stream of their own."""

_PART_MIN = 4096
_PART_MAX = 32768
_PART_MASK = 4095


class StreamSink(Protocol):
    """What storing listings needs of a vault."""

    def put_stream(self, data: bytes) -> StreamRef:
        """Store a byte string of any length."""
        ...


class StreamSource(Protocol):
    """What reading listings needs of a vault."""

    def read_stream(self, ref: StreamRef) -> bytes:
        """Read it back."""
        ...


@dataclass(frozen=True, slots=True)
class _Parts:
    parts: tuple[StreamRef, ...]


_encoder = msgspec.msgpack.Encoder()
_listing_decoder = msgspec.msgpack.Decoder(list[Entry] | _Parts)
_pieces_decoder = msgspec.msgpack.Decoder(list[Piece])


def ends_part(count: int, name: bytes) -> bool:
    """Whether a part of a listing ends after its ``count``-th entry, called ``name``."""
    return count >= _PART_MIN and (count >= _PART_MAX or zlib.crc32(name) & _PART_MASK == 0)


def put_listing(entries: Sequence[Entry], sink: StreamSink) -> StreamRef:
    """Store entries, which must be in ascending order of their names."""
    return sink.put_stream(_encoder.encode(entries))


def put_index(parts: Sequence[StreamRef], sink: StreamSink) -> StreamRef:
    """Store the index of a directory whose entries were stored in parts."""
    return sink.put_stream(_encoder.encode(_Parts(tuple(parts))))


def put_pieces(pieces: Sequence[Piece], sink: StreamSink) -> StreamRef:
    """Store the pieces of a long file."""
    return sink.put_stream(_encoder.encode(pieces))


def store_root(root: Entry, sink: StreamSink) -> StreamRef:
    """Store a root directory's entry, so that a recovery point can name a whole tree by one stream."""
    return put_listing([root], sink)


def load_root(ref: StreamRef, source: StreamSource) -> Entry:
    """Read back what :func:`store_root` stored.

    Raises:
        Damaged: The stream is not the entry of a directory.
    """
    decoded = _decode(source.read_stream(ref))
    if isinstance(decoded, _Parts) or len(decoded) != 1 or decoded[0].kind is not EntryKind.DIRECTORY:
        raise Damaged("the root of a folder tree in the pool is not one directory", code="damaged-listing")
    return decoded[0]


def read_node(ref: StreamRef, source: StreamSource) -> list[Entry] | tuple[StreamRef, ...]:
    """One stream of a tree as it is stored: entries, or the streams of the parts that hold them. Names are not checked.

    Raises:
        Damaged: The stored bytes are not a listing.
    """
    decoded = _decode(source.read_stream(ref))
    return decoded.parts if isinstance(decoded, _Parts) else decoded


def read_listing(directory: Entry, source: StreamSource) -> Iterator[Entry]:
    """Read a directory's entries in ascending order of their names; none if it could not be listed.

    Raises:
        Damaged: The stored bytes are not a listing, or hold a name that no directory can have.
    """
    if directory.listing is None:
        return
    decoded = _decode(source.read_stream(directory.listing))
    before = b""
    if not isinstance(decoded, _Parts):
        yield from _checked(decoded, before)
        return
    for part in decoded.parts:
        entries = _decode(source.read_stream(part))
        if isinstance(entries, _Parts):
            raise Damaged("a part of a directory listing in the pool is itself an index", code="damaged-listing")
        yield from _checked(entries, before)
        before = entries[-1].name if entries else before


def content_pieces(file: Entry, source: StreamSource) -> Sequence[Piece]:
    """The pieces of a file's content in order.

    Raises:
        Damaged: The stored bytes are not a list of pieces, or do not add up to the file's size.
    """
    pieces: Sequence[Piece] = file.content
    if file.content_map is not None:
        try:
            pieces = _pieces_decoder.decode(source.read_stream(file.content_map))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Damaged(f"the map of a file's content in the pool is damaged: {error}") from error
    for piece in pieces:
        if len(piece.chunk) not in (0, ID_SIZE) or piece.start < 0 or piece.length <= 0:
            raise Damaged("the map of a file's content in the pool names an impossible piece")
    if sum(piece.length for piece in pieces) != file.size:
        raise Damaged("the pieces of a file's content in the pool do not add up to its size")
    return pieces


def _decode(data: bytes) -> list[Entry] | _Parts:
    try:
        decoded: list[Entry] | _Parts = _listing_decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Damaged(f"a directory listing in the pool is damaged: {error}", code="damaged-listing") from error
    return decoded


def _checked(entries: list[Entry], before: bytes) -> list[Entry]:
    """Names come from outside when a pool was tampered with: one like ``../x`` must never reach a restore."""
    for entry in entries:
        name = entry.name
        if name <= before or name in (b".", b"..") or b"/" in name or b"\0" in name or b"\0" in entry.target:
            raise Damaged(
                f"a directory listing in the pool holds the impossible or misplaced name {name!r}",
                code="damaged-listing",
            )
        before = name
    return entries
