"""Two pools and small histories in them, for tests of copying; and whether one holds the same as the other."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3

from perdure.model.entries import Entry, EntryKind, Piece
from perdure.model.extents import build
from perdure.model.listings import INLINE_PIECES, content_pieces, put_listing, put_pieces, read_listing, store_root
from perdure.model.listings import load_root as root_of
from perdure.model.logs import MARK, LogSegment, LogSpan
from perdure.model.points import DataSource, ImageFile, PointKind, RecoveryPoint
from perdure.model.positions import Position
from perdure.repository.copying import CopyOptions, CopyReport, Wanted, copy_pool
from perdure.repository.keys import Passphrase
from perdure.repository.opening import create_pool, open_pool
from perdure.repository.pool import Pool
from perdure.storage.contract import Storage
from perdure.storage.local import LocalStorage
from perdure.testing.small_images import image_content

__all__ = [
    "FOLDER",
    "append_log",
    "copy_all",
    "differences",
    "log_content",
    "new_pool",
    "opened",
    "put_delta",
    "put_tree",
    "tree_content",
]

FOLDER = DataSource(id="6" * 32, name="share", workload="files", location="/srv/share")

_PASSPHRASE = b"correct horse"

Tree = Mapping[str, "Mapping[str, Any] | Sequence[bytes]"]
"""A folder: below each name another folder, or a file's content as the chunks that it is put in."""


def new_pool(path: Path) -> Pool:
    """A new pool in a directory, with its cache beside it."""
    return create_pool(LocalStorage(path, create=True), _PASSPHRASE, path.with_name(f"{path.name}-cache"))[0]


def opened(pool: Pool, cache: Path, storage: Storage | None = None) -> Pool:
    """The same pool as another process sees it."""
    return open_pool(storage or LocalStorage(Path(pool.storage.url)), Passphrase(_PASSPHRASE), cache)


def copy_all(origin: Pool, target: Pool, *numbers: int, verify: bool = True) -> CopyReport:
    """Copy every source, or only these points of the first one."""
    only = frozenset(numbers) or None
    sources = origin.sources()[:1] if only else origin.sources()
    return copy_pool(origin, target, [Wanted(source, only) for source in sources], CopyOptions(verify=verify))


def put_delta(pool: Pool, before: RecoveryPoint, changes: Mapping[int, bytes], position: Position) -> RecoveryPoint:
    """Commit a point that lays changed blocks over another one: content by offset."""
    capture = pool.capture(before.source)
    pieces = [(at, len(block), capture.put(block), 0) for at, block in sorted(changes.items())]
    file = before.files[0]
    size = max(file.size, *(at + n for at, n, _, _ in pieces))
    delta = capture.put_map(build(size, pieces))
    file = replace(file, size=size, deltas=(*file.deltas, delta))
    draft = RecoveryPoint(0, before.source, PointKind.EXPRESS_FULL, time.time_ns(), position, b"c", (file,))
    return capture.commit(draft)


def put_tree(pool: Pool, tree: Tree, *, depth: int = 0) -> RecoveryPoint:
    """Commit a point of a folder; with a depth it lies below so many folders that hold nothing else."""
    capture = pool.capture(FOLDER.id)

    def directory(name: bytes, below: Tree) -> Entry:
        entries = []
        for each, content in sorted(below.items()):
            if isinstance(content, Mapping):
                entries.append(directory(each.encode(), content))
                continue
            pieces = [Piece(capture.put(chunk) if chunk.strip(b"\0") else b"", 0, len(chunk)) for chunk in content]
            file = Entry(
                each.encode(),
                EntryKind.FILE,
                size=sum(map(len, content)),
                xattrs={b"user.x": blake3(each.encode()).digest()},
            )
            if len(pieces) > INLINE_PIECES:
                entries.append(replace(file, content_map=put_pieces(pieces, capture)))
            else:
                entries.append(replace(file, content=tuple(pieces)))
        return Entry(name, EntryKind.DIRECTORY, listing=put_listing(entries, capture))

    root = directory(b"d", tree)
    for _ in range(depth):
        root = Entry(b"d", EntryKind.DIRECTORY, listing=put_listing([root], capture))
    ref = store_root(replace(root, name=b""), capture)
    return capture.commit(RecoveryPoint(0, FOLDER.id, PointKind.FILE, time.time_ns(), tree=ref))


