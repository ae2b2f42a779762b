"""A second copy: what travels, what is the same afterwards, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from perdure.model.points import Hold, RecoveryPoint
from perdure.model.positions import Position
from perdure.model.retention import RetentionPolicy
from perdure.repository.pool import Pool
from perdure.repository.verify import verify_pool
from perdure.testing.small_images import MAIL, image_content, put_image
from perdure.testing.twin_pools import (
    append_log,
    copy_all,
    differences,
    new_pool,
    opened,
    put_delta,
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


def put_back(pool: Pool) -> set[str]:
    return {listed.name for listed in pool.storage.list("packs")}


def test_everything_is_in_the_copy_under_the_same_names(a: Pool, b: Pool, tmp_path: Path) -> None:
    """After a copy the other pool holds the same source, points, log, policy and holds, and no chunk id of the first."""
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
