"""A vault in memory: the twin of a storage pool for tests of the verbs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from perdure.model.drills import Drill
from perdure.model.errors import Damaged, PoolUnusable, Refused
from perdure.model.extents import ExtentMap, overlay
from perdure.model.logs import LogEnd, LogSegment, LogSpan, StoredSegment
from perdure.model.points import DataSource, Hold, ImageFile, KnownDamage, RecoveryPoint, StreamRef
from perdure.model.positions import Position
from perdure.model.retention import RetentionPolicy
from perdure.model.timeline import Timeline
from perdure.protection.parallel import for_each_number

__all__ = ["MemoryCapture", "MemoryVault"]

_MOST = 4 << 20


class MemoryCapture:
    """A recovery point in the making; implements ``Capture``."""

    def __init__(self, vault: MemoryVault, source: str) -> None:
        self._vault, self._source = vault, source
        # As in a pool, what was put can be read when the record is committed, and not before.
        self._fresh: dict[bytes, bytes] = {}
        self.stored = 0
        self.aborted = False

    def put(self, data: bytes | bytearray | memoryview) -> bytes:
        content = bytes(data)
        if not 0 < len(content) <= _MOST:
            raise ValueError(f"a chunk of {len(content)} bytes")
        self._vault.refuse_if_full()
        chunk = self._vault.chunk_id(content)
        with self._vault.guard:
            if chunk not in self._vault.chunks and chunk not in self._fresh:
                self._fresh[chunk] = content
                self.stored += len(content)
        return chunk

    def put_stream(self, data: bytes) -> StreamRef:
        return StreamRef(tuple(self.put(data[at : at + _MOST]) for at in range(0, len(data), _MOST)), len(data))

    def put_map(self, extents: ExtentMap) -> StreamRef:
        # A fixed cost and 24 bytes an extent: sizes that grow as those of the pool's own form do.
        name = f"map {len(self._vault.maps)}".ljust(24 + 24 * len(extents.extents)).encode()
        ref = self.put_stream(name)
        with self._vault.guard:
            self._vault.maps[name] = extents
        return ref

    def commit(self, draft: RecoveryPoint) -> RecoveryPoint:
        self._vault.refuse_if_full()
        self.make_durable()
        with self._vault.guard:
            points = self._vault.records.setdefault(self._source, [])
            point = replace(
                draft,
                number=max((other.number for other in points), default=0) + 1,
                stored=self.stored,
                committed_ns=time.time_ns(),
            )
            points.append(point)
        return point

    def make_durable(self) -> None:
        """Make what was put so far readable, without a record."""
        with self._vault.guard:
            self._vault.chunks.update(self._fresh)

    def abort(self) -> None:
        self.aborted = True


class MemoryVault:
    """Implements ``Vault``. Thread-safe as far as the verbs need it.

    Attributes:
        full: While true, everything that writes raises ``PoolUnusable``.
        chunks: Content by chunk id; tests may damage it.
        unreadable: Names of log segments whose payload cannot be read.
        decoded: How many times a chunk was read.
        writes: What became durable, in order: ``("log", position)``.
    """

    def __init__(self, pool_id: str = "memory") -> None:
        self.id = pool_id
        self.full = False
        self.chunks: dict[bytes, bytes] = {}
        self.maps: dict[bytes, ExtentMap] = {}
        self.records: dict[str, list[RecoveryPoint]] = {}
        self.logs: dict[str, list[tuple[StoredSegment, list[bytes]]]] = {}
        self.registered: dict[str, DataSource] = {}
        self.held: dict[tuple[str, int], Hold] = {}
        self.drilled: list[Drill] = []
        self.policies: dict[str, RetentionPolicy] = {}
        self.damage: dict[str, KnownDamage] = {}
        self.locked: dict[str, dict[int, int]] = {}
        self.unreadable: set[str] = set()
        self.decoded = 0
        self.guard = threading.RLock()

    def refuse_if_full(self) -> None:
        """Raise ``PoolUnusable`` while :attr:`full`."""
        if self.full:
            raise PoolUnusable("the pool is full", code="pool-full")

    # --- sources, points -------------------------------------------------------------------------

    def sources(self) -> list[DataSource]:
        return sorted(self.registered.values(), key=lambda source: source.name)

    def register(self, source: DataSource) -> None:
        if any(other.name == source.name for other in self.registered.values()):
            raise Refused(f"the pool protects a source named {source.name!r} already", code="name-taken")
        self.registered[source.id] = source

    def points(self, source: str) -> list[RecoveryPoint]:
        with self.guard:
            return list(self.records.get(source, []))

    def capture(self, source: str) -> MemoryCapture:
        return MemoryCapture(self, source)

    def delete_points(self, source: str, numbers: Sequence[int]) -> Sequence[int]:
        with self.guard:
            points = self.records.get(source, [])
            kept = {points[-1].number, *(hold.number for hold in self.holds(source))} if points else set()
            if kept.intersection(numbers):
                raise Refused("the newest point and held ones are not deleted", code="newest-point")
            self.records[source] = [point for point in points if point.number not in numbers]
        return []

    def known_damage(self, source: str) -> KnownDamage:
        return self.damage.get(source, KnownDamage())

    def drills(self, source: str) -> list[Drill]:
        with self.guard:
            numbers = {point.number for point in self.records.get(source, [])}
            return [drill for drill in self.drilled if drill.source == source and drill.number in numbers]

    def keep_drill(self, drill: Drill) -> None:
        with self.guard:
            self.drilled.append(drill)

    def holds(self, source: str) -> list[Hold]:
        with self.guard:
            return [hold for hold in self.held.values() if hold.source == source]

    def hold(self, hold: Hold) -> None:
        with self.guard:
            self.held[hold.source, hold.number] = hold

    def release(self, source: str, number: int) -> None:
        with self.guard:
            del self.held[source, number]

    def policy(self, source: str) -> RetentionPolicy:
        with self.guard:
            return self.policies.get(source, RetentionPolicy())

    def set_policy(self, source: str, policy: RetentionPolicy) -> None:
        with self.guard:
            self.policies[source] = policy

    def prolong_locks(self, source: str, until_ns: Mapping[int, int]) -> int:
        with self.guard:
            self.locked.setdefault(source, {}).update(until_ns)
        return len(until_ns)

    # --- log -------------------------------------------------------------------------------------

    def delete_log(self, source: str, spans: Sequence[LogSpan]) -> None:
        names = {span.name for span in spans}
        with self.guard:
            self.logs[source] = [pair for pair in self.logs.get(source, []) if pair[0].span.name not in names]

    def spans(self, source: str) -> list[LogSpan]:
        with self.guard:
            spans = [segment.span for segment, _ in self.logs.get(source, [])]
        return sorted(spans, key=lambda span: (span.generation, span.after_place, span.last_place))

    def _stored(self, source: str, span: LogSpan) -> tuple[StoredSegment, list[bytes]]:
        with self.guard:
            return next(pair for pair in self.logs[source] if pair[0].span.name == span.name)

    def segment(self, source: str, span: LogSpan) -> StoredSegment:
        return self._stored(source, span)[0]

    def blocks(self, source: str, span: LogSpan) -> Iterator[bytes]:
        if span.name in self.unreadable:
            raise Damaged(f"{span.name} is damaged", code="damaged-object")
        yield from self._stored(source, span)[1]

    def append(self, source: str, segment: LogSegment) -> LogSpan:
        self.refuse_if_full()
        end = self.log_end(source)
        if end is not None and segment.after != end.position:
            raise Refused(f"log from {segment.after} does not continue {end.position}", code="log-gap")
        return self.put_joined(source, segment)

    def append_run(self, source: str, segments: Sequence[LogSegment]) -> None:
        for segment in segments:
            self.append(source, segment)

    def put_joined(self, source: str, segment: LogSegment) -> LogSpan:
        blocks = [bytes(block) for block in segment.blocks]
        after = segment.after.place if segment.after.generation == segment.last.generation else 0
        name = f"{segment.last.generation:08x}-{after:016x}-{segment.last.place:016x}"
        span = LogSpan(segment.last.generation, after, segment.last.place, sum(map(len, blocks)), name)
        sizes = tuple(len(block) for block in blocks)
        stored = StoredSegment(
            span,
            segment.after,
            segment.last,
            segment.marks.copy(),
            segment.chain,
            segment.index,
            sizes,
            time.time_ns(),
        )
        with self.guard:
            self.logs.setdefault(source, []).append((stored, blocks))
        return span

    def log_end(self, source: str) -> LogEnd | None:
        with self.guard:
            ends = [LogEnd(p.position, p.chain) for p in self.points(source) if p.position is not None]
            ends += [LogEnd(segment.last, segment.chain) for segment, _ in self.logs.get(source, [])]
        return max(ends, key=lambda end: end.position, default=None)

    def segments_between(self, source: str, after: Position, upto: Position | None) -> Iterable[StoredSegment]:
        reached = after
        timeline = Timeline((), self.spans(source), lambda span: self.segment(source, span))
        for span in timeline.chain(after):
            if upto is not None and reached >= upto:
                return
            yield self.segment(source, span)
            reached = span.last
        if upto is not None and reached < upto:
            raise Damaged(f"the log has a gap after {reached}", code="log-gap")

    # --- content ---------------------------------------------------------------------------------

    def image_map(self, file: ImageFile) -> ExtentMap:
        base, *deltas = (self.maps[self.read_stream(ref)] for ref in (file.base, *file.deltas))
        return overlay(base, *deltas)

    def chunk_id(self, data: bytes | bytearray | memoryview) -> bytes:
        return blake3(data).digest()

    def chunk_sizes(self, chunks: Sequence[bytes]) -> NDArray[np.int64]:
        return np.array([len(self.chunks[chunk]) for chunk in chunks], dtype=np.int64)

    def read_chunk(self, chunk: bytes) -> bytes:
        content = self.chunks.get(chunk)
        if content is None or blake3(content).digest() != chunk:
            raise Damaged(f"chunk {chunk.hex()[:16]} is missing or damaged", code="damaged-chunk")
        with self.guard:
            self.decoded += 1
        return content

    def read_chunks(self, chunks: Sequence[bytes]) -> Iterator[tuple[int, bytes]]:
        # Any order is allowed, so not the given one.
        for row in reversed(range(len(chunks))):
            yield row, self.read_chunk(chunks[row])

    def read_stream(self, ref: StreamRef) -> bytes:
        return b"".join(self.read_chunk(chunk) for chunk in ref.chunks)

    def for_each_chunk(self, chunks: Sequence[bytes], work: Callable[[int, bytes], None], *, threads: int = 2) -> None:
        for_each_number(len(chunks), lambda row: work(row, self.read_chunk(chunks[row])), threads)
