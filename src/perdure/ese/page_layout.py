"""How the nodes of a page lie in its bytes: tags, flags, keys that share a prefix, in the small and large formats."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from perdure.ese.checksums import LARGE_PAGE
from perdure.ese.pages import NodeFlag

__all__ = [
    "SHORTEST_PREFIX",
    "TAG",
    "LaidOut",
    "LayoutDamaged",
    "PageContent",
    "PageNode",
    "data_start",
    "lay_out",
    "read_layout",
    "shared_prefix",
    "space_of",
]

TAG = 4
"""Bytes of a tag."""

SHORTEST_PREFIX = 3
"""A prefix is worth the two bytes that say how long it is only if it is longer than they are."""

_SMALL_HEADER, _LARGE_HEADER = 40, 80
_PLAIN_HEAD, _COMPRESSED_HEAD = 2, 4
_COMPRESSED = int(NodeFlag.COMPRESSED)
_STATE_FLAGS = int(NodeFlag.VERSIONED | NodeFlag.DELETED)
_SHORTS = struct.Struct("<HH")


class PageNode(NamedTuple):
    """A node as it lies on a page; nodes of one page sort by key.

    Args:
        key: The whole key.
        data: A record, a child page number, a space extent, a part of a long value.
        flags: VERSIONED and DELETED of :class:`perdure.ese.pages.NodeFlag`.
        shared: Bytes of the key that are stored in the page's external header only, 0 or more than 2.
    """

    key: bytes
    data: bytes
    flags: int = 0
    shared: int = 0

    @property
    def deleted(self) -> bool:
        """Whether it is only waiting to be cleaned up."""
        return bool(self.flags & NodeFlag.DELETED)

    @property
    def child(self) -> int:
        """The page number that a branch node points to."""
        return int.from_bytes(self.data[:4], "little")

    @property
    def size(self) -> int:
        """Bytes that it takes on the page, without its tag."""
        head = _COMPRESSED_HEAD if self.shared else _PLAIN_HEAD
        return head + len(self.key) - self.shared + len(self.data)


class LayoutDamaged(Exception):
    """The tags and nodes of a page contradict each other; whoever knows the page says which it is."""


@dataclass(frozen=True, slots=True)
class PageContent:
    """What lies behind the header of a page.

    Args:
        external: What tag 0 points to.
        reserved: What further reserved tags point to.
        nodes: The nodes, by line.
        used: Bytes that all of it takes, tags included.
    """

    external: bytes
    reserved: tuple[bytes, ...]
    nodes: list[PageNode]
    used: int


@dataclass(frozen=True, slots=True)
class LaidOut:
    """A page's bytes, but for its header.

    Args:
        content: The page, its header blank.
        first_free: Where the free space begins, from the start of the data.
        tag_state: The number of tags and of reserved tags, as the header states them.
    """

    content: bytearray
    first_free: int
    tag_state: int


def data_start(page_size: int) -> int:
    """Where the data of a page begins, which is the size of its header."""
    return _LARGE_HEADER if page_size > LARGE_PAGE else _SMALL_HEADER


def read_layout(raw: bytes, *, root: bool) -> PageContent:
    """Take a page's bytes apart.

    Args:
        raw: The page.
        root: Whether it is a root, whose external header describes its space and is no prefix.

    Raises:
        LayoutDamaged: A tag or node reaches beyond its bounds.
    """
    large, base = len(raw) > LARGE_PAGE, data_start(len(raw))
    state = int.from_bytes(raw[34:36], "little")
    count, reserved = state & 0xFFF, max(1, state >> 12 & 7)
    limit = len(raw) - TAG * count
    if limit < base or reserved > count:
        raise LayoutDamaged(f"it has no room for its {count} tags")
    words = struct.unpack_from(f"<{2 * count}H", raw, limit)
    mask = 0x7FFF if large else 0x1FFF
    sizes, offsets = words[-2::-2], words[-1::-2]
    parts = []
    for tag in range(reserved):
        start = base + (offsets[tag] & mask)
        stop = start + (sizes[tag] & mask)
        if stop > limit:
            raise LayoutDamaged(f"tag {tag} points beyond the page's data")
        parts.append(raw[start:stop])
    prefix = b"" if root else parts[0]
    nodes: list[PageNode] = []
    used = TAG * count + sum(map(len, parts))
    for tag in range(reserved, count):
        size, offset = sizes[tag] & mask, offsets[tag]
        at = base + (offset & mask)
        end = at + size
        if size < _PLAIN_HEAD or end > limit:
            raise LayoutDamaged(f"tag {tag} points beyond the page's data")
        first = raw[at] | raw[at + 1] << 8
        if large:
            flags, first = first >> 13, first & 0x1FFF
        else:
            flags = offset >> 13
        if flags & _COMPRESSED:
            stop = at + _COMPRESSED_HEAD + (raw[at + 2] | raw[at + 3] << 8) if size >= _COMPRESSED_HEAD else end + 1
            shared = first
            key = prefix[:shared] + raw[at + _COMPRESSED_HEAD : stop]
        else:
            stop, shared = at + _PLAIN_HEAD + first, 0
            key = raw[at + _PLAIN_HEAD : stop]
        if stop > end or shared > len(prefix):
            raise LayoutDamaged(f"node {tag - reserved} has a key that is longer than the node or its prefix")
        used += size
        nodes.append(PageNode(key, raw[stop:end], flags & _STATE_FLAGS, shared))
    return PageContent(parts[0], tuple(parts[1:]), nodes, used)


def space_of(nodes: Sequence[PageNode]) -> int:
    """Bytes that nodes take on a page, their tags included."""
    taken = (TAG + _PLAIN_HEAD) * len(nodes)
    for key, data, _flags, shared in nodes:
        taken += len(key) + len(data)
        if shared:
            taken += _COMPRESSED_HEAD - _PLAIN_HEAD - shared
    return taken


def lay_out(page_size: int, external: bytes, reserved: Sequence[bytes], nodes: Sequence[PageNode]) -> LaidOut:
    """Put content that fits into the bytes of a page, without gaps and in the order of the tags."""
    large = page_size > LARGE_PAGE
    parts = [external, *reserved]
    sizes = [len(part) for part in parts]
    marks = [0] * len(parts)
    for key, data, state, shared in nodes:
        flags = state | _COMPRESSED if shared else state
        if shared:
            suffix = len(key) - shared
            parts += (_SHORTS.pack(shared | flags << 13 if large else shared, suffix), key[shared:], data)
            sizes.append(_COMPRESSED_HEAD + suffix + len(data))
        else:
            size = len(key)
            parts += ((size | flags << 13 if large else size).to_bytes(2, "little"), key, data)
            sizes.append(_PLAIN_HEAD + size + len(data))
        marks.append(flags)
    ends = list(accumulate(sizes))
    starts = [end - size for end, size in zip(ends, sizes, strict=True)]
    if not large:
        starts = [start | mark << 13 for start, mark in zip(starts, marks, strict=True)]
    tags = array("H", bytes(2 * TAG * len(sizes) // 2))
    tags[0::2], tags[1::2] = array("H", sizes[::-1]), array("H", starts[::-1])
    content = bytearray(page_size)
    base = data_start(page_size)
    content[base : base + ends[-1]] = b"".join(parts)
    content[page_size - TAG * len(sizes) :] = tags.tobytes()
    held = len(reserved) + 1
    return LaidOut(content, ends[-1], len(sizes) | (held << 12 if held > 1 else 0))


def shared_prefix(first: bytes, second: bytes) -> int:
    """How many bytes two keys begin with in common."""
    if first.startswith(second):
        return len(second)
    size = min(len(first), len(second))
    difference = int.from_bytes(first[:size], "big") ^ int.from_bytes(second[:size], "big")
    return size - (difference.bit_length() + 7) // 8
