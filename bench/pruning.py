"""Pruning half the points of a database's timeline, and copying with one thread and with two.

Before each of 50 points one page in a hundred was rewritten at random, and one table (5 % of the database) as a whole.
The older half of the points is pruned.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
from tools import Cost
from workspace import Workspace

from perdure.model.points import DataSource, PointKind, RecoveryPoint
from perdure.model.positions import Position
from perdure.protection.imaging import first_file, next_file, store_changes, store_whole
from perdure.repository.gc import collect_garbage
from perdure.repository.index_snapshot import IndexSnapshot
from perdure.repository.opening import create_pool
from perdure.repository.pool import Pool
from perdure.repository.reach import Reach
from perdure.storage.local import LocalStorage

PRUNE = "prune half of 50 points"
THREADS = "first copy, threads"
PAGE = 8192
POINTS = 50
SOURCE = DataSource("b" * 32, "bench", "sqlite", "/bench.db")


class Pages:
    """A database in memory, half of every page incompressible; implements ``ImageReader``."""

    name = "database"
    page_size = PAGE
    changed = None

    def __init__(self, size: int) -> None:
        self._rng = np.random.default_rng(3)
        self.content = np.zeros((size // PAGE, PAGE), dtype=np.uint8)
        for first in range(0, len(self.content), 4096):
            part = self.content[first : first + 4096]
            part[:, : PAGE // 2] = self._rng.integers(0, 256, (len(part), PAGE // 2), dtype=np.uint8)
            part[:, PAGE // 2 :] = np.arange(len(part), dtype=np.uint32).view(np.uint8).reshape(len(part), 4)[:, :1]

    @property
    def size(self) -> int:
        return self.content.size

    def read(self, offset: int, length: int) -> memoryview:
        return self.content.reshape(-1)[offset : offset + length].data

    def change(self, share: float) -> np.ndarray:
        """Rewrite a share of all pages, and the table; returns their numbers."""
        count = len(self.content)
        table = np.arange(count // 2, count // 2 + count // 20)
        pages = np.union1d(table, self._rng.choice(count, int(count * share), replace=False))
        self.content[pages, : PAGE // 2] = self._rng.integers(0, 256, (len(pages), PAGE // 2), dtype=np.uint8)
        return pages.astype(np.int64)


def prune_half(space: Workspace) -> None:
    """Delete the older half of 50 points, collect at once, and see how much of what only they used came back."""
    space.results.begin(PRUNE)
    for round_ in range(1, space.rounds + 1):
        work = space.fresh("prune")
        pool, _ = create_pool(LocalStorage(work / "pool", create=True), b"x", work / "cache")
        _timeline(pool, Pages(space.bytes(1)))
        points = pool.points(SOURCE.id)
        going = [point.number for point in points[: POINTS // 2]]
        only_theirs = _only_used_by(pool, points, set(going))
        before = _packs_size(work)
        pool.delete_points(SOURCE.id, going)
        begun, cpu = perf_counter(), process_time()
        collect_garbage(pool, grace_s=0)
        cost = Cost("collect_garbage(pool, grace_s=0)", perf_counter() - begun, process_time() - cpu, 0, {})
        reclaimed = before - _packs_size(work)
        space.results.add(PRUNE, "perdure", round_, cost, before=before, only_theirs=only_theirs, reclaimed=reclaimed)
        shutil.rmtree(work)


def _timeline(pool: Pool, pages: Pages) -> None:
    file = None
    for number in range(1, POINTS + 1):
        capture = pool.capture(SOURCE.id)
        if file is None:
            file = first_file(pages, store_whole(pages, capture), capture)
        else:
            file = next_file(file, store_changes(pages, pages.change(0.01), capture), capture, pool)
        draft = RecoveryPoint(0, SOURCE.id, PointKind.EXPRESS_FULL, time.time_ns(), Position(1, number), files=(file,))
        capture.commit(replace(draft, size=pages.size))


def _only_used_by(pool: Pool, points: list[RecoveryPoint], going: set[int]) -> int:
    """Stored bytes of the chunks that no other point needs."""
    snapshot = pool.index.snapshot()
    theirs = _used(pool, snapshot, [point for point in points if point.number in going])
    others = _used(pool, snapshot, [point for point in points if point.number not in going])
    return int(snapshot.places(np.flatnonzero(theirs & ~others)).stored.sum())


def _used(pool: Pool, snapshot: IndexSnapshot, points: list[RecoveryPoint]) -> np.ndarray:
    used = np.zeros(snapshot.row_count, dtype=np.bool_)
    reach = Reach(pool)
    for point in points:
        for ids in reach.of(point):
            used[snapshot.rows(ids)] = True
    return used


def _packs_size(work: Path) -> int:
    return sum(path.stat().st_size for path in (work / "pool" / "packs").rglob("*") if path.is_file())


def first_copy_threads(space: Workspace) -> None:
    """The same first copy of a database in memory with one thread that compresses and seals, and with two."""
    space.results.begin(THREADS)
    pages = Pages(space.bytes(1.5))
    for round_ in range(1, space.rounds + 1):
        for threads in (1, 2):
            work = space.fresh("threads")
            pool, _ = create_pool(LocalStorage(work / "pool", create=True), b"x", work / "cache")
            capture = pool.capture(SOURCE.id)
            begun, cpu = perf_counter(), process_time()
            file = first_file(pages, store_whole(pages, capture, threads=threads), capture)
            capture.commit(RecoveryPoint(0, SOURCE.id, PointKind.EXPRESS_FULL, 1, Position(1, 1), files=(file,)))
            cost = Cost(f"store_whole(…, threads={threads})", perf_counter() - begun, process_time() - cpu, 0, {})
            space.results.add(THREADS, f"{threads} threads", round_, cost, size=pages.size)
            shutil.rmtree(work)
