"""Timelines against a model that knows every place."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.model.errors import NotFound, PerdureError, Refused
from perdure.model.logs import MARK, LogSpan, StoredSegment
from perdure.model.points import PointKind, RecoveryPoint
from perdure.model.positions import Position
from perdure.model.targets import AtPoint, AtPosition, AtTime, Latest
from perdure.model.timeline import Timeline


class Log:
    """Makes points and segments, and knows which places follow which."""

    def __init__(self) -> None:
        self.points: list[RecoveryPoint] = []
        self.segments: dict[str, StoredSegment] = {}

    def image(self, position: Position, time_ns: int) -> None:
        number = len(self.points) + 1
        self.points.append(RecoveryPoint(number, "s", PointKind.EXPRESS_FULL, time_ns, position))

    def segment(self, after: Position, marks: list[tuple[Position, int]]) -> None:
        last = marks[-1][0]
        after_place = after.place if after.generation == last.generation else 0
        name = f"{last.generation}-{after_place}-{last.place}"
        span = LogSpan(last.generation, after_place, last.place, 1, name)
        rows = np.array([(position.place, time_ns) for position, time_ns in marks], dtype=MARK)
        self.segments[name] = StoredSegment(span, after, last, rows, b"", b"", (), 0)

    def timeline(self) -> Timeline:
        spans = [segment.span for segment in self.segments.values()]
        return Timeline(self.points, spans, lambda span: self.segments[span.name])


Step = tuple[str, int, int]


@st.composite
def histories(draw: st.DrawFn) -> tuple[Log, list[tuple[Position, int, bool]]]:
    """A log with restarts, gaps, overlaps, images and a clock that may go back.

    Returns:
        The log, and every place as ``(position, time, recoverable)`` in order.
    """
    log = Log()
    places: list[tuple[Position, int, bool]] = []
    now, position, based = 1000, Position(1, 0), False
    pending: list[tuple[Position, int]] = []
    shipped: list[tuple[Position, int]] = []
    start = before = position
    steps = st.sampled_from(["commit", "commit", "ship", "image", "restart", "lose", "widen"])
    for step in draw(st.lists(steps, max_size=40)):
        now += draw(st.integers(-30, 50))
        if step == "commit":
            position = Position(position.generation, position.place + draw(st.integers(1, 5)))
            pending.append((position, now))
            continue
        if pending:
            log.segment(start, pending)
            places += [(where, when, based) for where, when in pending]
            shipped += pending
            wide = [mark for mark in shipped if mark[0].generation == position.generation and mark[0] > before]
            if step == "widen" and before.generation == position.generation and wide:
                log.segment(before, wide)
            before, start, pending = start, position, []
        if step == "image":
            places.append((position, now, True))
            log.image(position, now)
            based = True
        elif step == "restart" and position.place:
            # The next generation begins with a commit; until then the position is the old end.
            first = Position(position.generation + 1, draw(st.integers(1, 5)))
            log.segment(position, [(first, now)])
            places.append((first, now, based))
            shipped.append((first, now))
            before, start, position = position, first, first
        elif step == "lose":
            before = start = position = Position(position.generation + 2, position.place)
            based = False
    if pending:
        log.segment(start, pending)
        places += [(where, when, based) for where, when in pending]
    return log, places


@settings(deadline=None, max_examples=400)
@given(histories(), st.integers(900, 2500))
def test_a_time_means_the_last_recoverable_place_not_after_it(
    history: tuple[Log, list[tuple[Position, int, bool]]], time_ns: int
) -> None:
    """Whatever the log went through, a time resolves as the model says, and the plan really leads there."""
    log, places = history
    known = [(where, when) for where, when, recoverable in places if recoverable]
    if not log.points:
        return
    timeline = log.timeline()
    fitting = [where for where, when in known if when <= time_ns]
    if not fitting:
        with pytest.raises(NotFound) as before_first:
            timeline.resolve(AtTime(time_ns))
        assert before_first.value.code == "before-first-point"
        return

    plan = timeline.resolve(AtTime(time_ns))

    assert plan.upto == max(fitting)
    assert plan.time_ns <= time_ns
    leads_there(timeline, plan.point, [segment.span for segment in plan.segments], max(fitting))


@settings(deadline=None, max_examples=400)
@given(histories())
def test_every_recoverable_place_resolves_to_itself_and_latest_is_the_last(
    history: tuple[Log, list[tuple[Position, int, bool]]],
) -> None:
    """Recoverable places resolve to themselves; others are never given out."""
    log, places = history
    if not log.points:
        return
    timeline = log.timeline()
    recoverable = {where for where, _, yes in places if yes} | {point.position for point in log.points}
    for where in recoverable:
        assert where is not None
        plan = timeline.resolve(AtPosition(where))
        assert plan.upto == where
        leads_there(timeline, plan.point, [segment.span for segment in plan.segments], where)
    for where, _, yes in places:
        if not yes and where not in recoverable:
            assert resolved_or_code(timeline, where) in {
                "position-in-gap",
                "before-first-point",
                "beyond-last-position",
                *recoverable,
            }

    assert timeline.resolve(Latest()).upto == max(where for where in recoverable if where is not None)


def resolved_or_code(timeline: Timeline, where: Position) -> Position | str | None:
    try:
        return timeline.resolve(AtPosition(where)).upto
    except PerdureError as error:
        return error.code


def leads_there(timeline: Timeline, point: RecoveryPoint, spans: list[LogSpan], place: Position) -> None:
    reached = point.position
    assert reached is not None
    assert reached <= place
    for span in spans:
        assert reached < place
        if span.generation == reached.generation:
            assert span.after_place <= reached.place < span.last_place
        else:
            assert (span.generation, span.after_place) == (reached.generation + 1, 0)
        reached = span.last
    assert reached >= place
    assert timeline.continues(point.position or place, place)


def test_a_position_in_a_gap_is_refused_with_its_neighbours() -> None:
    """The refusal names both ends of the gap and the point after it."""
    log = Log()
    log.image(Position(1, 5), 100)
    log.segment(Position(1, 5), [(Position(1, 9), 110)])
    log.image(Position(3, 20), 200)

    with pytest.raises(Refused, match="between 1:9 and 3:20") as refusal:
        log.timeline().resolve(AtPosition(Position(1, 12)))

    assert refusal.value.code == "position-in-gap"
    assert "point 2" in refusal.value.hint
    assert "before the gap" in log.timeline().resolve(AtTime(150)).note


def test_a_position_between_commits_means_the_one_before() -> None:
    """The plan says so in its note."""
    log = Log()
    log.image(Position(1, 5), 100)
    log.segment(Position(1, 5), [(Position(1, 9), 110), (Position(1, 14), 120)])

    plan = log.timeline().resolve(AtPosition(Position(1, 11)))

    assert (plan.upto, plan.time_ns) == (Position(1, 9), 110)
    assert "not on a transaction boundary" in plan.note


def test_points_without_positions_are_found_by_time_and_number() -> None:
    """A folder's points resolve by number, by time and as latest."""
    points = [RecoveryPoint(number, "s", PointKind.FILE, number * 100) for number in (1, 2, 3)]
    timeline = Timeline(points, (), lambda span: pytest.fail(f"read {span}"))

    assert timeline.resolve(Latest()).point.number == 3
    assert timeline.resolve(AtTime(250)).point.number == 2
    assert timeline.resolve(AtPoint(1)).point.number == 1
    with pytest.raises(NotFound, match="no recovery point 9"):
        timeline.resolve(AtPoint(9))
    with pytest.raises(NotFound, match="before the first recovery point"):
        timeline.resolve(AtTime(99))
