"""Which blocks WAL records change, for all records at once.

A record's header is followed by one header per block that it touches, then by a header for its own data, then by the
data of all of them (``xlogrecord.h``). One round here reads the n-th block header of every record that has one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perdure.workloads.postgresql.records import RECORD_HEADER, Records

__all__ = ["BLOCK", "BlockChanges", "Limit", "changed_blocks"]

BLOCK = np.dtype([("space", "<u4"), ("database", "<u4"), ("relation", "<u4"), ("fork", "<u4"), ("block", "<u4")])
"""A block: tablespace, database, relation file number, fork (0 main, 1 free space, 2 visibility, 3 init), number."""

_LAST_BLOCK_ID = 32
_ORIGIN, _TOP_TRANSACTION, _DATA_LONG, _DATA_SHORT = 253, 252, 254, 255
_HAS_IMAGE, _SAME_RELATION = 0x10, 0x80
_HAS_HOLE, _COMPRESSED = 0x01, 0x04 | 0x08 | 0x10

_STORAGE, _DATABASE = 2, 4
_CREATE, _TRUNCATE = 0x10, 0x20
_COPY_DATABASE, _CREATE_DATABASE = 0x00, 0x10

MAIN, FREE_SPACE, VISIBILITY, INIT = range(4)


@dataclass(frozen=True, order=True, slots=True)
class Limit:
    """From this block on everything in a file may have changed without being named: it was cut off or made anew."""

    space: int
    database: int
    relation: int
    fork: int
    block: int


@dataclass(frozen=True, eq=False, slots=True)
class BlockChanges:
    """What a stretch of WAL changes.

    Args:
        blocks: Array of :data:`BLOCK`, sorted, each once.
        limits: Files cut off or made anew.
        databases: ``(tablespace, database)`` whose files were copied without being logged.
    """

    blocks: NDArray[np.void]
    limits: tuple[Limit, ...]
    databases: tuple[tuple[int, int], ...]


@dataclass(frozen=True, eq=False, slots=True)
class _Reading:
    """How far the headers of records are read: the next one's offset, bytes of data seen, the relation named last."""

    at: NDArray[np.int64]
    data: NDArray[np.int64]
    relation: NDArray[np.uint32]


def changed_blocks(records: Records) -> BlockChanges:
    """Find what records change."""
    limits: set[Limit] = set()
    databases: set[tuple[int, int]] = set()
    kinds = records.infos & 0xF0
    for row in np.flatnonzero((records.managers == _STORAGE) | (records.managers == _DATABASE)).tolist():
        words = np.frombuffer(main_data(records, row)[:20].ljust(20, b"\0"), "<u4").tolist()
        kind = int(kinds[row])
        if records.managers[row] == _DATABASE:
            if kind in (_COPY_DATABASE, _CREATE_DATABASE):
                databases.add((words[1], words[0]))
        elif kind == _CREATE:
            limits.add(Limit(words[0], words[1], words[2], words[3], 0))
        elif kind == _TRUNCATE:
            limits.add(Limit(words[1], words[2], words[3], MAIN, words[0]))
            limits.add(Limit(words[1], words[2], words[3], VISIBILITY, 0))
    return BlockChanges(unique_blocks(_block_references(records)), tuple(sorted(limits)), tuple(sorted(databases)))


def unique_blocks(blocks: NDArray[np.void]) -> NDArray[np.void]:
    """Sorted, each once."""
    if len(blocks) < 2:
        return blocks
    order = np.lexsort([blocks[name] for name in ("block", "fork", "relation", "database", "space")])
    ordered = blocks[order]
    return np.asarray(ordered[np.append(True, ordered[1:] != ordered[:-1])])


def main_data(records: Records, row: int) -> bytes:
    """A record's own data; only for records without blocks."""
    at = int(records.offsets[row]) + RECORD_HEADER
    end = int(records.offsets[row] + records.lengths[row])
    content = records.content
    while at < end:
        kind = int(content[at])
        if kind == _DATA_SHORT:
            return content[at + 2 : end].tobytes()
        if kind == _DATA_LONG:
            return content[at + 5 : end].tobytes()
        if kind not in (_ORIGIN, _TOP_TRANSACTION):
            break
        at += 3 if kind == _ORIGIN else 5
    return b""


def _block_references(records: Records) -> NDArray[np.void]:
    content = records.content
    at = records.offsets + RECORD_HEADER
    end = records.offsets + records.lengths
    data = np.zeros(len(records), np.int64)
    state = _Reading(at, data, np.zeros((len(records), 3), np.uint32))
    active = np.flatnonzero(end - at > 0)
    found: list[NDArray[np.void]] = []
    while len(active):
        here = at[active]
        kind = content[here]
        skipped = np.where(kind == _ORIGIN, 3, np.where(kind == _TOP_TRANSACTION, 5, 0))
        at[active] += skipped
        is_block = kind <= _LAST_BLOCK_ID
        rows, here = active[is_block], here[is_block]
        if len(rows):
            found.append(_one_round(content, rows, here, state))
        active = active[is_block | (skipped > 0)]
        active = active[end[active] - at[active] > data[active]]
    return np.concatenate(found) if found else np.empty(0, BLOCK)


def _one_round(
    content: NDArray[np.uint8],
    rows: NDArray[np.int64],
    here: NDArray[np.int64],
    state: _Reading,
) -> NDArray[np.void]:
    """Read one block header of each of some records, and move on behind it."""
    at, data, relation = state.at, state.data, state.relation
    flags = content[here + 1]
    data[rows] += _u16(content, here + 2)
    place = here + 4
    image = np.flatnonzero(flags & _HAS_IMAGE)
    if len(image):
        begin = place[image]
        data[rows[image]] += _u16(content, begin)
        how = content[begin + 4]
        compressed_hole = ((how & _HAS_HOLE) > 0) & ((how & _COMPRESSED) > 0)
        place[image] += 5 + 2 * compressed_hole
    own = np.flatnonzero((flags & _SAME_RELATION) == 0)
    if len(own):
        begin = place[own]
        for column in range(3):
            relation[rows[own], column] = _u32(content, begin + 4 * column)
        place[own] += 12
    blocks = np.empty(len(rows), BLOCK)
    blocks["space"], blocks["database"], blocks["relation"] = relation[rows].T
    blocks["fork"] = flags & 0x0F
    blocks["block"] = _u32(content, place)
    at[rows] = place + 4
    return blocks


def _u16(content: NDArray[np.uint8], at: NDArray[np.int64]) -> NDArray[np.int64]:
    return content[at].astype(np.int64) | (content[at + 1].astype(np.int64) << 8)


def _u32(content: NDArray[np.uint8], at: NDArray[np.int64]) -> NDArray[np.int64]:
    return _u16(content, at) | (_u16(content, at + 2) << 16)
