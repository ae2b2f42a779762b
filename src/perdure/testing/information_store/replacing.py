"""Records of replaced data: all of it, or only what differs."""

from __future__ import annotations

import struct

from perdure.testing.information_store.page_records import Actor, NodeTarget, PageTarget, replace, replace_by_difference
from perdure.testing.information_store.tree_pages import common_length

__all__ = ["replace_record"]

_SAME_LENGTH, _INSERT, _LONG_LENGTHS = 0x20, 0x40, 0x80
_LAST_SHORT_OFFSET = 0x1FFF
_LAST_SHORT_LENGTH = 0xFF
_HEAD_COST = 8
"""An edit that is this close to the one before is cheaper as a part of it."""


def replace_record(actor: Actor, at: PageTarget, of: NodeTarget, old: bytes, new: bytes) -> bytes:
    """The shorter of the two records that give a node other data."""
    edits = _edits(old, new)
    long = bool(edits) and edits[-1][0] > _LAST_SHORT_OFFSET
    difference = b"".join(_edit(*edit, long=long) for edit in edits)
    if not edits or len(difference) >= len(new):
        return replace(actor, at, of, len(old), new)
    return replace_by_difference(actor, at, of, (len(old), len(new)), difference, long=long)


def _edits(old: bytes, new: bytes) -> list[tuple[int, int, bytes]]:
    """Offset, bytes taken away, bytes put there; in order."""
    if len(old) == len(new):
        differing = int.from_bytes(old, "little") ^ int.from_bytes(new, "little")
        if not differing:
            return []
        first = ((differing & -differing).bit_length() - 1) >> 3
        last = (differing.bit_length() - 1) >> 3
        return [(begin, end - begin, new[begin:end]) for begin, end in _runs(old, new, first, last)]
    common = min(len(old), len(new))
    prefix = common_length(old, new)
    suffix = min(common - prefix, common_length(old[::-1], new[::-1]))
    return [(prefix, len(old) - suffix - prefix, new[prefix : len(new) - suffix])]


def _runs(old: bytes, new: bytes, first: int, last: int) -> list[tuple[int, int]]:
    """Ranges that differ; those that lie close together are one."""
    runs = [(first, first + 1)]
    for place in range(first + 1, last + 1):
        if old[place] != new[place]:
            begin, end = runs[-1]
            if place - end < _HEAD_COST:
                runs[-1] = (begin, place + 1)
            else:
                runs.append((place, place + 1))
    return runs


def _edit(offset: int, taken: int, put: bytes, *, long: bool) -> bytes:
    flags = _LONG_LENGTHS if max(taken, len(put)) > _LAST_SHORT_LENGTH else 0
    if taken == len(put):
        flags |= _SAME_LENGTH
    elif not taken:
        flags |= _INSERT
    head = struct.pack("<HB", offset, flags) if long else struct.pack("<H", offset | flags << 8)
    width = "<H" if flags & _LONG_LENGTHS else "<B"
    lengths = struct.pack(width, len(put))
    if not flags & (_SAME_LENGTH | _INSERT):
        lengths += struct.pack(width, taken)
    return head + lengths + put
