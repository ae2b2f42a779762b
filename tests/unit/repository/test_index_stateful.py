"""Two indexes that share a cache, against a plain dictionary, through any sequence of operations."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from perdure.repository.index import ChunkIndex, ChunkPlace, IndexSnapshot
from perdure.repository.packs import FOOTER_ROW

_RNG = random.Random(1)
# A third each begin with the same eight bytes, and are equal in everything but the last.
CHUNKS = [prefix + bytes(23) + bytes([n]) for prefix in (bytes(8), b"\xff" * 8, b"12345678") for n in range(5)]
PACKS = [_RNG.randbytes(16) for _ in range(12)]
SIDES = st.integers(0, 1)
SOME_PACKS = st.sets(st.sampled_from(PACKS), max_size=4)
SOME_CHUNKS = st.lists(st.sampled_from(CHUNKS), max_size=6, unique=True)
SIZES = st.sampled_from([0, 3, 1000])

Model = dict[bytes, tuple[int, list[bytes]]]
"""Packs: size and chunks."""


class Indexes(RuleBasedStateMachine):
    """Side 0 and 1 are two processes; ``pool`` is what a listing shows."""

    @initialize(recent=SIZES, batch=SIZES)
    def open(self, recent: int, batch: int) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.limits = {"recent_rows": recent, "batch_rows": batch}
        self.pool: Model = {}
        self.sides = [self._new(), self._new()]
        self.known: list[Model] = [{}, {}]
        self.condemned: list[set[bytes]] = [set(), set()]
        self.revision = 1000

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()

    def _new(self) -> ChunkIndex:
        return ChunkIndex(Path(self.folder.name) / "index", **self.limits)

    def _write(self, pack: bytes, chunks: list[bytes]) -> None:
        self.revision += 1
        self.pool[pack] = (self.revision, chunks)

    def _rows(self, pack: bytes, size: int) -> np.ndarray:
        assert self.pool[pack][0] == size
        return np.array(
            [(chunk, 32 + 100 * n, 44, 90 + n, 0) for n, chunk in enumerate(self.pool[pack][1])], dtype=FOOTER_ROW
        )

    @rule(side=SIDES, pack=st.sampled_from(PACKS), chunks=SOME_CHUNKS)
    def add_pack(self, side: int, pack: bytes, chunks: list[bytes]) -> None:
        self._write(pack, chunks)
        self.sides[side].add_pack(pack, self.revision, self._rows(pack, self.revision))
        self.known[side][pack] = self.pool[pack]

    @rule(pack=st.sampled_from(PACKS), chunks=SOME_CHUNKS)
    def another_process_writes(self, pack: bytes, chunks: list[bytes]) -> None:
        self._write(pack, chunks)

    @rule(packs=SOME_PACKS)
    def another_process_deletes(self, packs: set[bytes]) -> None:
        for pack in packs:
            self.pool.pop(pack, None)

    @rule(side=SIDES, packs=SOME_PACKS)
    def forget(self, side: int, packs: set[bytes]) -> None:
        for pack in packs:
            self.pool.pop(pack, None)
            self.known[side].pop(pack, None)
        self.sides[side].forget(packs)

    @rule(side=SIDES, packs=SOME_PACKS)
    def avoid(self, side: int, packs: set[bytes]) -> None:
        self.sides[side].avoid(packs)
        self.condemned[side] = packs

    @rule(side=SIDES)
    def match(self, side: int) -> None:
        self.sides[side].match([(pack, size) for pack, (size, _) in self.pool.items()], self._rows, threads=2)
        self.known[side] = dict(self.pool)

    @rule(side=SIDES)
    def save(self, side: int) -> None:
        self.sides[side].save()

    @rule(side=SIDES, saved=st.booleans())
    def reopen(self, side: int, saved: bool) -> None:
        if saved:
            self.sides[side].save()
        self.sides[side] = self._new()
        self.known[side] = {}
        self.condemned[side] = set()

    @invariant()
    def look_ups_answer_like_the_model(self) -> None:
        for index, known, condemned in zip(self.sides, self.known, self.condemned, strict=True):
            assert index.pack_count == len(known)
            assert len(index) == sum(len(chunks) for _, chunks in known.values())
            for chunk in CHUNKS:
                copies = _copies(known, chunk)
                live = [place for place in copies if place.pack not in condemned]
                assert index.find_all(chunk) == live + [place for place in copies if place.pack in condemned]
                assert index.has(chunk) == bool(live)
                assert index.find(chunk) in (live or copies or [None])

    @invariant()
    def snapshots_answer_like_the_model(self) -> None:
        ids = np.frombuffer(b"".join(CHUNKS), dtype=np.uint8).reshape(-1, 32)
        for index, known, condemned in zip(self.sides, self.known, self.condemned, strict=True):
            snapshot = index.snapshot()
            rows, with_condemned = snapshot.rows(ids), snapshot.rows(ids, condemned=True)
            for chunk, row, second in zip(CHUNKS, rows.tolist(), with_condemned.tolist(), strict=True):
                copies = _copies(known, chunk)
                live = [place for place in copies if place.pack not in condemned]
                assert _place(snapshot, row) == (live[0] if live else None)
                assert _place(snapshot, second) == ((live or copies)[0] if copies else None)
            assert (snapshot.ids(rows[rows >= 0]) == ids[rows >= 0]).all()
            used = np.zeros(snapshot.row_count, dtype=np.bool_)
            used[rows[rows >= 0]] = True
            use = snapshot.per_pack(used)
            assert [pack.tobytes() for pack in use.packs] == sorted(known)
            assert use.chunks.tolist() == [len(known[pack][1]) for pack in sorted(known)]
            assert use.live_chunks.sum() == used.sum()


def _copies(known: Model, chunk: bytes) -> list[ChunkPlace]:
    return [
        ChunkPlace(pack, 32 + 100 * chunks.index(chunk), 44, 90 + chunks.index(chunk))
        for pack, (_, chunks) in sorted(known.items())
        if chunk in chunks
    ]


def _place(snapshot: IndexSnapshot, row: int) -> ChunkPlace | None:
    if row < 0:
        return None
    places = snapshot.places(np.array([row]))
    pack = snapshot.packs[places.pack[0]].tobytes()
    return ChunkPlace(pack, int(places.offset[0]), int(places.stored[0]), int(places.raw[0]))


TestIndexes = Indexes.TestCase
TestIndexes.__doc__ = "Whatever is done to two indexes in whatever order, they answer like dictionaries."
TestIndexes.settings = settings(max_examples=35, stateful_step_count=25, deadline=None)
