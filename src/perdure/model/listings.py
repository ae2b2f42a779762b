"""The stored form of folder trees: msgpack of :class:`~perdure.model.entries.Entry`.

A directory's listing is the msgpack list of its entries; a recovery point's tree is the msgpack of the root
entry; the pieces of a long file are the msgpack list of its pieces. Each is kept as a stream of chunks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import msgspec

from perdure.model.entries import Entry, Piece
from perdure.model.errors import Damaged

__all__ = ["decode_entry", "decode_listing", "decode_pieces", "encode_entry", "encode_listing", "encode_pieces"]

_Decoded = TypeVar("_Decoded")

_encoder = msgspec.msgpack.Encoder()
_entry = msgspec.msgpack.Decoder(Entry)
_listing = msgspec.msgpack.Decoder(list[Entry])
_pieces = msgspec.msgpack.Decoder(list[Piece])


def encode_entry(entry: Entry) -> bytes:
    """The stored form of a tree's root entry."""
    return _encoder.encode(entry)


def decode_entry(data: bytes) -> Entry:
    """Read a root entry.

    Raises:
        Damaged: These bytes are no entry.
    """
    return _decoded(_entry, data, "a tree's root")


def encode_listing(entries: Sequence[Entry]) -> bytes:
    """The stored form of a directory."""
    return _encoder.encode(list(entries))


def decode_listing(data: bytes) -> list[Entry]:
    """Read a directory.

    Raises:
        Damaged: These bytes are no listing.
    """
    return _decoded(_listing, data, "a directory listing")


def encode_pieces(pieces: Sequence[Piece]) -> bytes:
    """The stored form of a long file's pieces."""
    return _encoder.encode(list(pieces))


def decode_pieces(data: bytes) -> list[Piece]:
    """Read a long file's pieces.

    Raises:
        Damaged: These bytes are no pieces.
    """
    return _decoded(_pieces, data, "a list of pieces")


def _decoded(decoder: msgspec.msgpack.Decoder[_Decoded], data: bytes, what: str) -> _Decoded:
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Damaged(f"{what} is damaged: {error}", code="damaged-tree") from error
