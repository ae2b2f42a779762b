"""Verification: is every object of a pool what was written, and which recovery points does damage touch?

Always checked: descriptor, key slots and key sets (both copies), source descriptors, every recovery-point record with
its maps and trees, every log segment's footer and the chain, every pack's footer against the block headers,
and that every chunk that a point names exists. With ``data`` every block of every pack and log segment is
also read, decrypted, decompressed and hashed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from perdure.model.entries import EntryKind
from perdure.model.errors import Damaged, PerdureError
from perdure.model.listings import content_pieces, load_root, read_listing
from perdure.model.logs import LogSpan
from perdure.model.points import RecoveryPoint, StreamRef
from perdure.repository import logs, records
from perdure.repository.container import BLOCK_HEADER, ContainerReader, Kind, open_block
from perdure.repository.descriptor import NAMES, check_descriptor
from perdure.repository.key_sets import check_key_object, read_keys
from perdure.repository.keys import UnknownKeyEpoch
from perdure.repository.maps import decode_map
from perdure.repository.packs import pack_id, read_pack_index
from perdure.repository.pool import Pool
from perdure.storage.contract import ObjectInfo, Storage

__all__ = ["Damage", "VerifyReport", "verify_pool"]

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Damage:
    """One finding.

    Args:
        object: Name of the object in the pool.
        kind: What the object is: ``descriptor``, ``key slot``, ``source``, ``record``, ``map``, ``tree``, ``log``
            or ``pack``.
        what: What is wrong.
        points_affected: Recovery points that do not recover whole because of it, as ``NAME #NUMBER``, or
            ``NAME after POSITION`` for a damaged piece of log.
    """

    object: str
    kind: str
    what: str
    points_affected: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was checked and what was found."""

    objects: int
    chunks: int
    bytes: int
    points: int
    damage: tuple[Damage, ...]

    @property
    def sound(self) -> bool:
        return not self.damage


class _Verification:
    """One run: the counts and findings so far, and which points use which chunk."""

    def __init__(self, pool: Pool, progress: Progress) -> None:
        self.pool = pool
        self.progress = progress
        self.lock = threading.Lock()
        self.objects = self.chunks = self.bytes = self.points = 0
        self.found: list[Damage] = []
        self.users: dict[bytes, set[str]] = {}
        self.names: dict[str, str] = {}

    def check(self, name: str, kind: str, affected: tuple[str, ...], read: Callable[[], object]) -> bool:
        """Run one check; note a failure as damage of ``name``."""
        try:
            read()
        except UnknownKeyEpoch:
            # Not damage: the keys were rotated, and those at hand no longer open what is written now.
            raise
        except PerdureError as error:
            self.note(Damage(name, kind, error.message, affected))
            return False
        finally:
            with self.lock:
                self.objects += 1
        return True

    def note(self, damage: Damage) -> None:
        with self.lock:
            self.found.append(damage)

    def use(self, chunk: bytes, label: str) -> None:
        self.users.setdefault(chunk, set()).add(label)

    def count(self, size: int) -> None:
        with self.lock:
            self.bytes += size
        self.progress(size)


def verify_pool(
    pool: Pool, *, data: bool = False, progress: Progress = lambda _: None, threads: int = 2
) -> VerifyReport:
    """Check every object of a pool.

    Args:
        pool: The pool.
        data: Also read, decrypt, decompress and hash every chunk and log block.
        progress: Called with the number of stored bytes dealt with since the last call.
        threads: Readers at once.
    """
    run = _Verification(pool, progress)
    _check_plain_objects(run)
    _check_sources(run)
    for listed in pool.storage.list("points"):
        _check_point(run, listed)
        run.count(listed.size)
    _check_packs(run, data, threads)
    _check_logs(run, data)
    _check_presence(run)
    return VerifyReport(run.objects, run.chunks, run.bytes, run.points, tuple(run.found))


def _check_plain_objects(run: _Verification) -> None:
    storage = run.pool.storage
    for name in NAMES:
        run.check(name, "descriptor", (), partial(_read_descriptor, storage, name))
    for listed in storage.list("keys"):
        run.check(listed.name, "key slot", (), partial(_read_slot, storage, listed.name))
        run.count(listed.size)
    for name, failure in read_keys(storage).damaged.items():
        run.note(Damage(name, "key slot", f"{failure.message}; nothing opens the pool by it"))


def _read_descriptor(storage: Storage, name: str) -> None:
    check_descriptor(storage.read(name), name)


def _read_slot(storage: Storage, name: str) -> None:
    check_key_object(storage.read(name), name)


def _check_sources(run: _Verification) -> None:
    pool = run.pool
    run.names = {source.id: source.name for source in pool.sources()}
    for listed in pool.storage.list("sources"):
        run.check(listed.name, "source", (), partial(records.read_source, pool.storage, pool.keys, listed.name))
        run.count(listed.size)


def _label(run: _Verification, listed: ObjectInfo) -> str:
    source = listed.name.split("/")[1]
    return f"{run.names.get(source, source)} #{records.point_number(listed.name)}"


