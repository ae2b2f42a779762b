"""The chunk index: against a plain model, with equal prefixes, shared by processes, while everything moves."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from perdure.repository import index_merging
from perdure.repository.index import ChunkIndex, IndexSnapshot
from perdure.repository.packs import FOOTER_ROW, pack_id, pack_name
from perdure.storage.contract import ObjectMissing

Rows = NDArray[np.void]


def footer(chunks: list[bytes]) -> Rows:
    """Index rows of a pack that holds these chunks one after the other."""
    return np.array([(chunk, 32 + 100 * n, 44, 90 + n, 0) for n, chunk in enumerate(chunks)], dtype=FOOTER_ROW)


def chunk(number: int, prefix: bytes = b"") -> bytes:
    """A chunk id that begins as told."""
    return prefix + random.Random(number).randbytes(32 - len(prefix))


def pack(number: int) -> bytes:
    """A pack id."""
    return random.Random(-1 - number).randbytes(16)


def table(chunks: list[bytes]) -> NDArray[np.uint8]:
    """Chunk ids as a snapshot wants them."""
    return np.frombuffer(b"".join(chunks), dtype=np.uint8).reshape(-1, 32)


class Packs:
    """Packs that a listing shows and that can be read."""

    def __init__(self, packs: dict[bytes, list[bytes]]) -> None:
        self.packs = packs
        self.read: list[bytes] = []

    def listing(self) -> Iterator[tuple[bytes, int]]:
        yield from ((name, 1000 + len(chunks)) for name, chunks in self.packs.items())

    def rows(self, name: bytes, size: int) -> Rows:
        assert size == 1000 + len(self.packs[name])
        self.read.append(name)
        return footer(self.packs[name])


def matched(directory: Path, packs: Packs, **sizes: int) -> ChunkIndex:
    """An index that agrees with these packs."""
    index = ChunkIndex(directory, **sizes)
    index.match(packs.listing(), packs.rows)
    return index


def test_condemned_copies_are_a_last_resort(tmp_path: Path) -> None:
    """A capture relies on no chunk that lies only in condemned packs, and a reader finds it all the same."""
    first, second, third = pack(1), pack(2), pack(3)
    index = matched(tmp_path, Packs({first: [chunk(1), chunk(2)], second: [chunk(2), chunk(3)], third: [chunk(2)]}))

    index.avoid([first, second])

    assert tuple(index.has(chunk(n)) for n in (1, 2, 3)) == (False, True, False)
    assert [first, third, second] == [place.pack for n in (1, 2, 3) if (place := index.find(chunk(n)))]
    assert [third, *sorted([first, second])] == [place.pack for place in index.find_all(chunk(2))]
    snapshot = index.snapshot()
    assert [-1, third, -1] == [
        row if row < 0 else _pack_of(snapshot, row) for row in snapshot.rows(table([chunk(1), chunk(2), chunk(3)]))
    ]
    assert [first, third, second] == [
        _pack_of(snapshot, row) for row in snapshot.rows(table([chunk(1), chunk(2), chunk(3)]), condemned=True)
    ]

    index.avoid([])

    assert all(index.has(chunk(n)) for n in (1, 2, 3))


def _pack_of(snapshot: IndexSnapshot, row: int) -> bytes:
    number = snapshot.pack_of_row(np.array([row]))[0]
    return snapshot.packs[number].tobytes()


@pytest.mark.parametrize("saved", [False, True])
def test_ids_with_equal_prefixes_are_told_apart(tmp_path: Path, saved: bool) -> None:
    """Thousands of ids that begin with the same eight bytes are each found, and others like them are not."""
    prefixes = [bytes(8), b"\xff" * 8, b"\1" + bytes(7)]
    here = [chunk(n, prefixes[n % 3]) for n in range(900)]
    absent = [chunk(n, prefixes[n % 3]) for n in range(900, 1200)]
    packs = Packs({pack(n): here[n::7] for n in range(7)})
    index = matched(tmp_path, packs)
    if saved:
        index.save()
        index = matched(tmp_path, packs)

    snapshot = index.snapshot()
    rows = snapshot.rows(table(here + absent))

    assert sorted(rows[:900].tolist()) == list(range(900))
    assert (rows[900:] == -1).all()
    assert snapshot.ids(rows[:900]).tobytes() == b"".join(here)
    assert all(index.find(each) for each in here)
    assert not any(index.find(each) for each in absent)


def test_two_processes_choose_the_same_copies(tmp_path: Path) -> None:
    """Of a chunk's copies a snapshot names that in the lowest pack, whatever way the packs came into the index."""
    chunks = [chunk(n) for n in range(40)]
    packs = {pack(n): random.Random(n).sample(chunks, 12) for n in range(20)}
    ways = []
    for way in range(3):
        index = ChunkIndex(tmp_path / str(way), recent_rows=50 * way, batch_rows=30)
        for name in random.Random(way).sample(sorted(packs), 10):
            index.add_pack(name, 1012, footer(packs[name]))
        index.match(Packs(packs).listing(), Packs(packs).rows)
        snapshot = index.snapshot()
        ways.append([_pack_of(snapshot, row) for row in snapshot.rows(table(chunks))])

    assert ways[0] == [min(name for name in packs if each in packs[name]) for each in chunks]
    assert ways[0] == ways[1] == ways[2]


