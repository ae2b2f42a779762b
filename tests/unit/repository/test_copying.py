"""A second copy: what travels, what is the same afterwards, and what is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from perdure.model.entries import Entry, EntryKind, Piece
from perdure.model.errors import BadInput, NotFound, Refused
from perdure.model.extents import build
from perdure.model.listings import put_index, put_listing, store_root
from perdure.model.logs import LogSegment
from perdure.model.points import Hold, ImageFile, PointKind, RecoveryPoint, StreamRef
from perdure.model.positions import Position
from perdure.model.retention import RetentionPolicy
from perdure.repository import capture, copying_point, records
from perdure.repository.capture import PoolCapture
from perdure.repository.condemned import publish_condemned
from perdure.repository.copying import Wanted, copy_pool
from perdure.repository.copying_chunks import Shipment
from perdure.repository.gc import collect_garbage
from perdure.repository.opening import create_pool
from perdure.repository.policies import write_policy
from perdure.repository.pool import Pool
from perdure.repository.verify import verify_pool
from perdure.testing.memory_storage import MemoryObjects, MemoryStorage
from perdure.testing.small_images import MAIL, image_content, put_image
from perdure.testing.twin_pools import (
    FOLDER,
    append_log,
    copy_all,
    differences,
    new_pool,
    opened,
    put_delta,
    put_tree,
)


@pytest.fixture
def a(tmp_path: Path) -> Pool:
    """A pool with a database registered."""
    pool = new_pool(tmp_path / "a")
    pool.register(MAIL)
    return pool


@pytest.fixture
def b(tmp_path: Path) -> Pool:
    """An empty pool."""
    return new_pool(tmp_path / "b")


def block(size: int = 20_000) -> bytes:
    return os.urandom(size)


def history(pool: Pool) -> list[RecoveryPoint]:
    """A base, two deltas over it, and log between and after them."""
    first = put_image(pool, [block() for _ in range(4)], Position(1, 1))
    append_log(pool, MAIL.id, Position(1, 1), Position(1, 5))
    second = put_delta(pool, first, {20_000: block(), 60_000: block()}, Position(1, 5))
    append_log(pool, MAIL.id, Position(1, 5), Position(1, 8))
    append_log(pool, MAIL.id, Position(1, 8), Position(2, 3))
    third = put_delta(pool, second, {80_000: block(5000)}, Position(2, 3))
    append_log(pool, MAIL.id, Position(2, 3), Position(2, 9))
    return [first, second, third]


def test_everything_is_in_the_copy_under_the_same_names(a: Pool, b: Pool, tmp_path: Path) -> None:
    """After a copy the other pool holds the same source, points, log, policy and holds, but chunk ids of its own."""
    history(a)
    a.set_policy(MAIL.id, RetentionPolicy(days=30))
    a.hold(Hold(MAIL.id, 2, "audit", 7))

    report = copy_all(a, b)

    other = opened(b, tmp_path / "other")
    assert report.complete
    assert other.sources() == [MAIL]
    assert differences(a, other, MAIL.id) == []
    assert other.holds(MAIL.id) == [Hold(MAIL.id, 2, "audit", 7)]
    assert other.policy(MAIL.id) == RetentionPolicy(days=30)
    assert verify_pool(other, data=True).sound
    assert report.sources[0].copied == [1, 2, 3]
    assert report.sources[0].log_segments == 4
    named = {chunk for point in a.points(MAIL.id) for chunk in point.files[0].base.chunks}
    assert not any(other.index.has(chunk) for chunk in named)


def test_a_second_run_ships_nothing(a: Pool, b: Pool, tmp_path: Path) -> None:
    """What is there is not shipped, nor read: the packs of the first pool may even be gone."""
    history(a)
    copy_all(a, b)

    report = copy_all(opened(a, tmp_path / "cache-a"), opened(b, tmp_path / "cache-b"))

    (source,) = report.sources
    assert (source.copied, source.present, source.log_segments, source.shipped) == ([], 3, 0, 0)


def test_only_what_is_new_travels(a: Pool, b: Pool, tmp_path: Path) -> None:
    """A point that changed one block ships this block; the others are known without being read."""
    points = history(a)
    copy_all(a, b)
    put_delta(a, points[-1], {0: block()}, Position(2, 9))
    put_image(a, [*_blocks(a, a.points(MAIL.id)[-1]), block(30_000)], Position(2, 10))
    reads: list[bytes] = []
    watched = opened(a, tmp_path / "watched")
    read_one, read_many = watched.read_chunk, watched.for_each_chunk
    watched.read_chunk = lambda chunk: reads.append(chunk) or read_one(chunk)  # type: ignore[method-assign]
    watched.for_each_chunk = lambda chunks, work, threads: (  # type: ignore[method-assign]
        reads.extend(chunks),
        read_many(chunks, work, threads=threads),
    )

    report = copy_all(watched, b)

    (source,) = report.sources
    assert source.copied == [4, 5]
    assert 50_000 < source.shipped < 56_000
    assert source.skipped > 100_000
    data = [chunk for chunk in reads if watched.index.find(chunk).raw in (20_000, 30_000)]  # type: ignore[union-attr]
    assert len(data) == 2
    assert differences(a, b, MAIL.id) == []


def _blocks(pool: Pool, point: RecoveryPoint) -> list[bytes]:
    content = image_content(pool, point)
    return [content[at : at + 20_000] for at in range(0, 80_000, 20_000)]


# --- shapes ------------------------------------------------------------------------------------------


def test_trees_are_copied_with_everything_below(a: Pool, b: Pool) -> None:
    """Folders, nested deeper than Python's stack, shared subtrees, long piece lists, holes and attributes are equal."""
    a.register(FOLDER)
    shared = {"x": [block(100)], "empty": []}
    tree = {"a": shared, "b": shared, "long": [block(64) for _ in range(40)], "hole": [bytes(4096), block(10)]}
    put_tree(a, tree, depth=1200)
    copy_all(a, b)
    put_tree(a, {**tree, "new": {"n": [block(70)]}})

    report = copy_all(a, b)

    assert differences(a, b, FOLDER.id) == []
    assert report.sources[1].copied == [2]
    assert report.sources[1].shipped < 2000
    assert verify_pool(b, data=True).sound