def append_log(pool: Pool, source: str, after: Position, last: Position, payload: bytes = b"") -> LogSpan:
    """Append a segment with a mark at every place."""
    places = range(after.place + 1 if after.generation == last.generation else 1, last.place + 1)
    marks = np.array([(place, time.time_ns()) for place in places], dtype=MARK)
    payload = payload or os.urandom(3000)
    return pool.append(
        source, LogSegment(after, last, marks, os.urandom(8), b"index", [payload[:1000], payload[1000:]])
    )


def log_content(pool: Pool, source: str) -> dict[tuple[int, int, int], tuple[object, ...]]:
    """Everything of the log of a source, by generation and places."""
    found: dict[tuple[int, int, int], tuple[object, ...]] = {}
    for span in pool.spans(source):
        segment = pool.segment(source, span)
        content = b"".join(pool.blocks(source, span))
        rest = (segment.marks.tobytes(), segment.chain, segment.index, segment.block_sizes, segment.durable_ns)
        found[span.generation, span.after_place, span.last_place] = (segment.after, segment.last, content, *rest)
    return found


def tree_content(pool: Pool, point: RecoveryPoint) -> dict[bytes, tuple[Entry, bytes]]:
    """Every entry of a tree by its path: without ids, and with its content."""
    found: dict[bytes, tuple[Entry, bytes]] = {}
    assert point.tree is not None
    waiting = [(b"", root_of(point.tree, pool))]
    while waiting:
        path, entry = waiting.pop()
        content = b""
        if entry.kind is EntryKind.FILE:
            pieces = content_pieces(entry, pool)
            chunks = [pool.read_chunk(piece.chunk) if piece.chunk else bytes(piece.length) for piece in pieces]
            content = b"".join(
                chunk[piece.start : piece.start + piece.length] for chunk, piece in zip(chunks, pieces, strict=True)
            )
        found[path] = (replace(entry, content=(), content_map=None, listing=None), content)
        waiting += [(path + b"/" + each.name, each) for each in read_listing(entry, pool)]
    return found


def differences(origin: Pool, target: Pool, source: str, numbers: Sequence[int] | None = None) -> list[str]:
    """What of the points and the log of a source is not the same in two pools; points that only the target has count
    for nothing.

    Args:
        origin: The pool that was copied from.
        target: The pool that was copied into.
        source: The source.
        numbers: Only these points, and no log; everything if ``None``.
    """
    there = {point.number: point for point in target.points(source)}
    found = []
    for point in origin.points(source):
        if numbers is not None and point.number not in numbers:
            continue
        other = there.get(point.number)
        if other is None:
            found.append(f"point {point.number} is missing")
        elif _without_ids(point) != _without_ids(other):
            found.append(f"the record of point {point.number} is another: {point} {other}")
        elif point.files and image_content(origin, point) != image_content(target, other):
            found.append(f"the content of point {point.number} is another")
        elif point.tree is not None and tree_content(origin, point) != tree_content(target, other):
            found.append(f"the tree of point {point.number} is another")
    if numbers is None:
        held = log_content(target, source)
        found += [f"log {span} differs" for span, log in log_content(origin, source).items() if held.get(span) != log]
    return found


def _without_ids(point: RecoveryPoint) -> RecoveryPoint:
    def blank(file: ImageFile) -> ImageFile:
        refs = (file.base, *file.deltas)
        base, *deltas = (replace(ref, chunks=(b"",) * len(ref.chunks)) for ref in refs)
        return replace(file, base=base, deltas=tuple(deltas))

    tree = None if point.tree is None else replace(point.tree, chunks=(b"",) * len(point.tree.chunks))
    return replace(point, files=tuple(map(blank, point.files)), tree=tree, stored=0)
