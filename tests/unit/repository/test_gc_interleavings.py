"""Garbage collection in the middle of whatever else is going on: interleavings that once lost data, step by step."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from perdure.model.errors import NotFound, Refused
from perdure.model.extents import build
from perdure.model.points import Hold, ImageFile, PointKind, RecoveryPoint
from perdure.model.positions import Position
from perdure.repository import leases
from perdure.repository.capture import PoolCapture
from perdure.repository.condemned import condemned_numbers, publish_condemned
from perdure.repository.gc import collect_garbage
from perdure.repository.keys import Passphrase
from perdure.repository.leases import blocking_leases, take_collection_lease, take_lease
from perdure.repository.opening import open_pool
from perdure.repository.packs import pack_id
from perdure.repository.pool import Pool
from perdure.repository.verify import verify_pool
from perdure.storage.contract import Capabilities
from perdure.storage.local import LocalStorage
from perdure.testing.hooked_storage import HookedStorage
from perdure.testing.small_images import MAIL, image_content, put_image

HOUR_S = 3600.0
OTHER = "6" * 32


class Unwatched(HookedStorage):
    """A storage that cannot tell whether the holder of a lease lives."""

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(local=False)


def beside(pool: Pool, cache: Path) -> tuple[Pool, HookedStorage]:
    """The same pool as another process sees it, and that process's storage."""
    storage = HookedStorage(LocalStorage(Path(pool.storage.url)))
    return open_pool(storage, Passphrase(b"correct horse"), cache), storage


def block(size: int = 20_000) -> bytes:
    """Content that nothing else has."""
    return os.urandom(size)


def once(storage: HookedStorage, method: str, prefix: str, action: Callable[[], None]) -> None:
    """Do something right before the storage's next call of this kind."""

    def hook(called: str, names: tuple[str, ...]) -> None:
        if called == method and any(name.startswith(prefix) for name in names):
            storage.hook = lambda _, __: None
            action()

    storage.hook = hook


def commit(capture: PoolCapture, content: bytes, chunk: bytes, source: str = OTHER) -> RecoveryPoint:
    """Commit a capture whose one file is one chunk."""
    base = capture.put_map(build(len(content), [(0, len(content), chunk, 0)]))
    file = ImageFile("database", len(content), 4096, base)
    return capture.commit(RecoveryPoint(0, source, PointKind.EXPRESS_FULL, 5, Position(1, 9), files=(file,)))


def whole(pool: Pool, cache: Path, point: RecoveryPoint, content: bytes) -> bool:
    """Whether a process that never saw the pool before finds all of it sound and a point as it was."""
    fresh, _ = beside(pool, cache)
    return image_content(fresh, point) == content and verify_pool(fresh, data=True).sound


def test_a_collection_that_was_overtaken_by_another_publishes_no_list_that_captures_seem_to_know(
    pool: Pool, tmp_path: Path
) -> None:
    """The number of a list that was carried out and removed is not given to what an older look found."""
    slow, storage = beside(pool, tmp_path / "slow")
    content = block()
    first = put_image(pool, [content], Position(1, 1))
    second = put_image(pool, [block()], Position(1, 2))
    put_image(pool, [block()], Position(1, 3))
    pool.delete_points(MAIL.id, [first.number])
    late: list[tuple[PoolCapture, bytes]] = []

    def meanwhile() -> None:
        again = put_image(pool, [content], Position(1, 4))
        put_image(pool, [block()], Position(1, 5))
        pool.delete_points(MAIL.id, [second.number])
        collect_garbage(pool, grace_s=0)
        capture = pool.capture(OTHER)
        late.append((capture, capture.put(content)))
        pool.delete_points(MAIL.id, [again.number])

    once(storage, "commit", "gc/00000001", meanwhile)
    collect_garbage(slow, grace_s=0)

    ((capture, chunk),) = late
    assert whole(pool, tmp_path / "fresh", commit(capture, content, chunk), content)


