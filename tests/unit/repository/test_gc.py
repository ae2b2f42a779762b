"""Garbage collection: what goes, what is spared, and beside whom it may run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from perdure.model.errors import Damaged, NotFound, Refused
from perdure.model.extents import build
from perdure.model.points import Hold, ImageFile, PointKind, RecoveryPoint
from perdure.model.positions import Position
from perdure.repository import repack
from perdure.repository.condemned import condemned_numbers, publish_condemned
from perdure.repository.gc import Collection, collect_garbage, survey
from perdure.repository.keys import Passphrase
from perdure.repository.opening import open_pool
from perdure.repository.pool import Pool
from perdure.repository.verify import verify_pool
from perdure.storage.local import LocalStorage
from perdure.testing.small_images import MAIL, image_content, put_image


def beside(pool: Pool, cache: Path) -> Pool:
    """The same pool as another process sees it."""
    return open_pool(LocalStorage(Path(pool.storage.url)), Passphrase(b"correct horse"), cache)


def packs(pool: Pool) -> set[str]:
    """Names of the packs that there are."""
    return {listed.name for listed in pool.storage.list("packs")}


def block(size: int = 20_000) -> bytes:
    """Content that nothing else has."""
    return os.urandom(size)


def at_once(pool: Pool) -> Collection:
    """Collect without a grace period."""
    return collect_garbage(pool, grace_s=0)


def test_what_no_point_needs_is_deleted_and_the_rest_recovers(pool: Pool) -> None:
    """After a point is deleted its own packs go, and every other point is whole."""
    shared = block()
    first = put_image(pool, [shared, block()], Position(1, 1))
    second = put_image(pool, [shared, block()], Position(1, 2))
    content = image_content(pool, second)
    before = packs(pool)

    pool.delete_points(MAIL.id, [first.number])
    done = at_once(pool)

    assert done.deleted >= 1
    assert packs(pool) != before
    assert [second] == pool.points(MAIL.id)
    assert content == image_content(pool, second)
    assert verify_pool(pool, data=True).sound


def test_nothing_is_deleted_before_the_grace_period_is_over(pool: Pool) -> None:
    """The first run only condemns; a run within the grace period says what it waits for."""
    first = put_image(pool, [block()], Position(1, 1))
    put_image(pool, [block()], Position(1, 2))
    before = packs(pool)
    pool.delete_points(MAIL.id, [first.number])

    done = collect_garbage(pool, grace_s=3600)
    again = collect_garbage(pool, grace_s=3600)

    assert (done.condemned, done.deleted) == (1, 0)
    assert (again.condemned, again.deleted) == (0, 0)
    assert "grace period" in again.waiting[0]
    assert before == packs(pool)
    assert at_once(pool).deleted == 1
    assert list(condemned_numbers(pool.storage)) == [2]


def test_a_mostly_dead_pack_is_repacked(pool: Pool) -> None:
    """What is needed of a pack that is mostly garbage moves, and the pack goes."""
    kept, dropped = block(), [block() for _ in range(9)]
    first = put_image(pool, [kept, *dropped], Position(1, 1))
    second = put_image(pool, [kept], Position(1, 2))
    size = survey(pool).stored

    pool.delete_points(MAIL.id, [first.number])
    done = at_once(pool)

    assert done.repacked >= 1
    assert survey(pool).stored < size / 4
    assert kept == image_content(pool, second)
    assert put_image(pool, [kept], Position(1, 3)).stored == 0


def test_a_capture_does_not_rely_on_what_is_condemned(pool: Pool, tmp_path: Path) -> None:
    """A capture stores content again that lies only in condemned packs, also in a process that was open before."""
    other = beside(pool, tmp_path / "other")
    content = block()
    first = put_image(pool, [content], Position(1, 1))
    assert image_content(other, first) == content
    put_image(pool, [block()], Position(1, 2))
    pool.delete_points(MAIL.id, [first.number])
    collect_garbage(pool, grace_s=3600)

    again = put_image(other, [content], Position(1, 3))
    assert again.stored > len(content)
    at_once(pool)

    assert image_content(other, again) == content
    assert image_content(beside(pool, tmp_path / "third"), again) == content


def test_a_capture_that_began_before_the_list_is_waited_for_and_its_chunks_are_spared(
    pool: Pool, tmp_path: Path
) -> None:
    """A capture may have reused what was condemned after it began; the sweep waits, then pardons."""
    other = beside(pool, tmp_path / "other")
    content = block()
    first = put_image(pool, [content], Position(1, 1))
    put_image(pool, [block()], Position(1, 2))
    capture = other.capture(MAIL.id)
    chunk = capture.put(content)
    assert capture.stored == 0
    pool.delete_points(MAIL.id, [first.number])

    waiting = at_once(pool)

    assert waiting.condemned == 1
    assert waiting.deleted == 0
    assert "captures at work" in waiting.waiting[0]
    base = capture.put_map(build(len(content), [(0, len(content), chunk, 0)]))
    file = ImageFile("database", len(content), 4096, base)
    committed = capture.commit(RecoveryPoint(0, MAIL.id, PointKind.EXPRESS_FULL, 5, Position(1, 3), files=(file,)))
    done = at_once(pool)
    assert done.pardoned == 1
    assert image_content(other, committed) == content
    assert verify_pool(beside(pool, tmp_path / "third"), data=True).sound


def test_two_lists_cannot_rely_on_each_others_packs(pool: Pool, tmp_path: Path) -> None:
    """When a chunk lies in two condemned packs and nowhere else, it stays."""
    content = block()
    point = put_image(pool, [content], Position(1, 1))
    other = beside(pool, tmp_path / "other")
    repacked = next(iter(repack.repack(other, [_whole_pack(other)])))
    assert repacked.packs
    names = [listed.name for listed in pool.storage.list("packs")]
    assert len(names) == 2
    for number, name in enumerate(names, 1):
        publish_condemned(pool.storage, pool.keys, number, [bytes.fromhex(name.rsplit("/", 1)[1])])

    done = at_once(beside(pool, tmp_path / "third"))

    assert done.pardoned >= 1
    assert image_content(beside(pool, tmp_path / "fourth"), point) == content


def _whole_pack(pool: Pool) -> repack.Thin:
    snapshot = pool.index.snapshot()
    pack = snapshot.packs[0].tobytes()
    return repack.Thin(pack, [chunk.tobytes() for chunk in snapshot.ids_of(pack)], 1)


def test_somebody_elses_list_makes_a_collection_look_again(pool: Pool, tmp_path: Path) -> None:
    """A process whose number was taken marks again and goes on with the next one."""
    first = put_image(pool, [block()], Position(1, 1))
    put_image(pool, [block()], Position(1, 2))
    pool.delete_points(MAIL.id, [first.number])
    publish_condemned(pool.storage, pool.keys, 1, [])
    pool.matched.heed_condemned()
    publish_condemned(pool.storage, pool.keys, 3, [])

    done = at_once(pool)

    assert done.deleted == 1


def test_a_long_running_process_notices_that_it_missed_lists(pool: Pool, tmp_path: Path) -> None:
    """Packs that came and went between two captures of a process are not taken as present by the second."""
    other = beside(pool, tmp_path / "other")
    content = block()
    first = put_image(other, [content], Position(1, 1))
    put_image(other, [block()], Position(1, 2))
    pool.delete_points(MAIL.id, [first.number])
    assert at_once(pool).deleted == 1

    again = put_image(other, [content], Position(1, 3))

    assert image_content(beside(pool, tmp_path / "third"), again) == content


def test_garbage_of_an_aborted_capture_goes(pool: Pool) -> None:
    """Packs that no record ever named are garbage like any other."""
    put_image(pool, [block()], Position(1, 1))
    capture = pool.capture(MAIL.id)
    capture.put(block())
    capture._chunks.make_durable()
    capture.abort()

    assert at_once(pool).deleted == 1


def test_damage_stops_everything(pool: Pool) -> None:
    """When a record cannot be read it is not known what it needs, so nothing at all is collected."""
    first = put_image(pool, [block()], Position(1, 1))
    put_image(pool, [block()], Position(1, 2))
    put_image(pool, [block()], Position(1, 3))
    pool.delete_points(MAIL.id, [first.number])
    record = Path(pool.storage.url) / f"points/{MAIL.id}/00000002"
    record.write_bytes(record.read_bytes()[:-40] + bytes(40))
    before = packs(pool)

    with pytest.raises(Refused) as caught:
        at_once(pool)

    assert caught.value.code == "collection-blocked"
    assert before == packs(pool)
    pool.delete_points(MAIL.id, [2])
    assert at_once(pool).deleted == 2


def test_a_damaged_list_stops_captures_until_a_collection_removes_it(pool: Pool, tmp_path: Path) -> None:
    """When it is not known what is condemned nothing is stored; collecting removes the list and finds garbage anew."""
    first = put_image(pool, [block()], Position(1, 1))
    put_image(pool, [block()], Position(1, 2))
    pool.delete_points(MAIL.id, [first.number])
    collect_garbage(pool, grace_s=3600)
    path = Path(pool.storage.url) / "gc/00000001"
    path.write_bytes(path.read_bytes()[:-30] + bytes(30))
    other = beside(pool, tmp_path / "other")

    with pytest.raises(Damaged, match="gc/00000001"):
        put_image(other, [block()], Position(1, 3))
    done = at_once(beside(pool, tmp_path / "third"))

    assert "removed" in done.notes[0]
    assert done.deleted == 1
    put_image(other, [block()], Position(1, 3))
    assert verify_pool(pool, data=True).sound


def test_the_newest_and_held_points_are_not_deleted(pool: Pool) -> None:
    """Neither goes by any call, and a refused call deletes nothing else either."""
    for place in range(1, 4):
        put_image(pool, [block()], Position(1, place))
    pool.hold(Hold(MAIL.id, 2, "audit"))

    for number, code in ((3, "newest-point"), (2, "point-held")):
        with pytest.raises(Refused) as caught:
            pool.delete_points(MAIL.id, [1, number])
        assert caught.value.code == code
    assert [point.number for point in pool.points(MAIL.id)] == [1, 2, 3]

    pool.release(MAIL.id, 2)
    pool.delete_points(MAIL.id, [1, 2])
    assert [point.number for point in pool.points(MAIL.id)] == [3]
    with pytest.raises(NotFound):
        pool.release(MAIL.id, 2)
    with pytest.raises(NotFound):
        pool.hold(Hold(MAIL.id, 2))


def test_a_number_is_never_given_twice(pool: Pool) -> None:
    """Because the newest record stays, the next one always has a new number."""
    put_image(pool, [block()], Position(1, 1))
    put_image(pool, [block()], Position(1, 2))
    pool.delete_points(MAIL.id, [1])

    assert put_image(pool, [block()], Position(1, 3)).number == 3


def test_many_small_packs_are_joined(pool: Pool) -> None:
    """A pool of many small captures does not keep a pack for each for ever."""
    blocks = []
    for place in range(70):
        blocks.append(block(500))
        point = put_image(pool, blocks, Position(1, place + 1))
    before = len(packs(pool))

    at_once(pool)

    assert len(packs(pool)) < before / 10
    assert b"".join(blocks) == image_content(pool, point)
    assert verify_pool(pool, data=True).sound
