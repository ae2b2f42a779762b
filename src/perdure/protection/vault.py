"""The vault: the seam between the verbs and wherever the bytes are kept.

``repository`` implements it in the same process. Later an agent implements it over the network; the verbs
and the workloads cannot tell the difference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from perdure.model.drills import Drill
from perdure.model.extents import ExtentMap
from perdure.model.logs import LogEnd, LogSegment, LogSpan, StoredSegment
from perdure.model.points import DataSource, Hold, ImageFile, KnownDamage, RecoveryPoint, StreamRef
from perdure.model.positions import Position
from perdure.model.retention import RetentionPolicy

__all__ = ["Capture", "Vault"]


class Capture(Protocol):
    """One recovery point in the making. Nothing of it is visible before ``commit``. Thread-safe."""

    @property
    def stored(self) -> int:
        """Bytes added to the pool so far."""
        ...

    def put(self, data: bytes | bytearray | memoryview) -> bytes:
        """Store one chunk; returns its id. A chunk that the pool already has is not stored again."""
        ...

    def put_stream(self, data: bytes) -> StreamRef: ...

    def put_map(self, extents: ExtentMap) -> StreamRef: ...

    def commit(self, draft: RecoveryPoint) -> RecoveryPoint:
        """Make everything durable, then write the record. ``number``, ``stored`` and ``committed_ns`` are filled in."""
        ...

    def abort(self) -> None:
        """Drop what is not durable yet. Chunks that are, are garbage to be collected."""
        ...


class Vault(Protocol):
    """A pool, seen from the verbs."""

    @property
    def id(self) -> str: ...

    def sources(self) -> list[DataSource]: ...

    def register(self, source: DataSource) -> None: ...

    def points(self, source: str) -> list[RecoveryPoint]:
        """All recovery-point records of a source id, oldest first."""
        ...

    def delete_points(self, source: str, numbers: Sequence[int]) -> Sequence[int]:
        """Delete records, all or (refusing the newest and held ones) none; returns those that are locked yet."""
        ...

    def put_joined(self, source: str, segment: LogSegment) -> LogSpan:
        """Make a segment durable that covers several which the pool holds; does nothing if it is there already."""
        ...

    def delete_log(self, source: str, spans: Sequence[LogSpan]) -> None:
        """Delete log, in the order given; what is locked stays."""
        ...

    def known_damage(self, source: str) -> KnownDamage:
        """What verification found damaged and nothing has healed since."""
        ...

    def drills(self, source: str) -> list[Drill]:
        """The verdicts of all drills of a source whose points are still here, oldest first."""
        ...

    def keep_drill(self, drill: Drill) -> None:
        """Keep a verdict; durable on return. It goes when its point is deleted."""
        ...

    def holds(self, source: str) -> list[Hold]: ...

    def hold(self, hold: Hold) -> None:
        """Keep a point from being deleted."""
        ...

    def release(self, source: str, number: int) -> None:
        """End a hold."""
        ...

    def policy(self, source: str) -> RetentionPolicy:
        """A source's retention policy; one that deletes nothing if none was set."""
        ...

    def set_policy(self, source: str, policy: RetentionPolicy) -> None: ...

    def prolong_locks(self, source: str, until_ns: Mapping[int, int]) -> int:
        """Lock points, given with the moments until which they stay, and all that they need; returns how many objects.

        Raises:
            Refused: The storage cannot.
        """
        ...

    def spans(self, source: str) -> list[LogSpan]:
        """All stored log segments of a source id, in position order, from the pool's listing."""
        ...

    def segment(self, source: str, span: LogSpan) -> StoredSegment: ...

    def blocks(self, source: str, span: LogSpan) -> Iterator[bytes]: ...

    def append(self, source: str, segment: LogSegment) -> LogSpan:
        """Make a segment durable. On return it may be acknowledged to the source."""
        ...

    def append_run(self, source: str, segments: Sequence[LogSegment]) -> None:
        """Make segments durable that continue each other; whatever happens, what is there afterwards has no gap."""
        ...

    def log_end(self, source: str) -> LogEnd | None:
        """Where log and images of a source end, read from the pool and nowhere else."""
        ...

    def capture(self, source: str) -> Capture: ...

    def image_map(self, file: ImageFile) -> ExtentMap:
        """The resolved extent map of one file of an image."""
        ...

    def chunk_id(self, data: bytes | bytearray | memoryview) -> bytes:
        """The id that this content would have, for comparing without reading it back."""
        ...

    def chunk_sizes(self, chunks: Sequence[bytes]) -> NDArray[np.int64]:
        """Bytes of content of each chunk.

        Raises:
            Damaged: One is missing.
        """
        ...

    def read_chunk(self, chunk: bytes) -> bytes: ...

    def read_chunks(self, chunks: Sequence[bytes]) -> Iterator[tuple[int, bytes]]:
        """Read many chunks in the order that is cheapest for the storage; yields ``(index, content)``."""
        ...

    def read_stream(self, ref: StreamRef) -> bytes: ...

    def for_each_chunk(self, chunks: Sequence[bytes], work: Callable[[int, bytes], None], *, threads: int = 2) -> None:
        """Like :meth:`read_chunks`, with ``work`` called from several threads, each chunk once."""
        ...

    def segments_between(self, source: str, after: Position, upto: Position | None) -> Iterable[StoredSegment]:
        """The segments that carry an image at ``after`` forward to ``upto`` (``None``: to the end), gap-checked."""
        ...
