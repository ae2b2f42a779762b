"""A whole pool: commit, read back, lose the cache, meet damage."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3

from perdure.model.entries import Entry, EntryKind, Piece
from perdure.model.errors import Damaged, NotFound, PoolUnusable, Refused
from perdure.model.listings import put_listing, store_root
from perdure.model.logs import MARK, LogEnd, LogSegment
from perdure.model.points import DataSource, PointKind, RecoveryPoint
from perdure.model.positions import Position
from perdure.repository.keys import Passphrase, RecoveryKey
from perdure.repository.opening import create_pool, open_pool
from perdure.repository.pool import Pool
from perdure.repository.verify import verify_pool
from perdure.storage.contract import Staged, StorageFailed
from perdure.storage.local import LocalStorage
from perdure.storage.staged_file import StagedFile
from perdure.testing.small_images import MAIL, image_content, put_image

SOURCE = MAIL
FOLDER = DataSource(id="6" * 32, name="share", workload="files", location="/srv/share")


def reopened(pool: Pool, cache: Path) -> Pool:
    """The same pool, opened anew with another cache."""
    return open_pool(LocalStorage(Path(pool.storage.url)), Passphrase(b"correct horse"), cache)


def commit_tree(pool: Pool) -> RecoveryPoint:
    """A point of a folder with one file."""
    capture = pool.capture(FOLDER.id)
    content = b"file content" * 100
    file = Entry(b"f", EntryKind.FILE, size=len(content), content=(Piece(capture.put(content), 0, len(content)),))
    root = Entry(b"", EntryKind.DIRECTORY, listing=put_listing([file], capture))
    tree = store_root(root, capture)
    return capture.commit(RecoveryPoint(0, FOLDER.id, PointKind.FILE, time.time_ns(), tree=tree))


def segment(after: Position, last: Position, payload: bytes = b"p" * 5000) -> LogSegment:
    """A segment with one mark."""
    marks = np.array([(last.place, time.time_ns())], dtype=MARK)
    return LogSegment(after, last, marks, b"chain" + bytes([last.place]), b"index", [payload])


def test_a_committed_point_reads_back_from_another_process_state(pool: Pool, tmp_path: Path) -> None:
    """Everything needed to read a point is in the pool: a new cache directory changes nothing."""
    pool.register(SOURCE)
    blocks = [os.urandom(300_000), bytes(1000), b"text" * 9000]
    point = put_image(pool, blocks, Position(1, 7))

    other = reopened(pool, tmp_path / "elsewhere")

    assert other.sources() == [SOURCE]
    assert [point] == other.points(SOURCE.id)
    assert b"".join(blocks) == image_content(other, point)
    assert LogEnd(Position(1, 7), b"c") == other.log_end(SOURCE.id)


def test_the_same_content_is_stored_once(pool: Pool) -> None:
    """A second point of the same content adds its map and nothing else."""
    blocks = [os.urandom(100_000) for _ in range(5)]
    first = put_image(pool, blocks, Position(1, 1))
    second = put_image(pool, blocks, Position(1, 2))

    assert first.stored > 500_000
    assert second.stored == 0


def test_an_uncommitted_capture_leaves_no_point(pool: Pool, tmp_path: Path) -> None:
    """Without its record nothing of a capture is visible, and its chunks are usable all the same."""
    capture = pool.capture(SOURCE.id)
    block = os.urandom(200_000)
    capture.put(block)
    capture.abort()

    other = reopened(pool, tmp_path / "other")

    assert other.points(SOURCE.id) == []
    assert block * 2 == image_content(other, put_image(other, [block, block], Position(1, 1)))


def test_two_processes_cannot_commit_the_same_point(pool: Pool, tmp_path: Path) -> None:
    """Of two captures that take the same number one is refused."""
    other = reopened(pool, tmp_path / "other")
    mine, theirs = pool.capture(SOURCE.id), other.capture(SOURCE.id)
    draft = RecoveryPoint(0, SOURCE.id, PointKind.EXPRESS_FULL, 1)

    mine.commit(draft)
    with pytest.raises(Refused) as caught:
        theirs.commit(draft)

    assert caught.value.code == "point-exists"


def test_log_must_continue_what_the_pool_holds(pool: Pool, tmp_path: Path) -> None:
    """A segment that leaves a gap, or repeats, is refused, also by a process that has just started."""
    put_image(pool, [b"x"], Position(1, 10))
    pool.append(SOURCE.id, segment(Position(1, 10), Position(1, 20)))
    pool.append(SOURCE.id, segment(Position(1, 20), Position(2, 5)))

    for opened in (pool, reopened(pool, tmp_path / "other")):
        for after in (Position(2, 6), Position(1, 20), Position(3, 0)):
            with pytest.raises(Refused) as caught:
                opened.append(SOURCE.id, segment(after, Position(3, 9)))
            assert caught.value.code == "log-gap"
        assert LogEnd(Position(2, 5), b"chain\5") == opened.log_end(SOURCE.id)


def test_log_goes_on_after_what_another_process_has_written(pool: Pool, tmp_path: Path) -> None:
    """What a process remembers of the log's end does not keep it from going on where the pool's log ends now."""
    first, second = Position(1, 10), Position(1, 20)
    pool.append(SOURCE.id, segment(first, second))
    other = reopened(pool, tmp_path / "other cache")
    other.append(SOURCE.id, segment(second, Position(1, 30)))
    pool.append(SOURCE.id, segment(Position(1, 30), Position(1, 40)))
    other.append(SOURCE.id, segment(Position(1, 40), Position(1, 50)))
    pool.append_run(SOURCE.id, [segment(Position(1, 50), Position(1, 60)), segment(Position(1, 60), Position(1, 70))])
    with pytest.raises(Refused, match="ends at 1:70"):
        other.append(SOURCE.id, segment(Position(1, 60), Position(1, 65)))


def test_a_run_of_log_leaves_no_gap(pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is written side by side is there whole, or up to where it failed; written again, it is completed."""
    put_image(pool, [b"x"], Position(1, 10))
    run = [segment(Position(1, 10 * number), Position(1, 10 * (number + 1))) for number in range(1, 9)]
    publish, left = pool.storage.publish, iter(range(3))

    def fail_after_some(staged: Staged, name: str) -> object:
        if next(left, None) is None:
            raise StorageFailed("the disk fails")
        return publish(staged, name)

    monkeypatch.setattr(pool.storage, "publish", fail_after_some)
    with pytest.raises(StorageFailed):
        pool.append_run(SOURCE.id, run)
    monkeypatch.undo()
    pool.storage.barrier([])
    there = [span.last for span in pool.spans(SOURCE.id)]
    assert there == [one.last for one in run[: len(there)]]

    for opened in (pool, reopened(pool, tmp_path / "other")):
        opened.append_run(SOURCE.id, run)
        assert [span.last for span in opened.spans(SOURCE.id)] == [one.last for one in run]
    pool.append(SOURCE.id, segment(run[-1].last, Position(2, 5)))
    with pytest.raises(Refused):
        pool.append_run(SOURCE.id, [segment(Position(2, 6), Position(2, 7)), segment(Position(2, 7), Position(2, 8))])


