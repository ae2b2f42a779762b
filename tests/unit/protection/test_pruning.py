"""Pruning a protected database: every moment of the range still recovers, and nothing is listed in vain."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from perdure.model.errors import Refused
from perdure.model.points import Hold
from perdure.model.replica import ReplicaState
from perdure.model.retention import DAY_NS, RetentionPolicy
from perdure.model.targets import AtPoint, AtPosition, AtTime, Target
from perdure.protection.image_verbs import express_full, synchronize
from perdure.protection.log_joining import delete_covered, join_log
from perdure.protection.points import timeline_rows
from perdure.protection.protected import Protected
from perdure.protection.pruning import PrunePlan, plan_prune, prune_source
from perdure.protection.recovery import recover
from perdure.testing.paged_scene import Scene

STEP = st.sampled_from(("commit", "commit", "commit", "synchronize", "express full", "cut the log"))
FORWARD = st.sampled_from((0, 0.01, 0.3, 1, 4))
HISTORY = st.lists(st.tuples(STEP, FORWARD), min_size=1, max_size=30)
ANY_CLOCK = st.lists(st.tuples(STEP, FORWARD | st.sampled_from((-0.3, -2, -9))), min_size=1, max_size=30)
POLICY = st.builds(
    RetentionPolicy,
    days=st.sampled_from((0, 0.25, 1, 3, 10)),
    daily=st.integers(0, 2),
    weekly=st.integers(0, 2),
)
HELD = st.lists(st.integers(0, 9), max_size=2)


class Pruned:
    """A database with a history, and what each of its places showed before it was pruned."""

    def __init__(self, root: Path, history: list[tuple[str, float]]) -> None:
        self.scene = Scene(root)
        self.scene.now = 100 * DAY_NS
        self._files = 0
        self._value = 0
        self._commit()
        self.protected: Protected = self.scene.protect()
        for step, days in history:
            self.scene.now += int(days * DAY_NS)
            if step == "commit":
                self._commit()
            elif step == "synchronize":
                synchronize(self.protected)
            elif step == "express full":
                express_full(self.protected)
            else:
                self.scene.database.cut_log()
        express_full(self.protected)
        self.vault, self.source = self.scene.vault, self.protected.source

    def _commit(self) -> None:
        self._value += 1
        self.scene.database.commit({self._value % 5: self.scene.page(f"commit {self._value}")})

    def recovered(self, to: Target) -> bytes:
        """The database at a target."""
        self._files += 1
        target = self.scene.root / f"recovered-{self._files}"
        recover(self.protected, to=to, target=target)
        content = target.read_bytes()
        target.unlink()
        return content

    def listed(self) -> dict[Target, tuple[int, bytes]]:
        """Time and content of everything that the timeline lists, each as it recovers."""
        rows = timeline_rows(self.vault, self.source.id, commits=True)
        found: dict[Target, tuple[int, bytes]] = {}
        for row in rows:
            to: Target
            if row.number is not None:
                to = AtPoint(row.number)
            else:
                assert row.position is not None
                to = AtPosition(row.position)
            found[to] = row.time_ns, self.recovered(to)
        return found

    def plan(self, **how: int) -> PrunePlan:
        """What pruning would do now."""
        return plan_prune(self.scene.home, self.vault, self.source, now_ns=self.scene.now, **how)

    def range_begins_ns(self, policy: RetentionPolicy) -> int:
        """The first moment of the retention range."""
        assert policy.days is not None
        newest = self.vault.points(self.source.id)[-1]
        return min(self.scene.now, newest.time_ns) - int(policy.days * DAY_NS)


def pruned(
    root: Path, history: list[tuple[str, float]], policy: RetentionPolicy, held: list[int]
) -> tuple[Pruned, dict[Target, tuple[int, bytes]], PrunePlan]:
    """Make a history, note everything that is listed, and prune."""
    database = Pruned(root, history)
    vault, source = database.vault, database.source
    numbers = [point.number for point in vault.points(source.id)]
    for number in {numbers[row % len(numbers)] for row in held}:
        vault.hold(Hold(source.id, number, "audit"))
    vault.set_policy(source.id, policy)
    before = database.listed()
    plan = database.plan()
    prune_source(vault, plan)
    return database, before, plan


def check_what_is_left(
    database: Pruned, before: dict[Target, tuple[int, bytes]], plan: PrunePlan, policy: RetentionPolicy
) -> None:
    """Whatever is listed is kept and as it was; what lies in the range is listed, or an image at it makes up."""
    after = database.listed()
    kept = [verdict.point.number for verdict in plan.retention.kept]
    assert [point.number for point in database.vault.points(database.source.id)] == kept
    assert {to.number for to in after if isinstance(to, AtPoint)} == set(kept)
    assert all(before[to][1] == content for to, (_, content) in after.items())
    begins_ns = database.range_begins_ns(policy)
    for to, (time_ns, content) in before.items():
        if isinstance(to, AtPosition) and time_ns >= begins_ns:
            assert database.recovered(to) == content
    assert not database.plan().retention.dropped
    assert not database.plan().log


@settings(max_examples=60, deadline=None)
@given(history=HISTORY, policy=POLICY, held=HELD)
def test_every_moment_of_the_range_recovers_to_what_it_was(
    history: list[tuple[str, float]], policy: RetentionPolicy, held: list[int]
) -> None:
    """After pruning every moment inside the range, and every kept point, recovers as before; nothing else is listed."""
    with tempfile.TemporaryDirectory() as root:
        database, before, plan = pruned(Path(root), history, policy, held)
        check_what_is_left(database, before, plan, policy)


@settings(max_examples=60, deadline=None)
@given(history=HISTORY, policy=POLICY)
def test_every_time_of_the_range_recovers_to_what_it_did(
    history: list[tuple[str, float]], policy: RetentionPolicy
) -> None:
    """Asking for a time, also between commits and before the first one of the range, gives the same state as before."""
    with tempfile.TemporaryDirectory() as root:
        database = Pruned(Path(root), history)
        database.vault.set_policy(database.source.id, policy)
        begins_ns = database.range_begins_ns(policy)
        times = {begins_ns, *(time_ns + more for time_ns, _ in database.listed().values() for more in (-1, 0, 1))}
        oldest = min(point.time_ns for point in database.vault.points(database.source.id))
        before = {at: database.recovered(AtTime(at)) for at in times if at >= max(begins_ns, oldest)}

        prune_source(database.vault, database.plan())

        assert before == {at: database.recovered(AtTime(at)) for at in before}


@settings(max_examples=60, deadline=None)
@given(history=ANY_CLOCK, policy=POLICY, held=HELD)
@example(  # the only image older than the range was made under a clock set back: there is no base
    history=[("cut the log", 0), ("synchronize", -0.3), ("commit", 0.3), ("commit", 0)],
    policy=RetentionPolicy(days=0.25),
    held=[],
)
@example(  # the log before the image that was made under a clock set back is of yesterday
    history=[("commit", 20), ("synchronize", 0), ("express full", -9), ("commit", 9)],
    policy=RetentionPolicy(days=3),
    held=[],
)
def test_a_clock_that_is_set_forward_and_back_loses_no_place_of_the_range(
    history: list[tuple[str, float]], policy: RetentionPolicy, held: list[int]
) -> None:
    """Every place whose time lies in the range stays, whatever the times of its neighbours are."""
    with tempfile.TemporaryDirectory() as root:
        database, before, plan = pruned(Path(root), history, policy, held)
        check_what_is_left(database, before, plan, policy)


@settings(max_examples=40, deadline=None)
@given(history=HISTORY, at_most=st.integers(1, 4))
def test_making_room_loses_no_moment(history: list[tuple[str, float]], at_most: int) -> None:
    """Thinning out what the log makes up for leaves every place of the range recoverable."""
    policy = RetentionPolicy(days=30)
    with tempfile.TemporaryDirectory() as root:
        database = Pruned(Path(root), history)
        database.vault.set_policy(database.source.id, policy)
        before = database.listed()
        begins_ns = database.range_begins_ns(policy)

        prune_source(database.vault, database.plan(at_most=at_most))

        after = database.listed()
        assert all(before[to][1] == content for to, (_, content) in after.items() if to in before)
        for to, (time_ns, content) in before.items():
            if isinstance(to, AtPosition) and time_ns >= begins_ns:
                assert database.recovered(to) == content


@settings(max_examples=40, deadline=None)
@given(history=HISTORY, policy=POLICY)
def test_joined_log_is_pruned_like_any_other(history: list[tuple[str, float]], policy: RetentionPolicy) -> None:
    """Joining log before or after pruning changes nothing about what recovers."""
    with tempfile.TemporaryDirectory() as root:
        database = Pruned(Path(root), history)
        vault, source = database.vault, database.source
        vault.set_policy(source.id, policy)
        before = database.listed()
        join_log(vault, source, database.scene.workload, most=1)
        plan = database.plan()
        prune_source(vault, plan)
        delete_covered(vault, source, grace_s=0)
        begins_ns = database.range_begins_ns(policy)
        for to, (time_ns, content) in before.items():
            if isinstance(to, AtPosition) and time_ns >= begins_ns:
                assert database.recovered(to) == content


def test_nothing_goes_while_the_replica_is_inconsistent(tmp_path: Path) -> None:
    """Until it is repaired, the points from before the loss may be the only good ones."""
    database = Pruned(tmp_path, [("commit", 5), ("express full", 5)])
    database.vault.set_policy(database.source.id, RetentionPolicy(days=0))
    database.protected.note_state(ReplicaState.INCONSISTENT, "test")

    plan = database.plan()

    assert "inconsistent" in plan.retention.frozen
    assert not plan.retention.dropped
    assert not plan.log


def test_a_hold_that_was_placed_after_the_plan_stops_it(tmp_path: Path) -> None:
    """A plan that is out of date deletes nothing at all."""
    database = Pruned(tmp_path, [("commit", 5), ("express full", 5), ("express full", 5)])
    vault, source = database.vault, database.source
    vault.set_policy(source.id, RetentionPolicy(days=0))
    plan = database.plan()
    vault.hold(Hold(source.id, plan.retention.dropped[0].point.number, "audit"))
    before = database.listed()

    with pytest.raises(Refused):
        prune_source(vault, plan)

    assert database.listed() == before
