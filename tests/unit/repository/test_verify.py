"""Verification: what is read, in which order, how long, and what damage it finds beside others at work."""

from __future__ import annotations

import os
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from perdure.model.errors import Damaged
from perdure.model.logs import MARK, LogSegment
from perdure.model.points import Hold
from perdure.model.positions import Position
from perdure.model.retention import RetentionPolicy
from perdure.repository.condemned import publish_condemned
from perdure.repository.container import Kind
from perdure.repository.documents import write_document
from perdure.repository.gc import collect_garbage
from perdure.repository.index_segment import as_pack_ids
from perdure.repository.keys import Passphrase
from perdure.repository.ledger import _name, _stored, object_key, read_ledger
from perdure.repository.opening import open_pool
from perdure.repository.pool import Pool
from perdure.repository.verify import verify_pool
from perdure.storage.contract import Capabilities, StorageFailed
from perdure.storage.local import LocalStorage
from perdure.testing.hooked_storage import HookedStorage
from perdure.testing.small_images import MAIL, image_content, put_image


class Clock:
    """Seconds that go on by one whenever they are asked for."""

    def __init__(self, step: float = 1.0) -> None:
        self.now = 0.0
        self.step = step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def beside(pool: Pool, cache: Path) -> Pool:
    """The same pool as another process sees it."""
    return open_pool(LocalStorage(Path(pool.storage.url)), Passphrase(b"correct horse"), cache)


def filled(pool: Pool, packs: int) -> None:
    """Points of which each has a pack of its own."""
    pool.register(MAIL)
    for place in range(packs):
        put_image(pool, [os.urandom(3000)], Position(1, place + 1))


def segment(after: int, last: int) -> LogSegment:
    marks = np.array([(last, last)], dtype=MARK)
    return LogSegment(Position(1, after), Position(1, last), marks, b"chain", b"index", [os.urandom(4000)])


def flip(pool: Pool, name: str, place: float = 0.5) -> None:
    """Flip a bit in the middle of an object, or at a byte counted from its beginning or end."""
    path = Path(pool.storage.url) / name
    data = bytearray(path.read_bytes())
    data[int(len(data) * place) if isinstance(place, float) else place] ^= 4
    path.write_bytes(data)


def packs_of(pool: Pool) -> list[str]:
    return [listed.name for listed in pool.storage.list("packs")]


def test_runs_with_a_time_limit_cover_the_pool_in_turn(pool: Pool) -> None:
    """Each run goes on with what was not read for the longest time, until everything was read once."""
    filled(pool, 6)
    read: list[set[str]] = []

    def note(call: str, names: tuple[str, ...]) -> None:
        if call == "read_range" and names[0].startswith("packs/"):
            read[-1].add(names[0])

    maps = pool.storage
    for _ in range(3):
        read.append(set())
        opened = beside(pool, Path(pool.storage.url).parent / f"cache{len(read)}")
        verify_pool(opened)  # fills the cache, so that only whole reads are left to be seen
        read[-1].clear()
        before = read_ledger(maps, pool.keys).objects.tolist()
        report = verify_pool(opened, data=True, max_duration_s=1, threads=1, clock=Clock())
        after = read_ledger(maps, pool.keys).objects.tolist()
        assert report.read == 1
        assert report.to_read == 6
        assert len(set(after) - set(before)) == 1
    verify_pool(pool, data=True, threads=1)
    assert len(read_ledger(maps, pool.keys).objects) == 6


def test_a_run_stops_in_time_and_finishes_what_it_is_at(pool: Pool) -> None:
    """No object is begun after the time is over, and one is always read."""
    filled(pool, 8)

    counts = [
        verify_pool(pool, data=True, max_duration_s=limit, threads=1, clock=Clock()).read for limit in (0.5, 8, 1000)
    ]

    assert counts[0] == 1
    assert 1 < counts[1] < 8
    assert counts[2] == 8


