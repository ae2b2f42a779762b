"""A storage pool: the vault in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from perdure.model.errors import Damaged, Refused
from perdure.model.extents import ExtentMap, overlay
from perdure.model.points import DataSource, ImageFile, KnownDamage, RecoveryPoint, StreamRef
from perdure.repository import records
from perdure.repository.capture import PoolCapture
from perdure.repository.chunks import BadCopy, ChunkReader, ChunkWriter
from perdure.repository.damage import Damage
from perdure.repository.descriptor import Descriptor
from perdure.repository.index import ChunkIndex
from perdure.repository.keys import KeyRing
from perdure.repository.known_damage import damaged_log, damaged_points
from perdure.repository.leases import take_lease
from perdure.repository.ledger import ledger_numbers, read_damage
from perdure.repository.locking import lock_points
from perdure.repository.maps import decode_map
from perdure.repository.matching import MatchedIndex
from perdure.repository.packs import pack_name
from perdure.repository.pool_log import PoolLog
from perdure.storage.contract import Buffer, ObjectMissing, Storage

_Read = TypeVar("_Read")

__all__ = ["Pool", "PoolInfo"]


@dataclass(frozen=True, slots=True)
class PoolInfo:
    """What a pool holds."""

    id: str
    format_version: int
    created_ns: int
    packs: int
    bytes: int
    chunks: int
    sources: int
    points: int


class Pool(PoolLog):
    """An open pool. Use it as a context manager; all methods may be called from several threads.

    Args:
        storage: Where its objects lie.
        keys: Its keys.
        descriptor: What it says of itself.
        cache_dir: Where the local index is cached.

    Attributes:
        damage: What was found damaged while it was used.
        matched: The chunk index and what is condemned.
    """

    def __init__(self, storage: Storage, keys: KeyRing, descriptor: Descriptor, cache_dir: Path) -> None:
        super().__init__(storage, keys)
        self.descriptor = descriptor
        self.damage: list[Damaged] = []
        self._index = ChunkIndex(cache_dir / "index")
        self.matched = MatchedIndex(storage, keys, self._index, self.damage.append)
        self._reader = ChunkReader(storage, keys, self._index, self.matched.refresh, self._note_bad_copy)
        self._points: dict[str, RecoveryPoint] = {}
        self._ledgers: list[int] = []
        self._known_damage: tuple[Damage, ...] = ()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Save the index cache."""
        self._index.save()

    @property
    def id(self) -> str:
        return self.descriptor.id

    def info(self) -> PoolInfo:
        """Count what the pool holds, from its listing."""
        sizes = {top: [o.size for o in self.storage.list(top)] for top in ("packs", "points", "logs", "sources")}
        return PoolInfo(
            id=self.id,
            format_version=self.descriptor.format,
            created_ns=self.descriptor.created_ns,
            packs=len(sizes["packs"]),
            bytes=sum(map(sum, sizes.values())),
            chunks=len(self.index),
            sources=len(self.sources()),
            points=len(sizes["points"]),
        )

    # --- sources ---

    def sources(self) -> list[DataSource]:
        found = []
        for listed in self.storage.list("sources"):
            if listed.name.endswith(".copy"):
                continue
            source = self._noting_damage(partial(records.read_source, self.storage, self.keys, listed.name))
            if source is None:
                source = self._noting_damage(
                    partial(records.read_source, self.storage, self.keys, listed.name + ".copy")
                )
            if source is not None:
                found.append(source)
        return sorted(found, key=lambda source: source.name)

    def register(self, source: DataSource) -> None:
        if any(other.name == source.name for other in self.sources()):
            raise Refused(
                f"the pool protects a source named {source.name!r} already",
                code="name-taken",
                hint="choose another name with --as NAME",
            )
        records.write_source(self.storage, self.keys, source)

    # --- recovery points ---

    def points(self, source: str) -> list[RecoveryPoint]:
        """All readable records; damaged ones are left out and noted in :attr:`damage`."""
        found = []
        for listed in self.storage.list(f"points/{source}"):
            if listed.name not in self._points and records.point_number(listed.name) is not None:
                point = self._noting_damage(partial(records.read_point, self.storage, self.keys, listed.name))
                if point is not None:
                    self._points[listed.name] = point
            if listed.name in self._points:
                found.append(self._points[listed.name])
        return found

    def capture(self, source: str) -> PoolCapture:
        return self._capture(source, None)

    def capture_as(self, source: str, number: int) -> PoolCapture:
        """A capture of a point that has its number from another pool; it may lie below the newest one."""
        return self._capture(source, number)

    def _capture(self, source: str, number: int | None) -> PoolCapture:
        def write(point: RecoveryPoint) -> int:
            size = records.write_point(self.storage, self.keys, point)
            if point.position is not None:
                self._tails.pop(source, None)
            return size

        lease = take_lease(self.storage)
        try:
            self.matched.heed_condemned()
            if number is None:
                number = max(self.point_numbers(source), default=0) + 1
        except BaseException:
            lease.release()
            raise
        chunks = ChunkWriter(self.storage, self.keys, self.index)
        return PoolCapture(chunks, number, write, lease, partial(self.lock_written, source))

    def known_damage(self, source: str) -> KnownDamage:
        numbers = ledger_numbers(self.storage)
        if numbers != self._ledgers:
            self._ledgers, self._known_damage = numbers, read_damage(self.storage, self.keys)
        damage = self._known_damage
        return KnownDamage(damaged_points(damage).get(source, {}), damaged_log(damage).get(source, {}))

    def prolong_locks(self, source: str, until_ns: Mapping[int, int]) -> int:
        points = [point for point in self.points(source) if point.number in until_ns]
        return lock_points(self.storage, self, self.index.snapshot(), points, until_ns)

    # --- content ---

    @property
    def index(self) -> ChunkIndex:
        """The chunk index, matched with the pool's packs at first use."""
        return self.matched.index

    def image_map(self, file: ImageFile) -> ExtentMap:
        base, *deltas = (decode_map(self.read_stream(ref)) for ref in (file.base, *file.deltas))
        return overlay(base, *deltas)

    def chunk_id(self, data: Buffer) -> bytes:
        return self.keys.content_id(data)

    def chunk_sizes(self, chunks: Sequence[bytes]) -> NDArray[np.int64]:
        reader = self._matched_reader()
        return np.fromiter((reader.place(chunk).raw for chunk in chunks), np.int64, len(chunks))

    def read_chunk(self, chunk: bytes) -> bytes:
        return self._matched_reader().read(chunk)

    def read_chunks(self, chunks: Sequence[bytes]) -> Iterator[tuple[int, bytes]]:
        return self._matched_reader().read_many(chunks)

    def for_each_chunk(self, chunks: Sequence[bytes], work: Callable[[int, bytes], None], *, threads: int = 2) -> None:
        self._matched_reader().for_each(chunks, work, threads)

    def read_stream(self, ref: StreamRef) -> bytes:
        data = b"".join(self.read_chunk(chunk) for chunk in ref.chunks)
        if len(data) != ref.size:
            raise Damaged(f"a stream has {len(data)} bytes instead of {ref.size}", code="damaged-object")
        return data

    # --- inside ---

    def _matched_reader(self) -> ChunkReader:
        _ = self.index
        return self._reader

    def _note_bad_copy(self, bad: BadCopy) -> None:
        where = f"chunk {bad.chunk.hex()[:16]} in {pack_name(bad.place.pack)}"
        self.damage.append(Damaged(f"{where}: {bad.error.message}", code="damaged-chunk"))

    def _noting_damage(self, read: Callable[[], _Read]) -> _Read | None:
        try:
            return read()
        except (Damaged, ObjectMissing) as error:
            self.damage.append(error if isinstance(error, Damaged) else Damaged(error.message, code=error.code))
            return None