def test_a_run_of_log_one_of_whose_files_the_disk_loses_leaves_no_gap(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When one file in the middle of a run cannot be made durable, none of those behind it stays; again, all are."""
    put_image(pool, [b"x"], Position(1, 10))
    run = [segment(Position(1, 10 * number), Position(1, 10 * (number + 1))) for number in range(1, 9)]
    sync, synced = StagedFile.sync, []

    def fail_at_third(staged: StagedFile) -> None:
        synced.append(staged)
        if len(synced) == 3:
            raise OSError(errno.EIO, "Input/output error")
        sync(staged)

    monkeypatch.setattr(StagedFile, "sync", fail_at_third)
    with pytest.raises(StorageFailed):
        pool.append_run(SOURCE.id, run)
    assert len(synced) >= 3
    there = [span.last for span in pool.spans(SOURCE.id)]
    assert there == [one.last for one in run[: len(there)]]
    assert len(there) < len(run)
    pool.append_run(SOURCE.id, run)
    assert [span.last for span in pool.spans(SOURCE.id)] == [one.last for one in run]


def test_a_segment_whose_answer_was_lost_may_be_appended_again(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retry of the very same segment succeeds, so that watching goes on; another one in its place is refused."""
    put_image(pool, [b"x"], Position(1, 10))
    commit = pool.storage.commit

    def lose_answer(*arguments: object) -> None:
        commit(*arguments)
        raise StorageFailed("connection reset")

    shipped = segment(Position(1, 10), Position(1, 20))
    monkeypatch.setattr(pool.storage, "commit", lose_answer)
    with pytest.raises(StorageFailed):
        pool.append(SOURCE.id, shipped)
    monkeypatch.undo()

    with pytest.raises(Refused):
        pool.append(SOURCE.id, segment(Position(1, 10), Position(1, 20), b"other"))
    span = pool.append(SOURCE.id, shipped)

    assert [span] == pool.spans(SOURCE.id)
    assert pool.append(SOURCE.id, segment(Position(1, 20), Position(1, 30))).last == Position(1, 30)


def test_log_reads_back_in_order(pool: Pool) -> None:
    """Segments between two positions come in order with their payload; a gap is damage."""
    put_image(pool, [b"x"], Position(1, 10))
    pool.append(SOURCE.id, segment(Position(1, 10), Position(1, 20), b"one"))
    pool.append(SOURCE.id, segment(Position(1, 20), Position(2, 5), b"two"))
    pool.append(SOURCE.id, segment(Position(2, 5), Position(2, 9), b"three"))

    found = list(pool.segments_between(SOURCE.id, Position(1, 10), Position(2, 5)))
    payload = [b"".join(pool.blocks(SOURCE.id, stored.span)) for stored in found]
    assert payload == [b"one", b"two"]
    assert [int(stored.marks["place"][0]) for stored in found] == [20, 5]

    pool.storage.delete(found[1].span.name)
    with pytest.raises(Damaged, match="gap"):
        list(pool.segments_between(SOURCE.id, Position(1, 10), Position(2, 9)))


def test_a_wrong_passphrase_is_told_and_the_recovery_key_opens(tmp_path: Path) -> None:
    """The pool opens with its passphrase or its recovery key and with nothing else."""
    storage = LocalStorage(tmp_path / "pool", create=True)
    _, recovery = create_pool(storage, b"right", tmp_path / "cache")

    with pytest.raises(PoolUnusable) as caught:
        open_pool(storage, Passphrase(b"wrong"), tmp_path / "cache")
    assert caught.value.code == "wrong-passphrase"
    with pytest.raises(PoolUnusable):
        open_pool(storage, RecoveryKey.random(), tmp_path / "cache")

    assert open_pool(storage, RecoveryKey.parse(recovery.lower()), tmp_path / "cache").id


def test_a_pool_without_key_slots_does_not_blame_the_passphrase(pool: Pool, tmp_path: Path) -> None:
    """When no slot is left, the right passphrase is not called wrong."""
    shutil.rmtree(Path(pool.storage.url) / "keys")

    with pytest.raises(Damaged, match="no key slot") as caught:
        reopened(pool, tmp_path / "other")

    assert caught.value.code == "damaged-key-slot"


def test_secrets_do_not_show_in_representations(tmp_path: Path) -> None:
    """Neither passphrase nor keys appear in a repr, and so not in a traceback with locals."""
    pool, recovery = create_pool(LocalStorage(tmp_path / "p", create=True), b"hunter2", tmp_path / "c")

    shown = repr((Passphrase(b"hunter2"), RecoveryKey.parse(recovery), pool.keys))

    assert "hunter2" not in shown
    assert recovery[:20] not in shown


def test_a_pool_is_not_made_where_something_is(tmp_path: Path) -> None:
    """A directory with anything in it is refused."""
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "precious").write_text("x")

    with pytest.raises(Refused) as caught:
        create_pool(LocalStorage(tmp_path / "p"), b"x", tmp_path / "c")

    assert caught.value.code == "pool-exists"
    with pytest.raises(NotFound):
        open_pool(LocalStorage(tmp_path / "p"), Passphrase(b"x"), tmp_path / "c")


