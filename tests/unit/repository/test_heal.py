"""Healing: from where good content comes, that nothing good is lost at any moment, and beside whom it runs."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from perdure.model.errors import PerdureError, Refused
from perdure.model.extents import build
from perdure.model.logs import MARK, LogSegment
from perdure.model.points import Hold, ImageFile, PointKind, RecoveryPoint
from perdure.model.positions import Position
from perdure.model.retention import RetentionPolicy
from perdure.repository.condemned import condemned_numbers, publish_condemned
from perdure.repository.gc import collect_garbage
from perdure.repository.heal import Healing, heal_pool
from perdure.repository.keys import Passphrase
from perdure.repository.leases import take_collection_lease
from perdure.repository.opening import create_pool, open_pool
from perdure.repository.pool import Pool
from perdure.repository.replacing import RESCUED
from perdure.repository.verify import verify_pool
from perdure.storage.contract import StorageFull
from perdure.storage.local import LocalStorage
from perdure.testing.command_line import fingerprint
from perdure.testing.hooked_storage import Hook, HookedStorage
from perdure.testing.small_images import MAIL, image_content, put_image
from perdure.testing.twin_pools import FOLDER, copy_all, put_tree, tree_content


class Stopped(BaseException):
    """The process is gone."""


def beside(pool: Pool, cache: Path) -> Pool:
    """The same pool as another process sees it."""
    return open_pool(LocalStorage(Path(pool.storage.url)), Passphrase(b"correct horse"), cache)


@pytest.fixture
def fresh(pool: Pool, tmp_path: Path) -> Callable[[], Pool]:
    """Opens the pool anew, as every command does, each time with another cache."""
    numbers = iter(range(10**6))
    return lambda: beside(pool, tmp_path / f"cache-{next(numbers)}")


def flip(pool: Pool, name: str, place: float = 0.5) -> None:
    path = Path(pool.storage.url) / name
    data = bytearray(path.read_bytes())
    data[int(len(data) * place) if isinstance(place, float) else place] ^= 4
    path.write_bytes(data)


def name_of(pack: bytes) -> str:
    return f"packs/{pack.hex()[:2]}/{pack.hex()}"


def flip_chunk(pool: Pool, chunk: bytes) -> str:
    """Damage a chunk; returns the name of its pack."""
    place = pool.index.find(chunk)
    assert place is not None
    flip(pool, name_of(place.pack), place.offset + 80)
    return name_of(place.pack)


def put_delta(pool: Pool, before: RecoveryPoint, at: int, content: bytes) -> RecoveryPoint:
    """A point that changes a range of the image before."""
    capture = pool.capture(MAIL.id)
    file = before.files[0]
    delta = build(file.size, [(at, len(content), capture.put(content), 0)])
    assert before.position is not None
    changed = ImageFile("database", file.size, 4096, file.base, (*file.deltas, capture.put_map(delta)))
    position = Position(1, before.position.place + 1)
    return capture.commit(RecoveryPoint(0, MAIL.id, PointKind.EXPRESS_FULL, time.time_ns(), position, b"c", (changed,)))


def segment(after: int, last: int) -> LogSegment:
    marks = np.array([(last, last)], dtype=MARK)
    return LogSegment(Position(1, after), Position(1, last), marks, b"chain", b"index", [os.urandom(4000)])


def everything(pool: Pool) -> None:
    """Images with deltas, folder points, log, a hold and policies."""
    pool.register(MAIL)
    pool.register(FOLDER)
    point = put_image(pool, [os.urandom(6000) for _ in range(4)], Position(1, 1))
    for at in (0, 7000):
        point = put_delta(pool, point, at, os.urandom(3000))
    put_image(pool, [os.urandom(5000)], Position(1, 9))
    files = {"a": [os.urandom(2000)], "below": {"b": [os.urandom(3000)], "long": [os.urandom(50) for _ in range(40)]}}
    put_tree(pool, files)
    put_tree(pool, {**files, "c": [b"new" * 500]})
    for after in (9, 20, 30):
        pool.append(MAIL.id, segment(after, after + 11 if after == 9 else after + 10))
    pool.hold(Hold(MAIL.id, 1, "audit"))
    for _ in range(2):
        pool.set_policy(MAIL.id, RetentionPolicy())


def contents(pool: Pool) -> dict[tuple[str, int], object]:
    """Everything that can be recovered."""
    found: dict[tuple[str, int], object] = {}
    for point in pool.points(MAIL.id):
        extents = pool.image_map(point.files[0])
        found[MAIL.id, point.number] = b"".join(
            pool.read_chunk(extents.chunks[chunk].tobytes())[start : start + length]
            for _, length, chunk, start in extents.extents.tolist()
        )
    for point in pool.points(FOLDER.id):
        found[FOLDER.id, point.number] = tree_content(pool, point)
    for span in pool.spans(MAIL.id):
        found[span.name, 0] = list(pool.blocks(MAIL.id, span))
    return found


def told(pool: Pool, source: str) -> list[RecoveryPoint]:
    """The records without what a copy has of its own: what it added to its pool."""
    return [replace(point, stored=0) for point in pool.points(source)]


def second_copy(pool: Pool, tmp_path: Path) -> Pool:
    """Another pool, under other keys, with the same points."""
    other = create_pool(LocalStorage(tmp_path / "other", create=True), b"correct horse", tmp_path / "other-cache")[0]
    copy_all(pool, other)
    return other


def heal(pool: Pool, *, data: bool = True, other: Pool | None = None) -> Healing:
    return heal_pool(pool, verify_pool(pool, data=data), other=other)


# --- from where ---


def test_a_healthy_pool_is_not_changed(pool: Pool, tmp_path: Path) -> None:
    """Nothing but the ledger is written when there is nothing to heal."""
    everything(pool)
    verify_pool(pool, data=True)
    kept = [Path(pool.storage.url) / top for top in ("packs", "points", "logs", "sources", "holds", "policies", "keys")]
    before = fingerprint(*kept, Path(pool.storage.url) / "pool")

    done = heal(pool, other=second_copy(pool, tmp_path))

    assert done.healed == ()
    assert before == fingerprint(*kept, Path(pool.storage.url) / "pool")
    assert not list(pool.storage.list("gc"))


def test_a_second_copy_in_the_same_pool_heals(pool: Pool, fresh: Callable[[], Pool]) -> None:
    """A damaged copy of content that lies elsewhere too is condemned with its pack; the other chunks of it move."""
    pool.register(MAIL)
    content, beside_it = os.urandom(5000), os.urandom(4000)
    late = fresh()
    _ = late.index
    first = put_image(pool, [content, beside_it], Position(1, 1))
    capture = late.capture("7" * 32)
    capture.put(content)
    capture._chunks.make_durable()
    capture.abort()
    copies = fresh().index.find_all(pool.chunk_id(content))
    ours = fresh().index.find(pool.chunk_id(beside_it))
    assert ours is not None
    assert len(copies) == 2
    mine = next(copy for copy in copies if copy.pack == ours.pack)
    flip(pool, name_of(mine.pack), mine.offset + 80)

    done = heal(fresh())

    assert [each.object for each in done.healed] == [name_of(mine.pack)]
    assert done.report.sound
    assert image_content(fresh(), first) == content + beside_it
    assert collect_garbage(fresh(), grace_s=0).deleted >= 1
    assert name_of(mine.pack) not in {listed.name for listed in pool.storage.list("packs")}
    assert image_content(fresh(), first) == content + beside_it
    assert verify_pool(fresh(), data=True).sound


@pytest.mark.parametrize("place", [3, 20, -3, -60], ids=["magic", "object id", "trailer", "footer"])
def test_a_pack_whose_header_or_index_is_damaged_heals_from_itself(
    pool: Pool, fresh: Callable[[], Pool], place: int
) -> None:
    """What is hurt is not the content: it is read by other means and written anew."""
    everything(pool)
    before = contents(pool)
    for listed in list(pool.storage.list("packs")):
        flip(pool, listed.name, place)

    done = heal(fresh())

    assert done.report.sound
    assert done.condemned > 0
    assert contents(fresh()) == before
    collect_garbage(fresh(), grace_s=0)
    assert contents(fresh()) == before
    assert verify_pool(fresh(), data=True).sound


@pytest.mark.slow
def test_every_chunk_heals_from_another_pool(pool: Pool, tmp_path: Path, fresh: Callable[[], Pool]) -> None:
    """Data, maps, deltas, listings and roots: whatever is damaged comes back, whatever its id is there."""
    everything(pool)
    other = second_copy(pool, tmp_path)
    before = contents(pool)
    chunks = [
        chunk.tobytes()
        for pack in pool.index.snapshot().packs
        for chunk in pool.index.snapshot().ids_of(pack.tobytes())
    ]
    assert len(chunks) > 15
    saved = tmp_path / "saved"
    shutil.copytree(pool.storage.url, saved)

    for chunk in chunks:
        shutil.rmtree(pool.storage.url)
        shutil.copytree(saved, pool.storage.url)
        flip_chunk(fresh(), chunk)
        done = heal(fresh(), other=other)
        assert done.report.sound, chunk.hex()
        assert contents(fresh()) == before


def test_everything_lost_but_the_records_heals_from_another_pool(
    pool: Pool, tmp_path: Path, fresh: Callable[[], Pool]
) -> None:
    """When all packs are gone the whole content comes back, level by level."""
    everything(pool)
    other = second_copy(pool, tmp_path)
    before = contents(pool)
    shutil.rmtree(Path(pool.storage.url) / "packs")

    done = heal(fresh(), data=False, other=other)

    assert done.report.sound
    assert contents(fresh()) == before
    assert verify_pool(fresh(), data=True).sound


SINGLE = ["pool", "keys", "sources", "points", "logs", "holds", "policies", "gc", "checks"]


@pytest.mark.parametrize("prefix", SINGLE)
def test_every_single_object_heals(pool: Pool, tmp_path: Path, fresh: Callable[[], Pool], prefix: str) -> None:
    """Objects with twins from those, records, log and holds from the other pool; what is only in the way is removed."""
    everything(pool)
    publish_condemned(pool.storage, pool.keys, 1, [])
    verify_pool(pool, data=True)
    other = second_copy(pool, tmp_path)
    before = contents(pool)
    points = {source: told(pool, source) for source in (MAIL.id, FOLDER.id)}
    names = [prefix] if prefix == "pool" else [listed.name for listed in pool.storage.list(prefix)]

    for name in names:
        if not (Path(pool.storage.url) / name).exists():
            continue
        flip(pool, name)
        if prefix == "policies" and name == names[-1]:
            continue  # the newest policy has no second copy
        done = heal(fresh(), other=other)
        assert done.report.sound, name
        assert name in [each.object for each in done.healed]

    assert contents(fresh()) == before
    assert {source: told(fresh(), source) for source in points} == points
    assert [hold.reason for hold in fresh().holds(MAIL.id)] == ["audit"]
    assert fresh().sources() == pool.sources()
    assert not list(pool.storage.list(RESCUED))
    if prefix == "gc":
        assert list(condemned_numbers(pool.storage)) == [2]
        fresh().capture(MAIL.id).abort()


def test_lost_log_comes_back_from_another_pool(pool: Pool, tmp_path: Path, fresh: Callable[[], Pool]) -> None:
    """The segments that a gap lacks are written again under this pool's keys."""
    everything(pool)
    other = second_copy(pool, tmp_path)
    before = contents(pool)
    pool.storage.delete([listed.name for listed in pool.storage.list("logs")][1])

    assert heal(fresh(), other=other).report.sound
    assert contents(fresh()) == before