def test_what_was_read_longest_ago_is_read_next(pool: Pool) -> None:
    """The order of a run is the age in the ledger."""
    filled(pool, 5)
    verify_pool(pool, data=True)
    names = packs_of(pool)
    random.Random(1).shuffle(names)
    ledger = read_ledger(pool.storage, pool.keys)
    times = np.array(
        [1000 + names.index(f"packs/{key.tobytes().hex()[:2]}/{key.tobytes().hex()}") for key in ledger.objects]
    )
    write_document(
        pool.storage,
        pool.keys,
        _name(ledger.number + 1),
        Kind.CHECK,
        _stored(replace(ledger, times=times.astype("u4"))),
    )

    for name in names:
        verify_pool(pool, data=True, max_duration_s=0.5, threads=1, clock=Clock())
        young = read_ledger(pool.storage, pool.keys).times_of(as_pack_ids(object_key(name)))
        assert young[0] > 10_000, name


def test_a_long_run_notes_what_it_found_on_the_way(pool: Pool) -> None:
    """A run that is cut off has lost at most what it read in the last minutes."""
    filled(pool, 6)
    seen = 0

    def cut(call: str, names: tuple[str, ...]) -> None:
        nonlocal seen
        if call == "read_range" and names[0].startswith("packs/"):
            seen += 1
            if seen > 14:
                raise StorageFailed("gone")

    hooked = HookedStorage(pool.storage)
    remote = open_pool(_Remote(hooked), Passphrase(b"correct horse"), Path(pool.storage.url).parent / "far")
    verify_pool(remote)
    hooked.hook = cut
    with pytest.raises(StorageFailed):
        verify_pool(remote, data=True, threads=1, clock=Clock(200))

    known = len(read_ledger(pool.storage, pool.keys).objects)
    assert 0 < known < 6
    report = verify_pool(beside(pool, Path(pool.storage.url).parent / "near"), data=True)
    assert report.sound


class _Remote(HookedStorage):
    """A storage whose failures are not damage."""

    def __init__(self, inner: HookedStorage) -> None:
        super().__init__(inner, lambda _call, _names: None)

    @property
    def capabilities(self) -> Capabilities:
        return replace(self.inner.capabilities, local=False)


def test_damage_found_by_reading_stands_in_later_runs_until_it_is_gone(pool: Pool, tmp_path: Path) -> None:
    """A run that does not read the damaged pack still reports it, with the points that it touches now."""
    filled(pool, 4)
    name = packs_of(pool)[1]
    flip(pool, name, 120)
    found = verify_pool(pool, data=True)
    assert [damage.object for damage in found.damage] == [name]
    labels = found.damage[0].points_affected
    assert len(labels) == 1

    quick = verify_pool(beside(pool, tmp_path / "other"))

    assert [(each.object, each.points_affected) for each in quick.damage] == [(name, labels)]
    number = found.damage[0].points[0][1]
    if number != 4:
        pool.delete_points(MAIL.id, [number])
        assert verify_pool(pool).damage[0].points_affected == ()
    flip(pool, name, 120)
    assert verify_pool(pool, data=True).sound
    assert pool.known_damage(MAIL.id).points == {}


def test_a_good_copy_elsewhere_keeps_points_out_of_it(pool: Pool, tmp_path: Path) -> None:
    """Damage to one of two copies is named, but touches no point, and every point reads back."""
    pool.register(MAIL)
    content = os.urandom(5000)
    other = beside(pool, tmp_path / "other")
    captures = [pool.capture(MAIL.id), other.capture(MAIL.id)]
    for capture in captures:
        capture.put(content)
        capture._chunks.make_durable()
        capture.abort()
    point = put_image(beside(pool, tmp_path / "third"), [content], Position(1, 1))
    copies = beside(pool, tmp_path / "4").index.find_all(pool.chunk_id(content))
    assert len(copies) == 2
    hex_id = copies[0].pack.hex()
    flip(pool, f"packs/{hex_id[:2]}/{hex_id}", copies[0].offset + 100)

    report = verify_pool(pool, data=True)

    assert [damage.points_affected for damage in report.damage] == [()]
    assert report.damage[0].chunks == (pool.chunk_id(content),)
    assert image_content(beside(pool, tmp_path / "5"), point) == content


