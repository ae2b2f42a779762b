"""A walk over recovery points that finds what they name and cannot have: missing chunks, chunks that are known to be
damaged, and maps and listings that cannot be read.

Every map and listing is visited once, however many points share it. What names what is kept as a graph of numbered
streams, some ten bytes an edge; only when something was found is the graph followed upward to the points that it
touches. Chunks are looked up in an index snapshot in batches. So memory does not grow with the number of chunks, and
one pass suffices for any damage.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from perdure.model.entries import Entry, EntryKind
from perdure.model.errors import PerdureError
from perdure.model.extents import chunk_table
from perdure.model.listings import content_pieces, load_root, read_listing
from perdure.model.points import RecoveryPoint, StreamRef
from perdure.repository.damage import failures_of
from perdure.repository.index_snapshot import IndexSnapshot
from perdure.repository.maps import decode_map
from perdure.repository.pool import Pool

__all__ = ["Broken", "DamageWalk", "Touched"]

_BATCH = 1 << 16
_MOST_MISSING = 1 << 16
"""So many ids of missing chunks are kept; healing those shows the rest."""

_MISSING = -1


@dataclass(frozen=True, slots=True)
class Broken:
    """A map or listing that cannot be read.

    Args:
        kind: ``map`` or ``tree``.
        what: Why not.
        point: The number of a point that names it.
        chunks: Chunks of which one or more must be damaged or missing.
    """

    kind: str
    what: str
    point: int
    chunks: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Touched:
    """Which points are touched by what; points by their number in the order of the visits.

    Args:
        hurt: For each group of damaged chunks.
        missing: By missing chunks.
        broken: For each map or listing that cannot be read.
    """

    hurt: Mapping[int, frozenset[int]]
    missing: frozenset[int]
    broken: Mapping[int, frozenset[int]]


class DamageWalk:
    """One walk.

    Args:
        pool: Reads maps and listings.
        snapshot: The index.
        hurt: Chunks that are damaged beyond other copies, each with the numbers of the groups that it belongs to.

    Attributes:
        missing: Ids of chunks that are nowhere; not all of them if there are very many.
        broken: What cannot be read.
        visited: Number of chunk ids that were looked up.
    """

    def __init__(self, pool: Pool, snapshot: IndexSnapshot, hurt: Mapping[bytes, Iterable[int]]) -> None:
        self._pool = pool
        self._snapshot = snapshot
        self._failures = failures_of(pool.storage)
        self._numbers: dict[bytes, int] = {}
        self._count = 0
        self._parents, self._children = array("I"), array("I")
        self._points: list[int] = []
        self._own: dict[int, set[int]] = {}
        self._waiting: list[tuple[int, NDArray[np.uint8]]] = []
        self._waiting_count = 0
        self.missing: set[bytes] = set()
        self.broken: list[Broken] = []
        self.visited = 0
        self._hurt_rows = self._rows_of(hurt)
        self._is_hurt = np.zeros(snapshot.row_count, dtype=np.bool_)
        self._is_hurt[list(self._hurt_rows)] = True
        self._needed = np.zeros(len(snapshot.packs), dtype=np.bool_)

    def _rows_of(self, hurt: Mapping[bytes, Iterable[int]]) -> dict[int, set[int]]:
        groups: dict[int, set[int]] = {}
        if hurt:
            rows = self._snapshot.rows(chunk_table(hurt), condemned=True)
            for row, numbers in zip(rows.tolist(), hurt.values(), strict=True):
                if row >= 0:
                    groups.setdefault(row, set()).update(numbers)
        return groups

    def visit(self, point: RecoveryPoint) -> None:
        """Follow one point; what is found is told by :meth:`touched`."""
        number = self._next_number()
        self._points.append(number)
        for file in point.files:
            for ref in (file.base, *file.deltas):
                self._visit_map(number, ref)
        if point.tree is not None:
            self._visit_tree(number, point.tree)

    def touched(self) -> Touched:
        """What was found, by the points that it touches."""
        self._look_up()
        groups: dict[int, set[int]] = {}
        for stream, findings in self._own.items():
            for finding in findings:
                groups.setdefault(finding, set()).add(stream)
        points = {number: place for place, number in enumerate(self._points)}
        above = _Above(self._parents, self._children) if groups else None
        found: dict[int, frozenset[int]] = {}
        for finding, streams in groups.items():
            assert above is not None
            found[finding] = frozenset(points[number] for number in above.of(streams) if number in points)
        return Touched(
            hurt={finding: at for finding, at in found.items() if finding >= 0},
            missing=found.get(_MISSING, frozenset()),
            broken={_MISSING - 1 - finding: at for finding, at in found.items() if finding < _MISSING},
        )

    def needed_packs(self) -> frozenset[bytes]:
        """The packs that hold a chunk that some point names, where the index prefers their copy of it."""
        self._look_up()
        return frozenset(pack.tobytes() for pack in self._snapshot.packs[self._needed])

    # --- streams ---

    def _next_number(self) -> int:
        self._count += 1
        return self._count - 1

    def _enter(self, above: int, ref: StreamRef) -> int | None:
        """Note that a stream is named; its number if it is to be visited now."""
        key = blake3(b"".join(ref.chunks)).digest(16)
        number = self._numbers.get(key)
        known = number is not None
        if number is None:
            number = self._numbers[key] = self._next_number()
        self._parents.append(above)
        self._children.append(number)
        if known:
            return None
        self._name(number, chunk_table(ref.chunks))
        return number

    def _visit_map(self, above: int, ref: StreamRef) -> None:
        number = self._enter(above, ref)
        if number is None:
            return
        try:
            self._name(number, decode_map(self._pool.read_stream(ref)).chunks)
        except self._failures as error:
            self._break(number, "map", error, ref.chunks)

    def _visit_tree(self, above: int, tree: StreamRef) -> None:
        number = self._enter(above, tree)
        if number is None:
            return
        try:
            waiting = [(number, load_root(tree, self._pool))]
        except self._failures as error:
            self._break(number, "tree", error, tree.chunks)
            return
        while waiting:
            above, directory = waiting.pop()
            listing = directory.listing
            at = self._enter(above, listing) if listing is not None else None
            if at is not None:
                waiting += ((at, below) for below in self._visit_listing(at, directory))

    def _visit_listing(self, number: int, directory: Entry) -> list[Entry]:
        """Note what a directory's entries name; returns its subdirectories."""
        below = []
        streams = _Noting(self._pool)
        try:
            for entry in read_listing(directory, streams):
                if entry.kind is EntryKind.DIRECTORY:
                    below.append(entry)
                elif entry.kind is EntryKind.FILE:
                    try:
                        streams.chunks += (piece.chunk for piece in content_pieces(entry, streams) if piece.chunk)
                    except self._failures as error:
                        self._break(number, "tree", error, streams.latest)
        except self._failures as error:
            self._break(number, "tree", error, streams.latest)
        if streams.chunks:
            self._name(number, chunk_table(streams.chunks))
        return below

    def _break(self, number: int, kind: str, error: PerdureError, chunks: tuple[bytes, ...]) -> None:
        self._own.setdefault(number, set()).add(_MISSING - 1 - len(self.broken))
        self.broken.append(Broken(kind, error.message, len(self._points) - 1, chunks))

    # --- chunks ---

    def _name(self, number: int, ids: NDArray[np.uint8]) -> None:
        self._waiting.append((number, ids))
        self._waiting_count += len(ids)
        if self._waiting_count >= _BATCH:
            self._look_up()

    def _look_up(self) -> None:
        waiting, self._waiting = self._waiting, []
        count, self._waiting_count = self._waiting_count, 0
        if not count:
            return
        self.visited += count
        numbers = np.repeat([number for number, _ in waiting], [len(ids) for _, ids in waiting])
        ids = np.concatenate([ids for _, ids in waiting])
        rows = self._snapshot.rows(ids, condemned=True)
        there = rows >= 0
        packs = self._snapshot.pack_of_row(rows[there])
        self._needed[packs[packs >= 0]] = True
        for at in np.flatnonzero(~there).tolist():
            self._own.setdefault(int(numbers[at]), set()).add(_MISSING)
            if len(self.missing) < _MOST_MISSING:
                self.missing.add(ids[at].tobytes())
        if self._hurt_rows:
            found = np.flatnonzero(there)
            for at in found[self._is_hurt[rows[found]]].tolist():
                self._own.setdefault(int(numbers[at]), set()).update(self._hurt_rows[int(rows[at])])


class _Noting:
    """Reads streams and notes their chunks."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.chunks: list[bytes] = []
        self.latest: tuple[bytes, ...] = ()

    def read_stream(self, ref: StreamRef) -> bytes:
        self.chunks += ref.chunks
        self.latest = ref.chunks
        return self._pool.read_stream(ref)


class _Above:
    """A graph that is followed upward."""

    def __init__(self, parents: array[int], children: array[int]) -> None:
        below = np.frombuffer(children, dtype=np.uint32)
        order = np.argsort(below, kind="stable")
        self._children = below[order]
        self._parents = np.frombuffer(parents, dtype=np.uint32)[order]

    def of(self, numbers: Iterable[int]) -> set[int]:
        """These and everything above them."""
        found = set(numbers)
        waiting = list(found)
        while waiting:
            number = waiting.pop()
            begin = int(self._children.searchsorted(number, side="left"))
            end = int(self._children.searchsorted(number, side="right"))
            for parent in self._parents[begin:end].tolist():
                if parent not in found:
                    found.add(parent)
                    waiting.append(parent)
        return found