def test_a_listing_in_parts_is_copied_in_the_same_parts(a: Pool, b: Pool) -> None:
    """The index of a large directory names parts that are equal, and an unchanged part is not stored again."""
    a.register(FOLDER)
    parts = [[_file(a, f"{part}{number}") for number in range(3)] for part in "abc"]
    for _ in range(2):
        capture = a.capture(FOLDER.id)
        refs = [put_listing([each(capture) for each in part], capture) for part in parts]
        root = Entry(b"", EntryKind.DIRECTORY, listing=put_index(refs, capture))
        tree = store_root(root, capture)
        capture.commit(RecoveryPoint(0, FOLDER.id, PointKind.FILE, 5, tree=tree))
        copy_all(a, b)
        assert differences(a, b, FOLDER.id) == []
        parts[1][1] = _file(a, "b1x")


def _file(pool: Pool, name: str) -> Callable[[PoolCapture], Entry]:
    content = block(30)
    return lambda capture: Entry(name.encode(), EntryKind.FILE, size=30, content=(Piece(capture.put(content), 0, 30),))


def test_maps_longer_than_a_chunk_are_copied_though_ids_lie_across_borders(
    a: Pool, b: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Streams of many chunks come out right, where a chunk of a stream is equal in two of them and its ids are not."""
    monkeypatch.setattr(capture, "STREAM_PIECE", 100)
    blocks = [block(200) for _ in range(40)]
    for place in range(1, 5):
        put_image(a, blocks, Position(1, place))
        blocks[place * 7] = block(200)

    for number in (2, 1, 4, 3):
        copy_all(a, b, number)

    assert differences(a, b, MAIL.id, [1, 2, 3, 4]) == []


def test_a_listing_that_would_not_be_the_same_refuses_its_point(
    a: Pool, b: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What this version would leave out of a listing is never dropped quietly, and other points come out whole."""
    a.register(FOLDER)
    shared = {"x": [block(100)]}
    put_tree(a, {"a": shared, "z": {"newer": [block(50)]}})
    put_tree(a, {"a": shared})

    def put_listing_of_this_version(entries: list[Entry], sink: Shipment) -> StreamRef:
        known = [entry for entry in entries if entry.name != b"newer"]
        return put_listing(known, sink)

    monkeypatch.setattr(copying_point, "put_listing", put_listing_of_this_version)

    report = copy_all(a, b)

    assert [failure.code for failure in report.sources[1].failures] == ["copy-unfaithful"]
    assert report.sources[1].copied == [2]
    assert differences(a, b, FOLDER.id, [2]) == []


def test_an_empty_source_is_registered(a: Pool, b: Pool) -> None:
    """A source without points is copied as such, and a registration that was cut off is completed."""
    records.write_source(b.storage, b.keys, MAIL)
    Path(b.storage.url, f"sources/{MAIL.id}").unlink()

    report = copy_all(a, b)

    assert b.sources() == [MAIL]
    assert report.sources[0].shipped == 0


# --- what both sides delete --------------------------------------------------------------------------


def test_what_was_pruned_in_the_origin_stays_in_the_copy(a: Pool, b: Pool) -> None:
    """Points and log that are gone here stay there, and the next run goes on from the newest common point."""
    points = history(a)
    copy_all(a, b)
    content = [image_content(b, point) for point in b.points(MAIL.id)]
    a.delete_points(MAIL.id, [1, 2])
    a.delete_log(MAIL.id, a.spans(MAIL.id)[:2])
    collect_garbage(a, grace_s=0)
    put_delta(a, points[-1], {0: block()}, Position(2, 9))

    report = copy_all(a, b)

    assert report.sources[0].copied == [4]
    assert [image_content(b, point) for point in b.points(MAIL.id)][:3] == content
    assert differences(a, b, MAIL.id) == []
    assert len(b.spans(MAIL.id)) == 4


def test_what_the_copy_has_pruned_by_its_own_policy_is_not_sent_again(a: Pool, b: Pool) -> None:
    """A copy of shorter retention is not filled up at every run with what it deletes; a hold is sent all the same."""
    day = 86_400 * 10**9
    for number in range(1, 7):
        put_image(a, [block()], Position(1, number * 10), time_ns=number * day)
        append_log(a, MAIL.id, Position(1, number * 10), Position(1, number * 10 + 10))
    records.copy_source(b.storage, b.keys, MAIL)
    b.set_policy(MAIL.id, RetentionPolicy(days=2.5))
    a.hold(Hold(MAIL.id, 1, "audit"))

    report = copy_all(a, b)

    # Number 3 is the image that the log of the range stands on.
    assert report.sources[0].copied == [1, 3, 4, 5, 6]
    assert report.sources[0].left_out == [2]
    assert [span.after_place for span in b.spans(MAIL.id)] == [30, 40, 50, 60]
    assert b.policy(MAIL.id).days == 2.5
    assert [hold.number for hold in b.holds(MAIL.id)] == [1]
    assert copy_all(a, b).sources[0].shipped == 0
    assert copy_all(a, b, 2).sources[0].copied == [2]


def test_locks_are_copied_where_the_storage_can_keep_them(a: Pool, b: Pool, tmp_path: Path) -> None:
    """A policy that locks loses this, with a note, on a storage that cannot; on one that can everything is locked."""
    history(a)
    write_policy(a.storage, a.keys, MAIL.id, RetentionPolicy(days=9, lock=True))
    objects = MemoryObjects(immutable=True)
    vault, _ = create_pool(MemoryStorage(objects), b"correct horse", tmp_path / "vault")

    plain, locked = copy_all(a, b), copy_all(a, vault)

    assert "locks" in plain.sources[0].notes[0]
    assert b.policy(MAIL.id) == RetentionPolicy(days=9)
    assert locked.sources[0].notes == []
    assert differences(a, vault, MAIL.id) == []
    kept = {name for name, each in objects.objects.items() if each.retained_until_ns}
    assert kept == {name for name in objects.objects if name.startswith(("packs/", "points/", "logs/"))}


def test_points_deleted_in_the_copy_and_their_chunks_come_back_when_they_are_needed(a: Pool, b: Pool) -> None:
    """After points of the copy were deleted and their garbage collected nothing relies on what is gone."""
    points = history(a)
    copy_all(a, b)
    b.delete_points(MAIL.id, [1, 2])
    collect_garbage(b, grace_s=0)
    put_image(a, _blocks(a, points[0]), Position(2, 9))

    copy_all(a, b)

    assert differences(a, b, MAIL.id) == []
    assert verify_pool(b, data=True).sound


def test_nothing_relies_on_condemned_packs(a: Pool, b: Pool) -> None:
    """Chunks that lie only in condemned packs are shipped again, also those that a common point names."""
    points = history(a)
    copy_all(a, b)
    packs = [bytes.fromhex(listed.name.rsplit("/", 1)[1]) for listed in b.storage.list("packs")]
    publish_condemned(b.storage, b.keys, 1, packs)
    put_delta(a, points[-1], {0: block()}, Position(2, 9))

    report = copy_all(a, b)
    for pack in packs:
        b.storage.delete(f"packs/{pack.hex()[:2]}/{pack.hex()}")
    b.matched.refresh()

    assert report.sources[0].shipped > 100_000
    assert differences(a, b, MAIL.id, [4]) == []


def test_a_lost_pack_of_the_copy_is_made_good_by_the_next_point(a: Pool, b: Pool, tmp_path: Path) -> None:
    """What a common point lacks in the copy is shipped for the next one that needs it."""
    points = history(a)
    copy_all(a, b)
    for listed in list(b.storage.list("packs")):
        b.storage.delete(listed.name)
    put_delta(a, points[-1], {0: block()}, Position(2, 9))
    again = opened(b, tmp_path / "again")

    copy_all(a, again)

    assert differences(a, again, MAIL.id, [4]) == []


def test_chunks_that_moved_in_the_origin_are_found(a: Pool, b: Pool, tmp_path: Path) -> None:
    """A collection that repacks the origin after a copying process has opened it is no matter."""
    kept, dropped = block(), [block() for _ in range(9)]
    put_image(a, [kept, *dropped], Position(1, 1))
    put_image(a, [kept], Position(1, 2))
    other = opened(a, tmp_path / "other")
    assert other.index.pack_count
    a.delete_points(MAIL.id, [1])
    assert collect_garbage(a, grace_s=0).repacked

    copy_all(other, b)

    assert differences(a, b, MAIL.id) == []


# --- single points -----------------------------------------------------------------------------------


def test_single_points_fill_gaps_and_bring_no_log(a: Pool, b: Pool) -> None:
    """Chosen points are copied below and above those that are there, without log; a full copy adds the rest."""
    history(a)

    assert copy_all(a, b, 3).sources[0].copied == [3]
    assert copy_all(a, b, 1, 3).sources[0].copied == [1]
    assert b.spans(MAIL.id) == []
    assert differences(a, b, MAIL.id, [1, 3]) == []

    assert copy_all(a, b).sources[0].copied == [2]
    assert differences(a, b, MAIL.id) == []


def test_an_unknown_number_is_refused_before_anything_is_done(a: Pool, b: Pool) -> None:
    """A point that does not exist is named, and the copy is not touched."""
    history(a)
    with pytest.raises(NotFound) as caught:
        copy_all(a, b, 2, 9)
    assert caught.value.code == "point-not-found"
    assert b.sources() == []


# --- refusals ----------------------------------------------------------------------------------------


def test_a_pool_is_not_copied_onto_itself(a: Pool, tmp_path: Path) -> None:
    """Two paths of one pool, or a plain copy of it, are refused."""
    with pytest.raises(BadInput) as caught:
        copy_pool(a, opened(a, tmp_path / "other"), [Wanted(MAIL)])
    assert caught.value.code == "same-pool"


def test_another_source_of_the_same_name_is_not_mixed_up(a: Pool, b: Pool) -> None:
    """A name that stands for something else in the copy is refused; other sources are copied."""
    a.register(FOLDER)
    put_tree(a, {"f": [block()]})
    b.register(replace(MAIL, id="9" * 32))

    report = copy_all(a, b)

    failures = [failure.code for each in report.sources for failure in each.failures]
    assert failures == ["name-taken"]
    assert differences(a, b, FOLDER.id) == []


def test_histories_that_have_parted_are_not_mixed(a: Pool, b: Pool, tmp_path: Path) -> None:
    """A number, or a piece of log, that is another in each pool stops the source before anything is written."""
    points = history(a)
    copy_all(a, b)
    put_delta(a, points[-1], {0: block()}, Position(2, 9))
    append_log(a, MAIL.id, Position(2, 9), Position(2, 12))
    theirs = put_delta(b, b.points(MAIL.id)[-1], {0: block()}, Position(2, 9))
    before = {listed.name for listed in b.storage.list("")}

    for numbers in ((), (4,)):
        with pytest.raises(Refused) as caught:
            copy_all(a, b, *numbers)
        assert caught.value.code == "copy-diverged"

    assert before == {listed.name for listed in b.storage.list("")}
    put_image(b, [block()], Position(9, 1))
    b.delete_points(MAIL.id, [theirs.number])
    append_log(b, MAIL.id, Position(9, 1), Position(9, 2))
    assert copy_all(a, b, 4).sources[0].copied == [4]


def test_log_that_has_parted_is_not_mixed(a: Pool, b: Pool) -> None:
    """The same places of log with other content in each pool stop the source."""
    history(a)
    copy_all(a, b)
    append_log(a, MAIL.id, Position(2, 9), Position(2, 12))
    append_log(b, MAIL.id, Position(2, 9), Position(2, 14))

    with pytest.raises(Refused) as caught:
        copy_all(a, b)

    assert caught.value.code == "copy-diverged"


def test_log_that_was_joined_in_the_origin_is_not_sent_again(a: Pool, b: Pool) -> None:
    """Wide segments over narrow ones that the copy holds are known to be the same log."""
    put_image(a, [block()], Position(1, 1))
    for place in range(1, 9):
        append_log(a, MAIL.id, Position(1, place), Position(1, place + 1))
    copy_all(a, b)
    narrow = a.spans(MAIL.id)
    marks = np.concatenate([a.segment(MAIL.id, span).marks for span in narrow])
    last = a.segment(MAIL.id, narrow[-1])
    a.put_joined(MAIL.id, LogSegment(Position(1, 1), Position(1, 9), marks, last.chain, b"", [b"joined"]))
    a.delete_log(MAIL.id, narrow)

    report = copy_all(a, b)

    assert report.sources[0].log_segments == 0
    assert b.spans(MAIL.id) == [
        replace(span, stored=there.stored) for span, there in zip(narrow, b.spans(MAIL.id), strict=True)
    ]


# --- damage ------------------------------------------------------------------------------------------


def test_a_damaged_chunk_refuses_the_points_that_need_it_and_no_others(a: Pool, b: Pool, tmp_path: Path) -> None:
    """Damage in the origin is never sealed anew: its points are named, the others and all log are copied."""
    points = history(a)
    bad = block()
    put_delta(a, points[-1], {0: bad}, Position(2, 9))
    append_log(a, MAIL.id, Position(2, 9), Position(2, 12))
    fifth = put_image(a, [block()], Position(2, 12))
    _flip_in(a, a.chunk_id(bad))

    report = copy_all(opened(a, tmp_path / "other"), b)

    (source,) = report.sources
    assert source.copied == [1, 2, 3, fifth.number]
    assert [failure.what for failure in source.failures] == ["recovery point #4"]
    assert len(b.spans(MAIL.id)) == 5
    assert differences(a, b, MAIL.id, [1, 2, 3, 5]) == []
    assert verify_pool(b, data=True).sound


def test_content_that_does_not_match_its_id_is_not_sealed_anew(a: Pool, b: Pool) -> None:
    """A chunk that unseals well but is not what its id says is damage, and is not copied as the truth."""
    wrong, right = block(), block()
    capture = a.capture(MAIL.id)
    capture.add(a.chunk_id(right), wrong)
    base = capture.put_map(build(len(right), [(0, len(right), a.chunk_id(right), 0)]))
    file = ImageFile("database", len(right), 4096, base)
    capture.commit(RecoveryPoint(0, MAIL.id, PointKind.EXPRESS_FULL, 5, Position(1, 1), files=(file,)))

    report = copy_all(a, b)

    assert [failure.code for failure in report.sources[0].failures] == ["damaged-chunk"]
    assert b.points(MAIL.id) == []


def test_a_damaged_base_is_read_once(a: Pool, b: Pool, tmp_path: Path) -> None:
    """Every point over a damaged base is refused, and what was shipped for the first is not shipped for each."""
    points = history(a)
    chunk = a.image_map(points[0].files[0]).ids()[0]
    _flip_in(a, chunk)

    report = copy_all(opened(a, tmp_path / "other"), b)

    (source,) = report.sources
    assert source.copied == []
    assert len(source.failures) == 3
    assert source.log_segments == 4
    assert source.shipped < 150_000


def test_a_damaged_record_and_damaged_log_are_named(a: Pool, b: Pool, tmp_path: Path) -> None:
    """A record or segment that cannot be read is not copied, and everything else is."""
    history(a)
    a.set_policy(MAIL.id, RetentionPolicy(days=1000))
    for name in (f"points/{MAIL.id}/00000002", a.spans(MAIL.id)[2].name):
        path = Path(a.storage.url, name)
        path.write_bytes(path.read_bytes()[:-60] + bytes(60))

    report = copy_all(opened(a, tmp_path / "other"), b)

    (source,) = report.sources
    assert source.copied == [1, 3]
    assert {failure.what for failure in source.failures} == {"recovery point #2", "log 2:0 to 2:3"}
    assert len(b.spans(MAIL.id)) == 3


def _flip_in(pool: Pool, chunk: bytes) -> None:
    """Flip a bit of a chunk where it lies."""
    place = pool.index.find(chunk)
    assert place is not None
    path = Path(pool.storage.url, f"packs/{place.pack.hex()[:2]}/{place.pack.hex()}")
    data = bytearray(path.read_bytes())
    data[place.offset + place.stored // 2] ^= 1
    path.write_bytes(data)