def test_captures_do_not_rely_on_what_is_known_to_be_damaged(pool: Pool, tmp_path: Path) -> None:
    """Content that lies only in a damaged pack is stored again by the next capture, and the points are whole again."""
    pool.register(MAIL)
    content = os.urandom(9000)
    first = put_image(pool, [content], Position(1, 1))
    place = pool.index.find(pool.chunk_id(content))
    assert place is not None
    flip(pool, f"packs/{place.pack.hex()[:2]}/{place.pack.hex()}", place.offset + 100)
    assert verify_pool(beside(pool, tmp_path / "a"), data=True).damage[0].points_affected == ("mail #1",)

    second = put_image(pool, [content], Position(1, 2))

    assert second.stored > len(content)
    for point in (first, second):
        assert image_content(beside(pool, tmp_path / "b"), point) == content
    assert verify_pool(pool).damage[0].points_affected == ()


def test_a_damaged_map_without_data_names_the_pack_too(pool: Pool) -> None:
    """When a map cannot be read the packs that it lies in are read whole at once, so the damage has a name."""
    pool.register(MAIL)
    point = put_image(pool, [os.urandom(3000)], Position(1, 1))
    put_image(pool, [os.urandom(3000)], Position(1, 2))
    place = pool.index.find(point.files[0].base.chunks[0])
    assert place is not None
    name = f"packs/{place.pack.hex()[:2]}/{place.pack.hex()}"
    flip(pool, name, place.offset + 70)

    report = verify_pool(pool)

    assert {(damage.kind, damage.points_affected) for damage in report.damage} == {
        ("map", ("mail #1",)),
        ("pack", ("mail #1",)),
    }
    assert name in {damage.object for damage in report.damage}


def everything(pool: Pool) -> None:
    """One object of every kind."""
    filled(pool, 3)
    for after in (3, 10, 20):
        pool.append(MAIL.id, segment(after, after + 10 if after > 3 else 10))
    pool.hold(Hold(MAIL.id, 1, "audit"))
    pool.set_policy(MAIL.id, RetentionPolicy())
    publish_condemned(pool.storage, pool.keys, 1, [])
    assert verify_pool(pool, data=True).sound


KINDS = {
    "pool": "descriptor",
    "keys": "key slot",
    "sources": "source",
    "points": "record",
    "packs": "pack",
    "logs": "log",
    "holds": "hold",
    "policies": "policy",
    "gc": "condemned list",
    "checks": "ledger",
}


@pytest.mark.parametrize("prefix", KINDS)
def test_damage_to_every_kind_of_object_is_named_and_contained(pool: Pool, tmp_path: Path, prefix: str) -> None:
    """A flipped bit is found under the object's name, and what it does not touch still reads back."""
    everything(pool)
    contents = {point.number: image_content(pool, point) for point in pool.points(MAIL.id)}
    root = Path(pool.storage.url)
    name = prefix if (root / prefix).is_file() else next(listed.name for listed in pool.storage.list(prefix))
    flip(pool, name)

    opened = beside(pool, tmp_path / "other")
    report = verify_pool(opened, data=True)

    assert [(damage.object, damage.kind) for damage in report.damage] == [(name, KINDS[prefix])]
    hurt = {number for damage in report.damage for _, number in damage.points}
    readable = {point.number: point for point in opened.points(MAIL.id)}
    for number, content in contents.items():
        if number not in hurt:
            assert image_content(opened, readable[number]) == content
    assert len(hurt) == (1 if prefix in ("points", "packs") else 0)