def test_what_cannot_be_healed_stays_named_and_nothing_else_is_lost(pool: Pool, fresh: Callable[[], Pool]) -> None:
    """A pack with a chunk that is nowhere else keeps its place, and its other chunks stay readable."""
    pool.register(MAIL)
    lost, kept = os.urandom(5000), os.urandom(4000)
    put_image(pool, [lost], Position(1, 1))
    point = put_image(pool, [kept], Position(1, 2))
    capture = pool.capture(MAIL.id)
    both = build(9000, [(0, 5000, capture.put(lost), 0), (5000, 4000, capture.put(kept), 0)])
    file = ImageFile("database", 9000, 4096, capture.put_map(both))
    capture.commit(RecoveryPoint(0, MAIL.id, PointKind.EXPRESS_FULL, 5, Position(1, 3), b"c", (file,)))
    name = flip_chunk(pool, pool.chunk_id(lost))

    for _ in range(2):
        done = heal(fresh())
        assert done.healed == ()
        assert [damage.object for damage in done.report.damage] == [name]
        assert done.report.damage[0].points_affected == ("mail #1", "mail #3")
        collect_garbage(fresh(), grace_s=0)
    assert image_content(fresh(), point) == kept


def test_one_of_two_damaged_chunks_heals_and_stays_healed(
    pool: Pool, tmp_path: Path, fresh: Callable[[], Pool]
) -> None:
    """The healed copy survives every collection, though the damaged pack still claims to have the chunk."""
    pool.register(MAIL)
    blocks = [os.urandom(5000) for _ in range(3)]
    first = put_image(pool, blocks, Position(1, 1))
    other = second_copy(pool, tmp_path)
    second = put_image(pool, [blocks[1], os.urandom(100)], Position(1, 2))
    capture = pool.capture(MAIL.id)
    alone = os.urandom(2000)
    file = ImageFile("database", 2000, 4096, capture.put_map(build(2000, [(0, 2000, capture.put(alone), 0)])))
    capture.commit(RecoveryPoint(0, MAIL.id, PointKind.EXPRESS_FULL, 5, Position(1, 3), b"c", (file,)))
    del second
    flip_chunk(pool, pool.chunk_id(blocks[0]))
    flip_chunk(pool, pool.chunk_id(blocks[2]))
    # The other pool has lost one of them, too.
    flip_chunk(other, other.chunk_id(blocks[2]))

    done = heal(fresh(), other=beside(other, tmp_path / "o"))

    (damage,) = done.report.damage
    assert damage.points_affected == ("mail #1",)
    for _ in range(3):
        collect_garbage(fresh(), grace_s=0)
    assert fresh().read_chunk(pool.chunk_id(blocks[0])) == blocks[0]
    assert fresh().read_chunk(pool.chunk_id(blocks[1])) == blocks[1]
    assert first.number == 1