def test_use_of_packs_is_counted_by_a_bitmap(tmp_path: Path) -> None:
    """Per pack a snapshot counts chunks and bytes, and how much of both is live; packs that are gone do not count."""
    first, second, third = sorted(pack(n) for n in range(3))
    packs = Packs({first: [chunk(1), chunk(2)], second: [chunk(3)], third: [chunk(4)]})
    index = matched(tmp_path, packs)
    index.save()
    index.forget([second])
    index.avoid([third])
    snapshot = index.snapshot()
    live = np.zeros(snapshot.row_count, dtype=np.bool_)
    live[snapshot.rows(table([chunk(2)]))] = True

    use = snapshot.per_pack(live)

    assert [first, third] == [each.tobytes() for each in use.packs]
    assert [use.sizes.tolist(), use.condemned.tolist()] == [[1002, 1001], [False, True]]
    assert [use.chunks.tolist(), use.live_chunks.tolist()] == [[2, 1], [1, 0]]
    assert [use.stored.tolist(), use.live_stored.tolist()] == [[88, 44], [44, 0]]
    assert snapshot.ids_of(first).tobytes() == chunk(1) + chunk(2)
    assert len(snapshot.ids_of(second)) == 0
    places = snapshot.places(snapshot.rows_of_pack(first))
    assert [places.offset.tolist(), places.stored.tolist(), places.raw.tolist()] == [[32, 132], [44, 44], [90, 91]]


def test_live_rows_of_several_packs_come_in_the_order_in_which_they_lie(tmp_path: Path) -> None:
    """Of the packs that are wanted a snapshot gives the live rows pack by pack, also for packs in several segments."""
    packs = Packs({pack(n): [chunk(10 * n + i) for i in range(5)] for n in range(6)})
    index = matched(tmp_path, packs, recent_rows=4, batch_rows=10)
    index.forget([pack(2)])
    snapshot = index.snapshot()
    live = np.zeros(snapshot.row_count, dtype=np.bool_)
    needed = [chunk(10 * n + i) for n in range(6) for i in (1, 4)]
    rows = snapshot.rows(table(needed))
    live[rows[rows >= 0]] = True
    wanted = [pack(n) for n in (0, 2, 4, 5)]

    found = snapshot.rows_of_packs(np.array([each.tobytes() in wanted for each in snapshot.packs]), live)

    expected = [each for name in sorted(wanted) if name != pack(2) for each in packs.packs[name] if each in needed]
    assert snapshot.ids(found).tobytes() == b"".join(expected)
    assert len(snapshot.rows_of_packs(np.zeros(len(snapshot.packs), dtype=np.bool_), live)) == 0


