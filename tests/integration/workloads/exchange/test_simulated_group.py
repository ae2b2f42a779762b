"""Availability groups of the simulator: passive and lagged copies, switch, lossy failover, reseed, row for row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from simulated_group import ACTIVE, LAGGED, NAME, PASSIVE, SimulatedGroup

from perdure.model.targets import AtPoint


@pytest.fixture
def group(tmp_path: Path) -> Iterator[SimulatedGroup]:
    """A group that has worked for a while."""
    with SimulatedGroup(tmp_path) as group:
        yield group


def attention(group: SimulatedGroup) -> str:
    """What the status shows beside the state."""
    return group.home.attention(group.protected.source.id)


def latest_is_the_journal(group: SimulatedGroup) -> None:
    """The newest place of the timeline holds the rows that the journal has there."""
    assert group.differences_at(group.positions()[-1]) == []


def test_images_come_from_the_passive_copy_and_the_lagged_one_keeps_log(group: SimulatedGroup) -> None:
    """The passive copy is captured, the active one's log leads on and is truncated; the lagged copy keeps it."""
    assert group.protect_group().notes == (f"taken from the copy on {PASSIVE} (passive)",)
    for _ in range(2):
        group.work(80)
        group.sync()
    point = group.full()
    assert "compared" not in point.cause
    assert point.notes == (f"taken from the copy on {PASSIVE} (passive)",)
    behind, truncated = group.group.replicas(NAME)[1].replayed, group.home.ledger(group.protected.source.id).truncated
    assert behind < truncated
    needed = {f"E00{number:08X}.log" for number in range(behind + 1, truncated + 1)}
    assert needed <= group.logs(LAGGED)
    assert not needed & group.logs(ACTIVE)
    assert attention(group) == ""
    assert group.gaps() == 0
    group.crash()
    latest_is_the_journal(group)
    assert point.position is not None
    assert group.differences_at(point.position) == []


def test_a_switch_is_followed(group: SimulatedGroup) -> None:
    """After a switch without loss the log goes on from the other node; images come from what was active before."""
    group.protect_group()
    group.work(60)
    group.sync()
    group.group.switch(NAME, PASSIVE)
    group.work(60)
    assert group.sync().cause == ""
    assert f"the active copy is on {PASSIVE} now" in attention(group)
    point = group.full()
    assert point.notes == (f"taken from the copy on {ACTIVE} (passive)",)
    assert point.changed < point.size
    assert group.gaps() == 0
    group.crash()
    latest_is_the_journal(group)


def test_a_failover_that_lost_the_last_log(group: SimulatedGroup) -> None:
    """The pool has log that the new active copy never got: a break with a cause, a comparison, and then all goes on;
    the failed copy is named until it is reseeded, and is captured again after that.
    """
    group.protect_group()
    group.work(60)
    group.roll()
    group.group.ship()
    group.work(40, ship=False)
    group.roll()
    group.sync()
    before = group.positions()[-1]
    group.group.fail_over(NAME, PASSIVE)
    group.work(40)
    result = group.sync()
    assert "a failover lost the end of the log" in result.cause
    assert result.point is not None
    assert group.gaps() == 1
    assert group.state == "ok"
    assert f"the copy on {ACTIVE} has failed; reseed it" in attention(group)
    group.work(40)
    assert group.sync().cause == ""

    group.group.reseed(NAME, ACTIVE)
    group.work(40)
    point = group.full()
    assert point.notes == (f"taken from the copy on {ACTIVE} (passive)",)
    assert "has failed" not in attention(group)
    assert group.gaps() == 1
    assert before in group.positions()
    group.crash()
    latest_is_the_journal(group)
    _, report = group.recover(AtPoint(1))
    assert report.point.number == 1


def test_log_that_only_a_passive_copy_has_left(group: SimulatedGroup) -> None:
    """Log that the active node lost is shipped from a passive copy, and nothing breaks."""
    group.protect_group()
    for _ in range(2):
        group.work(60)
        group.roll()
        group.group.ship()
    newest = max(group.logs(PASSIVE))
    next(group.group.folders[ACTIVE].rglob(newest)).unlink()
    assert group.sync().cause == ""
    assert group.gaps() == 0
    group.crash()
    latest_is_the_journal(group)