def test_wrong_content_is_not_taken(pool: Pool, fresh: Callable[[], Pool]) -> None:
    """Whatever an origin offers, only the content of that id is written."""
    pool.register(MAIL)
    content = os.urandom(5000)
    put_image(pool, [content], Position(1, 1))
    flip_chunk(pool, pool.chunk_id(content))

    class Liar:
        name = "a liar"

        def contents(self, wanted: object, points: object) -> Iterator[tuple[bytes, bytes]]:
            yield pool.chunk_id(content), content[:-1] + b"?"

    opened = fresh()
    done = heal_pool(opened, verify_pool(opened, data=True), origins=[Liar()])

    assert done.healed == ()
    assert not done.report.sound


# --- beside others ---


def test_healing_beside_a_capture_loses_nothing(pool: Pool, tmp_path: Path, fresh: Callable[[], Pool]) -> None:
    """A capture that relied on good chunks of the damaged pack before it was condemned commits, and is whole."""
    everything(pool)
    other = second_copy(pool, tmp_path)
    before = contents(pool)
    point = pool.points(MAIL.id)[-1]
    content = image_content(pool, point)
    running = fresh()
    capture = running.capture(MAIL.id)
    chunk = capture.put(content)
    assert capture.stored == 0
    victim = pool.points(MAIL.id)[0].files[0]
    flip_chunk(pool, pool.image_map(victim).ids()[0])
    for name in {name_of(pack.tobytes()) for pack in pool.index.snapshot().packs}:
        flip(pool, name, -3)

    done = heal(fresh(), other=other)
    collect_garbage(fresh(), grace_s=0)
    file = ImageFile("database", 5000, 4096, capture.put_map(build(5000, [(0, 5000, chunk, 0)])))
    committed = capture.commit(RecoveryPoint(0, MAIL.id, PointKind.EXPRESS_FULL, 5, Position(1, 99), b"c", (file,)))
    collect_garbage(fresh(), grace_s=0)

    assert done.report.sound
    assert image_content(fresh(), committed) == content
    assert {**contents(fresh()), **before} == contents(fresh())
    assert verify_pool(fresh(), data=True).sound