@pytest.mark.parametrize(
    "name",
    [
        "packs/0a/0A" + "0" * 30,
        "packs/0a/0a" + "0" * 29,
        "packs/0a/0a" + "0" * 31,
        "packs/0b/0a" + "0" * 30,
        "packs/0a/0a " + "0" * 29,
        "packs/0g/0g" + "0" * 30,
        "points/0a/0a" + "0" * 30,
        "",
    ],
)
def test_what_is_not_the_name_of_a_pack_is_not_taken_for_one(name: str) -> None:
    """Only the name that a pack's id gives is a pack's name."""
    assert pack_id(pack_name(bytes(range(16)))) == bytes(range(16))
    assert pack_id(name) is None


def test_only_packs_that_are_not_known_are_read(tmp_path: Path) -> None:
    """Matching again, also in a new process, reads the footers of new packs and of no others."""
    packs = Packs({pack(n): [chunk(n)] for n in range(50)})
    index = matched(tmp_path, packs, recent_rows=10, batch_rows=10)
    assert len(packs.read) == 50
    index.save()
    packs.read.clear()
    packs.packs[pack(50)] = [chunk(50)]
    del packs.packs[pack(0)]

    index.match(packs.listing(), packs.rows)
    again = matched(tmp_path, packs)

    assert packs.read == [pack(50)] * 2
    for each in (index, again):
        assert each.pack_count == len(each) == 50
        assert not each.has(chunk(0))
        assert each.has(chunk(50))


def test_a_pack_listed_with_another_size_is_read_again(tmp_path: Path) -> None:
    """What a pack held does not count any more when its size is another, in memory and in the cache."""
    packs = Packs({pack(1): [chunk(1)], pack(2): [chunk(2)]})
    index = matched(tmp_path, packs)
    for _ in range(2):
        packs.packs[pack(1)] = [*packs.packs[pack(1)][1:], chunk(3), chunk(4)]
        index.match(packs.listing(), packs.rows)

        assert not index.has(chunk(1))
        assert index.has(chunk(4))
        assert index.pack_count == 2
        index.save()
        packs.read.clear()
        assert matched(tmp_path, packs).find(chunk(1)) is None
        assert not packs.read


def test_what_happens_during_a_listing_is_not_undone_by_it(tmp_path: Path) -> None:
    """A pack that came after its folder was listed stays, and one that was deleted after that stays away."""
    packs = Packs({pack(n): [chunk(n)] for n in range(3)})
    index = matched(tmp_path, packs)
    index.save()
    packs.packs[pack(3)] = [chunk(3)]

    def listing() -> Iterator[tuple[bytes, int]]:
        yield from packs.listing()
        index.add_pack(pack(4), 1001, footer([chunk(4)]))
        index.forget([pack(0), pack(3)])

    index.match(listing(), packs.rows)

    assert [index.has(chunk(n)) for n in range(5)] == [False, True, True, False, True]
    assert index.pack_count == 3


def test_what_happens_while_packs_are_read_is_not_undone(tmp_path: Path) -> None:
    """A pack that is deleted right after it was read does not come back, and one added by another way counts once."""
    index = ChunkIndex(tmp_path)

    def rows(name: bytes, _: int) -> Rows:
        if name == pack(1):
            index.forget([pack(1)])
        if name == pack(2):
            index.add_pack(pack(2), 1, footer([chunk(2)]))
        return footer([chunk(1 if name == pack(1) else 2)])

    index.match([(pack(1), 1), (pack(2), 1)], rows)

    assert not index.has(chunk(1))
    assert len(index.find_all(chunk(2))) == 1
    assert index.pack_count == len(index) == 1


def test_a_pack_that_vanishes_before_it_is_read_is_left_out(tmp_path: Path) -> None:
    """A pack that another process deletes between listing and reading is no error, and what could be read counts."""

    def rows(name: bytes, _: int) -> Rows:
        if name == pack(1):
            raise ObjectMissing("gone")
        return footer([chunk(2)])

    index = ChunkIndex(tmp_path)
    index.match([(pack(1), 1), (pack(2), 1)], rows)

    assert index.pack_count == 1
    assert index.has(chunk(2))


