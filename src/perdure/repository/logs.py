"""Log segments in the pool: containers whose blocks are the payload and whose footer tells what they hold.

A segment is ``logs/SOURCE/GENERATION-AFTER-LAST`` (8, 16 and 16 hexadecimal digits): the log in
``(AFTER, LAST]`` of that generation. A segment is its own commit point; it is durable when
:func:`append_segment` returns. The names alone show whether the chain has a gap inside a generation;
across generations the footer's ``after`` does.

The footer is msgpack of :class:`_Footer`. Marks and index are compressed with zstd; marks are two columns
(``u64`` places, ``i64`` times), each stored as differences.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Protocol

import msgspec
import numpy as np
import zstandard
from numpy.typing import NDArray

from perdure.model.errors import Damaged
from perdure.model.logs import MARK, LogSegment, LogSpan, StoredSegment
from perdure.model.positions import Position
from perdure.repository.container import (
    HEADER_SIZE,
    BlockPlace,
    ContainerReader,
    ContainerWriter,
    Kind,
    compressed,
    decompressed,
)
from perdure.repository.keys import KeyRing
from perdure.storage.contract import ObjectInfo, Staged, Storage

__all__ = [
    "Readable",
    "append_segment",
    "holds",
    "log_name",
    "read_blocks",
    "read_segment",
    "segment_name",
    "span_of",
    "stage_segment",
]

_MAX_FOOTER = 256 << 20
"""Neither marks (16 million of them) nor index are larger; a hostile footer cannot ask for more memory than this."""


class _Footer(msgspec.Struct, frozen=True):
    """What a segment's footer holds; ``blocks`` are ``(offset, stored, raw)``."""

    source: str
    after: tuple[int, int]
    last: tuple[int, int]
    marks: bytes
    chain: bytes
    index: bytes
    blocks: list[tuple[int, int, int]]
    written_ns: int


def log_name(source: str, after: Position, last: Position) -> str:
    """Object name of a segment."""
    after_place = after.place if after.generation == last.generation else 0
    return f"logs/{source}/{last.generation:08x}-{after_place:016x}-{last.place:016x}"


def segment_name(source: str, segment: LogSegment) -> str:
    """Object name that a segment gets."""
    return log_name(source, segment.after, segment.last)


def span_of(found: ObjectInfo) -> LogSpan | None:
    """What a listing line tells of a segment, or ``None`` if it is not one."""
    parts = found.name.rsplit("/", 1)[-1].split("-")
    if [len(part) for part in parts] != [8, 16, 16]:
        return None
    try:
        generation, after, last = (int(part, 16) for part in parts)
    except ValueError:
        return None
    return LogSpan(generation, after, last, found.size, found.name)


def append_segment(
    storage: Storage,
    keys: KeyRing,
    source: str,
    segment: LogSegment,
    *,
    name: str = "",
    written_ns: int | None = None,
) -> LogSpan:
    """Write a segment; durable on return.

    Args:
        storage: The pool's storage.
        keys: Its keys.
        source: Id of the data source.
        segment: What to write.
        name: Another object name than the segment's own.
        written_ns: When it was first written to a pool, nanoseconds since 1970 UTC; now if ``None``.

    Raises:
        ObjectExists: This part of the log is there already.
    """
    staged, span = stage_segment(storage, keys, source, segment, name=name, written_ns=written_ns)
    try:
        storage.commit(staged, span.name)
    except BaseException:
        staged.discard()
        raise
    return span


def stage_segment(
    storage: Storage,
    keys: KeyRing,
    source: str,
    segment: LogSegment,
    *,
    name: str = "",
    written_ns: int | None = None,
) -> tuple[Staged, LogSpan]:
    """Write a segment without giving it its name: compressed and encrypted, and not there for anybody yet.

    Args:
        storage: The pool's storage.
        keys: Its keys.
        source: Id of the data source.
        segment: What to write.
        name: Another object name than the segment's own.
        written_ns: When it was first written to a pool, nanoseconds since 1970 UTC; now if ``None``.

    Returns:
        What is staged, and how it will be listed.
    """
    staged = storage.stage()
    try:
        writer = ContainerWriter(staged, Kind.LOG, keys)
        places = []
        for block in segment.blocks:
            place = writer.add_block(block, keys.content_id(block))
            places.append((place.offset, place.stored, place.raw))
        footer = _Footer(
            source,
            (segment.after.generation, segment.after.place),
            (segment.last.generation, segment.last.place),
            _packed_marks(segment.marks),
            segment.chain,
            compressed(segment.index),
            places,
            time.time_ns() if written_ns is None else written_ns,
        )
        writer.finish(msgspec.msgpack.encode(footer))
    except BaseException:
        staged.discard()
        raise
    after_place = segment.after.place if segment.after.generation == segment.last.generation else 0
    name = name or segment_name(source, segment)
    return staged, LogSpan(segment.last.generation, after_place, segment.last.place, staged.size, name)


