"""A storage pool: the vault in this process."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from perdure.model.errors import BadInput, Damaged, NotFound, Refused
from perdure.model.extents import ExtentMap, overlay
from perdure.model.logs import LogEnd, LogSegment, LogSpan, StoredSegment
from perdure.model.points import DataSource, Hold, ImageFile, KnownDamage, RecoveryPoint, StreamRef
from perdure.model.positions import Position
from perdure.model.retention import DAY_NS, RetentionPolicy
from perdure.model.timeline import Timeline
from perdure.repository import logs, records
from perdure.repository.capture import PoolCapture
from perdure.repository.chunks import BadCopy, ChunkReader, ChunkWriter
from perdure.repository.damage import Damage
from perdure.repository.descriptor import Descriptor
from perdure.repository.holds import hold_name, list_holds, write_hold
from perdure.repository.index import ChunkIndex
from perdure.repository.keys import KeyRing
from perdure.repository.known_damage import damaged_log, damaged_points
from perdure.repository.leases import deletion_at_work, take_deletion_lease, take_lease
from perdure.repository.ledger import ledger_numbers, read_damage
from perdure.repository.locking import delete_unlocked, lock_points, lock_written
from perdure.repository.maps import decode_map
from perdure.repository.matching import MatchedIndex
from perdure.repository.packs import pack_name
from perdure.repository.policies import read_policy, write_policy
from perdure.storage.contract import Buffer, ObjectExists, ObjectMissing, Storage

_Read = TypeVar("_Read")

_POLICY_S = 60.0
"""A source's policy is asked for again after so many seconds, to know how long to lock what is written."""

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


