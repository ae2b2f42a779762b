"""Another pool that holds the same recovery points, as a place where good content comes from.

Two pools name the same content by different ids, since ids are keyed. But a copied point keeps its source's id and its
number, and its maps and listings have the same structure, chunk by chunk. So the two are walked side by side: what
stands at the same place is the same content. Where this pool's own map or listing cannot be read, it is made again from
the other's: every id in it is replaced by the id that the same content has here. Nothing of this has to be believed:
whoever takes the content checks it against the id.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import msgspec

from perdure.model.extents import ExtentMap, chunk_table
from perdure.model.points import RecoveryPoint, StreamRef
from perdure.repository import records
from perdure.repository.capture import STREAM_PIECE
from perdure.repository.container import Kind, read_sealed
from perdure.repository.damage import failures_of
from perdure.repository.maps import decode_map, encode_map
from perdure.repository.pool import Pool

__all__ = ["SecondCopy"]

_MOST_KNOWN = 1 << 21
"""So many pairs of ids are remembered; those beyond are found by reading the content."""

_NEIGHBOURS = 2
"""So many points on either side of a damaged one are walked, to learn the ids that they share with it."""

_UNREADABLE: tuple[type[Exception], ...] = (msgspec.MsgspecError, KeyError, TypeError, ValueError)


class SecondCopy:
    """The other pool.

    Args:
        pool: The pool to be healed.
        other: The pool that has the same points.
    """

    def __init__(self, pool: Pool, other: Pool) -> None:
        self._pool = pool
        self.other = other
        self._failures: tuple[type[Exception], ...] = (*failures_of(pool.storage), *failures_of(other.storage))
        self._here: dict[bytes, bytes] = {}
        self._rebuilt: dict[tuple[bytes, ...], StreamRef] = {}
        self._learned: set[tuple[bytes, ...]] = set()

    @property
    def name(self) -> str:
        return f"the pool {self.other.storage.url}"

    def contents(self, wanted: Collection[bytes], points: Sequence[tuple[str, int]]) -> Iterator[tuple[bytes, bytes]]:
        """Content of chunks, as far as the other pool has it.

        Args:
            wanted: Ids of chunks.
            points: Points that name them, as source id and number.
        """
        seen: set[tuple[bytes, ...]] = set()
        for source, number in points:
            name = records.point_name(source, number)
            with contextlib.suppress(*self._failures):
                ours = records.read_point(self._pool.storage, self._pool.keys, name)
                theirs = records.read_point(self.other.storage, self.other.keys, name)
                if _same_point(ours, theirs):
                    self._learn(source, number)
                    yield from self._side_by_side(_plain(ours), _plain(theirs), frozenset(wanted), seen)

    def record(self, source: str, number: int) -> bytes | None:
        """The footer of a point's record in this pool's terms, ``None`` if the other pool has it not."""
        name = records.point_name(source, number)
        try:
            footer = read_sealed(self.other.storage, name, Kind.POINT, self.other.keys)
            self._learn(source, number)
            made: bytes = msgspec.msgpack.encode(self._translated(msgspec.msgpack.decode(footer)))
            msgspec.msgpack.decode(made, type=RecoveryPoint)
        except (*self._failures, *_UNREADABLE):
            return None
        return made

    # --- side by side ---

    def _learn(self, source: str, number: int) -> None:
        """Learn the pairs of ids of neighbouring points, which share most of their content with this one."""
        theirs = {
            found: listed.name
            for listed in self.other.storage.list(f"points/{source}")
            if (found := records.point_number(listed.name)) is not None
        }
        nearest = sorted(theirs.keys() - {number}, key=lambda each: abs(each - number))
        for neighbour in nearest[: 2 * _NEIGHBOURS]:
            with contextlib.suppress(*self._failures):
                ours = records.read_point(self._pool.storage, self._pool.keys, theirs[neighbour])
                other = records.read_point(self.other.storage, self.other.keys, theirs[neighbour])
                if _same_point(ours, other):
                    for _ in self._side_by_side(_plain(ours), _plain(other), frozenset(), self._learned):
                        pass

    def _side_by_side(
        self, ours: Any, theirs: Any, wanted: frozenset[bytes], seen: set[tuple[bytes, ...]]
    ) -> Iterator[tuple[bytes, bytes]]:
        """Walk two decoded documents and the streams that they name; yields wanted chunks with their content.

        Args:
            ours: Of this pool.
            theirs: Of the other pool.
            wanted: Ids of chunks.
            seen: Streams that need not be walked again.
        """
        waiting = [(ours, theirs)]
        while waiting:
            here, there = waiting.pop()
            for ref_here, ref_there in _pairs(here, there):
                if isinstance(ref_there, bytes):
                    if isinstance(ref_here, bytes):
                        yield from self._chunk(ref_here, ref_there, wanted)
                    continue
                if ref_here.chunks in seen:
                    continue
                seen.add(ref_here.chunks)
                found = self._streams(ref_here, ref_there, wanted)
                if found is None:
                    continue
                healed, below = found
                yield from healed
                if isinstance(below[0], ExtentMap):
                    for chunk, same in zip(below[0].ids(), below[1].ids(), strict=False):
                        yield from self._chunk(chunk, same, wanted)
                else:
                    waiting.append(below)

    def _chunk(self, here: bytes, there: bytes, wanted: frozenset[bytes]) -> Iterator[tuple[bytes, bytes]]:
        if not there:
            return
        if len(self._here) < _MOST_KNOWN:
            self._here[there] = here
        if here in wanted:
            with contextlib.suppress(*self._failures):
                yield here, self.other.read_chunk(there)

    def _streams(
        self, here: StreamRef, there: StreamRef, wanted: frozenset[bytes]
    ) -> tuple[list[tuple[bytes, bytes]], tuple[Any, Any]] | None:
        """Chunks of a stream that are wanted, and both streams decoded; ``None`` if the other pool lacks it too."""
        self._rebuilt[there.chunks] = here
        try:
            data_there = self.other.read_stream(there)
            decoded_there = _decoded(data_there)
            healed: list[tuple[bytes, bytes]] = []
            try:
                data_here = self._pool.read_stream(here)
            except self._failures:
                data_here = self._made_again(decoded_there)
                healed = [each for each in self._cut(data_here) if each[0] in wanted]
            return healed, (_decoded(data_here), decoded_there)
        except (*self._failures, *_UNREADABLE):
            return None

    def _cut(self, data: bytes) -> list[tuple[bytes, bytes]]:
        pieces = [data[at : at + STREAM_PIECE] for at in range(0, len(data), STREAM_PIECE)]
        return [(self._pool.keys.content_id(piece), piece) for piece in pieces]

    # --- made again ---

    def _made_again(self, decoded: Any) -> bytes:
        """A stream of the other pool in this pool's terms."""
        if isinstance(decoded, ExtentMap):
            chunks = [self._id_here(chunk) for chunk in decoded.ids()]
            return encode_map(ExtentMap(decoded.size, decoded.extents, chunk_table(chunks)))
        made: bytes = msgspec.msgpack.encode(self._translated(decoded))
        return made

    def _translated(self, value: Any) -> Any:
        """A decoded document with this pool's ids."""
        if isinstance(value, dict):
            ref = _stream_of(value)
            if ref is not None:
                here = self._stream_here(ref)
                return {"chunks": list(here.chunks), "size": here.size}
            return {
                key: self._id_here(item) if key == "chunk" else self._translated(item) for key, item in value.items()
            }
        if isinstance(value, list):
            return [self._translated(item) for item in value]
        return value

    def _stream_here(self, there: StreamRef) -> StreamRef:
        known = self._rebuilt.get(there.chunks)
        if known is None:
            data = self._made_again(_decoded(self.other.read_stream(there)))
            known = StreamRef(tuple(chunk for chunk, _ in self._cut(data)), len(data))
            self._rebuilt[there.chunks] = known
        return known

    def _id_here(self, there: bytes) -> bytes:
        """The id that a chunk of the other pool has here."""
        if not there:
            return there
        return self._here.get(there) or self._pool.keys.content_id(self.other.read_chunk(there))