def test_what_one_collection_spares_no_older_mark_deletes(pool: Pool, tmp_path: Path) -> None:
    """A pack that was pardoned, and used again, is not deleted by a second collection that had found it needless."""
    sparing, sparing_storage = beside(pool, tmp_path / "sparing")
    deleting, deleting_storage = beside(pool, tmp_path / "deleting")
    content = block()
    first = put_image(pool, [content], Position(1, 1))
    condemned = [pack_id(listed.name) or b"" for listed in pool.storage.list("packs")]
    publish_condemned(pool.storage, pool.keys, 1, condemned)
    marked, go_on = threading.Event(), threading.Event()
    removed, finish = threading.Event(), threading.Event()

    def hold_up() -> None:
        marked.set()
        assert go_on.wait(20)
        once(sparing_storage, "commit", "gc/00000003", hold_up_again)

    def hold_up_again() -> None:
        removed.set()
        assert finish.wait(20)

    once(sparing_storage, "commit", "gc/00000002", hold_up)
    spares = threading.Thread(target=collect_garbage, args=(sparing,), kwargs={"grace_s": 0})
    spares.start()
    assert marked.wait(20)
    put_image(pool, [block()], Position(1, 2))
    pool.delete_points(MAIL.id, [first.number])
    late: list[tuple[PoolCapture, bytes]] = []

    def meanwhile() -> None:
        go_on.set()
        assert removed.wait(20)
        capture = pool.capture(OTHER)
        late.append((capture, capture.put(content)))
        assert capture.stored == 0

    once(deleting_storage, "delete", "packs/", meanwhile)
    collect_garbage(deleting, grace_s=0)
    if not late:
        meanwhile()
    finish.set()
    spares.join()

    ((capture, chunk),) = late
    assert whole(pool, tmp_path / "fresh", commit(capture, content, chunk), content)


def test_only_one_collection_is_at_work(pool: Pool, tmp_path: Path) -> None:
    """A second one does nothing and says why; it stands in the way of neither captures nor the first."""
    other, _ = beside(pool, tmp_path / "other")
    first = put_image(pool, [block()], Position(1, 1))
    put_image(pool, [block()], Position(1, 2))
    pool.delete_points(MAIL.id, [first.number])
    lease = take_collection_lease(other.storage)
    assert lease is not None
    assert take_collection_lease(pool.storage) is None

    waiting = collect_garbage(pool, grace_s=0)

    assert (waiting.condemned, waiting.deleted) == (0, 0)
    assert "another process" in waiting.waiting[0]
    assert list(condemned_numbers(pool.storage)) == []
    put_image(pool, [block()], Position(1, 3))
    assert blocking_leases(pool.storage, 1) == []
    lease.release()
    assert collect_garbage(pool, grace_s=0).deleted == 1