def test_a_cut_off_rebuild_goes_on_where_it_was(tmp_path: Path) -> None:
    """What was read of a pool without a cache is kept when reading fails in the middle."""
    packs = Packs({pack(n): [chunk(n)] for n in range(40)})

    def failing(name: bytes, size: int) -> Rows:
        if len(packs.read) >= 25:
            raise OSError("the network is down")
        return packs.rows(name, size)

    with pytest.raises(OSError, match="network"):
        ChunkIndex(tmp_path, recent_rows=4, batch_rows=5).match(packs.listing(), failing, threads=1)
    packs.read.clear()
    index = matched(tmp_path, packs)

    assert len(packs.read) <= 20
    assert all(index.has(chunk(n)) for n in range(40))


def test_memory_does_not_grow_with_a_capture(tmp_path: Path) -> None:
    """However many packs a process adds, few of their chunks stay in its dictionary, and all are found."""
    index = ChunkIndex(tmp_path, recent_rows=20)
    for n in range(100):
        index.add_pack(pack(n), 1005, footer([chunk(1000 * n + i) for i in range(5)]))

        assert index._view.recent.rows <= 25
        assert len(index._view.segments) <= 25
    assert all(index.has(chunk(1000 * n + i)) for n in range(100) for i in range(5))
    index.save()
    assert len(list(tmp_path.glob("*.idx"))) == 1


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    """Without a place for the cache everything is found all the same."""
    (tmp_path / "file").write_text("in the way")
    index = ChunkIndex(tmp_path / "file" / "index", recent_rows=4, batch_rows=8)
    packs = Packs({pack(n): [chunk(n), chunk(100 + n)] for n in range(20)})

    index.match(packs.listing(), packs.rows)
    index.add_pack(pack(20), 1, footer([chunk(20)]))
    index.save()

    assert index.pack_count == 21
    assert all(index.has(chunk(n)) for n in range(21))


def test_what_a_killed_process_left_in_the_cache_is_removed(tmp_path: Path) -> None:
    """Half a segment of a process that was killed does not stay for ever, and nobody reads it."""
    packs = Packs({pack(n): [chunk(n)] for n in range(3)})
    matched(tmp_path, packs).save()
    before = {path.name for path in tmp_path.iterdir()}
    (tmp_path / "segment.1-2.tmp").write_bytes(b"half")
    (tmp_path / "manifest.1-2.tmp").write_bytes(b"half")
    packs.packs[pack(3)] = [chunk(3)]

    matched(tmp_path, packs).save()

    after = {path.name for path in tmp_path.iterdir()}
    assert len(after) == len(before) == 2
    assert "manifest" in after


def test_processes_share_a_cache(tmp_path: Path) -> None:
    """What two processes write is there for a third, and each goes on with what it knew."""
    packs = Packs({pack(n): [chunk(n)] for n in range(3)})
    one, two = matched(tmp_path, packs), matched(tmp_path, packs)
    one.save()
    for n, index in ((3, one), (4, two)):
        packs.packs[pack(n)] = [chunk(n)]
        index.add_pack(pack(n), 1001, footer([chunk(n)]))
        index.save()
    packs.read.clear()

    third = matched(tmp_path, packs)

    assert not packs.read
    assert sum(path.stat().st_size for path in tmp_path.glob("*.idx")) <= 5 * (48 + 24) + 2 * 32
    assert all(third.has(chunk(n)) for n in range(5))
    assert all(one.has(chunk(n)) for n in range(4))
    assert all(two.has(chunk(n)) for n in (0, 1, 2, 4))


