"""Steps of a pool's life, to make histories of: each with the labels that it adds and removes."""

from __future__ import annotations

import contextlib
import random
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from perdure.model.entries import Entry, EntryKind, Piece
from perdure.model.errors import NotFound
from perdure.model.extents import ExtentMap, build
from perdure.model.listings import put_index, put_listing, put_pieces, store_root
from perdure.model.logs import MARK, LogSegment
from perdure.model.points import DataSource, Hold, ImageFile, PointKind, RecoveryPoint
from perdure.model.positions import Position
from perdure.model.retention import RetentionPolicy
from perdure.repository.capture import PoolCapture
from perdure.repository.gc import collect_garbage
from perdure.repository.pool import Pool
from perdure.testing.history import POOL, Disagreement, Step, World
from perdure.testing.pool_readers import fingerprint, marks_text

__all__ = [
    "MAIL",
    "PAGE",
    "SHARE",
    "collecting",
    "condemning",
    "creating",
    "folder",
    "holding",
    "image",
    "joining",
    "log",
    "page",
    "policy",
    "registering",
    "releasing",
    "removing",
    "segment",
]

PAGE = 4096
"""Bytes in a page of an image."""

MAIL, SHARE = "mail", "share"
"""Names of a source with images and log, and of one with folders."""


def page(version: int, number: int) -> bytes:
    """A page that no other one is like."""
    return random.Random(1000 * version + number).randbytes(PAGE)  # noqa: S311 - repeatable, not secret


def segment(after: Position, last: Position, text: bytes) -> LogSegment:
    """A log segment with two recoverable places and two blocks."""
    marks = np.array([(last.place - 1, 7_000), (last.place, 7_000 + last.place)], dtype=MARK)
    return LogSegment(after, last, marks, _chain(last), b"pages of " + text, [text, text * 3])


# --- making and filling ------------------------------------------------------------------------------


def creating() -> Step:
    """The pool is made."""
    return Step("create the pool", World.create, {POOL: ""})


def registering(name: str) -> Step:
    """A source is registered."""

    def run(world: World) -> None:
        world.pool.register(DataSource(secrets.token_hex(16), name, "simulated", f"/{name}", {}, time.time_ns()))

    return Step(f"register {name}", run, {f"source {name}": fingerprint(f"/{name}")})


def image(
    cause: str, position: Position, pages: Mapping[int, bytes], *, before: Mapping[int, bytes] | None = None
) -> Step:
    """An image of these pages, as a delta over the newest one when ``before`` says what that holds."""
    size = (max(pages) + 1) * PAGE
    changed = pages if before is None else {n: text for n, text in pages.items() if before.get(n) != text}

    def run(world: World) -> None:
        source = _source(world.pool, MAIL).id
        images = [point for point in world.pool.points(source) if point.position is not None]
        newest = images[-1].files[0] if images and before is not None else None
        with _capturing(world.pool, source) as capture:
            stored = capture.put_map(_map(capture, size, changed if newest is not None else pages))
            base, deltas = (stored, ()) if newest is None else (newest.base, (*newest.deltas, stored))
            capture.commit(
                RecoveryPoint(
                    number=0,
                    source=source,
                    kind=PointKind.EXPRESS_FULL,
                    time_ns=time.time_ns(),
                    position=position,
                    chain=_chain(position),
                    files=(ImageFile("pages", size, PAGE, base, deltas),),
                    size=size,
                    cause=cause,
                )
            )

    content = b"".join(pages.get(number, bytes(PAGE)) for number in range(max(pages) + 1))
    return Step(cause, run, {f"point {MAIL}/{cause}": fingerprint(position, _chain(position), content)})


def folder(cause: str, files: Mapping[bytes, bytes]) -> Step:
    """A tree of these files, at most two levels; its root's listing has an index of two parts."""

    def run(world: World) -> None:
        source = _source(world.pool, SHARE).id
        with _capturing(world.pool, source) as capture:
            deep = [_file(capture, name[5:], text) for name, text in sorted(files.items()) if name.startswith(b"deep/")]
            top = [_file(capture, name, text) for name, text in files.items() if not name.startswith(b"deep/")]
            top.append(Entry(b"deep", EntryKind.DIRECTORY, mode=0o700, listing=put_listing(deep, capture)))
            top.append(Entry(b"zlink", EntryKind.SYMLINK, target=b"a"))
            top.sort(key=lambda entry: entry.name)
            listing = put_index([put_listing(top[:2], capture), put_listing(top[2:], capture)], capture)
            tree = store_root(Entry(b"", EntryKind.DIRECTORY, mode=0o755, listing=listing), capture)
            capture.commit(RecoveryPoint(0, source, PointKind.FILE, time.time_ns(), tree=tree, cause=cause))

    content = fingerprint(*sorted((*files.items(), (b"zlink", b"a"))))
    return Step(cause, run, {f"point {SHARE}/{cause}": content})


def log(shipped: LogSegment) -> Step:
    """A segment of log is appended."""

    def run(world: World) -> None:
        world.pool.append(_source(world.pool, MAIL).id, shipped)

    label = _log_label(shipped)
    return Step(label, run, {label: _log_mark(shipped)})