def test_a_collection_that_stood_still_deletes_nothing_more(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When another collection may have taken this one for dead, it stops before it deletes."""
    storage = Unwatched(LocalStorage(Path(pool.storage.url)))
    other = open_pool(storage, Passphrase(b"correct horse"), tmp_path / "other")
    first = put_image(pool, [block()], Position(1, 1))
    put_image(pool, [block()], Position(1, 2))
    pool.delete_points(MAIL.id, [first.number])
    now_s = [0.0]
    monkeypatch.setattr(leases, "_now_s", lambda: now_s[0])
    before = [listed.name for listed in pool.storage.list("packs")]

    def stand_still() -> None:
        now_s[0] += 13 * HOUR_S

    once(storage, "list", "points", stand_still)
    with pytest.raises(Refused) as caught:
        collect_garbage(other, grace_s=0)

    assert caught.value.code == "collection-overtaken"
    assert before == [listed.name for listed in pool.storage.list("packs")]
    assert list(condemned_numbers(pool.storage)) == []


def test_a_lease_that_ran_out_is_not_brought_back_to_life(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A capture that stood still and then goes on storing cannot commit: its pool was perhaps cleaned up meanwhile."""
    storage = Unwatched(pool.storage)
    now_s = [0.0]
    monkeypatch.setattr(leases, "_now_s", lambda: now_s[0])
    lease = take_lease(storage)
    for _ in range(30):
        now_s[0] += HOUR_S
        lease.renew_if_due()
    lease.check()
    now_s[0] += 30 * HOUR_S

    for still in (lease.renew_if_due, lease.renew_if_due, lease.check):
        with pytest.raises(Refused) as caught:
            still()
        assert caught.value.code == "capture-overtaken"
    lease.release()


def test_a_lease_is_renewed_while_its_holder_stores_nothing(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A capture that reads for days and finds nothing new does not seem dead."""
    renewed = threading.Event()

    class Noted:
        def renew(self) -> None:
            renewed.set()

        def release(self) -> None:
            pass

    class Noting(Unwatched):
        def lease(self, name: str) -> Noted:
            return Noted()

    monkeypatch.setattr(leases, "_RENEW_S", 0)
    lease = take_lease(Noting(pool.storage))

    assert renewed.wait(20)
    lease.release()


def test_a_point_whose_map_vanishes_under_the_mark_is_not_taken_for_deleted(pool: Pool, tmp_path: Path) -> None:
    """When the pack of a map is lost in the middle of a mark, nothing is collected: what the point needs is unknown."""
    other, storage = beside(pool, tmp_path / "other")
    put_image(pool, [block()], Position(1, 1))
    put_image(pool, [block()], Position(1, 2))
    lost = next(listed.name for listed in pool.storage.list("packs"))
    before = [listed.name for listed in pool.storage.list("packs")]

    once(storage, "list", "points", lambda: pool.storage.delete(lost))
    with pytest.raises(Refused) as caught:
        collect_garbage(other, grace_s=0)

    assert caught.value.code == "collection-blocked"
    assert [listed.name for listed in pool.storage.list("packs")] == before[1:]


def test_a_hold_that_was_placed_survives_a_deletion_that_did_not_see_it(pool: Pool, tmp_path: Path) -> None:
    """Between a deletion's look at the holds and the deletion itself no hold is promised that would come too late."""
    other, storage = beside(pool, tmp_path / "other")
    for place in range(1, 4):
        put_image(pool, [block()], Position(1, place))
    promised: list[bool] = []

    def place_hold() -> None:
        try:
            pool.hold(Hold(MAIL.id, 1, "audit"))
            promised.append(True)
        except Refused:
            promised.append(False)

    once(storage, "delete", "points/", place_hold)
    other.delete_points(MAIL.id, [1])

    kept = 1 in {point.number for point in pool.points(MAIL.id)}
    assert [kept] == promised
    assert kept == bool(pool.holds(MAIL.id))
    pool.hold(Hold(MAIL.id, 2))
    with pytest.raises(NotFound):
        pool.hold(Hold(MAIL.id, 1))


def test_a_hold_on_a_point_that_went_while_it_was_placed_is_not_promised(pool: Pool, tmp_path: Path) -> None:
    """When a deletion happens between a hold's look at the point and its writing, nothing is left of the hold."""
    other, storage = beside(pool, tmp_path / "other")
    for place in range(1, 4):
        put_image(pool, [block()], Position(1, place))

    once(storage, "commit", "holds/", lambda: pool.delete_points(MAIL.id, [1]))
    with pytest.raises(NotFound):
        other.hold(Hold(MAIL.id, 1, "audit"))

    assert pool.holds(MAIL.id) == []


def test_a_hold_released_while_holds_are_listed_is_no_hold(pool: Pool, tmp_path: Path) -> None:
    """Whoever reads the holds meanwhile does not fail."""
    other, storage = beside(pool, tmp_path / "other")
    for place in range(1, 4):
        put_image(pool, [block()], Position(1, place))
    pool.hold(Hold(MAIL.id, 1))
    pool.hold(Hold(MAIL.id, 2))

    once(storage, "read", f"holds/{MAIL.id}/00000001", lambda: pool.release(MAIL.id, 1))

    assert [hold.number for hold in other.holds(MAIL.id)] == [2]
