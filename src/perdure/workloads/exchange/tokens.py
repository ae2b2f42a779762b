"""The continuity token: what a log must be to continue what the pool holds of a stream.

Positions count the log generations of a stream on from an *offset*, so that they go on growing when a stream begins
anew with generation 1, and leave a number out wherever the log is broken.
"""

from __future__ import annotations

import msgspec

from perdure.model.positions import Position

__all__ = ["StreamToken", "decode_token", "encode_token", "place_of", "segment_of"]


class StreamToken(msgspec.Struct, frozen=True, array_like=True):
    """A place in a log stream.

    Args:
        database: Identity of the database, 28 bytes.
        stream: Identity of its log stream, 28 bytes.
        offset: What is added to a log generation to make the generation of a position.
        generation: The log generation of the place.
        created: When that log was made, the engine's 8 bytes.
        place: The end of what is known of it: segment << 16 | bytes used in it.
        closed: Whether the log was complete.
        checksums: XOR of the checksums of its segments; of a log that is not complete of those before the last one.
        repairs: How often the database had been repaired by force.
        images_only: Whether the engine was deleting log by itself, so that none is shipped.
    """

    database: bytes
    stream: bytes
    offset: int
    generation: int
    created: bytes
    place: int
    closed: bool
    checksums: int
    repairs: int = 0
    images_only: bool = False

    @property
    def position(self) -> Position:
        """The place as a position of the data source."""
        return Position(self.offset + self.generation, self.place)

    @property
    def next_generation(self) -> int:
        """The log that continues here: the same one until it is complete."""
        return self.generation + 1 if self.closed else self.generation


_decoder = msgspec.msgpack.Decoder(StreamToken)


def encode_token(token: StreamToken) -> bytes:
    """Write a token (a msgpack array in the order of the fields)."""
    return msgspec.msgpack.encode(token)


def decode_token(data: bytes) -> StreamToken | None:
    """Read a token; ``None`` if it is not one."""
    try:
        return _decoder.decode(data)
    except msgspec.MsgspecError:
        return None


def place_of(segment: int, used: int) -> int:
    """The place behind the first ``used`` bytes of a segment."""
    return segment << 16 | used


def segment_of(place: int) -> tuple[int, int]:
    """The segment of a place, and the bytes used in it."""
    return place >> 16, place & 0xFFFF
