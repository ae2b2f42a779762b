"""What a process does to a pool in the model checker: activities, written as the product's verbs are."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from perdure.model.entries import Entry, EntryKind, Piece
from perdure.model.errors import PerdureError
from perdure.model.extents import build, overlay
from perdure.model.listings import (
    content_pieces,
    load_root,
    put_listing,
    put_pieces,
    read_listing,
    store_root,
)
from perdure.model.logs import MARK, LogSegment
from perdure.model.points import Hold, ImageFile, PointKind, RecoveryPoint, StreamRef
from perdure.model.positions import Position
from perdure.model.retention import RetentionPolicy
from perdure.protection.building import begin_capture, newest_image, newest_tree
from perdure.protection.pruning import plan_prune, prune_source
from perdure.repository.copying import CopyOptions, Wanted, copy_pool
from perdure.repository.gc import collect_garbage
from perdure.repository.pool import Pool
from perdure.repository.records import point_name
from perdure.testing.pool_model import BLOCK, SLOTS, Content, block

if TYPE_CHECKING:
    from perdure.testing.pool_world import Process

__all__ = [
    "append",
    "capture_image",
    "capture_tree",
    "collect",
    "copy",
    "delete",
    "hold",
    "prune",
    "read",
    "read_content",
    "release",
]

_IMAGE = "database"

_EXCUSES = ("capture-overtaken", "copy-diverged", "point-exists")
"""Why a copy may leave something out: time went by, or another copy was faster."""


def read_content(pool: Pool, point: RecoveryPoint) -> Content:
    """Everything that a point restores to, read back."""
    content: dict[str, bytes] = {}
    for file in point.files:
        extents = pool.image_map(file)
        chunks = dict(enumerate([b""] * len(extents.chunks)))
        chunks.update(pool.read_chunks(extents.ids()))
        for offset, length, chunk, start in extents.extents.tolist():
            content[str(offset // BLOCK)] = chunks[chunk][start : start + length]
    if point.tree is not None:
        for directory in read_listing(load_root(point.tree, pool), pool):
            for entry in read_listing(directory, pool):
                pieces = content_pieces(entry, pool)
                data = b"".join(pool.read_chunk(p.chunk)[p.start : p.start + p.length] for p in pieces)
                content[f"{directory.name.decode()}/{entry.name.decode()}"] = data
    return content


def capture_image(process: Process, source: str, changes: Mapping[int, int], *, delta: bool, broken: bool) -> None:
    """An express full: some slots get new blocks, the others are taken over from the point before."""
    pool = process.pool
    previous = newest_image(pool.points(source))
    before = process.content_of(previous)
    capture = begin_capture(pool, source, previous, newest_image)
    try:
        pieces = []
        for slot, number in sorted(changes.items()):
            process.pause("between two chunks")
            pieces.append((slot * BLOCK, BLOCK, capture.put(block(number)), 0))
        changed = build(SLOTS * BLOCK, pieces)
        deltas: tuple[StreamRef, ...] = ()
        if previous is not None and delta:
            base, deltas = previous.files[0].base, (*previous.files[0].deltas, capture.put_map(changed))
        elif previous is not None:
            base = capture.put_map(overlay(pool.image_map(previous.files[0]), changed))
        else:
            base = capture.put_map(changed)
        end = pool.log_end(source)
        position = end.position if end is not None else Position(1, 1)
        if broken:
            position = Position(position.generation + 2, 1)
        process.intend({**before, **{str(slot): block(number) for slot, number in changes.items()}})
        file = ImageFile(_IMAGE, SLOTS * BLOCK, BLOCK, base, deltas)
        capture.commit(
            RecoveryPoint(
                0, source, PointKind.EXPRESS_FULL, process.world.wall_ns(), position, b"c", (file,), cause="test"
            )
        )
    except BaseException:
        capture.abort()
        raise


def capture_tree(process: Process, source: str, changes: Mapping[tuple[int, int], int]) -> None:
    """A file recovery point: directories without a change are taken over by their listings."""
    pool = process.pool
    previous = newest_tree(pool.points(source))
    before = process.content_of(previous)
    root = load_root(previous.tree, pool) if previous is not None and previous.tree is not None else None
    capture = begin_capture(pool, source, previous, newest_tree)
    try:
        known = {entry.name: entry for entry in (read_listing(root, pool) if root is not None else ())}
        after = dict(before)
        for directory in sorted({directory for directory, _ in changes}):
            name = b"d%d" % directory
            files = {e.name: e for e in (read_listing(known[name], pool) if name in known else ())}
            for row, number in sorted((row, number) for (at, row), number in changes.items() if at == directory):
                process.pause("between two files")
                piece = Piece(capture.put(block(number)), 0, BLOCK)
                mapped = put_pieces([piece], capture) if row == 0 else None
                content = () if mapped is not None else (piece,)
                file = Entry(b"f%d" % row, EntryKind.FILE, size=BLOCK, content=content, content_map=mapped)
                files[file.name] = file
                after[f"d{directory}/f{row}"] = block(number)
            listing = put_listing([files[each] for each in sorted(files)], capture)
            known[name] = Entry(name, EntryKind.DIRECTORY, listing=listing)
        top = put_listing([known[each] for each in sorted(known)], capture)
        tree = store_root(Entry(b"", EntryKind.DIRECTORY, listing=top), capture)
        process.intend(after)
        capture.commit(RecoveryPoint(0, source, PointKind.FILE, process.world.wall_ns(), tree=tree, cause="test"))
    except BaseException:
        capture.abort()
        raise


def append(process: Process, source: str, length: int) -> None:
    """A synchronization: one log segment."""
    pool = process.pool
    end = pool.log_end(source)
    if end is None:
        return
    after = end.position
    last = Position(after.generation, after.place + length)
    marks = np.array([(last.place, process.world.wall_ns())], dtype=MARK)
    payload = block(length) + str(last).encode()
    process.intend({"log": payload})
    pool.append(source, LogSegment(after, last, marks, b"c", b"", [payload]))


def delete(process: Process, source: str, numbers: Sequence[int]) -> None:
    """Delete single points."""
    with process.dooming([point_name(source, number) for number in numbers]):
        process.pool.delete_points(source, numbers)


def prune(process: Process, source: str, policy: RetentionPolicy) -> None:
    """Set a policy and apply it."""
    pool, world = process.pool, process.world
    with world.changing_policy(source, policy):
        pool.set_policy(source, policy)
    registered = next(each for each in pool.sources() if each.id == source)
    plan = plan_prune(world.home, pool, registered, now_ns=world.wall_ns())
    points = [point_name(source, verdict.point.number) for verdict in plan.retention.dropped]
    with process.dooming([*points, *(span.name for span in plan.log)]):
        prune_source(pool, plan)


def hold(process: Process, source: str, number: int) -> None:
    """Hold a point; when this returns it must never go."""
    with process.world.promising((source, number)):
        process.pool.hold(Hold(source, number, "audit"))


def release(process: Process, source: str, number: int) -> None:
    """Release a hold."""
    with process.world.releasing((source, number)):
        process.pool.release(source, number)


def collect(process: Process, grace_s: float) -> None:
    """Collect garbage."""
    collect_garbage(process.pool, grace_s=grace_s)


def read(process: Process, source: str, which: int) -> None:
    """Recover a point by a process that may have looked at the pool long ago."""
    points = process.pool.points(source)
    if not points:
        return
    point = points[which % len(points)]
    name = point_name(source, point.number)
    expected = process.world.points.get(name)
    try:
        content = read_content(process.pool, point)
    except PerdureError:
        if name in process.world.points:
            raise
        return
    assert content == expected or name not in process.world.points, f"{name} reads back wrong"


def copy(process: Process, target: Callable[[], Pool]) -> None:
    """Copy everything into the second pool."""
    with contextlib.closing(target()) as pool:
        wanted = [Wanted(source) for source in process.pool.sources()]
        report = copy_pool(process.pool, pool, wanted, CopyOptions(threads=1))
        failures = [failure for each in report.sources for failure in each.failures]
        assert all(failure.code in _EXCUSES for failure in failures), failures