def test_a_newer_format_is_refused(pool: Pool, tmp_path: Path) -> None:
    """A descriptor of a later version is not guessed at."""
    root = Path(pool.storage.url)
    for name in ("pool", "pool.copy"):
        values = json.loads((root / name).read_bytes())
        del values["check"]
        values["format"] = 2
        check = blake3(json.dumps(values, sort_keys=True).encode()).hexdigest()
        (root / name).write_bytes(json.dumps({**values, "check": check}, sort_keys=True).encode() + b"\n")

    with pytest.raises(PoolUnusable) as caught:
        reopened(pool, tmp_path / "c2")

    assert caught.value.code == "newer-format"


def test_a_damaged_cache_is_rebuilt_from_the_packs(pool: Pool, tmp_path: Path) -> None:
    """Flipping, truncating or removing any cache file costs nothing but time."""
    blocks = [os.urandom(50_000) for _ in range(10)]
    point = put_image(pool, blocks, Position(1, 1))
    pool.close()
    rng = random.Random(5)
    cache = tmp_path / "cache" / "index"
    files = sorted(cache.iterdir())
    assert len(files) >= 2

    for path in files:
        original = path.read_bytes()
        flipped = bytearray(original)
        flipped[rng.randrange(len(flipped))] ^= 0x40
        for damaged in (bytes(flipped), original[: len(original) // 2], b""):
            path.write_bytes(damaged)
            again = reopened(pool, tmp_path / "cache")
            assert b"".join(blocks) == image_content(again, point)
            assert put_image(again, blocks, Position(1, 1)).stored == 0
        path.write_bytes(original)


def test_the_cache_forgets_packs_that_are_gone(pool: Pool, tmp_path: Path) -> None:
    """A chunk whose pack was removed is stored again instead of being taken as present."""
    block = os.urandom(60_000)
    put_image(pool, [block], Position(1, 1))
    pool.close()
    shutil.rmtree(Path(pool.storage.url) / "packs")

    again = reopened(pool, tmp_path / "cache")
    point = put_image(again, [block], Position(1, 2))

    assert point.stored > 60_000
    assert block == image_content(again, point)


def test_many_small_sessions_keep_the_index_small(pool: Pool, tmp_path: Path) -> None:
    """The cache merges its segments, and finds every chunk in every generation of it."""
    blocks: list[bytes] = []
    for number in range(25):
        blocks.append(os.urandom(2000))
        again = reopened(pool, tmp_path / "cache")
        point = put_image(again, blocks, Position(1, number))
        again.close()

    last = reopened(pool, tmp_path / "cache")
    assert b"".join(blocks) == image_content(last, point)
    assert len(list((tmp_path / "cache" / "index").glob("*.idx"))) <= 9


def flipped(path: Path, rng: random.Random) -> None:
    """Flip one bit of a file."""
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


@pytest.mark.parametrize("seed", range(4))
def test_one_flipped_bit_in_any_object_is_found_named_and_contained(pool: Pool, tmp_path: Path, seed: int) -> None:
    """For every object: verify names it, and every point that it does not name still recovers."""
    rng = random.Random(seed)
    for source in (SOURCE, FOLDER):
        pool.register(source)
    blocks = [rng.randbytes(40_000) for _ in range(3)]
    contents = {}
    for number in range(3):
        blocks[number] = rng.randbytes(40_000)
        contents[number + 1] = b"".join(blocks)
        put_image(pool, list(blocks), Position(1, number + 1))
    commit_tree(pool)
    pool.append(SOURCE.id, segment(Position(1, 3), Position(1, 9)))
    assert verify_pool(pool, data=True).sound
    root = Path(pool.storage.url)
    kinds = set()

    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        original = path.read_bytes()
        flipped(path, rng)
        again = reopened(pool, tmp_path / f"cache{seed}-{path.name}")
        report = verify_pool(again, data=True)
        name = str(path.relative_to(root))
        assert name in {damage.object for damage in report.damage}, name
        kinds.update(damage.kind for damage in report.damage)
        hurt = {label for damage in report.damage for label in damage.points_affected}
        readable = {point.number: point for point in again.points(SOURCE.id)}
        for number, content in contents.items():
            if f"mail #{number}" not in hurt:
                assert content == image_content(again, readable[number]), name
        path.write_bytes(original)

    assert {"descriptor", "key slot", "source", "record", "log", "pack"} <= kinds


def test_a_missing_pack_is_reported_with_the_points_that_need_it(pool: Pool, tmp_path: Path) -> None:
    """Verification without data notices that chunks are missing and says for whom."""
    pool.register(SOURCE)
    put_image(pool, [os.urandom(5000)], Position(1, 1))
    for pack in (Path(pool.storage.url) / "packs").rglob("*"):
        if pack.is_file():
            pack.unlink()

    report = verify_pool(reopened(pool, tmp_path / "other"))

    assert {"mail #1"} == {label for damage in report.damage for label in damage.points_affected}


def test_a_source_name_is_taken_once(pool: Pool) -> None:
    """Two sources of one pool cannot have the same name."""
    pool.register(SOURCE)

    with pytest.raises(Refused) as caught:
        pool.register(replace(SOURCE, id="7" * 32))

    assert caught.value.code == "name-taken"


def test_several_threads_fill_packs_and_read_them_at_once(pool: Pool) -> None:
    """Chunks put and read by several threads are whole, each decoded once."""
    capture = pool.capture(SOURCE.id)
    blocks = [os.urandom(70_000) for _ in range(64)]
    with ThreadPoolExecutor(4) as workers:
        ids = list(workers.map(capture.put, blocks))
    capture.commit(RecoveryPoint(0, SOURCE.id, PointKind.EXPRESS_FULL, 1, Position(1, 1)))
    found: dict[int, bytes] = {}

    pool.for_each_chunk(ids, found.__setitem__, threads=3)

    assert blocks == [found[number] for number in range(64)]
