"""Retention plans: what stays, what goes, and why."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.model.errors import BadInput
from perdure.model.points import PointKind, RecoveryPoint
from perdure.model.positions import Position
from perdure.model.retention import DAY_NS, HARD_LIMIT, RetentionPlan, RetentionPolicy, plan_retention

START = int(datetime(2026, 1, 1, 12, tzinfo=UTC).timestamp()) * 10**9


def image(number: int, day: float, *, lost_days: float = 0) -> RecoveryPoint:
    """An express full made so many days after the start."""
    time_ns = START + int(day * DAY_NS)
    return RecoveryPoint(
        number,
        "s" * 32,
        PointKind.EXPRESS_FULL,
        time_ns,
        Position(1, number),
        inconsistent_ns=int(lost_days * DAY_NS),
    )


def daily(days: int) -> list[RecoveryPoint]:
    """One express full a day."""
    return [image(day + 1, day) for day in range(days)]


def planned(points: list[RecoveryPoint], policy: RetentionPolicy, **more: object) -> RetentionPlan:
    """A plan made right after the newest point."""
    now_ns = max(point.time_ns for point in points) + 1
    return plan_retention(points, policy, now_ns=now_ns, zone=UTC, **{"holds": {}, **more})  # type: ignore[arg-type]


def numbers(plan: RetentionPlan) -> list[int]:
    """The survivors."""
    return [verdict.point.number for verdict in plan.kept]


def test_the_range_keeps_its_points_and_the_image_that_its_log_stands_on() -> None:
    """Of thirty daily points with a range of a week the last eight stay, and the one before them for its log."""
    plan = planned(daily(30), RetentionPolicy(days=7))

    assert numbers(plan) == [22, *range(23, 31)]
    assert plan.kept[0].reasons == ("the log of the last 7 days stands on it",)
    assert plan.log_from == Position(1, 22)
    assert plan.dropped[0].reasons == ("older than 7 days, and no other rule keeps it",)


def test_grandfather_father_and_son_keep_the_last_point_of_each_period() -> None:
    """Beyond the range the last point of each of the newest weeks, months and years stays."""
    plan = planned(daily(400), RetentionPolicy(days=2, daily=4, weekly=3, monthly=3, yearly=2))

    kept = {verdict.point.number: verdict.reasons for verdict in plan.kept}
    assert "daily 4 of 4" in kept[397]
    dates = {number: datetime.fromtimestamp(image(number, number - 1).time_ns / 1e9, UTC) for number in kept}
    monthly = [number for number, why in kept.items() if any(reason.startswith("monthly") for reason in why)]
    assert [f"{dates[number]:%Y-%m-%d}" for number in monthly] == ["2026-12-31", "2027-01-31", "2027-02-04"]
    weekly = [number for number, why in kept.items() if any(reason.startswith("weekly") for reason in why)]
    assert [dates[number].weekday() for number in weekly] == [6, 6, 3]
    yearly = [number for number, why in kept.items() if any(reason.startswith("yearly") for reason in why)]
    assert [dates[number].year for number in yearly] == [2026, 2027]


def test_without_a_range_nothing_goes() -> None:
    """A source that nobody gave a retention range loses nothing, and the plan says why."""
    plan = planned(daily(1000), RetentionPolicy())

    assert len(plan.kept) == 1000
    assert "no retention range is set" in plan.frozen


def test_an_inconsistent_replica_loses_nothing() -> None:
    """While a replica is inconsistent its points stay, with that as the reason."""
    plan = planned(daily(30), RetentionPolicy(days=1), frozen="the replica is inconsistent")

    assert not plan.dropped
    assert plan.kept[0].reasons == ("the replica is inconsistent",)


def test_time_of_inconsistency_does_not_count() -> None:
    """Ten days in which the replica was inconsistent do not make an older point older."""
    points = [image(1, 0), image(2, 1), image(3, 12, lost_days=10)]

    assert numbers(planned(points, RetentionPolicy(days=2.5))) == [1, 2, 3]
    assert numbers(planned([*points[:2], image(3, 12)], RetentionPolicy(days=2.5))) == [2, 3]


def test_the_newest_sound_point_stays_when_the_newest_is_damaged() -> None:
    """Damage to the newest point never makes the last good one go, however old."""
    points = [image(1, 0), image(2, 100), image(3, 200)]

    plan = planned(points, RetentionPolicy(days=1), damaged={2, 3})

    assert numbers(plan) == [1, 3]
    assert "the newest point that is not damaged" in plan.kept[0].reasons


def test_a_held_point_stays_with_its_reason() -> None:
    """A hold outlives every rule."""
    plan = planned(daily(30), RetentionPolicy(days=1), holds={3: "case 17", 99: "gone"})

    assert plan.kept[0].point.number == 3
    assert plan.kept[0].reasons == ("held: case 17",)


def test_protection_that_stopped_makes_nothing_older() -> None:
    """A year after the last point the plan is what it was right after it."""
    points = daily(30)
    later = plan_retention(
        points, RetentionPolicy(days=7), now_ns=points[-1].time_ns + 365 * DAY_NS, holds={}, zone=UTC
    )

    at_once = planned(points, RetentionPolicy(days=7))
    assert [(each.point, each.reasons) for each in later.kept] == [(each.point, each.reasons) for each in at_once.kept]
    assert later.dropped == at_once.dropped


def test_a_point_is_locked_for_as_long_as_its_rules_keep_it() -> None:
    """A point of the range stays for the rest of it; the oldest of eight weekly ones for another week."""
    points = daily(100)
    now_ns = points[-1].time_ns
    plan = plan_retention(points, RetentionPolicy(days=10, weekly=8), now_ns=now_ns, holds={}, zone=UTC)

    days = {each.point.number: (each.until_ns - now_ns) / DAY_NS for each in plan.kept}
    assert days[94] == 4
    assert days[100] == 8 * 7
    weekly = [number for number, each in zip(days, plan.kept, strict=True) if "weekly 8 of 8" in each.reasons]
    assert days[weekly[0]] == 7


def test_too_many_points_are_thinned_where_the_log_makes_up_for_them() -> None:
    """Points that the log joins to their predecessor go first; those behind a gap stay."""
    points = [image(number, number / 24) for number in range(1, 101)]
    runs = {number: (1 if number < 50 else 2) for number in range(1, 101)}

    plan = planned(points, RetentionPolicy(days=30, express_fulls=40), runs=runs)

    assert len(plan.kept) == 40
    assert {1, 50, 100} <= set(numbers(plan))
    assert all("the log keeps every moment recoverable" in verdict.reasons[0] for verdict in plan.dropped)
    gaps = [b - a for a, b in zip(numbers(plan), numbers(plan)[1:], strict=False)]
    assert max(gaps) <= 4


def test_a_policy_out_of_bounds_is_refused() -> None:
    """Impossible numbers are refused when they are set, not when they are applied."""
    assert RetentionPolicy().express_fulls == 448
    assert RetentionPolicy().incrementals == 96
    for wrong in ({"express_fulls": HARD_LIMIT + 1}, {"days": -1}, {"weekly": -1}, {"incrementals": 0}):
        with pytest.raises(BadInput) as caught:
            RetentionPolicy(**wrong)  # type: ignore[arg-type]
        assert caught.value.code == "bad-retention"


@given(
    days=st.lists(st.floats(0, 500), min_size=1, max_size=60),
    policy=st.builds(
        RetentionPolicy,
        days=st.floats(0, 100),
        daily=st.integers(0, 10),
        weekly=st.integers(0, 5),
        monthly=st.integers(0, 5),
        yearly=st.integers(0, 3),
        express_fulls=st.integers(1, 64),
    ),
    held=st.sets(st.integers(1, 60)),
    damaged=st.sets(st.integers(1, 60)),
    runs=st.lists(st.integers(1, 3), min_size=60, max_size=60),
)
def test_whatever_the_policy_the_unbreakable_rules_hold(
    days: list[float], policy: RetentionPolicy, held: set[int], damaged: set[int], runs: list[int]
) -> None:
    """Every point has one verdict with a reason; newest, newest sound and held stay; the range keeps its log."""
    points = [image(number, day) for number, day in enumerate(days, 1)]

    plan = planned(
        points,
        policy,
        holds=dict.fromkeys(held, "x"),
        damaged=damaged,
        runs={point.number: runs[point.number - 1] for point in points},
    )

    kept, dropped = set(numbers(plan)), {verdict.point.number for verdict in plan.dropped}
    assert kept | dropped == {point.number for point in points}
    assert not kept & dropped
    assert all(verdict.reasons for verdict in (*plan.kept, *plan.dropped))
    sound = [point.number for point in points if point.number not in damaged]
    assert {points[-1].number, *sound[-1:], *(held & {point.number for point in points})} <= kept
    # Whatever was inside the range and went has an image before it that stays, with all of its log.
    inside = [p for p in points if min(points[-1].time_ns, p.time_ns) >= points[-1].time_ns - policy.days * DAY_NS]
    if plan.log_from is not None:
        assert all(point.position >= plan.log_from for point in inside)


def test_log_before_an_image_whose_clock_was_set_back_stays() -> None:
    """An image that seems older than the one before it is no base: the log before it may be of yesterday."""
    points = [image(1, 0), image(2, 20), image(3, 3), image(4, 21)]

    plan = planned(points, RetentionPolicy(days=5))

    assert plan.log_from == Position(1, 1)
    assert numbers(plan) == [1, 2, 3, 4]
    assert numbers(planned(points, RetentionPolicy(days=5), runs={1: 0, 2: 0, 3: 0, 4: 0})) == [1, 2, 4]
    assert "the clock was set back" in plan.kept[2].reasons[0]


def test_when_the_clock_is_right_again_what_was_doubtful_goes() -> None:
    """The next image that is older than the range, and younger than all before it, is the base again."""
    points = [image(1, 0), image(2, 20), image(3, 3), image(4, 21), image(5, 40)]

    plan = planned(points, RetentionPolicy(days=5))

    assert plan.log_from == Position(1, 4)
    assert numbers(plan) == [4, 5]
