"""Replica states."""

from __future__ import annotations

import pytest

from perdure.model.errors import PerdureError
from perdure.model.replica import HISTORY, Replica, ReplicaState


def test_a_replica_remembers_every_state_with_cause_and_time() -> None:
    """Each transition is kept with its cause and its time."""
    replica = Replica().to(ReplicaState.INITIALIZING, "protected", 1).to(ReplicaState.OK, "first replica", 2)

    assert replica.state == ReplicaState.OK
    assert replica.cause == "first replica"
    assert [step.time_ns for step in replica.history] == [1, 2]


def test_an_inconsistent_replica_becomes_ok_only_through_verification() -> None:
    """There is no way from inconsistent to ok but a consistency check."""
    replica = Replica().to(ReplicaState.INITIALIZING, "", 1).to(ReplicaState.OK, "", 2)
    broken = replica.to(ReplicaState.INCONSISTENT, "tracking lost", 3)

    with pytest.raises(PerdureError, match="cannot go"):
        broken.to(ReplicaState.OK, "wishful", 4)

    assert broken.to(ReplicaState.VERIFYING, "check", 4).to(ReplicaState.OK, "checked", 5).state == ReplicaState.OK


def test_history_is_bounded() -> None:
    """A source that flaps does not grow its state for ever."""
    replica = Replica().to(ReplicaState.INITIALIZING, "", 0).to(ReplicaState.OK, "", 0)
    for time in range(HISTORY):
        replica = replica.to(ReplicaState.VERIFYING, f"v{time}", time).to(ReplicaState.OK, f"o{time}", time)

    assert len(replica.history) == HISTORY
