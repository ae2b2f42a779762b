"""Whether the WAL that is there now continues the log that the pool holds."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

from perdure.workloads.sqlite.chain import ChainToken, FileIdentity
from perdure.workloads.sqlite.wal import FRAME_HEADER, frame_offset
from perdure.workloads.sqlite.walindex import IndexHeader

__all__ = ["Verdict", "how_to_continue"]

_NO_SALTS = bytes(8)


@dataclass(frozen=True, slots=True)
class Verdict:
    """How the log goes on.

    Args:
        cause: Why it does not, in plain words; empty if it does.
        restarted: It goes on at the first frame of the WAL that is there now.
    """

    cause: str = ""
    restarted: bool = False


def how_to_continue(
    place: int, token: ChainToken | None, index: IndexHeader, wal: int, database: FileIdentity
) -> Verdict:
    """Compare the token of the pool's last position with the WAL.

    Args:
        place: The position's frame.
        token: Its continuity token.
        index: The WAL-index now, under a hold.
        wal: Descriptor of the WAL.
        database: The database file's identity now.
    """
    if token is None:
        return Verdict("the pool's continuity token cannot be read")
    if index.last_frame and index.page_size != token.page_size:
        return Verdict(f"its page size changed from {token.page_size} to {index.page_size}")
    if token.salts == index.salts and token.salts != _NO_SALTS:
        if index.last_frame < place:
            return Verdict(f"its WAL ends at frame {index.last_frame}, before frame {place} that the pool holds")
        if place == 0 or _frame_matches(wal, place, token):
            return Verdict()
        return Verdict(f"frame {place} of its WAL is not the one that the pool holds")
    if token.settled is not None and token.settled == database and index.backfilled == 0:
        # No checkpoint since the token: whatever the WAL holds now came after it.
        return Verdict(restarted=True)
    if index.last_frame == 0:
        return Verdict("its WAL is missing or empty: another process checkpointed while perdure was not running")
    return Verdict("another process checkpointed and restarted its WAL while perdure was not running")


def _frame_matches(wal: int, place: int, token: ChainToken) -> bool:
    header = os.pread(wal, FRAME_HEADER, frame_offset(place, token.page_size))
    return len(header) == FRAME_HEADER and header[8:] == token.salts + struct.pack(">2I", *token.checksum)
