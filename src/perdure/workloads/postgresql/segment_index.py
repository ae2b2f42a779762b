"""What a stored log segment says of its payload: timeline, transactions, changed blocks, restore points.

The payload itself is the WAL between the segment's two positions, byte for byte, in pieces of 1 MiB.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from perdure.model.errors import Damaged
from perdure.workloads.postgresql.blocks import BLOCK, BlockChanges, Limit, unique_blocks
from perdure.workloads.postgresql.transactions import TRANSACTION, RestorePoint

__all__ = ["SegmentIndex", "decode_changes", "decode_index", "encode_changes", "encode_index", "joined_changes"]

VERSION = 1


class FileBlocks(msgspec.Struct, frozen=True, array_like=True):
    """Changed blocks of one fork of a relation; ``blocks`` are differences, u32 little-endian."""

    space: int
    database: int
    relation: int
    fork: int
    blocks: bytes


class StoredChanges(msgspec.Struct, frozen=True, array_like=True):
    """:class:`~perdure.workloads.postgresql.blocks.BlockChanges` as it is stored."""

    files: list[FileBlocks] = []
    limits: list[tuple[int, int, int, int, int]] = []
    databases: list[tuple[int, int]] = []


class SegmentIndex(msgspec.Struct, frozen=True, array_like=True):
    """The index of a segment.

    Args:
        version: Of this layout.
        timeline: On which its payload was written.
        segment_size: Bytes of a WAL file.
        transactions: Array of ``TRANSACTION``, raw.
        points: Restore points as ``(name, LSN, time in nanoseconds since 1970 UTC)``.
        changes: The blocks that it changes.
        history: The timeline's history file, in the first segment of a generation that continues another.
    """

    version: int
    timeline: int
    segment_size: int
    transactions: bytes
    points: list[tuple[str, int, int]]
    changes: StoredChanges
    history: bytes = b""

    def transaction_ends(self) -> NDArray[np.void]:
        """The ends of transactions, an array of :data:`~perdure.workloads.postgresql.transactions.TRANSACTION`."""
        return np.frombuffer(self.transactions, TRANSACTION)

    def restore_points(self) -> list[RestorePoint]:
        """The restore points in it."""
        return [RestorePoint(*each) for each in self.points]


_decoder = msgspec.msgpack.Decoder(SegmentIndex)


def encode_index(index: SegmentIndex) -> bytes:
    """Write an index (a msgpack array in the order of the fields)."""
    return msgspec.msgpack.encode(index)


def decode_index(data: bytes) -> SegmentIndex:
    """Read an index.

    Raises:
        Damaged: It is not one that this version reads.
    """
    try:
        index = _decoder.decode(data)
    except msgspec.DecodeError as error:
        raise Damaged("the index of a PostgreSQL log segment cannot be read", code="bad-segment-index") from error
    if index.version != VERSION:
        raise Damaged(
            f"a PostgreSQL log segment has index version {index.version}; this perdure reads version {VERSION}",
            code="bad-segment-index",
            hint="a newer perdure wrote it: use that version",
        )
    return index


def encode_changes(changes: BlockChanges) -> StoredChanges:
    """Changes as they are stored."""
    files = []
    blocks = changes.blocks
    keys = ("space", "database", "relation", "fork")
    if len(blocks):
        new = np.zeros(len(blocks), bool)
        new[0] = True
        for key in keys:
            new[1:] |= blocks[key][1:] != blocks[key][:-1]
        starts = np.flatnonzero(new).tolist()
        for begin, end in zip(starts, [*starts[1:], len(blocks)], strict=True):
            numbers = np.diff(blocks["block"][begin:end], prepend=np.uint32(0)).astype("<u4")
            space, database, relation, fork = (int(blocks[key][begin]) for key in keys)
            files.append(FileBlocks(space, database, relation, fork, numbers.tobytes()))
    limits = [(each.space, each.database, each.relation, each.fork, each.block) for each in changes.limits]
    return StoredChanges(files, limits, list(changes.databases))


def decode_changes(stored: StoredChanges) -> BlockChanges:
    """Stored changes read back."""
    parts = []
    for file in stored.files:
        numbers = np.cumsum(np.frombuffer(file.blocks, "<u4"), dtype=np.uint32)
        part = np.empty(len(numbers), BLOCK)
        part["space"], part["database"], part["relation"] = file.space, file.database, file.relation
        part["fork"], part["block"] = file.fork, numbers
        parts.append(part)
    blocks = np.concatenate(parts) if parts else np.empty(0, BLOCK)
    limits = tuple(Limit(*each) for each in stored.limits)
    return BlockChanges(blocks, limits, tuple((space, database) for space, database in stored.databases))


def joined_changes(parts: Sequence[BlockChanges]) -> BlockChanges:
    """All changes of several stretches of WAL."""
    blocks = [part.blocks for part in parts if len(part.blocks)]
    return BlockChanges(
        unique_blocks(np.concatenate(blocks)) if blocks else np.empty(0, BLOCK),
        tuple(sorted({limit for part in parts for limit in part.limits})),
        tuple(sorted({database for part in parts for database in part.databases})),
    )
