"""The log of a pool's sources: appending with a gap check, reading, joining."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from perdure.model.errors import BadInput, Damaged, PerdureError, Refused
from perdure.model.logs import LogEnd, LogSegment, LogSpan, StoredSegment
from perdure.model.points import RecoveryPoint
from perdure.model.positions import Position
from perdure.model.timeline import Timeline
from perdure.repository import logs
from perdure.repository.keeping import Keeping
from perdure.repository.keys import KeyRing
from perdure.repository.locking import delete_unlocked
from perdure.storage.contract import ObjectExists, Pending, Storage

__all__ = ["PoolLog"]

_STAGING = 2
"""Threads that compress and encrypt the segments of a run."""


class PoolLog(Keeping, ABC):
    """The part of a pool that keeps log. All methods may be called from several threads.

    Args:
        storage: Where its objects lie.
        keys: Its keys.
    """

    def __init__(self, storage: Storage, keys: KeyRing) -> None:
        super().__init__(storage, keys)
        self._tails: dict[str, Position] = {}

    @abstractmethod
    def points(self, source: str) -> list[RecoveryPoint]:
        """All readable records of a source: an image continues the log like a segment does."""

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
        tail = self._tail(source, segment.after)
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

    def append_run(self, source: str, segments: Sequence[LogSegment]) -> None:
        """Make segments durable that continue each other: they are written side by side, named in order, and waited for
        together, so that a crash leaves a run without a gap.
        """
        if len(segments) < 2 or not self.storage.capabilities.local or not self._continues(source, segments):
            for segment in segments:
                self.append(source, segment)
            return
        try:
            self._write_run(source, segments)
        except ObjectExists:
            # A failure had hidden that some of it was written; one by one shows which.
            for segment in segments:
                self.append(source, segment)

    def _write_run(self, source: str, segments: Sequence[LogSegment]) -> None:
        self._tails.pop(source, None)
        named: list[str] = []
        pending: list[Pending] = []
        with ThreadPoolExecutor(_STAGING, thread_name_prefix="stage-log") as staging:
            begun = [staging.submit(logs.stage_segment, self.storage, self.keys, source, one) for one in segments]
            try:
                for one in begun:
                    staged, span = one.result()
                    # A local storage gives names in the order in which it is asked for them.
                    pending.append(self.storage.publish(staged, span.name))
                    named.append(span.name)
                self.storage.barrier(pending)
            except BaseException as error:
                staging.shutdown(cancel_futures=True)
                for one in begun[len(pending) :]:
                    if not one.cancelled() and one.exception() is None:
                        one.result()[0].discard()
                if not isinstance(error, ObjectExists):
                    self._leave_no_gap(pending, named)
                raise
        self.lock_written(source, named)
        self._tails[source] = segments[-1].last

    def _leave_no_gap(self, pending: Sequence[Pending], names: Sequence[str]) -> None:
        """After a failure keep what was begun of a run if all of it is there, else remove it, the last first.

        Nobody was told of any of it.
        """
        try:
            self.storage.barrier(pending)
        except PerdureError:
            with contextlib.suppress(PerdureError):
                for name in reversed(names):
                    self.storage.delete(name)

    def _continues(self, source: str, segments: Sequence[LogSegment]) -> bool:
        """Whether segments continue the pool's log and each other."""
        ends = [self._tail(source, segments[0].after), *(segment.last for segment in segments)]
        return all(segment.after == end for segment, end in zip(segments, ends, strict=False))

    def _tail(self, source: str, after: Position) -> Position:
        """Where the log ends that is to go on after a position: as remembered, or if that is elsewhere, as it is in
        the pool, since another process may have written meanwhile.
        """
        if self._tails.get(source) == after:
            return after
        end = self.log_end(source)
        return end.position if end is not None else after

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


def _of(source: str, span: LogSpan) -> LogSpan:
    """Refuse to read one source's log as another's."""
    if not span.name.startswith(f"logs/{source}/"):
        raise BadInput(f"{span.name} is not log of source {source}", code="wrong-source")
    return span