def test_an_unreadable_condemned_list_stops_captures_but_no_reading(pool: Pool, tmp_path: Path) -> None:
    """It is not known what may be relied on, so nothing new is stored until the list is removed; recovery goes on."""
    everything(pool)
    flip(pool, "gc/00000001")
    opened = beside(pool, tmp_path / "other")

    with pytest.raises(Damaged):
        opened.capture(MAIL.id)

    assert all(image_content(opened, point) for point in opened.points(MAIL.id))
    collect_garbage(opened)
    opened.capture(MAIL.id).abort()
    assert verify_pool(opened).sound


def test_a_lost_log_segment_is_a_gap(pool: Pool) -> None:
    """A segment that is gone from the middle of the chain is noticed; one that was pruned at its beginning is not."""
    everything(pool)
    first, second, _ = [listed.name for listed in pool.storage.list("logs")]
    pool.storage.delete(first)
    assert verify_pool(pool).sound
    everything_again = [listed.name for listed in pool.storage.list("logs")]
    assert second == everything_again[0]
    pool.append(MAIL.id, segment(30, 40))
    pool.storage.delete([listed.name for listed in pool.storage.list("logs")][1])

    (damage,) = verify_pool(pool).damage

    assert damage.kind == "log"
    assert "gap" in damage.what
    assert damage.points_affected == ("mail after 1:20",)


def test_what_a_capture_commits_meanwhile_is_no_damage(pool: Pool, tmp_path: Path) -> None:
    """A point and its packs that appear between any two steps of a run are complete or not looked at."""
    filled(pool, 3)
    other = beside(pool, tmp_path / "other")
    places = iter(range(100, 10_000))

    def capture_too(call: str, names: tuple[str, ...]) -> None:
        if call == "list":
            put_image(other, [os.urandom(2000)], Position(1, next(places)))

    pool.storage = HookedStorage(pool.storage, capture_too)
    opened = open_pool(pool.storage, Passphrase(b"correct horse"), tmp_path / "mine")

    assert verify_pool(opened, data=True).sound


def test_what_is_collected_meanwhile_is_no_damage(pool: Pool, tmp_path: Path) -> None:
    """Points and packs that are deleted or moved between any two steps of a run are no damage."""
    pool.register(MAIL)
    blocks = [os.urandom(3000) for _ in range(8)]
    for place in range(6):
        put_image(pool, [*blocks[place:], os.urandom(3000)], Position(1, place + 1))
    other = beside(pool, tmp_path / "other")
    doomed = iter((1, 2, 3, 4))
    calls = 0

    def collect_too(call: str, names: tuple[str, ...]) -> None:
        nonlocal calls
        calls += 1
        if calls % 9 == 0 and (number := next(doomed, None)) is not None:
            other.delete_points(MAIL.id, [number])
            collect_garbage(other, grace_s=0)

    opened = open_pool(HookedStorage(pool.storage, collect_too), Passphrase(b"correct horse"), tmp_path / "mine")

    assert verify_pool(opened, data=True, threads=1).sound
    assert next(doomed, None) is None


def test_a_bad_sector_hurts_one_chunk(pool: Pool, tmp_path: Path) -> None:
    """When a range cannot be read its blocks are read one by one, and only the one that fails is damaged."""
    pool.register(MAIL)
    blocks = [os.urandom(4000) for _ in range(5)]
    put_image(pool, blocks, Position(1, 1))
    place = pool.index.find(pool.chunk_id(blocks[2]))
    assert place is not None
    opened = open_pool(BadSector(pool.storage, place.offset + 60), Passphrase(b"correct horse"), tmp_path / "mine")

    report = verify_pool(opened, data=True)

    assert [damage.chunks for damage in report.damage] == [(pool.chunk_id(blocks[2]),)]


class BadSector(HookedStorage):
    """One byte of every pack cannot be read, unless with the end of the pack, which another disk holds."""

    def __init__(self, inner: LocalStorage, at: int) -> None:
        super().__init__(inner)
        self.at = at

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        if name.startswith("packs/") and offset <= self.at < offset + length < self.size(name):
            raise StorageFailed("input/output error")
        return super().read_range(name, offset, length)