class Readable(Protocol):
    """What reading a segment needs of a storage."""

    def read_range(self, name: str, offset: int, length: int) -> bytes: ...

    def size(self, name: str) -> int: ...


def _open(storage: Readable, keys: KeyRing, span: LogSpan) -> tuple[ContainerReader, _Footer]:
    name = span.name
    reader = ContainerReader(
        lambda offset, length: storage.read_range(name, offset, length), storage.size(name), Kind.LOG, keys, name
    )
    try:
        footer = msgspec.msgpack.decode(reader.footer()[0], type=_Footer)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Damaged(f"{name} is damaged: {error}", code="damaged-object") from error
    if log_name(footer.source, Position(*footer.after), Position(*footer.last)) != name:
        raise Damaged(f"{name} is damaged: it is another segment", code="damaged-object")
    if not all(offset >= HEADER_SIZE and 0 <= stored <= reader.size - offset for offset, stored, _ in footer.blocks):
        raise Damaged(f"{name} is damaged: its blocks lie outside of it", code="damaged-object")
    return reader, footer


def read_segment(storage: Readable, keys: KeyRing, span: LogSpan) -> StoredSegment:
    """Everything of a segment but its payload.

    Raises:
        Damaged: It is not what was written.
    """
    _, footer = _open(storage, keys, span)
    try:
        index = decompressed(footer.index, _MAX_FOOTER)
        marks = _unpacked_marks(footer.marks)
    except (zstandard.ZstdError, ValueError) as error:
        raise Damaged(f"{span.name} is damaged: its index cannot be read", code="damaged-object") from error
    return StoredSegment(
        span=span,
        after=Position(*footer.after),
        last=Position(*footer.last),
        marks=marks,
        chain=footer.chain,
        index=index,
        block_sizes=tuple(raw for _, _, raw in footer.blocks),
        durable_ns=footer.written_ns,
    )


def read_blocks(storage: Readable, keys: KeyRing, span: LogSpan) -> Iterator[bytes]:
    """The payload of a segment, block by block.

    Raises:
        Damaged: A block is not what was written.
    """
    reader, footer = _open(storage, keys, span)
    for offset, stored, raw in footer.blocks:
        yield reader.block(BlockPlace(offset, stored, raw))


def holds(storage: Storage, keys: KeyRing, span: LogSpan, segment: LogSegment) -> bool:
    """Whether a stored segment has exactly this content.

    Raises:
        Damaged: It is not what was written.
    """
    stored = read_segment(storage, keys, span)
    return (
        (stored.after, stored.last, stored.chain, stored.index)
        == (segment.after, segment.last, segment.chain, segment.index)
        and stored.marks.tobytes() == segment.marks.tobytes()
        and stored.block_sizes == tuple(len(block) for block in segment.blocks)
        and all(found == wanted for found, wanted in zip(read_blocks(storage, keys, span), segment.blocks, strict=True))
    )


def _packed_marks(marks: NDArray[np.void]) -> bytes:
    places = np.diff(marks["place"].astype("<u8"), prepend=np.uint64(0))
    times = np.diff(marks["time_ns"].astype("<i8"), prepend=np.int64(0))
    return compressed(places.tobytes() + times.tobytes())


def _unpacked_marks(data: bytes) -> NDArray[np.void]:
    raw = decompressed(data, _MAX_FOOTER)
    count, rest = divmod(len(raw), 16)
    if rest:
        raise ValueError("marks of a wrong length")
    marks = np.empty(count, dtype=MARK)
    marks["place"] = np.cumsum(np.frombuffer(raw, "<u8", count), dtype=np.uint64)
    marks["time_ns"] = np.cumsum(np.frombuffer(raw, "<i8", count, 8 * count), dtype=np.int64)
    return marks
