"""Retention: which recovery points stay, and why. Pure; no I/O.

A source's policy has a *retention range* in days, inside which every moment stays recoverable, and
grandfather-father-son rules that keep single points beyond it. Four rules stand above every policy:

* the newest point, and the newest one that is not known to be damaged, always stay;
* a held point stays;
* the image that the log inside the range stands on stays, although it is older than the range;
* while a replica is inconsistent nothing is deleted, and the time for which it was does not count.

The clock of retention is the time of the newest point, not of the wall: when protection stops, nothing ages.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from enum import StrEnum

from perdure.model.errors import BadInput
from perdure.model.points import RecoveryPoint
from perdure.model.positions import Position

__all__ = ["DAY_NS", "HARD_LIMIT", "RetentionPlan", "RetentionPolicy", "Verdict", "WhenFull", "plan_retention"]

DAY_NS = 86_400 * 10**9

HARD_LIMIT = 512
"""No policy may keep more express fulls of one source; DPM's limit, of which it uses 448 by default."""


class WhenFull(StrEnum):
    """What happens when the pool has no room for a new point."""

    STOP = "stop"
    """Protection stops with an alert; nothing is deleted before its time."""

    THIN = "thin"
    """Points inside the range are thinned out where the log keeps every moment recoverable, then protection goes on."""


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """How long the recovery points of a source are kept.

    Args:
        days: Retention range: every moment of so many days stays recoverable. ``None``: nothing is ever deleted.
        daily: Beyond the range, the last point of each of so many days is kept.
        weekly: The same for (ISO) weeks.
        monthly: The same for months.
        yearly: The same for years.
        express_fulls: At most so many points of the range are kept; the others are thinned out.
        incrementals: At most so many log objects are kept for each express full; more are bundled, and nothing is lost.
        when_full: What happens when the pool is full.
        lock: Lock what is written against deletion for as long as it is to be kept, where the storage can.

    Raises:
        BadInput: A number is out of range.
    """

    days: float | None = None
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    express_fulls: int = 448
    incrementals: int = 96
    when_full: WhenFull = WhenFull.STOP
    lock: bool = False

    def __post_init__(self) -> None:
        if self.days is not None and not 0 <= self.days <= 36_525:
            raise _unreasonable("the retention range", self.days, "0 to 36525 days")
        for name in ("daily", "weekly", "monthly", "yearly"):
            if not 0 <= getattr(self, name) <= 10_000:
                raise _unreasonable(f"the number of {name} points", getattr(self, name), "0 to 10000")
        if not 1 <= self.express_fulls <= HARD_LIMIT:
            raise _unreasonable("the limit of express fulls", self.express_fulls, f"1 to {HARD_LIMIT}")
        if not 1 <= self.incrementals <= 10_000:
            raise _unreasonable("the limit of incrementals per express full", self.incrementals, "1 to 10000")


