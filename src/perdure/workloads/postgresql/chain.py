"""The continuity token: what must still be true of a server for its log to continue at a position.

It names the cluster, the timeline and the last record before the position, with that record's CRC. A server continues
the log if it is this cluster, if the timeline leads to its present one, and if it still has just that record there.
"""

from __future__ import annotations

import msgspec

__all__ = ["ChainToken", "decode_token", "encode_token"]


class ChainToken(msgspec.Struct, frozen=True, array_like=True):
    """A place in a cluster's log.

    Args:
        system: The system identifier.
        timeline: The timeline that it lies on.
        record: LSN at which the last record before the place begins; 0 if none was seen yet.
        check: That record's CRC-32C.
        newest_ns: Time of the newest commit before the place, nanoseconds since 1970 UTC.
    """

    system: str
    timeline: int
    record: int
    check: int
    newest_ns: int = 0


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
