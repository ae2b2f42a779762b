"""The state of every source on one screen."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from perdure.model.drills import Drill
from perdure.model.errors import PerdureError
from perdure.model.points import KnownDamage, RecoveryPoint
from perdure.model.replica import ReplicaState
from perdure.protection.home import Activity, Home, KnownSource
from perdure.protection.vault import Vault

__all__ = ["SourceStatus", "status"]

_DAY_NS = 86_400 * 10**9


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """How one source is.

    Args:
        source: What is known of it here.
        state: State of its replica.
        cause: Why it is in this state.
        since_ns: Since when, nanoseconds since 1970 UTC; 0 if never protected.
        last_point: The newest record, if the pool could be read.
        last_recoverable_ns: The last moment that is known to be recoverable; 0 if there is none.
        size: Bytes protected by the newest point.
        stored: Bytes in the pool that points and log of this source added.
        growth_per_day: Bytes that the pool grew for it per day since the first replica; 0 in its first hour.
        points: Number of records.
        activity: What ``watch`` does for it; ``None`` when it is not running.
        problem: Why the pool could not be read; empty when it could.
        damage: What verification found damaged of it.
        attention: What a person should look at though log and images go on; empty if there is nothing.
        drill: Its newest drill; ``None`` if there was none.
    """

    source: KnownSource
    state: ReplicaState
    cause: str
    since_ns: int
    last_point: RecoveryPoint | None
    last_recoverable_ns: int
    size: int
    stored: int
    growth_per_day: int
    points: int
    activity: Activity | None
    problem: str = ""
    damage: KnownDamage = field(default_factory=KnownDamage)
    attention: str = ""
    drill: Drill | None = None

    @property
    def watched(self) -> bool:
        """Whether ``watch`` is running."""
        return self.activity is not None


def status(home: Home, open_vault: Callable[[str], Vault]) -> list[SourceStatus]:
    """Look at every source that is known here; a pool that cannot be read does not hide the others.

    Args:
        home: This machine's state.
        open_vault: Opens (or gives the already open) pool of an id.
    """
    return [_status_of(home, known, open_vault) for known in sorted(home.sources(), key=lambda known: known.name)]


def _status_of(home: Home, known: KnownSource, open_vault: Callable[[str], Vault]) -> SourceStatus:
    replica = home.replica(known.id)
    since_ns = replica.history[-1].time_ns if replica.history else 0
    activity = _running(home.activity(known.id))
    try:
        vault = open_vault(known.pool_id)
        points = vault.points(known.id)
        spans = vault.spans(known.id)
        damage = vault.known_damage(known.id)
        drills = vault.drills(known.id)
        last_ns = points[-1].time_ns if points else 0
        if spans:
            last_ns = max(last_ns, int(vault.segment(known.id, spans[-1]).marks["time_ns"][-1]))
    except PerdureError as error:
        return SourceStatus(known, replica.state, replica.cause, since_ns, None, 0, 0, 0, 0, 0, activity, error.message)
    log_bytes = sum(span.stored for span in spans)
    return SourceStatus(
        source=known,
        state=replica.state,
        cause=replica.cause,
        since_ns=since_ns,
        last_point=points[-1] if points else None,
        last_recoverable_ns=last_ns,
        size=points[-1].size if points else 0,
        stored=sum(point.stored for point in points) + log_bytes,
        growth_per_day=_growth(points, log_bytes),
        points=len(points),
        activity=activity,
        damage=damage,
        attention=home.attention(known.id),
        drill=drills[-1] if drills else None,
    )


def _running(activity: Activity | None) -> Activity | None:
    """The activity, if the process that wrote it is still there."""
    if activity is None or activity.pid == 0:
        return None
    try:
        os.kill(activity.pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return activity
    return activity


def _growth(points: Sequence[RecoveryPoint], log_bytes: int) -> int:
    if not points:
        return 0
    age_ns = time.time_ns() - points[0].committed_ns
    # Less than an hour says nothing about a day.
    if age_ns < _DAY_NS // 24:
        return 0
    added = sum(point.stored for point in points[1:]) + log_bytes
    return int(added * _DAY_NS / age_ns)