# --- keeping and removing ----------------------------------------------------------------------------


def joining(narrow: Sequence[LogSegment]) -> Step:
    """Neighbouring segments are replaced by a wide one."""
    wide = LogSegment(
        narrow[0].after,
        narrow[-1].last,
        np.concatenate([each.marks for each in narrow]),
        narrow[-1].chain,
        b"".join(each.index for each in narrow),
        [block for each in narrow for block in each.blocks],
    )
    labels = frozenset(map(_log_label, narrow))

    def run(world: World) -> None:
        pool, source = world.pool, _source(world.pool, MAIL).id
        kept = pool.put_joined(source, wide)
        below = [
            span
            for span in pool.spans(source)
            if span.generation == kept.generation
            and kept.after_place <= span.after_place
            and span.last_place <= kept.last_place
            and span.name != kept.name
        ]
        pool.delete_log(source, below)

    return Step(f"join {_log_label(wide)}", run, {_log_label(wide): _log_mark(wide)}, labels)


def policy(wanted: RetentionPolicy) -> Step:
    """The retention policy of the source with images is changed."""

    def run(world: World) -> None:
        world.pool.set_policy(_source(world.pool, MAIL).id, wanted)

    return Step("change the policy", run, {f"policy {MAIL}": repr(wanted)})


def holding(cause: str) -> Step:
    """An image is held."""

    def run(world: World) -> None:
        source = _source(world.pool, MAIL).id
        world.pool.hold(Hold(source, _number(world.pool, source, cause), cause, time.time_ns()))

    return Step(f"hold {cause}", run, {f"hold {cause}": ""})


def releasing(cause: str) -> Step:
    """A held image is released."""

    def run(world: World) -> None:
        source = _source(world.pool, MAIL).id
        world.pool.release(source, _number(world.pool, source, cause))

    return Step(f"release {cause}", run, removes=frozenset({f"hold {cause}"}))


def removing(name: str, cause: str) -> Step:
    """A recovery point is deleted, with others of the same cause that a retry made."""

    def run(world: World) -> None:
        source = _source(world.pool, name).id
        _number(world.pool, source, cause)
        numbers = [point.number for point in world.pool.points(source) if point.cause == cause]
        world.pool.delete_points(source, numbers)

    return Step(f"remove {cause}", run, removes=frozenset({f"point {name}/{cause}"}))


def condemning() -> Step:
    """Garbage is condemned, and waits."""

    def run(world: World) -> None:
        collect_garbage(world.pool, grace_s=1e9)

    return Step("condemn garbage", run)


def collecting() -> Step:
    """Garbage is condemned and deleted; nothing stands in the way."""

    def run(world: World) -> None:
        done = collect_garbage(world.pool, grace_s=0)
        if done.waiting:
            raise Disagreement(f"garbage is not collected: {done.waiting}")

    return Step("collect garbage", run)


# --- inside ------------------------------------------------------------------------------------------


def _source(pool: Pool, name: str) -> DataSource:
    for source in pool.sources():
        if source.name == name:
            return source
    raise NotFound(f"no source is called {name}", code="source-not-found")


def _number(pool: Pool, source: str, cause: str) -> int:
    for point in pool.points(source):
        if point.cause == cause:
            return point.number
    raise NotFound(f"no point is called {cause}", code="point-not-found")


@contextlib.contextmanager
def _capturing(pool: Pool, source: str) -> Iterator[PoolCapture]:
    capture = pool.capture(source)
    try:
        yield capture
    except BaseException:
        capture.abort()
        raise


def _map(capture: PoolCapture, size: int, pages: Mapping[int, bytes]) -> ExtentMap:
    """Pages in chunks of three, a page of zeros as a hole."""
    stored = sorted(number for number, text in pages.items() if any(text))
    pieces: list[tuple[int, int, bytes | None, int]] = [
        (number * PAGE, PAGE, None, 0) for number, text in pages.items() if not any(text)
    ]
    for at in range(0, len(stored), 3):
        group = stored[at : at + 3]
        chunk = capture.put(b"".join(pages[number] for number in group))
        pieces += [(number * PAGE, PAGE, chunk, row * PAGE) for row, number in enumerate(group)]
    return build(size, pieces)


def _file(capture: PoolCapture, name: bytes, text: bytes) -> Entry:
    parts = [text[at : at + 1000] for at in range(0, len(text), 1000)]
    pieces = [Piece(capture.put(part), 0, len(part)) for part in parts]
    if len(pieces) > 32:
        return Entry(name, EntryKind.FILE, size=len(text), content_map=put_pieces(pieces, capture))
    return Entry(name, EntryKind.FILE, size=len(text), content=tuple(pieces))


def _log_label(shipped: LogSegment) -> str:
    return f"log {MAIL}/{shipped.after} to {shipped.last}"


def _log_mark(shipped: LogSegment) -> str:
    return fingerprint(shipped.chain, shipped.index, marks_text(shipped.marks), *map(bytes, shipped.blocks))


def _chain(position: Position) -> bytes:
    return f"chain {position}".encode()
