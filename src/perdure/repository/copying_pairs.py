"""Learning from a point that two pools have which chunk of one is which of the other, without reading any data.

Maps and trees are copied chunk by chunk, so a walk over both in step yields pairs of ids. The walk trusts nothing
but equal shape: whatever a map or listing says besides ids has to be the same in both, so that no pair is ever
of different content.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from perdure.model.entries import Entry, EntryKind, Piece
from perdure.model.errors import Damaged
from perdure.model.extents import ID_SIZE, chunk_table
from perdure.model.listings import content_pieces, read_node
from perdure.model.points import RecoveryPoint, StreamRef
from perdure.repository.copying_streams import AheadStreams, taken
from perdure.repository.copying_translation import Translation, no_ids
from perdure.repository.maps import decode_map
from perdure.repository.reach import Ids

__all__ = ["learn"]

_Refs = tuple[StreamRef, StreamRef]

_BATCH = 8192


def learn(
    known: Translation,
    streams: AheadStreams,
    point: RecoveryPoint,
    others: AheadStreams,
    other: RecoveryPoint,
    *,
    present: Callable[[Ids], NDArray[np.bool_]],
) -> Ids:
    """Take in what a point that both pools have tells; returns the chunks of content that were learned.

    Args:
        known: The translation; grows.
        streams: The pool that is copied from.
        point: The point there.
        others: The pool that is copied into.
        other: The same point there.
        present: Tells for chunk ids of the pool that is copied into, shape ``(n, 32)``, whether a new point may rely
            on them.

    Raises:
        Damaged: A map or listing cannot be read in one of the pools, or the two are not of the same shape.
    """
    walk = _Walk(known, streams, others, present)
    walk.point(point, other)
    return np.concatenate([no_ids(), *walk.learned])


class _Walk:
    def __init__(
        self,
        known: Translation,
        streams: AheadStreams,
        others: AheadStreams,
        present: Callable[[Ids], NDArray[np.bool_]],
    ) -> None:
        self._known = known
        self._streams = streams
        self._others = others
        self._present = present
        self._ids: list[tuple[bytes, bytes]] = []
        self._needed: list[bytes] = []
        self._complete = True
        self.learned: list[Ids] = []

    def point(self, point: RecoveryPoint, other: RecoveryPoint) -> None:
        if [file.name for file in point.files] != [file.name for file in other.files]:
            raise _shapes_differ()
        for file, twin in zip(point.files, other.files, strict=True):
            if len(file.deltas) != len(twin.deltas):
                raise _shapes_differ()
            for refs in ((file.base, twin.base), *zip(file.deltas, twin.deltas, strict=True)):
                if self._known.stream(refs[0]) is None:
                    self._map(refs)
        if (point.tree is None) != (other.tree is None):
            raise _shapes_differ()
        if point.tree is not None and other.tree is not None:
            self._tree((point.tree, other.tree))

    # --- maps ---

    def _map(self, refs: _Refs) -> None:
        _same_size(refs)
        data, other = self._streams.read_stream(refs[0]), self._others.read_stream(refs[1])
        table = decode_map(data).chunks
        head = len(data) - ID_SIZE * len(table)
        if data[:head] != other[:head]:
            raise _shapes_differ()
        twins = np.frombuffer(other, np.uint8, offset=head).reshape(-1, ID_SIZE)
        if self._take(table, twins) and self._all_there(refs[1].chunks):
            self._known.note_stream(*refs)

    # --- trees ---

    def _tree(self, root: _Refs) -> None:
        # What a listing stands for is known only when everything below it is: first all, then none or all.
        seen = Translation()
        waiting = [root]
        while waiting:
            batch = [refs for refs in taken(waiting, lambda refs: refs[0]) if self._is_new(refs, seen)]
            self._streams.hold([ref for ref, _ in batch])
            self._others.hold([other for _, other in batch])
            for refs in batch:
                waiting.extend(self._node(refs, seen))
                if len(self._ids) + len(self._needed) >= _BATCH:
                    self._settle()
        self._settle()
        if self._complete:
            self._known.take_streams(seen)

    def _is_new(self, refs: _Refs, seen: Translation) -> bool:
        """Whether a stream is met for the first time; then it is noted."""
        if self._known.stream(refs[0]) is not None or seen.stream(refs[0]) is not None:
            return False
        seen.note_stream(*refs)
        _same_size(refs)
        self._needed.extend(refs[1].chunks)
        return True

    def _node(self, refs: _Refs, seen: Translation) -> Iterator[_Refs]:
        """The streams below one of a tree."""
        node, twin = read_node(refs[0], self._streams), read_node(refs[1], self._others)
        if isinstance(node, tuple) or isinstance(twin, tuple):
            if not (isinstance(node, tuple) and isinstance(twin, tuple) and len(node) == len(twin)):
                raise _shapes_differ()
            yield from zip(node, twin, strict=True)
            return
        if len(node) != len(twin):
            raise _shapes_differ()
        for entry, other in zip(node, twin, strict=True):
            same = replace(other, content=entry.content, content_map=entry.content_map, listing=entry.listing)
            if same != entry or (entry.listing is None) != (other.listing is None):
                raise _shapes_differ()
            if entry.kind is EntryKind.FILE:
                self._content(entry, other, seen)
            if entry.listing is not None and other.listing is not None:
                yield entry.listing, other.listing

    def _content(self, entry: Entry, other: Entry, seen: Translation) -> None:
        maps = entry.content_map, other.content_map
        if (maps[0] is None) != (maps[1] is None):
            raise _shapes_differ()
        if maps[0] is not None and maps[1] is not None and not self._is_new((maps[0], maps[1]), seen):
            return
        self._pieces(content_pieces(entry, self._streams), content_pieces(other, self._others))

    def _pieces(self, pieces: Sequence[Piece], others: Sequence[Piece]) -> None:
        if len(pieces) != len(others):
            raise _shapes_differ()
        for piece, other in zip(pieces, others, strict=True):
            if (piece.start, piece.length, not piece.chunk) != (other.start, other.length, not other.chunk):
                raise _shapes_differ()
            if piece.chunk:
                self._ids.append((piece.chunk, other.chunk))

    # --- ids ---

    def _settle(self) -> None:
        ids, self._ids = self._ids, []
        needed, self._needed = self._needed, []
        whole = self._take(chunk_table(chunk for chunk, _ in ids), chunk_table(other for _, other in ids))
        self._complete = whole and self._all_there(needed) and self._complete

    def _take(self, ids: Ids, others: Ids) -> bool:
        """Note the pairs that a new point may rely on; returns whether these are all."""
        there = self._present(others)
        self.learned.append(self._known.data.add(ids[there], others[there]))
        return bool(there.all())

    def _all_there(self, chunks: Sequence[bytes]) -> bool:
        return bool(self._present(chunk_table(chunks)).all())


def _same_size(refs: _Refs) -> None:
    ref, other = refs
    if (ref.size, len(ref.chunks)) != (other.size, len(other.chunks)):
        raise _shapes_differ()


def _shapes_differ() -> Damaged:
    return Damaged("a point that both pools have is not of the same shape in both", code="damaged-record")
