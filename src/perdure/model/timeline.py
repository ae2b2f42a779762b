"""Timelines: which places of a data source can be recovered, and from which image and log. Pure; no I/O.

A *stretch* is one image and the chain of log spans that carries it forward until the next image or a
gap. A span continues a position of its own generation when it begins at or before it and ends after it
(spans may overlap: after a crash the same log may be shipped again, and a wider span may later cover
smaller ones; the widest continuation is taken). A span continues the *end* of a generation when it opens
the next one and its header names that end as what it follows.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from perdure.model.errors import BadInput, NotFound, Refused
from perdure.model.logs import LogSpan, StoredSegment
from perdure.model.moments import moment_text
from perdure.model.points import RecoveryPoint
from perdure.model.positions import Position
from perdure.model.targets import AtPlace, AtPoint, AtPosition, AtTime, Latest, Target

__all__ = ["Gap", "ReadSegment", "RecoveryPlan", "Stretch", "Timeline"]

ReadSegment = Callable[[LogSpan], StoredSegment]

CLOCK_SLACK_NS = 3600 * 10**9
"""How far a clock may have been set back and still be searched exactly by :class:`AtTime`.

Images later than the target by more than this are skipped without reading the log that follows them.
"""


@dataclass(frozen=True, slots=True)
class RecoveryPlan:
    """What a recovery reads.

    Args:
        point: The record whose image or tree is written first.
        segments: The log to apply to it, in order; empty when the image itself is the target.
        upto: The last position to apply; ``None`` for workloads without positions.
        time_ns: The moment that the recovered data shows, nanoseconds since 1970 UTC.
        note: What a person should know about how the target was understood; may be empty.
    """

    point: RecoveryPoint
    segments: tuple[StoredSegment, ...]
    upto: Position | None
    time_ns: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class Stretch:
    """An image and the log that continues it.

    Args:
        point: The image; of several at one position the newest.
        start: Its position.
        since_ns: The earliest time at which an image showed this position, nanoseconds since 1970 UTC.
        spans: The chain, in order.
        end: The last position that the chain reaches.
    """

    point: RecoveryPoint
    start: Position
    since_ns: int
    spans: tuple[LogSpan, ...]
    end: Position


@dataclass(frozen=True, slots=True)
class Gap:
    """A break in the log: nothing after ``after`` and before ``until`` can be recovered."""

    after: Position
    until: Position


@dataclass(frozen=True, slots=True)
class _Generation:
    """The spans of one generation: sorted by where they begin, with the farthest-reaching one so far."""

    begins: list[int]
    farthest: list[LogSpan]
    openers: list[LogSpan]


class Timeline:
    """All places of one source that can be recovered.

    Args:
        points: The source's recovery-point records, in any order.
        spans: Its stored log segments, in any order.
        read_segment: Reads a segment's header; asked for at generation borders and near a target only.
    """

    def __init__(self, points: Sequence[RecoveryPoint], spans: Sequence[LogSpan], read_segment: ReadSegment) -> None:
        self.points = sorted(points, key=lambda point: point.number)
        self._read = _remember(read_segment)
        self._generations = _by_generation(spans)
        self._stretches: list[Stretch] | None = None
        self._first_seen: dict[Position, int] = {}
        for point in points:
            if point.position is not None:
                seen_ns = self._first_seen.get(point.position, point.time_ns)
                self._first_seen[point.position] = min(seen_ns, point.time_ns)

    # --- structure -------------------------------------------------------------------------------

    @property
    def stretches(self) -> list[Stretch]:
        """Every image with its chain, by position; of several images at one position the newest record."""
        if self._stretches is None:
            newest = {point.position: point for point in self.points if point.position is not None}
            starts = sorted(newest)
            self._stretches = [
                self._stretch(newest[start], start, starts[row + 1] if row + 1 < len(starts) else None)
                for row, start in enumerate(starts)
            ]
        return self._stretches

    def gaps(self) -> list[Gap]:
        """The breaks in the log between images, in order."""
        pairs = zip(self.stretches, self.stretches[1:], strict=False)
        return [Gap(below.end, above.start) for below, above in pairs if below.end < above.start]

    def end(self) -> Position | None:
        """The last position that can be recovered."""
        return self.stretches[-1].end if self.stretches else None

    def continues(self, position: Position, until: Position) -> bool:
        """Whether the stored log joins ``position`` to ``until`` without a gap."""
        reached = position
        for span in self.chain(position):
            if reached >= until:
                break
            reached = span.last
        return reached >= until

    def runs(self, damaged: Collection[int] = ()) -> dict[int, int]:
        """For each image the number of the unbroken run of log that it lies in; those in ``damaged`` are left out."""
        runs: dict[int, int] = {}
        run = 0
        reached: Position | None = None
        for stretch in self.stretches:
            if reached is not None and reached < stretch.start:
                run += 1
            reached = max(reached or stretch.end, stretch.end)
            if stretch.point.number not in damaged:
                runs[stretch.point.number] = run
        return runs

    def _stretch(self, point: RecoveryPoint, start: Position, stop: Position | None) -> Stretch:
        spans: list[LogSpan] = []
        end = start
        for span in self.chain(start):
            spans.append(span)
            end = span.last
            if stop is not None and end >= stop:
                break
        return Stretch(point, start, self._first_seen[start], tuple(spans), end)

    def chain(self, position: Position) -> Iterator[LogSpan]:
        """The spans that carry an image at ``position`` forward, until a gap or the end."""
        while (span := self._continuation(position)) is not None:
            yield span
            position = span.last

    def _continuation(self, position: Position) -> LogSpan | None:
        here = self._generations.get(position.generation)
        if here is not None:
            row = bisect_right(here.begins, position.place) - 1
            if row >= 0 and here.farthest[row].last_place > position.place:
                return here.farthest[row]
        following = self._generations.get(position.generation + 1)
        for opener in following.openers if following is not None else ():
            if self._read(opener).after == position:
                return opener
        return None

    # --- targets ---------------------------------------------------------------------------------

    def resolve(self, target: Target) -> RecoveryPlan:
        """Find the image and the log that lead to a target.

        Raises:
            NotFound: There is no such point, or the target lies before the first one
                (``before-first-point``) or after the last position (``beyond-last-position``).
            Refused: The target lies in a gap of the log (``position-in-gap``).
            BadInput: A position was asked of a source that has none.
        """
        if not self.points:
            raise NotFound("the source has no recovery points yet", code="no-points", hint="run 'perdure express-full'")
        match target:
            case Latest():
                return self._latest()
            case AtTime(time_ns):
                return self._at_time(time_ns)
            case AtPoint(number):
                return self._at_point(number)
            case AtPosition(position):
                return self._at_position(position)
            case AtPlace(kind, text):
                raise BadInput(f"{kind}:{text} has to be looked up in the log first", code="bad-target")

    def _latest(self, note: str = "") -> RecoveryPlan:
        if not self.stretches:
            point = self.points[-1]
            return RecoveryPlan(point, (), None, point.time_ns, note)
        stretch = self.stretches[-1]
        return self._plan(stretch, stretch.end, note)

    def _at_point(self, number: int) -> RecoveryPlan:
        for point in self.points:
            if point.number == number:
                return RecoveryPlan(point, (), point.position, point.time_ns)
        raise NotFound(
            f"there is no recovery point {number}; the points are {self.points[0].number} to {self.points[-1].number}",
            code="point-not-found",
            hint="list them with 'perdure points'",
        )

    def _oldest_image(self) -> RecoveryPoint:
        """The first record of the lowest position, which several may have."""
        lowest = self.stretches[0].start
        return next(point for point in self.points if point.position == lowest)

    def _at_time(self, time_ns: int) -> RecoveryPlan:
        if not self.stretches:
            return self._tree_at_time(time_ns)
        for stretch in reversed(self.stretches):
            if stretch.since_ns > time_ns + CLOCK_SLACK_NS:
                continue
            found = self._last_place_by(stretch, time_ns)
            if found is not None:
                place, committed_ns = found
                plan = self._plan_for(place, self._time_note(place, committed_ns, time_ns))
                return replace(plan, time_ns=committed_ns)
        raise _before_first(self._oldest_image(), moment_text(time_ns))

    def _tree_at_time(self, time_ns: int) -> RecoveryPlan:
        for point in reversed(self.points):
            if point.time_ns <= time_ns:
                return RecoveryPlan(point, (), None, point.time_ns)
        raise _before_first(self.points[0], moment_text(time_ns))

    def _last_place_by(self, stretch: Stretch, time_ns: int) -> tuple[Position, int] | None:
        for span in reversed(stretch.spans):
            marks = self._marks(span, stretch.start)
            fitting = np.flatnonzero(marks["time_ns"] <= time_ns)
            if len(fitting):
                mark = marks[fitting[-1]]
                return Position(span.generation, int(mark["place"])), int(mark["time_ns"])
        return (stretch.start, stretch.since_ns) if stretch.since_ns <= time_ns else None

    def _time_note(self, place: Position, committed_ns: int, time_ns: int) -> str:
        for gap in self.gaps():
            if gap.after == place:
                return f"the log between {gap.after} and {gap.until} is missing; this is the last moment before the gap"
        if place == self.end() and time_ns > committed_ns:
            return "this is the last recoverable moment; nothing later is in the pool"
        return ""

    def _at_position(self, position: Position) -> RecoveryPlan:
        if not self.stretches:
            raise BadInput("this source has no log positions", hint="give a time or a recovery point number")
        if position < self.stretches[0].start:
            raise _before_first(self._oldest_image(), f"position {position}")
        row = bisect_right([stretch.start for stretch in self.stretches], position) - 1
        stretch = self.stretches[row]
        if position > stretch.end:
            raise self._unreachable(position, row)
        place = self._last_place_at_or_before(stretch, position)
        note = (
            "" if place == position else f"{position} is not on a transaction boundary; the last one before is {place}"
        )
        return self._plan(stretch, place, note)

    def _last_place_at_or_before(self, stretch: Stretch, position: Position) -> Position:
        for span in reversed(stretch.spans):
            if span.generation > position.generation:
                continue
            marks = self._marks(span, stretch.start)
            if span.generation == position.generation:
                marks = marks[marks["place"] <= position.place]
            if len(marks):
                return Position(span.generation, int(marks["place"][-1]))
        return stretch.start

    def _unreachable(self, position: Position, row: int) -> NotFound | Refused:
        below = self.stretches[row]
        if row + 1 == len(self.stretches):
            return NotFound(
                f"position {position} is beyond the last recoverable position {below.end}",
                code="beyond-last-position",
                hint="use 'latest', or a time; for a time of day write 'today 10:30'",
            )
        above = self.stretches[row + 1]
        return Refused(
            f"position {position} lies in a gap of the log: "
            f"nothing between {below.end} and {above.start} is in the pool",
            code="position-in-gap",
            hint=f"the nearest are position {below.end}, and point {above.point.number} at {above.start}",
        )

    # --- plans -----------------------------------------------------------------------------------

    def _plan_for(self, place: Position, note: str) -> RecoveryPlan:
        """The plan from the newest image at or before a place that is known to be recoverable."""
        row = bisect_right([stretch.start for stretch in self.stretches], place) - 1
        while self.stretches[row].end < place:
            row -= 1
        return self._plan(self.stretches[row], place, note)

    def _plan(self, stretch: Stretch, place: Position, note: str) -> RecoveryPlan:
        segments: list[StoredSegment] = []
        if place > stretch.start:
            for span in stretch.spans:
                segments.append(self._read(span))
                if span.last >= place:
                    break
        return RecoveryPlan(stretch.point, tuple(segments), place, self._time_of(place, stretch), note)

    def _time_of(self, place: Position, stretch: Stretch) -> int:
        """When a place of a stretch was committed; for the image's own position, when it was frozen."""
        if stretch.start == place:
            return stretch.point.time_ns
        for span in stretch.spans:
            if span.generation == place.generation and span.last_place >= place.place:
                marks = self._read(span).marks
                found = np.flatnonzero(marks["place"] == place.place)
                if len(found):
                    return int(marks["time_ns"][found[0]])
        raise NotFound(f"position {place} is not in the timeline", code="point-not-found")

    def _marks(self, span: LogSpan, start: Position) -> np.ndarray[tuple[int], np.dtype[np.void]]:
        """The marks of a span that lie after ``start``."""
        marks = self._read(span).marks
        return marks[marks["place"] > start.place] if span.generation == start.generation else marks


