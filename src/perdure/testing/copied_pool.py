"""A second pool with the same recovery points, structure by structure, for tests of healing."""

from __future__ import annotations

from dataclasses import replace

from perdure.model.entries import Entry, EntryKind
from perdure.model.extents import ExtentMap, chunk_table
from perdure.model.listings import load_root, put_listing, read_listing, store_root
from perdure.model.logs import LogSegment
from perdure.model.points import ImageFile, StreamRef
from perdure.repository.capture import PoolCapture
from perdure.repository.maps import decode_map
from perdure.repository.pool import Pool

__all__ = ["copy_pool"]


def copy_pool(pool: Pool, other: Pool) -> None:
    """Copy every source, point and log segment into an empty pool; ids and numbers stay, chunk ids do not."""
    for source in pool.sources():
        other.register(source)
        for point in pool.points(source.id):
            capture = other.capture(source.id)
            files = tuple(_image(pool, capture, file) for file in point.files)
            tree = _tree(pool, capture, point.tree) if point.tree is not None else None
            copied = capture.commit(replace(point, files=files, tree=tree))
            if copied.number != point.number:
                raise AssertionError(f"{copied.number} is not {point.number}")
        for span in pool.spans(source.id):
            stored = pool.segment(source.id, span)
            blocks = list(pool.blocks(source.id, span))
            other.put_joined(
                source.id, LogSegment(stored.after, stored.last, stored.marks, stored.chain, stored.index, blocks)
            )


def _image(pool: Pool, capture: PoolCapture, file: ImageFile) -> ImageFile:
    base, *deltas = (_map(pool, capture, ref) for ref in (file.base, *file.deltas))
    return replace(file, base=base, deltas=tuple(deltas))


def _map(pool: Pool, capture: PoolCapture, ref: StreamRef) -> StreamRef:
    extents = decode_map(pool.read_stream(ref))
    chunks = chunk_table(capture.put(pool.read_chunk(chunk)) for chunk in extents.ids())
    return capture.put_map(ExtentMap(extents.size, extents.extents, chunks))


def _tree(pool: Pool, capture: PoolCapture, tree: StreamRef) -> StreamRef:
    return store_root(_entry(pool, capture, load_root(tree, pool)), capture)


def _entry(pool: Pool, capture: PoolCapture, entry: Entry) -> Entry:
    if entry.kind is EntryKind.DIRECTORY and entry.listing is not None:
        below = [_entry(pool, capture, each) for each in read_listing(entry, pool)]
        return replace(entry, listing=put_listing(below, capture))
    pieces = tuple(replace(piece, chunk=capture.put(pool.read_chunk(piece.chunk))) for piece in entry.content)
    return replace(entry, content=pieces)