def _unreasonable(what: str, value: float, allowed: str) -> BadInput:
    return BadInput(f"{what} cannot be {value}", code="bad-retention", hint=f"choose {allowed}")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a point, and why; several reasons may keep it.

    Args:
        point: The point.
        reasons: All reasons.
        until_ns: Until when it will be kept if protection goes on as it does, nanoseconds since 1970 UTC; 0 if it goes.
    """

    point: RecoveryPoint
    reasons: tuple[str, ...]
    until_ns: int = 0


@dataclass(frozen=True, slots=True)
class RetentionPlan:
    """What a policy says about the points of one source.

    Args:
        kept: The survivors, by number, with every reason that each stays.
        dropped: What goes, by number, with the reason.
        log_from: Log up to this position is not needed by what is kept; ``None``: all of it is.
        frozen: Why nothing at all is deleted; empty when the policy was applied.
    """

    kept: tuple[Verdict, ...]
    dropped: tuple[Verdict, ...]
    log_from: Position | None
    frozen: str = ""


def plan_retention(
    points: Sequence[RecoveryPoint],
    policy: RetentionPolicy,
    *,
    now_ns: int,
    holds: Mapping[int, str],
    damaged: Collection[int] = (),
    runs: Mapping[int, int] | None = None,
    frozen: str = "",
    only_made_up_for: bool = False,
    zone: tzinfo | None = None,
) -> RetentionPlan:
    """Decide about every point of a source.

    Args:
        points: All readable records of the source.
        policy: Its policy.
        now_ns: The wall's clock, nanoseconds since 1970 UTC.
        holds: Why a point is held, by number.
        damaged: Numbers of points that are known not to recover whole.
        runs: For images the number of the unbroken run of log that they lie in: two images of one run are joined by
            log, so that the later one can go without a moment being lost.
        frozen: Why nothing may be deleted now; empty when it may.
        only_made_up_for: Thin out only points that the log makes up for, even if too many stay.
        zone: The zone whose days, weeks, months and years count; the machine's own when ``None``.
    """
    ordered = sorted(points, key=lambda point: point.number)
    if policy.days is None:
        frozen = frozen or "no retention range is set, so nothing is ever deleted"
    if frozen or not ordered:
        return RetentionPlan(tuple(Verdict(point, (frozen,)) for point in ordered), (), None, frozen)
    assert policy.days is not None
    age = _ages(ordered, now_ns)
    reasons: dict[int, list[str]] = {point.number: [] for point in ordered}
    _keep_always(ordered, reasons, holds, damaged)
    base = _base(ordered, age, policy.days, damaged)
    good = [point for point in ordered if point.number not in damaged]
    if base is not None:
        reasons[base.number].append(f"the log of the last {_days(policy.days)} stands on it")
    for point in _doubtful(good, base, age, policy.days, runs or {}):
        reasons[point.number].append(f"perhaps within {_days(policy.days)}: the clock was set back before it")
    for rule in _RULES:
        _keep_periods(good, reasons, rule, getattr(policy, rule[0]), zone)
    inside = [point for point in ordered if age[point.number] <= policy.days * DAY_NS]
    thinned = _thinned(ordered, inside, reasons, policy.express_fulls, runs or {})
    if only_made_up_for:
        thinned = {number: why for number, why in thinned.items() if why.endswith(_MADE_UP_FOR)}
    for point in inside:
        if point.number not in thinned:
            reasons[point.number].append(f"within {_days(policy.days)}")
    until_ns = _untils(reasons, age, policy, now_ns)
    kept = tuple(
        Verdict(point, tuple(reasons[point.number]), until_ns[point.number])
        for point in ordered
        if reasons[point.number]
    )
    too_old = f"older than {_days(policy.days)}, and no other rule keeps it"
    dropped = tuple(
        Verdict(point, (thinned.get(point.number, too_old),)) for point in ordered if not reasons[point.number]
    )
    return RetentionPlan(kept, dropped, _log_from(base, inside))


def _log_from(base: RecoveryPoint | None, inside: Sequence[RecoveryPoint]) -> Position | None:
    """Where needed log begins; a clock that was set back may have put young images before the base."""
    if base is None or base.position is None:
        return None
    return min([base.position, *(point.position for point in inside if point.position is not None)])


def _ages(ordered: Sequence[RecoveryPoint], now_ns: int) -> dict[int, int]:
    """Nanoseconds for which each point was followed by protection; time of inconsistency does not count."""
    newest = ordered[-1]
    clock_ns = min(now_ns, newest.time_ns)
    return {
        point.number: clock_ns - point.time_ns - max(0, newest.inconsistent_ns - point.inconsistent_ns)
        for point in ordered
    }


def _keep_always(
    ordered: Sequence[RecoveryPoint],
    reasons: Mapping[int, list[str]],
    holds: Mapping[int, str],
    damaged: Collection[int],
) -> None:
    reasons[ordered[-1].number].append("the newest point")
    good = [point for point in ordered if point.number not in damaged]
    if good and good[-1] is not ordered[-1]:
        reasons[good[-1].number].append("the newest point that is not damaged")
    for number, why in holds.items():
        if number in reasons:
            reasons[number].append(f"held: {why}" if why else "held")


def _base(
    ordered: Sequence[RecoveryPoint], age: Mapping[int, int], days: float, damaged: Collection[int]
) -> RecoveryPoint | None:
    """The newest sound image that is older than the range: the moments at the range's beginning need it and its log.

    One that seems older than an image before it was made after the clock had been set back, so what lies before it may
    be younger than it seems. It is no base.
    """
    base: RecoveryPoint | None = None
    youngest: int | None = None
    images = [point for point in ordered if point.position is not None]
    for point in sorted(images, key=lambda point: (point.position or Position(0, 0), point.number)):
        in_order = youngest is None or age[point.number] <= youngest
        if in_order:
            youngest = age[point.number]
        if in_order and age[point.number] > days * DAY_NS and point.number not in damaged:
            base = point
    return base


def _doubtful(
    good: Sequence[RecoveryPoint],
    base: RecoveryPoint | None,
    age: Mapping[int, int],
    days: float,
    runs: Mapping[int, int],
) -> Iterator[RecoveryPoint]:
    """Images after the base that seem older than the range and that no log joins to it; without a base all of them."""
    for point in good:
        if point.position is None or age[point.number] <= days * DAY_NS:
            continue
        if base is None or base.position is None:
            yield point
            continue
        joined = point.number in runs and runs[point.number] == runs.get(base.number)
        if point.position > base.position and not joined:
            yield point


# --- grandfather, father, son ------------------------------------------------------------------------


def _local(point: RecoveryPoint, zone: tzinfo | None) -> datetime:
    return datetime.fromtimestamp(point.time_ns / 1e9, UTC).astimezone(zone)


_Period = Callable[[datetime], tuple[int, ...]]

_Rule = tuple[str, _Period]

_RULES: tuple[_Rule, ...] = (
    ("daily", lambda when: (when.year, when.month, when.day)),
    ("weekly", lambda when: tuple(when.isocalendar())[:2]),
    ("monthly", lambda when: (when.year, when.month)),
    ("yearly", lambda when: (when.year,)),
)


def _keep_periods(
    good: Sequence[RecoveryPoint],
    reasons: Mapping[int, list[str]],
    rule: _Rule,
    count: int,
    zone: tzinfo | None,
) -> None:
    """Keep the last point of each of the newest ``count`` periods that have one."""
    name, period = rule
    seen: set[tuple[int, ...]] = set()
    for point in sorted(good, key=lambda point: (point.time_ns, point.number), reverse=True):
        if len(seen) >= count:
            return
        which = period(_local(point, zone))
        if which not in seen:
            seen.add(which)
            reasons[point.number].append(f"{name} {len(seen)} of {count}")


def _untils(
    reasons: Mapping[int, Sequence[str]], age: Mapping[int, int], policy: RetentionPolicy, now_ns: int
) -> dict[int, int]:
    """Until when each point will be kept by its rules; at least for another day, until the next plan."""
    range_ns = int((policy.days or 0) * DAY_NS)
    found = {}
    for number, why in reasons.items():
        untils = [now_ns + DAY_NS, now_ns + range_ns - age[number]]
        for reason in why:
            name, _, rest = reason.partition(" ")
            if name in _PERIOD_DAYS:
                # The k-th of n periods back is kept until n - k + 1 newer ones have points.
                rank, _, count = rest.partition(" of ")
                untils.append(now_ns + (int(count) - int(rank) + 1) * _PERIOD_DAYS[name] * DAY_NS)
        found[number] = max(untils)
    return found


_PERIOD_DAYS = {"daily": 1, "weekly": 7, "monthly": 31, "yearly": 366}


# --- thinning out ------------------------------------------------------------------------------------

_MADE_UP_FOR = "; the log keeps every moment recoverable"


def _thinned(
    ordered: Sequence[RecoveryPoint],
    inside: Iterable[RecoveryPoint],
    reasons: Mapping[int, list[str]],
    limit: int,
    runs: Mapping[int, int],
) -> dict[int, str]:
    """The points of the range that go because there are too many, with the reason.

    Those that the log makes up for go first, and among equals those that stand closest to their neighbours, so that
    what stays is spread evenly.
    """
    candidates = {point.number for point in inside if not reasons[point.number]}
    staying = [point for point in ordered if reasons[point.number] or point.number in candidates]
    too_many = len(staying) - limit
    if too_many <= 0 or not candidates:
        return {}
    return _closest(staying, candidates, too_many, limit, runs)


def _closest(
    staying: Sequence[RecoveryPoint], candidates: set[int], too_many: int, limit: int, runs: Mapping[int, int]
) -> dict[int, str]:
    before = list(range(-1, len(staying) - 1))
    after = list(range(1, len(staying) + 1))
    gone: dict[int, str] = {}

    def cost(row: int) -> tuple[bool, int, int]:
        point = staying[row]
        left = staying[before[row]] if before[row] >= 0 else None
        right = staying[after[row]] if after[row] < len(staying) else None
        run = runs.get(point.number)
        lossy = left is None or run is None or runs.get(left.number) != run
        first, last = (left or point).time_ns, (right or point).time_ns
        return lossy, last - first, row

    heap = [cost(row) for row, point in enumerate(staying) if point.number in candidates]
    heapq.heapify(heap)
    while heap and len(gone) < too_many:
        lossy, gap, row = heapq.heappop(heap)
        number = staying[row].number
        if number in gone or (lossy, gap, row) != cost(row):
            continue
        gone[number] = f"more than {limit} points: thinned out" + ("" if lossy else _MADE_UP_FOR)
        left, right = before[row], after[row]
        if left >= 0:
            after[left] = right
        if right < len(staying):
            before[right] = left
        for neighbour in (left, right):
            if 0 <= neighbour < len(staying) and staying[neighbour].number in candidates:
                heapq.heappush(heap, cost(neighbour))
    return gone


def _days(days: float) -> str:
    return "1 day" if days == 1 else f"{days:g} days"