def test_healing_and_collecting_do_not_run_at_once(pool: Pool, fresh: Callable[[], Pool]) -> None:
    """A healing is refused while garbage is collected, and a collection waits while a healing is at work."""
    pool.register(MAIL)
    content = os.urandom(5000)
    put_image(pool, [content], Position(1, 1))
    flip(pool, next(pool.storage.list("packs")).name, -3)
    report = verify_pool(pool, data=True)
    lease = take_collection_lease(pool.storage)
    assert lease is not None

    with pytest.raises(Refused) as caught:
        heal_pool(fresh(), report)
    assert caught.value.code == "collection-at-work"
    lease.release()

    waited: list[str] = []

    def collect_too(call: str, names: tuple[str, ...]) -> None:
        if call == "barrier":
            waited.extend(collect_garbage(fresh(), grace_s=0).waiting)

    opened = open_pool(
        HookedStorage(pool.storage, collect_too), Passphrase(b"correct horse"), Path(pool.storage.url).parent / "h"
    )
    assert heal_pool(opened, verify_pool(opened, data=True)).report.sound
    assert waited
    assert verify_pool(fresh(), data=True).sound


def test_a_full_disk_loses_nothing(pool: Pool, tmp_path: Path, fresh: Callable[[], Pool]) -> None:
    """When there is no room the healing fails and every point that was whole still is."""
    everything(pool)
    before = contents(pool)
    for listed in list(pool.storage.list("packs")):
        flip(pool, listed.name, -3)
    report = verify_pool(fresh(), data=True)

    def full(call: str, names: tuple[str, ...]) -> None:
        if call in ("publish", "barrier"):
            raise StorageFull("no room")

    opened = open_pool(HookedStorage(pool.storage, full), Passphrase(b"correct horse"), tmp_path / "full")
    with pytest.raises(StorageFull):
        heal_pool(opened, report)

    assert contents(fresh()) == before
    assert heal(fresh()).report.sound
    assert contents(fresh()) == before