def _same_point(ours: RecoveryPoint, theirs: RecoveryPoint) -> bool:
    return (ours.kind, ours.time_ns, ours.position, ours.size) == (
        theirs.kind,
        theirs.time_ns,
        theirs.position,
        theirs.size,
    )


def _plain(point: RecoveryPoint) -> Any:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(point))


def _decoded(data: bytes) -> Any:
    """A map, or the plain values of a listing or list of pieces.

    Raises:
        Damaged: It is neither.
    """
    return decode_map(data) if data[:4] == b"XMAP" else msgspec.msgpack.decode(data)


def _stream_of(value: dict[Any, Any]) -> StreamRef | None:
    if value.keys() != {"chunks", "size"}:
        return None
    return StreamRef(tuple(value["chunks"]), value["size"])


def _pairs(ours: Any, theirs: Any) -> Iterator[tuple[Any, Any]]:
    """The streams (:class:`StreamRef`) and chunks (ids) that stand at the same places of two documents."""
    waiting = [(ours, theirs)]
    while waiting:
        here, there = waiting.pop()
        if isinstance(here, dict) and isinstance(there, dict):
            stream_here, stream_there = _stream_of(here), _stream_of(there)
            if stream_here is not None and stream_there is not None:
                yield stream_here, stream_there
                continue
            for key in there.keys() & here.keys():
                if key == "chunk":
                    yield here[key], there[key]
                else:
                    waiting.append((here[key], there[key]))
        elif isinstance(here, list) and isinstance(there, list):
            waiting += zip(here, there, strict=False)