class Pool:
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
        self.storage = storage
        self.keys = keys
        self.descriptor = descriptor
        self.damage: list[Damaged] = []
        self._index = ChunkIndex(cache_dir / "index")
        self.matched = MatchedIndex(storage, keys, self._index, self.damage.append)
        self._reader = ChunkReader(storage, keys, self._index, self.matched.refresh, self._note_bad_copy)
        self._points: dict[str, RecoveryPoint] = {}
        self._tails: dict[str, Position] = {}
        self._ledgers: list[int] = []
        self._known_damage: tuple[Damage, ...] = ()
        self._locks: dict[str, tuple[float, float | None]] = {}

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
                number = max(self._numbers(source), default=0) + 1
        except BaseException:
            lease.release()
            raise
        chunks = ChunkWriter(self.storage, self.keys, self.index)
        return PoolCapture(chunks, number, write, lease, partial(self.lock_written, source))

    def delete_points(self, source: str, numbers: Sequence[int]) -> Sequence[int]:
        """Delete records; what only they needed is collected later.

        Returns:
            Those that the storage does not let go of yet.

        Raises:
            Refused: One is the source's newest point, or held; nothing was deleted.
        """
        lease = take_deletion_lease(self.storage, source)
        try:
            self._refuse_needed(source, numbers)
            lease.check()
            # Oldest first, so that a crash leaves what is younger.
            locked = delete_unlocked(self.storage, [records.point_name(source, number) for number in sorted(numbers)])
        finally:
            lease.release()
        for number in numbers:
            self._points.pop(records.point_name(source, number), None)
        return [number for number in numbers if records.point_name(source, number) in locked]

    def _refuse_needed(self, source: str, numbers: Sequence[int]) -> None:
        newest = max(self._numbers(source), default=0)
        held = {hold.number for hold in self.holds(source)}
        for number in numbers:
            if number == newest or number in held:
                why = "held; release it first" if number in held else "the newest point of its source"
                raise Refused(
                    f"recovery point {number} is not deleted: it is {why}; nothing was deleted",
                    code="point-held" if number in held else "newest-point",
                    hint="perdure release NAME#NUMBER releases a hold" if number in held else "make a newer one first",
                )

    def _numbers(self, source: str) -> list[int]:
        found = (records.point_number(listed.name) for listed in self.storage.list(f"points/{source}"))
        return [number for number in found if number is not None]

    # --- what is damaged, what stays ---

    def known_damage(self, source: str) -> KnownDamage:
        numbers = ledger_numbers(self.storage)
        if numbers != self._ledgers:
            self._ledgers, self._known_damage = numbers, read_damage(self.storage, self.keys)
        damage = self._known_damage
        return KnownDamage(damaged_points(damage).get(source, {}), damaged_log(damage).get(source, {}))

    def holds(self, source: str) -> list[Hold]:
        return list_holds(self.storage, self.keys, source)

    def hold(self, hold: Hold) -> None:
        """Keep a point from being deleted.

        Raises:
            NotFound: There is no such point.
            Refused: It is held already, or points of its source are being deleted at this moment.
        """
        self._find_point(hold)
        try:
            write_hold(self.storage, self.keys, hold)
        except ObjectExists as error:
            raise Refused(
                f"recovery point {hold.number} is held already",
                code="already-held",
                hint="release it first to hold it for another reason",
            ) from error
        try:
            self._refuse_beside_deletion(hold)
            self._find_point(hold)
        except BaseException:
            self.storage.delete(hold_name(hold.source, hold.number))
            raise

    def _refuse_beside_deletion(self, hold: Hold) -> None:
        if deletion_at_work(self.storage, hold.source):
            raise Refused(
                f"recovery point {hold.number} is not held: points of its source are being deleted at this moment",
                code="deletion-at-work",
                hint="run the command again in a moment",
            )

    def _find_point(self, hold: Hold) -> None:
        if hold.number not in self._numbers(hold.source):
            raise NotFound(
                f"there is no recovery point {hold.number}", code="point-not-found", hint="see: perdure points NAME"
            )

    def release(self, source: str, number: int) -> None:
        """End a hold.

        Raises:
            NotFound: The point is not held.
        """
        if number not in {hold.number for hold in self.holds(source)}:
            raise NotFound(f"recovery point {number} is not held", code="not-held", hint="see: perdure points NAME")
        self.storage.delete(hold_name(source, number))

    def policy(self, source: str) -> RetentionPolicy:
        return read_policy(self.storage, self.keys, source) or RetentionPolicy()

    def set_policy(self, source: str, policy: RetentionPolicy) -> None:
        """Change a source's retention policy.

        Raises:
            Refused: It asks for locks, and the storage cannot lock.
        """
        if policy.lock and not self.storage.capabilities.immutable:
            raise Refused(
                f"the storage {self.storage.url} cannot lock objects against deletion; the policy was not changed",
                code="no-immutability",
                hint="use a bucket with object lock, and say lock=compliance or lock=governance in the pool's URL",
            )
        write_policy(self.storage, self.keys, source, policy)
        self._locks.pop(source, None)

    def prolong_locks(self, source: str, until_ns: Mapping[int, int]) -> int:
        points = [point for point in self.points(source) if point.number in until_ns]
        return lock_points(self.storage, self, self.index.snapshot(), points, until_ns)

    def lock_written(self, source: str, names: Sequence[str]) -> None:
        """Lock what was just written for the retention range, where the source's policy asks for it."""
        if not self.storage.capabilities.immutable:
            return
        asked_s, days = self._locks.get(source, (-_POLICY_S, None))
        if time.monotonic() - asked_s >= _POLICY_S:
            policy = self.policy(source)
            days = policy.days if policy.lock else None
            self._locks[source] = (time.monotonic(), days)
        if days is not None:
            lock_written(self.storage, names, time.time_ns() + int(days * DAY_NS))

    # --- log ---

    def spans(self, source: str) -> list[LogSpan]:
        found = (logs.span_of(listed) for listed in self.storage.list(f"logs/{source}"))
        return sorted(
            (span for span in found if span is not None),
            key=lambda span: (span.generation, span.after_place, span.last_place),
        )

    def segment(self, source: str, span: LogSpan) -> StoredSegment:
        return logs.read_segment(self.storage, self.keys, _of(source, span))

    def blocks(self, source: str, span: LogSpan) -> Iterator[bytes]:
        return logs.read_blocks(self.storage, self.keys, _of(source, span))

    def append(self, source: str, segment: LogSegment) -> LogSpan:
        """Make a segment durable. One that is there already, with the very same content, is not written again:
        a failure may have hidden that it was written.

        Raises:
            Refused: It does not continue what the pool holds; a gap is never written over.
        """
        tail = self._tails.get(source)
        if tail is None:
            end = self.log_end(source)
            tail = end.position if end is not None else segment.after
        span = None
        if segment.after == tail:
            with contextlib.suppress(ObjectExists):
                span = logs.append_segment(self.storage, self.keys, source, segment)
        span = span or self._same_segment(source, segment)
        if span is None:
            raise Refused(
                f"log from {segment.after} does not continue the pool's log of this source, which ends at {tail}",
                code="log-gap",
                hint="run: perdure check NAME",
            )
        self.lock_written(source, [span.name])
        self._tails[source] = max(tail, segment.last)
        return span

    def put_joined(self, source: str, segment: LogSegment) -> LogSpan:
        try:
            span = logs.append_segment(self.storage, self.keys, source, segment)
            self.lock_written(source, [span.name])
            return span
        except ObjectExists:
            return next(span for span in self.spans(source) if span.name == logs.segment_name(source, segment))

    def delete_log(self, source: str, spans: Sequence[LogSpan]) -> None:
        delete_unlocked(self.storage, [_of(source, span).name for span in spans])

    def _same_segment(self, source: str, segment: LogSegment) -> LogSpan | None:
        """The stored twin of a segment, made durable; ``None`` if there is none."""
        name = logs.log_name(source, segment.after, segment.last)
        for span in self.spans(source):
            if span.name == name and logs.holds(self.storage, self.keys, span, segment):
                # What a listing showed is durable when the next barrier returns.
                self.storage.barrier([])
                return span
        return None

    def log_end(self, source: str) -> LogEnd | None:
        spans, points = self.spans(source), self.points(source)
        images = [point for point in points if point.position is not None]
        newest = max(images, key=lambda point: (point.position or Position(0, 0), point.number), default=None)
        last = max(spans, key=lambda span: (span.last, -span.after_place), default=None)
        if last is not None and (newest is None or newest.position is None or last.last > newest.position):
            return LogEnd(last.last, self.segment(source, last).chain)
        if newest is None or newest.position is None:
            return None
        return LogEnd(newest.position, newest.chain)

    def segments_between(self, source: str, after: Position, upto: Position | None) -> Iterable[StoredSegment]:
        """Segments of the chain after ``after``; ends at a gap if ``upto`` is ``None``.

        Raises:
            Damaged: The chain does not reach ``upto``.
        """
        reached = after
        if upto is not None and upto <= after:
            return
        timeline = Timeline((), self.spans(source), lambda span: self.segment(source, span))
        for span in timeline.chain(after):
            yield self.segment(source, span)
            reached = span.last
            if upto is not None and reached >= upto:
                return
        if upto is not None:
            raise Damaged(f"the log has a gap: it leads from {after} to {reached}, not to {upto}", code="log-gap")

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


def _of(source: str, span: LogSpan) -> LogSpan:
    """Refuse to read one source's log as another's."""
    if not span.name.startswith(f"logs/{source}/"):
        raise BadInput(f"{span.name} is not log of source {source}", code="wrong-source")
    return span
