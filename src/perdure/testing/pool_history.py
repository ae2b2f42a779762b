"""The history that the proofs interrupt: what happens to a pool in its life, in small.

To prove a new feature: add steps here, and a reader for what it makes visible.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from blake3 import blake3

from perdure.model.entries import Entry, EntryKind, Piece
from perdure.model.errors import NotFound
from perdure.model.extents import HOLE, ExtentMap, build
from perdure.model.listings import (
    content_pieces,
    load_root,
    put_index,
    put_listing,
    put_pieces,
    read_listing,
    store_root,
)
from perdure.model.logs import MARK, LogSegment
from perdure.model.points import DataSource, ImageFile, PointKind, RecoveryPoint
from perdure.model.positions import Position
from perdure.repository import records
from perdure.repository.capture import PoolCapture
from perdure.repository.pool import Pool
from perdure.testing.history import POOL, History, Step, World

__all__ = ["PAGE", "image_content", "log_marks", "pool_history", "read_logs", "read_points", "read_sources"]

PAGE = 4096

MAIL, SHARE = "mail", "share"


def pool_history() -> History:
    """Creation, an image with deltas and log across generations, a folder, and the removal of a record."""
    first = _pages(1, 12)
    second = {**first, 3: _page(2, 3), 7: bytes(PAGE), 12: _page(2, 12)}
    third = {page: text for page, text in second.items() if page < 10} | {1: _page(3, 1)}
    logs = [
        _segment(Position(1, 10), Position(1, 14), b"one"),
        _segment(Position(1, 14), Position(1, 20), b"two" * 2000),
        _segment(Position(1, 20), Position(2, 6), b"three"),
        _segment(Position(2, 6), Position(2, 9), b"four"),
    ]
    tree = {b"a": b"alpha", b"deep/b": _page(4, 0) * 2, b"deep/c": b""}
    later = {**tree, b"a": b"alpha grew", b"long": b"".join(_page(5, n)[:999] for n in range(40))}
    steps = (
        Step("create the pool", World.create, {POOL: ""}),
        _register(MAIL, "paged"),
        _register(SHARE, "files"),
        _image("first image", Position(1, 10), first),
        _log(logs[0]),
        _log(logs[1]),
        _image("second image", Position(1, 20), second, before=first),
        _folder("folder", tree),
        _log(logs[2]),
        _remove_point(MAIL, "first image"),
        _folder("folder later", later),
        _log(logs[3]),
        _image("third image", Position(2, 9), third, before=second),
    )
    return History(steps, (read_sources, read_points, read_logs))


# --- steps ---------------------------------------------------------------------------------------


def _source(pool: Pool, name: str) -> DataSource:
    for source in pool.sources():
        if source.name == name:
            return source
    raise NotFound(f"no source is called {name}", code="source-not-found")


def _register(name: str, workload: str) -> Step:
    def run(world: World) -> None:
        world.pool.register(DataSource(secrets.token_hex(16), name, workload, f"/{name}", {}, time.time_ns()))

    return Step(f"register {name}", run, {f"source {name}": _mark(f"/{name}")})


def _image(cause: str, position: Position, pages: dict[int, bytes], *, before: dict[int, bytes] | None = None) -> Step:
    """An image of these pages; over the newest one, as a delta, when ``before`` says what that holds."""
    size = (max(pages) + 1) * PAGE
    changed = pages if before is None else {n: text for n, text in pages.items() if before.get(n) != text}

    def run(world: World) -> None:
        source = _source(world.pool, MAIL).id
        newest = [point for point in world.pool.points(source) if point.position is not None] if before else []
        capture = world.pool.capture(source)
        stored = capture.put_map(_map(capture, size, changed if newest else pages))
        files = newest[-1].files if newest else ()
        base, deltas = (files[0].base, (*files[0].deltas, stored)) if files else (stored, ())
        file = ImageFile("pages", size, PAGE, base, deltas)
        capture.commit(
            RecoveryPoint(
                0,
                source,
                PointKind.EXPRESS_FULL,
                time.time_ns(),
                position,
                _chain(position),
                (file,),
                size=size,
                cause=cause,
            )
        )

    return Step(cause, run, {f"point {MAIL}/{cause}": _mark(position, _chain(position), image_content(pages))})


def _map(capture: PoolCapture, size: int, pages: Mapping[int, bytes]) -> ExtentMap:
    """Pages in chunks of three, a page of zeros as a hole."""
    stored = sorted(page for page, text in pages.items() if any(text))
    pieces: list[tuple[int, int, bytes | None, int]] = [
        (page * PAGE, PAGE, None, 0) for page, text in pages.items() if not any(text)
    ]
    for at in range(0, len(stored), 3):
        group = stored[at : at + 3]
        chunk = capture.put(b"".join(pages[page] for page in group))
        pieces += [(page * PAGE, PAGE, chunk, row * PAGE) for row, page in enumerate(group)]
    return build(size, pieces)


def _folder(cause: str, files: Mapping[bytes, bytes]) -> Step:
    """A tree of at most two levels; its root's listing has an index of two parts."""

    def run(world: World) -> None:
        source = _source(world.pool, SHARE).id
        capture = world.pool.capture(source)
        deep = [_file(capture, name[5:], text) for name, text in sorted(files.items()) if name.startswith(b"deep/")]
        top = [_file(capture, name, text) for name, text in files.items() if not name.startswith(b"deep/")]
        top.append(Entry(b"deep", EntryKind.DIRECTORY, mode=0o700, listing=put_listing(deep, capture)))
        top.append(Entry(b"zlink", EntryKind.SYMLINK, target=b"a"))
        top.sort(key=lambda entry: entry.name)
        listing = put_index([put_listing(top[:2], capture), put_listing(top[2:], capture)], capture)
        tree = store_root(Entry(b"", EntryKind.DIRECTORY, mode=0o755, listing=listing), capture)
        capture.commit(RecoveryPoint(0, source, PointKind.FILE, time.time_ns(), tree=tree, cause=cause))

    content = _mark(*sorted((*files.items(), (b"zlink", b"a"))))
    return Step(cause, run, {f"point {SHARE}/{cause}": content})


