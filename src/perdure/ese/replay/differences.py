"""Data of a node as a difference of the data before (ReplaceD)."""

from __future__ import annotations

from perdure.ese.replay.errors import Contradiction

__all__ = ["apply_difference"]

_LONG_HEAD, _SHORT_HEAD = 3, 2
_TWO_BYTE_LENGTHS, _INSERT, _SAME_LENGTH = 0x80, 0x40, 0x20
_SHORT_OFFSET = 0x1FFF


def apply_difference(old: bytes, difference: bytes, *, long: bool) -> bytes:
    """The new data.

    Args:
        old: The data before.
        difference: Edits, in order of their offsets in the old data.
        long: Whether their heads have 3 bytes, for offsets above 8 KiB.

    Raises:
        Contradiction: An edit reaches beyond the old data or the difference.
    """
    parts: list[bytes] = []
    done = at = 0
    end = len(difference)
    while at < end:
        if long:
            offset, flags = int.from_bytes(difference[at : at + 2], "little"), difference[at + 2] if at + 2 < end else 0
            at += _LONG_HEAD
        else:
            head = int.from_bytes(difference[at : at + 2], "little")
            offset, flags = head & _SHORT_OFFSET, head >> 8
            at += _SHORT_HEAD
        width = 2 if flags & _TWO_BYTE_LENGTHS else 1
        size = int.from_bytes(difference[at : at + width], "little")
        at += width
        if flags & _INSERT:
            replaced = 0
        elif flags & _SAME_LENGTH:
            replaced = size
        else:
            replaced = int.from_bytes(difference[at : at + width], "little")
            at += width
        if not done <= offset <= len(old) or offset + replaced > len(old) or at + size > end:
            raise Contradiction("a difference reaches beyond the data that it is for")
        parts += (old[done:offset], difference[at : at + size])
        done, at = offset + replaced, at + size
    parts.append(old[done:])
    return b"".join(parts)