def _by_generation(spans: Sequence[LogSpan]) -> dict[int, _Generation]:
    grouped: dict[int, list[LogSpan]] = {}
    for span in spans:
        grouped.setdefault(span.generation, []).append(span)
    return {generation: _ordered(members) for generation, members in grouped.items()}


def _ordered(spans: list[LogSpan]) -> _Generation:
    # Where two spans reach equally far, the one that begins later repeats less.
    spans = sorted(spans, key=lambda span: (span.after_place, span.last_place))
    farthest: list[LogSpan] = []
    for span in spans:
        best = farthest[-1] if farthest else span
        farthest.append(span if span.last_place >= best.last_place else best)
    openers = sorted((span for span in spans if span.after_place == 0), key=lambda span: -span.last_place)
    return _Generation([span.after_place for span in spans], farthest, openers)


def _remember(read_segment: ReadSegment) -> ReadSegment:
    known: dict[str, StoredSegment] = {}

    def read(span: LogSpan) -> StoredSegment:
        if span.name not in known:
            known[span.name] = read_segment(span)
        return known[span.name]

    return read


def _before_first(first: RecoveryPoint, asked: str) -> NotFound:
    return NotFound(
        f"{asked} is before the first recovery point, number {first.number} of {moment_text(first.time_ns)}",
        code="before-first-point",
        hint=f"the earliest that can be recovered is '--to {first.number}'",
    )
