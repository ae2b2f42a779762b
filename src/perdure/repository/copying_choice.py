"""Choosing what is to be copied of a source: what the other pool lacks, and would keep."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from perdure.model.errors import Damaged, NotFound, Refused
from perdure.model.logs import LogSpan, StoredSegment
from perdure.model.points import DataSource, RecoveryPoint
from perdure.model.positions import Position
from perdure.model.retention import RetentionPlan, plan_retention
from perdure.model.timeline import Timeline
from perdure.repository import records
from perdure.repository.copying_log import same_log, widest_first
from perdure.repository.pool import Pool
from perdure.storage.contract import ObjectMissing

__all__ = ["Choice", "choose", "diverged", "refuse_unknown", "same_point"]


@dataclass(frozen=True, slots=True)
class Choice:
    """What is to be copied.

    Args:
        points: Points that the other pool lacks.
        log: Log that it may lack.
        common: The points that both have, by number: as it is here and there.
        left_out: Numbers of points that the other pool lacks because its retention policy would not keep them.
        unreadable: Numbers of points whose records are damaged in the pool that is copied from, and missing in the
            other.
        held: The other pool's log.
    """

    points: tuple[RecoveryPoint, ...]
    log: tuple[LogSpan, ...]
    common: dict[int, tuple[RecoveryPoint, RecoveryPoint]]
    left_out: tuple[int, ...]
    unreadable: tuple[int, ...]
    held: tuple[LogSpan, ...]

    def steps(self) -> list[RecoveryPoint | LogSpan]:
        """Everything by position: a point, then the log that continues it.

        So at every moment the other pool shows the beginning of the timeline, and never a gap that there is not.
        """
        steps: list[RecoveryPoint | LogSpan] = [*self.points, *self.log]
        return sorted(steps, key=_place)


def _place(step: RecoveryPoint | LogSpan) -> tuple[int, int, int, int]:
    if isinstance(step, RecoveryPoint):
        position = step.position or Position(0, 0)
        return position.generation, position.place, 0, step.number
    return step.generation, step.after_place, 1, -step.last_place


def choose(origin: Pool, target: Pool, source: DataSource, numbers: frozenset[int] | None) -> Choice:
    """Choose what to copy.

    Args:
        origin: The pool that is copied from.
        target: The pool that is copied into.
        source: The source.
        numbers: Only these points, whatever the target's policy says, and no log; all points and log if ``None``.

    Raises:
        Refused: The pools have different points or log (``copy-diverged``).
    """
    # Points before log: so the log reaches at least as far as the points.
    points, unreadable = _readable(origin, source.id)
    spans = origin.spans(source.id)
    theirs, held = {point.number: point for point in target.points(source.id)}, target.spans(source.id)
    common = {number: (points[number], theirs[number]) for number in points.keys() & theirs.keys()}
    _refuse_diverged(source, common, numbers, target)
    if not same_log(source.id, origin, spans, target, held):
        raise diverged(source, target, "the log after their last common moment is another in each")
    lacking = {number: point for number, point in points.items() if number not in theirs}
    if numbers is not None:
        chosen = tuple(point for number, point in lacking.items() if number in numbers)
        return Choice(chosen, (), common, (), _among(unreadable - theirs.keys(), numbers), tuple(held))
    plan = _retention(origin, target, source, {**theirs, **points}, _joined(spans, held))
    dropped = {verdict.point.number for verdict in plan.dropped}
    return Choice(
        tuple(point for number, point in lacking.items() if number not in dropped),
        tuple(span for span in widest_first(spans) if plan.log_from is None or span.last > plan.log_from),
        common,
        tuple(sorted(lacking.keys() & dropped)),
        tuple(sorted(unreadable - theirs.keys())),
        tuple(held),
    )


def refuse_unknown(origin: Pool, source: DataSource, numbers: frozenset[int]) -> None:
    """Make sure that there are such points.

    Raises:
        NotFound: There are not.
    """
    points, unreadable = _readable(origin, source.id)
    if unknown := numbers - points.keys() - unreadable:
        raise NotFound(
            f"{source.name!r} has no recovery point {min(unknown)} in {origin.storage.url}",
            code="point-not-found",
            hint="list them with 'perdure points'",
        )


def same_point(point: RecoveryPoint, other: RecoveryPoint) -> bool:
    """Whether a point of one pool is a copy of that of another: the same but for what names chunks and counts bytes."""
    return replace(other, files=point.files, tree=point.tree, stored=point.stored) == point


def diverged(source: DataSource, target: Pool, why: str) -> Refused:
    """The refusal to mix two histories of a source."""
    return Refused(
        f"the history of {source.name!r} in {target.storage.url} has parted from that in the pool that is copied from: "
        f"{why}; nothing more of it is copied, and both pools stay as they are",
        code="copy-diverged",
        hint="somebody protected the source into both pools. Keep both as they are, and copy into a new pool",
    )


def _readable(pool: Pool, source: str) -> tuple[dict[int, RecoveryPoint], set[int]]:
    """The points of a pool by number, and the numbers of those whose records cannot be read."""
    found = {point.number: point for point in pool.points(source)}
    listed = (records.point_number(each.name) for each in pool.storage.list(f"points/{source}"))
    unknown = {number for number in listed if number is not None and number not in found}
    # One that was committed a moment ago is not damaged.
    found.update((point.number, point) for point in pool.points(source) if point.number in unknown)
    return found, unknown - found.keys()


def _refuse_diverged(
    source: DataSource,
    common: dict[int, tuple[RecoveryPoint, RecoveryPoint]],
    numbers: frozenset[int] | None,
    target: Pool,
) -> None:
    upto = max(numbers) if numbers else None
    for number in sorted(common):
        if (upto is None or number <= upto) and not same_point(*common[number]):
            raise diverged(source, target, f"recovery point {number} is another in each")


def _among(found: set[int], numbers: frozenset[int]) -> tuple[int, ...]:
    return tuple(sorted(found & numbers))


# --- what the other pool would keep ------------------------------------------------------------------

_Held = tuple[Pool, LogSpan]


def _joined(spans: Sequence[LogSpan], held: Sequence[LogSpan]) -> tuple[dict[str, LogSpan], frozenset[str]]:
    """The log of both pools by name, and the names that are in the other one."""
    return {span.name: span for span in (*spans, *held)}, frozenset(span.name for span in held)


def _retention(
    origin: Pool,
    target: Pool,
    source: DataSource,
    points: dict[int, RecoveryPoint],
    log: tuple[dict[str, LogSpan], frozenset[str]],
) -> RetentionPlan:
    """What the other pool's policy says of the points and the log of both.

    Without this a pool of shorter retention would be sent at every copy what it has pruned.
    """
    spans, theirs = log

    def read(span: LogSpan) -> StoredSegment:
        return (target if span.name in theirs else origin).segment(source.id, span)

    timeline = Timeline(list(points.values()), list(spans.values()), read)
    holds = {hold.number: hold.reason for pool in (target, origin) for hold in pool.holds(source.id)}
    policy = target.policy(source.id)
    runs: dict[int, int] = {}
    if policy.days is not None:
        # Log that cannot be read leaves the runs unknown: then points are thinned out as if no log joined them.
        with contextlib.suppress(Damaged, ObjectMissing):
            runs = timeline.runs()
    return plan_retention(timeline.points, policy, now_ns=time.time_ns(), holds=holds, runs=runs)