def _file(capture: PoolCapture, name: bytes, text: bytes) -> Entry:
    pieces = [
        Piece(capture.put(text[at : at + 1000]), 0, len(text[at : at + 1000])) for at in range(0, len(text), 1000)
    ]
    if len(pieces) > 32:
        return Entry(name, EntryKind.FILE, size=len(text), content_map=put_pieces(pieces, capture))
    return Entry(name, EntryKind.FILE, size=len(text), content=tuple(pieces))


def _log(segment: LogSegment) -> Step:
    def run(world: World) -> None:
        world.pool.append(_source(world.pool, MAIL).id, segment)

    label = f"log {MAIL}/{segment.after} to {segment.last}"
    mark = _mark(segment.chain, segment.index, log_marks(segment.marks), *map(bytes, segment.blocks))
    return Step(label, run, {label: mark})


def _remove_point(source: str, cause: str) -> Step:
    def run(world: World) -> None:
        found = _source(world.pool, source).id
        points = [point for point in world.pool.points(found) if point.cause == cause]
        if not points:
            raise NotFound(f"no point is called {cause}", code="point-not-found")
        world.pool.storage.delete(*(records.point_name(found, point.number) for point in points))

    return Step(f"remove {cause}", run, removes=frozenset({f"point {source}/{cause}"}))


# --- readers -------------------------------------------------------------------------------------


def read_sources(pool: Pool) -> dict[str, str]:
    """Every registered source."""
    return {f"source {source.name}": _mark(source.location) for source in pool.sources()}


def read_points(pool: Pool) -> dict[str, str]:
    """Every record, with everything of its image or tree. Two of one cause must agree, so the later may win."""
    found: dict[str, str] = {}
    for source in pool.sources():
        for point in pool.points(source.id):
            label = f"point {source.name}/{point.cause}"
            mark = (
                _mark(*sorted(_tree_content(pool, point)))
                if point.tree is not None
                else _mark(point.position, point.chain, *(_file_content(pool, file) for file in point.files))
            )
            assert found.setdefault(label, mark) == mark, f"two contents of {label}"
    return found


def read_logs(pool: Pool) -> dict[str, str]:
    """Every log segment, with its payload."""
    found = {}
    for source in pool.sources():
        for span in pool.spans(source.id):
            segment = pool.segment(source.id, span)
            found[f"log {source.name}/{segment.after} to {segment.last}"] = _mark(
                segment.chain, segment.index, log_marks(segment.marks), *pool.blocks(source.id, span)
            )
    return found


def _file_content(pool: Pool, file: ImageFile) -> bytes:
    extents = pool.image_map(file)
    chunks = extents.ids()
    texts = dict(pool.read_chunks(chunks))
    content = bytearray(extents.size)
    for offset, length, chunk, start in extents.extents.tolist():
        if chunk != HOLE:
            content[offset : offset + length] = texts[chunk][start : start + length]
    return bytes(content)


def _tree_content(pool: Pool, point: RecoveryPoint) -> Iterator[tuple[bytes, bytes]]:
    assert point.tree is not None
    waiting = [(b"", load_root(point.tree, pool))]
    while waiting:
        above, directory = waiting.pop()
        for entry in read_listing(directory, pool):
            if entry.kind is EntryKind.DIRECTORY:
                waiting.append((above + entry.name + b"/", entry))
            else:
                pieces = content_pieces(entry, pool) if entry.kind is EntryKind.FILE else ()
                parts = (pool.read_chunk(piece.chunk)[piece.start :][: piece.length] for piece in pieces)
                yield above + entry.name, b"".join(parts) or entry.target


# --- content -------------------------------------------------------------------------------------


def image_content(pages: Mapping[int, bytes]) -> bytes:
    """The file that these pages make."""
    return b"".join(pages.get(page, bytes(PAGE)) for page in range(max(pages) + 1))


def log_marks(marks: Sequence[object] | np.ndarray[tuple[int, ...], np.dtype[np.void]]) -> bytes:
    """The recoverable places of a segment as bytes, to compare."""
    return repr(list(map(tuple, np.asarray(marks).tolist()))).encode()


def _page(version: int, number: int) -> bytes:
    return random.Random(1000 * version + number).randbytes(PAGE)  # noqa: S311 - repeatable, not secret


def _pages(version: int, count: int) -> dict[int, bytes]:
    return {number: _page(version, number) for number in range(count)}


def _segment(after: Position, last: Position, text: bytes) -> LogSegment:
    marks = np.array([(last.place - 1, 7_000), (last.place, 7_000 + last.place)], dtype=MARK)
    return LogSegment(after, last, marks, _chain(last), b"pages of " + text, [text, text * 3])


def _chain(position: Position) -> bytes:
    return f"chain {position}".encode()


def _mark(*parts: object) -> str:
    """A fingerprint of content."""
    texts = [part if isinstance(part, bytes) else repr(part).encode() for part in parts]
    return blake3(b"".join(len(text).to_bytes(8, "little") + text for text in texts)).hexdigest()[:16]
