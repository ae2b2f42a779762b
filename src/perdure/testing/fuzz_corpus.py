"""Real bytes of every kind that a pool has, unsealed: what fuzzing begins with."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import zstandard

from perdure.model.drills import Drill, DrillStep
from perdure.model.entries import Entry, EntryKind
from perdure.model.listings import load_root, read_listing
from perdure.model.points import StreamRef
from perdure.model.positions import Position
from perdure.repository.condemned import publish_condemned
from perdure.repository.container import ContainerReader, Kind
from perdure.repository.key_sets import KeySet
from perdure.repository.pool import Pool
from perdure.testing.crash_filesystem import CrashFileSystem
from perdure.testing.crash_sweep import storage_opener
from perdure.testing.history import World
from perdure.testing.pool_history import pool_history
from perdure.testing.repeatable import repeatable

__all__ = ["Corpus", "corpus"]


@dataclass(frozen=True)
class Corpus:
    """Bytes by kind. Blocks are as the fuzz target wants them: u32 length of the content, codec, body."""

    containers: list[bytes] = field(default_factory=list)
    blocks: list[bytes] = field(default_factory=list)
    pack_footers: list[bytes] = field(default_factory=list)
    records: list[bytes] = field(default_factory=list)
    sources: list[bytes] = field(default_factory=list)
    holds: list[bytes] = field(default_factory=list)
    drills: list[bytes] = field(default_factory=list)
    policies: list[bytes] = field(default_factory=list)
    condemned: list[bytes] = field(default_factory=list)
    log_footers: list[bytes] = field(default_factory=list)
    log_columns: list[bytes] = field(default_factory=list)
    log_marks: list[bytes] = field(default_factory=list)
    maps: list[bytes] = field(default_factory=list)
    listings: list[bytes] = field(default_factory=list)
    pieces: list[bytes] = field(default_factory=list)
    slots: list[bytes] = field(default_factory=list)
    key_sets: list[bytes] = field(default_factory=list)
    descriptors: list[bytes] = field(default_factory=list)
    index_manifests: list[bytes] = field(default_factory=list)
    index_segments: list[bytes] = field(default_factory=list)


@functools.cache
def corpus() -> Corpus:
    """The bytes of a pool in the middle of its life."""
    found = Corpus()
    history = pool_history()
    with repeatable(1), tempfile.TemporaryDirectory() as scratch:
        world = World(storage_opener(CrashFileSystem(), 1), Path(scratch))
        for _ in history.play(world):
            found.holds.extend(_footers(world, "holds", Kind.HOLD))
            found.condemned.extend(_footers(world, "gc", Kind.CONDEMNED))
        pool = world.pool
        publish_condemned(pool.storage, pool.keys, 99, [bytes(16)])
        step = DrillStep("recover", passed=True, seconds=1.5, details=("found",), recovers=True)
        pool.keep_drill(Drill("source", 1, Position(1, 2), 3, 4, 5, (step,)))
        found.drills.extend(_footers(world, "drills", Kind.DRILL))
        _take_objects(found, pool, world)
        _take_streams(found, pool)
        world.close()
        for path in sorted((Path(scratch) / "index").iterdir()):
            (found.index_manifests if path.name == "manifest" else found.index_segments).append(path.read_bytes())
    found.key_sets.append(KeySet.of(1, 1, ["keys/passphrase-00000000"], 1).encoded())
    found.blocks.extend(_block(text, compress) for text in (b"", b"a" * 5000, bytes(range(256))) for compress in (0, 1))
    return found


def _block(text: bytes, codec: int) -> bytes:
    return len(text).to_bytes(4, "little") + bytes([codec]) + (zstandard.compress(text) if codec else text)


def _footers(world: World, top: str, kind: Kind) -> list[bytes]:
    try:
        storage, keys = world.pool.storage, world.pool.keys
    except Exception:  # noqa: BLE001 - before the pool is made there is nothing
        world.forget()
        return []
    footers = []
    for listed in storage.list(top):
        data = storage.read(listed.name)
        footers.append(ContainerReader(_ranges(data), len(data), kind, keys, listed.name).footer()[0])
    return footers


def _ranges(data: bytes) -> Callable[[int, int], bytes]:
    return lambda offset, length: data[offset : offset + length]


def _take_objects(found: Corpus, pool: Pool, world: World) -> None:
    storage = pool.storage
    found.containers.extend(storage.read(listed.name) for top in ("packs", "logs") for listed in storage.list(top))
    found.pack_footers.extend(_footers(world, "packs", Kind.PACK))
    found.records.extend(_footers(world, "points", Kind.POINT))
    found.sources.extend(_footers(world, "sources", Kind.SOURCE))
    found.policies.extend(_footers(world, "policies", Kind.POLICY))
    found.condemned.extend(_footers(world, "gc", Kind.CONDEMNED))
    found.log_footers.extend(_footers(world, "logs", Kind.LOG))
    for footer in found.log_footers:
        values = msgspec.msgpack.decode(footer)
        found.log_columns.extend((values["marks"], values["index"]))
        found.log_marks.append(zstandard.decompress(values["marks"]))
    found.descriptors.append(storage.read("pool"))
    for listed in storage.list("keys"):
        (found.key_sets if "/set-" in listed.name else found.slots).append(storage.read(listed.name))


def _take_streams(found: Corpus, pool: Pool) -> None:
    for source in pool.sources():
        for point in pool.points(source.id):
            for file in point.files:
                found.maps.extend(pool.read_stream(ref) for ref in (file.base, *file.deltas))
            if point.tree is not None:
                found.listings.append(pool.read_stream(point.tree))
                _take_listing(found, pool, load_root(point.tree, pool))


def _take_listing(found: Corpus, pool: Pool, directory: Entry) -> None:
    assert directory.listing is not None
    data = pool.read_stream(directory.listing)
    found.listings.append(data)
    index = msgspec.msgpack.decode(data)
    if isinstance(index, dict):
        found.listings.extend(pool.read_stream(msgspec.convert(part, StreamRef)) for part in index["parts"])
    for entry in read_listing(directory, pool):
        if entry.kind is EntryKind.DIRECTORY:
            _take_listing(found, pool, entry)
        if entry.content_map is not None:
            found.pieces.append(pool.read_stream(entry.content_map))
