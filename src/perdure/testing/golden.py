"""Golden pools: small complete pools, kept in the source tree, that every later version must read.

``python -m perdure.testing.golden DIRECTORY`` makes them anew, with what they must give back in ``expected.json``. They
are only made anew when the format grows; those of older formats stay as they are.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from perdure import __version__
from perdure.model.entries import Entry
from perdure.model.extents import HOLE, build
from perdure.model.listings import load_root, read_listing, store_root
from perdure.model.logs import MARK, LogSegment
from perdure.model.points import DataSource, ImageFile, PointKind, RecoveryPoint
from perdure.model.positions import Position
from perdure.repository.container import FORMAT_VERSION
from perdure.repository.opening import create_pool
from perdure.repository.pool import Pool
from perdure.storage.local import LocalStorage
from perdure.workloads.files import FilesWorkload, restore_tree

__all__ = ["PASSPHRASE", "contents", "image_content", "make_golden_pools"]

PASSPHRASE = b"golden pools have no secrets"

_PAGE = 512
_TIME = 1_767_225_600 * 10**9
_LATER = 1 << 62
_LONG = b"many"
"""The directory whose listing has parts."""


def make_golden_pools(directory: Path) -> None:
    """Make all golden pools below a directory that does not exist, and ``expected.json`` beside them."""
    directory.mkdir(parents=True)
    expected: dict[str, Any] = {"format": FORMAT_VERSION, "perdure": __version__, "pools": {}}
    with tempfile.TemporaryDirectory() as scratch:
        for name, fill in {"images": _fill_images, "folder": _fill_folder}.items():
            work = Path(scratch) / name
            work.mkdir()
            storage = LocalStorage(directory / name, create=True)
            pool, expected_recovery = create_pool(storage, PASSPHRASE, work / "cache")
            fill(pool, work)
            found = contents(pool, work / "restored")
            expected["pools"][name] = {"recovery_key": expected_recovery, **found}
            shutil.rmtree(directory / name / "tmp")
    text = json.dumps(expected, indent=1, sort_keys=True)
    (directory / "expected.json").write_text(text + "\n", encoding="utf-8")


def contents(pool: Pool, scratch: Path) -> dict[str, dict[str, str]]:
    """Everything that a pool gives back: SHA-256 of every point restored, of every log segment, of every source.

    Args:
        pool: The pool.
        scratch: A directory that does not exist; folder trees are restored below it.
    """
    scratch.mkdir()
    found: dict[str, dict[str, str]] = {"sources": {}, "points": {}, "logs": {}}
    for source in pool.sources():
        found["sources"][source.name] = _sha(source.workload, source.location, sorted(source.options.items()))
        for point in pool.points(source.id):
            label = f"{source.name} #{point.number} {point.kind} {point.cause}"
            if point.tree is not None:
                root, target = load_root(point.tree, pool), scratch / f"{source.id}-{point.number}"
                entries = list(read_listing(root, pool))
                # The long listing is read, but thousands of empty files need not be made.
                items = [os.fsdecode(entry.name) for entry in entries if entry.name != _LONG]
                report = restore_tree(root, pool, target, items=items)
                assert report.whole, report
                listed = [(long.name, long.mode, long.mtime_ns, long.size) for long in _long_listing(entries, pool)]
                found["points"][label] = _sha(listed, *_tree_lines(target))
            else:
                texts = [(file.name, image_content(pool, file)) for file in point.files]
                found["points"][label] = _sha(point.position, point.chain, *texts)
        for span in pool.spans(source.id):
            segment = pool.segment(source.id, span)
            label = f"{source.name} {segment.after} to {segment.last}"
            blocks = list(pool.blocks(source.id, span))
            found["logs"][label] = _sha(segment.chain, segment.index, segment.marks.tolist(), *blocks)
    return found


def _sha(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def image_content(pool: Pool, file: ImageFile) -> bytes:
    """One file of an image, whole."""
    extents = pool.image_map(file)
    texts = dict(pool.read_chunks(extents.ids()))
    content = bytearray(extents.size)
    for offset, length, chunk, start in extents.extents.tolist():
        if chunk != HOLE:
            content[offset : offset + length] = texts[chunk][start : start + length]
    return bytes(content)


def _long_listing(entries: list[Entry], pool: Pool) -> Iterator[Entry]:
    for entry in entries:
        if entry.name == _LONG:
            yield from read_listing(entry, pool)


def _tree_lines(root: Path) -> list[tuple[object, ...]]:
    """One line for every name: path, kind, mode, time, content, and which names are one file."""
    first: dict[int, str] = {}
    lines: list[tuple[object, ...]] = []
    for path in sorted(root.rglob("*")):
        found, name = path.lstat(), str(path.relative_to(root))
        mode = stat.S_IMODE(found.st_mode)
        if path.is_symlink():
            lines.append((name, "link", str(path.readlink())))
        elif path.is_dir():
            lines.append((name, "directory", mode, found.st_mtime_ns))
        else:
            same = first.setdefault(found.st_ino, name)
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            lines.append((name, "file", mode, found.st_mtime_ns, found.st_size, content, same))
    return lines


# --- images and log ------------------------------------------------------------------------------


def _fill_images(pool: Pool, _work: Path) -> None:
    """A paged source: a base, deltas that grow, shrink and zero pages, and log across two generations."""
    source = DataSource("1" * 32, "mail", "paged", "/srv/mail.pages", {"note": ["golden", "pool"]}, _TIME)
    pool.register(source)
    pages: dict[int, bytes] = {number: _page(1, number) for number in range(40)}
    base = _commit_image(pool, source, Position(1, 100), pages, changed=pages, before=None)
    pool.append(source.id, _segment(Position(1, 100), Position(1, 140), [140], b"grow"))
    pool.append(source.id, _segment(Position(1, 140), Position(1, 300), [150, 220, 300], b"much" * 5000))
    changed = {3: _page(2, 3), 8: bytes(_PAGE), 40: _page(2, 40)}
    pages |= changed
    second = _commit_image(pool, source, Position(1, 300), pages, changed=changed, before=base)
    pool.append(source.id, _segment(Position(1, 300), Position(2, 7), [7], b"a new generation"))
    pool.append(source.id, _segment(Position(2, 7), Position(2, 30), [9, 30], b""))
    pages = {number: text for number, text in pages.items() if number < 30} | {0: _page(3, 0)}
    _commit_image(pool, source, Position(2, 30), pages, changed={0: _page(3, 0)}, before=second)
    pool.append(source.id, _segment(Position(2, 30), Position(2, 31), [31], b"after the last image"))


def _commit_image(
    pool: Pool,
    source: DataSource,
    position: Position,
    pages: Mapping[int, bytes],
    *,
    changed: Mapping[int, bytes],
    before: RecoveryPoint | None,
) -> RecoveryPoint:
    capture = pool.capture(source.id)
    size = (max(pages) + 1) * _PAGE
    stored = [number for number in sorted(changed) if any(changed[number])]
    pieces: list[tuple[int, int, bytes | None, int]] = [
        (number * _PAGE, _PAGE, None, 0) for number, text in changed.items() if not any(text)
    ]
    for at in range(0, len(stored), 16):
        group = stored[at : at + 16]
        chunk = capture.put(b"".join(changed[number] for number in group))
        pieces += [(number * _PAGE, _PAGE, chunk, row * _PAGE) for row, number in enumerate(group)]
    ref = capture.put_map(build(size, pieces))
    old = before.files[0] if before is not None else None
    base, deltas = (ref, ()) if old is None else (old.base, (*old.deltas, ref))
    file = ImageFile("pages", size, _PAGE, base, deltas, len(pages))
    draft = RecoveryPoint(
        0,
        source.id,
        PointKind.EXPRESS_FULL,
        _TIME + position.place,
        position,
        b"chain",
        (file,),
        size=size,
        cause="schedule" if before is not None else "first replica",
    )
    return capture.commit(draft)


def _page(version: int, number: int) -> bytes:
    return f"page {number} in version {version}; ".encode().ljust(_PAGE, b"." if number % 2 else b"\xa5")


def _segment(after: Position, last: Position, places: list[int], text: bytes) -> LogSegment:
    marks = np.array([(place, _TIME + place) for place in places], dtype=MARK)
    blocks = [text, text[::-1]] if text else []
    return LogSegment(after, last, marks, f"chain at {last}".encode(), b"index of " + text[:20], blocks)


# --- a folder ------------------------------------------------------------------------------------


def _fill_folder(pool: Pool, work: Path) -> None:
    """A folder: a directory whose listing has parts, a large file, holes, hard and symbolic links, odd names."""
    root = work / "source"
    _make_tree(root)
    source = DataSource("2" * 32, "share", "files", "/srv/share", {"exclude": ["*.tmp"]}, _TIME)
    pool.register(source)
    source = replace(source, location=str(root))
    _commit_tree(pool, source, None, "first replica")
    (root / "large").write_bytes(_large(b"B"))
    (root / "new").write_text("new in the second point\n")
    (root / "many" / "0007").unlink()
    for path in (root / "new", root / "large", root / "many"):
        os.utime(path, ns=(_TIME, _TIME + 1))
    _commit_tree(pool, source, pool.points(source.id)[-1], "schedule")


def _commit_tree(pool: Pool, source: DataSource, before: RecoveryPoint | None, cause: str) -> None:
    capture = pool.capture(source.id)
    previous = (load_root(before.tree, pool), pool) if before is not None and before.tree is not None else None
    scan = FilesWorkload(lambda: _LATER).scan(source, capture, previous)
    tree = store_root(scan.root, capture)
    capture.commit(RecoveryPoint(0, source.id, PointKind.FILE, _TIME, tree=tree, size=scan.size, cause=cause))


def _make_tree(root: Path) -> None:
    (root / "many").mkdir(parents=True)
    for number in range(4500):
        (root / "many" / f"{number:04d}").touch()
    (root / "large").write_bytes(_large(b"A"))
    (root / "empty").touch()
    (root / "deep" / "er").mkdir(parents=True)
    (root / "deep" / "er" / "file").write_text("deep\n")
    (root / "deep" / "empty directory").mkdir(mode=0o750)
    (root / "another name").hardlink_to(root / "deep" / "er" / "file")
    (root / "link").symlink_to("deep/er")
    (root / "n\u00e4me \u65e5\u672c").write_text("not ASCII\n")
    (root / "left out.tmp").touch()
    with (root / "sparse").open("wb") as file:
        for island in range(40):
            file.seek(island * (128 << 10))
            file.write(bytes([65 + island]) * (16 << 10))
        file.truncate(6 << 20)
    (root / "private").write_text("mode\n")
    (root / "private").chmod(0o600)
    for path in sorted(root.rglob("*"), reverse=True):
        os.utime(path, ns=(_TIME, _TIME), follow_symlinks=False)


def _large(fill: bytes) -> bytes:
    """9 MiB that take little room in a pool."""
    return b"".join(fill + bytes([number]) * 65_535 for number in range(144))


if __name__ == "__main__":
    make_golden_pools(Path(sys.argv[1]))