def _check_point(run: _Verification, listed: ObjectInfo) -> None:
    label = _label(run, listed)
    read: list[RecoveryPoint] = []
    storage, keys = run.pool.storage, run.pool.keys
    if not run.check(
        listed.name, "record", (label,), lambda: read.append(records.read_point(storage, keys, listed.name))
    ):
        return
    run.points += 1
    point = read[0]
    for file in point.files:
        for ref in (file.base, *file.deltas):
            run.check(listed.name, "map", (label,), partial(_use_map, run, ref, label))
    if point.tree is not None:
        run.check(listed.name, "tree", (label,), partial(_use_tree, run, point.tree, label))


def _stream(run: _Verification, ref: StreamRef, label: str) -> bytes:
    for chunk in ref.chunks:
        run.use(chunk, label)
    return run.pool.read_stream(ref)


def _use_map(run: _Verification, ref: StreamRef, label: str) -> None:
    # A file's chunks count for every point whose map names them, even where a later delta covers them:
    # damage is reported rather too widely than too narrowly.
    for chunk in decode_map(_stream(run, ref, label)).ids():
        run.use(chunk, label)


class _NotingStreams:
    """Reads streams and notes that a point uses their chunks."""

    def __init__(self, run: _Verification, label: str) -> None:
        self._run = run
        self._label = label

    def read_stream(self, ref: StreamRef) -> bytes:
        return _stream(self._run, ref, self._label)


def _use_tree(run: _Verification, tree: StreamRef, label: str) -> None:
    streams = _NotingStreams(run, label)
    waiting = [load_root(tree, streams)]
    while waiting:
        for entry in read_listing(waiting.pop(), streams):
            if entry.kind is EntryKind.DIRECTORY:
                waiting.append(entry)
            for piece in content_pieces(entry, streams) if entry.kind is EntryKind.FILE else ():
                if piece.chunk:
                    run.use(piece.chunk, label)


def _check_packs(run: _Verification, data: bool, threads: int) -> None:
    listed = list(run.pool.storage.list("packs"))
    with ThreadPoolExecutor(threads, thread_name_prefix="verify") as workers:
        for _ in workers.map(lambda found: _check_pack(run, found, data), listed):
            pass


def _check_pack(run: _Verification, listed: ObjectInfo, data: bool) -> None:
    pack, storage, keys = pack_id(listed.name), run.pool.storage, run.pool.keys
    if pack is None:
        run.note(Damage(listed.name, "pack", "this is not the name of a pack"))
        return
    blocks: list[tuple[bytes, int, int]] = []

    def index() -> None:
        rows = read_pack_index(storage, keys, pack, listed.size)
        blocks.extend((row["id"].tobytes(), int(row["offset"]), int(row["stored"])) for row in rows)

    if not run.check(listed.name, "pack", (), index):
        blocks = _salvaged(run, listed)
    for chunk, offset, stored in blocks:
        affected = tuple(sorted(run.users.get(chunk, ())))
        try:
            header = storage.read_range(listed.name, 0, 32)
            if data:
                sealed = storage.read_range(listed.name, offset, BLOCK_HEADER + stored)
                _, content = open_block(keys, header, sealed, listed.name, chunk)
                if keys.content_id(content) != chunk:
                    raise Damaged(f"{listed.name} is damaged: a chunk's content does not match its id")
            elif offset + BLOCK_HEADER + stored > listed.size:
                raise Damaged(f"{listed.name} is cut off")
        except PerdureError as error:
            run.note(Damage(listed.name, "pack", f"chunk {chunk.hex()[:16]}: {error.message}", affected))
        with run.lock:
            run.chunks += 1
        run.count(stored)


def _salvaged(run: _Verification, listed: ObjectInfo) -> list[tuple[bytes, int, int]]:
    """The blocks of a pack whose footer is damaged, as far as their headers can be followed."""
    storage = run.pool.storage
    try:
        reader = ContainerReader(
            lambda offset, length: storage.read_range(listed.name, offset, length),
            listed.size,
            Kind.PACK,
            run.pool.keys,
            listed.name,
        )
        return [(label, place.offset, place.stored) for label, place in reader.scan()]
    except Damaged:
        return []


def _check_logs(run: _Verification, data: bool) -> None:
    pool = run.pool
    for listed in pool.storage.list("logs"):
        span = logs.span_of(listed)
        source = listed.name.split("/")[1]
        if span is None:
            run.note(Damage(listed.name, "log", "this is not the name of a log segment"))
            continue
        affected = (f"{run.names.get(source, source)} after {span.generation}:{span.after_place}",)
        run.check(listed.name, "log", affected, partial(_read_log, pool, span, data))
        run.count(listed.size)


def _read_log(pool: Pool, span: LogSpan, data: bool) -> None:
    logs.read_segment(pool.storage, pool.keys, span)
    if data:
        for _ in logs.read_blocks(pool.storage, pool.keys, span):
            pass


def _check_presence(run: _Verification) -> None:
    """Every chunk that a point names must be in some pack."""
    missing: dict[str, int] = {}
    for chunk, labels in run.users.items():
        if run.pool.index.find(chunk) is None:
            for label in labels:
                missing[label] = missing.get(label, 0) + 1
    for label, count in sorted(missing.items()):
        run.note(Damage("packs", "pack", f"{count} chunks that {label} needs are missing", (label,)))
