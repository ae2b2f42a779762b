"""Copying one point: its chunks first, then its maps and listings with the ids that the other pool has for them.

Maps and trees stay equal chunk by chunk: the same extents, entries and chunks in the same order and, as ids are of
one length, streams of the same size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from perdure.model.entries import Entry, EntryKind, Piece
from perdure.model.errors import Refused
from perdure.model.extents import ID_SIZE, chunk_table
from perdure.model.listings import content_pieces, put_index, put_listing, put_pieces, read_node
from perdure.model.points import ImageFile, RecoveryPoint, StreamRef
from perdure.repository.copying_chunks import Shipment
from perdure.repository.copying_streams import AheadStreams, taken
from perdure.repository.copying_translation import IdTable, Translation, no_ids, unique_ids
from perdure.repository.maps import decode_map
from perdure.repository.reach import Ids

__all__ = ["needed_chunks", "translated"]

_BATCH = 8192


# --- what is missing ---------------------------------------------------------------------------------


def needed_chunks(point: RecoveryPoint, known: Translation, streams: AheadStreams) -> Ids:
    """The chunks of content that a point names and that the other pool is not known to have, each once.

    Raises:
        Damaged: A map or listing cannot be read.
    """
    missing = [no_ids()]
    for ids in _named(point, known, streams):
        _, has = known.data.find(ids)
        missing.append(unique_ids(ids[~has]))
    return unique_ids(np.concatenate(missing))


def _named(point: RecoveryPoint, known: Translation, streams: AheadStreams) -> Iterator[Ids]:
    for file in point.files:
        for ref in (file.base, *file.deltas):
            if known.stream(ref) is None:
                yield decode_map(streams.read_stream(ref)).chunks
    if point.tree is not None:
        batch: list[bytes] = []
        for chunk in _named_by_tree(point.tree, known, streams):
            batch.append(chunk)
            if len(batch) >= _BATCH:
                yield chunk_table(batch)
                batch = []
        yield chunk_table(batch)


def _named_by_tree(root: StreamRef, known: Translation, streams: AheadStreams) -> Iterator[bytes]:
    seen = Translation()
    waiting = [root]
    while waiting:
        batch = []
        for ref in taken(waiting, lambda ref: ref):
            if known.stream(ref) is None and seen.stream(ref) is None:
                seen.note_stream(ref, ref)
                batch.append(ref)
        streams.hold(batch)
        for ref in batch:
            node = read_node(ref, streams)
            if isinstance(node, tuple):
                waiting.extend(node)
                continue
            waiting.extend(entry.listing for entry in node if entry.listing is not None)
            for entry in node:
                if entry.kind is EntryKind.FILE and _is_unknown(entry.content_map, known):
                    yield from (piece.chunk for piece in content_pieces(entry, streams) if piece.chunk)


def _is_unknown(ref: StreamRef | None, known: Translation) -> bool:
    return ref is None or known.stream(ref) is None


# --- the same with other ids -------------------------------------------------------------------------


def translated(point: RecoveryPoint, known: Translation, streams: AheadStreams, shipment: Shipment) -> RecoveryPoint:
    """Store a point's maps and listings with the other pool's ids; returns the record that names them.

    Args:
        point: The point; the other pool has all its chunks of content.
        known: What they are there; takes in the streams.
        streams: The pool that is copied from.
        shipment: Stores streams.

    Raises:
        Damaged: A map or listing cannot be read.
        Refused: A listing would not be the same in the other pool (code ``copy-unfaithful``).
    """
    work = _Translator(known, streams, shipment)
    files = tuple(work.file(file) for file in point.files)
    return replace(point, files=files, tree=None if point.tree is None else work.tree(point.tree))


@dataclass
class _Node:
    """A stream of a tree whose lower streams are being stored."""

    ref: StreamRef
    content: list[Entry] | tuple[StreamRef, ...]
    below: Iterator[StreamRef]


class _Translator:
    def __init__(self, known: Translation, streams: AheadStreams, shipment: Shipment) -> None:
        self._known = known
        self._streams = streams
        self._shipment = shipment

    def file(self, file: ImageFile) -> ImageFile:
        return replace(file, base=self._map(file.base), deltas=tuple(self._map(ref) for ref in file.deltas))

    def tree(self, root: StreamRef) -> StreamRef:
        """Store what is below a listing before the listing. Trees may be deeper than Python's stack."""
        stack = [self._opened(root)] if self._known.stream(root) is None else []
        while stack:
            lower = next((ref for ref in stack[-1].below if self._known.stream(ref) is None), None)
            if lower is not None:
                stack.append(self._opened(lower))
            else:
                node = stack.pop()
                self._note(node.ref, self._stored(node.content))
        return self._of(root)

    def _map(self, ref: StreamRef) -> StreamRef:
        if self._known.stream(ref) is None:
            data = self._streams.read_stream(ref)
            table = decode_map(data).chunks
            head = memoryview(data)[: len(data) - ID_SIZE * len(table)]
            others = _translated_ids(table, self._known.data)
            self._note(ref, self._shipment.put_stream(b"".join([head, others.tobytes()])))
        return self._of(ref)

    def _opened(self, ref: StreamRef) -> _Node:
        content = read_node(ref, self._streams)
        below = content if isinstance(content, tuple) else [entry.listing for entry in content if entry.listing]
        return _Node(ref, content, iter(below))

    def _stored(self, content: list[Entry] | tuple[StreamRef, ...]) -> StreamRef:
        if isinstance(content, tuple):
            return put_index([self._of(ref) for ref in content], self._shipment)
        chunks = [piece.chunk for entry in content for piece in entry.content if piece.chunk]
        others = _translated_list(chunks, self._known.data)
        return put_listing([self._entry(entry, others) for entry in content], self._shipment)

    def _entry(self, entry: Entry, others: Iterator[bytes]) -> Entry:
        return replace(
            entry,
            content=_with_ids(entry.content, others),
            content_map=None if entry.content_map is None else self._pieces(entry, entry.content_map),
            listing=None if entry.listing is None else self._of(entry.listing),
        )

    def _pieces(self, entry: Entry, ref: StreamRef) -> StreamRef:
        if self._known.stream(ref) is None:
            pieces = content_pieces(entry, self._streams)
            others = _translated_list([piece.chunk for piece in pieces if piece.chunk], self._known.data)
            self._note(ref, put_pieces(_with_ids(pieces, others), self._shipment))
        return self._of(ref)

    def _of(self, ref: StreamRef) -> StreamRef:
        other = self._known.stream(ref)
        assert other is not None
        return other

    def _note(self, ref: StreamRef, other: StreamRef) -> None:
        if other.size != ref.size:
            raise Refused(
                "a folder listing holds something that this version of perdure does not know and would leave out",
                code="copy-unfaithful",
                hint="copy with the version of perdure that made the recovery point, or with a newer one",
            )
        self._known.note_stream(ref, other)


def _with_ids(pieces: Sequence[Piece], others: Iterator[bytes]) -> tuple[Piece, ...]:
    return tuple(replace(piece, chunk=next(others)) if piece.chunk else piece for piece in pieces)


def _translated_list(chunks: list[bytes], known: IdTable) -> Iterator[bytes]:
    raw = _translated_ids(chunk_table(chunks), known).tobytes()
    return iter([raw[at : at + ID_SIZE] for at in range(0, len(raw), ID_SIZE)])


def _translated_ids(ids: Ids, known: IdTable) -> Ids:
    others, has = known.find(ids)
    assert has.all(), "everything was shipped before"
    return others