# --- cut off ---


def damaged_everywhere(pool: Pool) -> None:
    """Damage to a pack's index, a data chunk, a map, a record, log, a hold, and an object with a twin."""
    image = pool.points(MAIL.id)[0]
    flip_chunk(pool, pool.image_map(image.files[0]).ids()[1])
    flip_chunk(pool, pool.points(MAIL.id)[3].files[0].base.chunks[0])
    flip(pool, f"points/{MAIL.id}/00000002")
    flip(pool, [listed.name for listed in pool.storage.list("logs")][1])
    flip(pool, f"holds/{MAIL.id}/00000001")
    flip(pool, f"sources/{MAIL.id}")
    flip(pool, "pool")


def stop_at(cut: int) -> Hook:
    """The process is gone before so many and one calls that change something."""
    calls = iter(range(cut))

    def stop(call: str, names: tuple[str, ...]) -> None:
        changes = call in ("stage", "publish", "barrier", "commit", "create", "delete")
        if changes and next(calls, None) is None:
            raise Stopped

    return stop


@pytest.mark.slow
def test_a_healing_killed_at_any_storage_call_loses_nothing(
    pool: Pool, tmp_path: Path, fresh: Callable[[], Pool]
) -> None:
    """What was whole stays whole, also after a collection, and the next healing ends the work."""
    everything(pool)
    other_path = Path(second_copy(pool, tmp_path).storage.url)
    before = contents(pool)
    damaged_everywhere(pool)
    # What is lost for now: the points that need the damaged chunk or map, the record, the segment.
    whole = _readable(fresh(), before)
    assert 0 < len(whole) < len(before)
    saved = tmp_path / "saved"
    shutil.copytree(pool.storage.url, saved, ignore=shutil.ignore_patterns("tmp"))
    cut = 0
    finished = False
    while not finished:
        shutil.rmtree(pool.storage.url)
        shutil.copytree(saved, pool.storage.url)
        opened = open_pool(
            HookedStorage(LocalStorage(Path(pool.storage.url)), stop_at(cut)),
            Passphrase(b"correct horse"),
            tmp_path / f"k{cut}",
        )
        other = open_pool(LocalStorage(other_path), Passphrase(b"correct horse"), tmp_path / "other-cache")
        try:
            heal(opened, other=other)
            finished = True
        except Stopped:
            cut += 1
        after = _readable(fresh(), before)
        assert whole <= after, cut
        if cut % 3 == 0:
            _collect_if_possible(fresh())
            assert whole <= _readable(fresh(), before), cut
        assert heal(fresh(), other=other).report.sound, cut
        assert contents(fresh()) == before, cut
        assert not list(pool.storage.list(RESCUED))
        assert [hold.reason for hold in fresh().holds(MAIL.id)] == ["audit"]
    assert cut > 30


def _collect_if_possible(pool: Pool) -> None:
    # What it is not known to be needless for stops it.
    with contextlib.suppress(Refused):
        collect_garbage(pool, grace_s=0)


def _readable(pool: Pool, wanted: dict[tuple[str, int], object]) -> set[tuple[str, int]]:
    """What of all that reads back as it was."""
    found = set()
    points = {(source, point.number): point for source in (MAIL.id, FOLDER.id) for point in pool.points(source)}
    spans = {span.name: span for span in pool.spans(MAIL.id)}
    for key, content in wanted.items():
        try:
            if key in points:
                one = points[key]
                is_now: object = tree_content(pool, one) if one.tree is not None else _image(pool, one)
            elif key[0] in spans:
                is_now = list(pool.blocks(MAIL.id, spans[key[0]]))
            else:
                continue
        except PerdureError:
            continue
        assert is_now == content
        found.add(key)
    return found


def _image(pool: Pool, point: RecoveryPoint) -> bytes:
    extents = pool.image_map(point.files[0])
    return b"".join(
        pool.read_chunk(extents.chunks[chunk].tobytes())[start : start + length]
        for _, length, chunk, start in extents.extents.tolist()
    )
