"""Joining log: fewer segments, the same recoverable places."""

from __future__ import annotations

from pathlib import Path

from perdure.model.retention import RetentionPolicy
from perdure.model.targets import AtPosition
from perdure.protection.image_verbs import express_full, synchronize
from perdure.protection.log_joining import delete_covered, join_log
from perdure.protection.points import timeline_rows
from perdure.protection.protected import Protected
from perdure.protection.recovery import recover
from perdure.protection.upkeep import keep_up
from perdure.testing.paged_scene import Scene


def with_log(scene: Scene) -> tuple[Protected, dict[str, bytes]]:
    """A source with an image, ten synchronizations, and another image; and what each position shows."""
    scene.database.commit({0: scene.page("begin")})
    protected = scene.protect()
    shown: dict[str, bytes] = {}
    for number in range(10):
        scene.database.commit({number % 4: scene.page(f"commit {number}")})
        last = synchronize(protected).last
        shown[str(last)] = bytes(scene.database.content)
    express_full(protected)
    return protected, shown


def everything(protected: Protected, root: Path) -> dict[str, bytes]:
    """What each commit in the timeline recovers to."""
    found = {}
    for row in timeline_rows(protected.vault, protected.source.id, commits=True):
        if row.number is None and row.position is not None:
            target = root / f"recovered-{row.position.generation}-{row.position.place}"
            target.unlink(missing_ok=True)
            recover(protected, to=AtPosition(row.position), target=target)
            found[str(row.position)] = target.read_bytes()
    return found


def test_every_place_recovers_before_and_after_the_narrow_segments_are_gone(scene: Scene) -> None:
    """Joined log holds every place; the narrow segments go only when the wide one is older than the grace period."""
    protected, shown = with_log(scene)
    vault, source = scene.vault, protected.source
    narrow = len(vault.spans(source.id))

    joined = join_log(vault, source, scene.workload, most=3)

    assert (joined.segments, joined.into) == (10, 1)
    assert shown == everything(protected, scene.root)
    assert delete_covered(vault, source, grace_s=3600) == 0
    assert delete_covered(vault, source, grace_s=0) == 10
    assert len(vault.spans(source.id)) == narrow - 9
    assert shown == everything(protected, scene.root)
    scene.database.commit({1: scene.page("after")})
    assert synchronize(protected).cause == ""


def test_few_segments_and_growing_log_are_left_alone(scene: Scene) -> None:
    """Log that lies in no more segments than the policy allows, or after the newest image, is not touched."""
    protected, _ = with_log(scene)
    for number in range(5):
        scene.database.commit({0: scene.page(f"later {number}")})
        synchronize(protected)

    assert join_log(scene.vault, protected.source, scene.workload, most=10).into == 0
    assert join_log(scene.vault, protected.source, scene.workload, most=1).segments == 10
    assert join_log(scene.vault, protected.source, scene.workload, most=1).segments == 0


def test_a_damaged_wide_segment_never_replaces_the_narrow_ones(scene: Scene) -> None:
    """A wide segment is read back whole before anything below it is deleted."""
    protected, shown = with_log(scene)
    join_log(scene.vault, protected.source, scene.workload, most=1)
    logs = scene.vault.logs[protected.source.id]
    logs[-1] = (logs[-1][0], [])
    scene.vault.unreadable.add(logs[-1][0].span.name)

    assert delete_covered(scene.vault, protected.source, grace_s=0) == 0
    scene.vault.logs[protected.source.id] = logs[:-1]
    assert shown == everything(protected, scene.root)


def test_upkeep_joins_by_the_policy(scene: Scene) -> None:
    """The policy's limit of log objects for each express full decides."""
    protected, shown = with_log(scene)
    scene.vault.set_policy(protected.source.id, RetentionPolicy(days=30, incrementals=4))

    done = keep_up(protected, grace_s=0)

    assert done.joined.segments == 10
    assert done.covered == 10
    assert done.plan.retention.dropped == ()
    assert shown == everything(protected, scene.root)