def test_nothing_is_cached_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process writes no packs to the cache that another has written there, also when it merges nothing."""
    monkeypatch.setattr(index_merging, "_SMALL", 0)
    packs = Packs({pack(n): [chunk(n)] for n in range(10)})
    early = matched(tmp_path, packs)
    packs.packs |= {pack(n): [chunk(n)] for n in range(10, 100)}
    matched(tmp_path, packs).save()
    before = {path.name: path.stat().st_size for path in tmp_path.glob("*.idx")}

    early.save()

    assert {path.name: path.stat().st_size for path in tmp_path.glob("*.idx")} == before
    assert all(early.has(chunk(n)) == (n < 10) for n in range(100))


def test_another_process_is_not_taken_at_its_word(tmp_path: Path) -> None:
    """A pack that only the cache of another process names may be gone: it counts after a listing, not before."""
    packs = Packs({pack(0): [chunk(0)]})
    late, mine = matched(tmp_path, packs), matched(tmp_path, packs)
    late.add_pack(pack(1), 1001, footer([chunk(1)]))
    late.save()
    mine.add_pack(pack(2), 1001, footer([chunk(2)]))
    mine.save()

    assert not mine.has(chunk(1))
    mine.match([*packs.listing(), (pack(2), 1001)], packs.rows)
    assert not mine.has(chunk(1))
    mine.match([*packs.listing(), (pack(1), 1001), (pack(2), 1001)], packs.rows)
    assert mine.has(chunk(1))
    assert packs.read.count(pack(1)) == 0


def test_a_cache_full_of_what_is_gone_is_written_anew(tmp_path: Path) -> None:
    """After most packs were collected as garbage the cache shrinks."""
    packs = Packs({pack(n): [chunk(n)] for n in range(1000)})
    index = matched(tmp_path, packs)
    index.save()
    before = sum(path.stat().st_size for path in tmp_path.glob("*.idx"))

    index.forget([pack(n) for n in range(900)])
    index.save()

    assert sum(path.stat().st_size for path in tmp_path.glob("*.idx")) < before / 5
    packs.packs = {pack(n): [chunk(n)] for n in range(900, 1000)}
    packs.read.clear()
    assert matched(tmp_path, packs).pack_count == 100
    assert not packs.read


def test_a_snapshot_does_not_change(tmp_path: Path) -> None:
    """Rows keep their numbers and packs their standing in a snapshot while the index goes on."""
    packs = Packs({pack(n): [chunk(n)] for n in range(10)})
    index = matched(tmp_path, packs)
    index.save()
    snapshot = index.snapshot()
    rows = snapshot.rows(table([chunk(n) for n in range(10)]))

    index.avoid([pack(1)])
    index.forget([pack(0)])
    index.add_pack(pack(10), 1, footer([chunk(10)]))
    index.save()

    assert (snapshot.rows(table([chunk(n) for n in range(10)])) == rows).all()
    assert snapshot.rows(table([chunk(10)]))[0] == -1
    assert (snapshot.ids(rows) == table([chunk(n) for n in range(10)])).all()


def test_look_ups_go_on_while_the_index_moves(tmp_path: Path) -> None:
    """No look-up misses a chunk that lies in a listed pack while packs come and are matched, spilled and condemned."""
    packs = Packs({pack(n): [chunk(n), chunk(1000 + n)] for n in range(60)})
    index = matched(tmp_path, packs, recent_rows=16, batch_rows=16)
    done = threading.Event()

    def look_up(seed: int) -> int:
        rng, count = random.Random(seed), 0
        while not done.is_set():
            wanted = [chunk(rng.randrange(60)) for _ in range(5)]
            for each in wanted:
                place = index.find(each)
                assert place is not None
                assert each in packs.packs[place.pack]
            assert (index.snapshot().rows(table(wanted), condemned=True) >= 0).all()
            count += 1
        return count

    def add(first: int) -> None:
        for n in range(first, first + 60):
            index.add_pack(pack(n), 1001, footer([chunk(n)]))

    def upkeep() -> None:
        for n in range(12):
            index.match([*packs.listing()], packs.rows)
            index.avoid([pack(n)])
            index.save()

    with ThreadPoolExecutor(5) as threads:
        readers = [threads.submit(look_up, seed) for seed in range(2)]
        writers = [threads.submit(add, 100), threads.submit(add, 200), threads.submit(upkeep)]
        for writer in writers:
            writer.result()
        done.set()
        assert all(reader.result() > 0 for reader in readers)
