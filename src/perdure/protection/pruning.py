"""Pruning: applying a source's retention policy to its timeline."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import tzinfo

from perdure.model.logs import LogSpan
from perdure.model.points import DataSource
from perdure.model.replica import Replica, ReplicaState
from perdure.model.retention import RetentionPlan, RetentionPolicy, plan_retention
from perdure.protection.home import Home
from perdure.protection.points import timeline_of
from perdure.protection.vault import Vault

__all__ = ["PrunePlan", "plan_prune", "prune_source"]


@dataclass(frozen=True, slots=True)
class PrunePlan:
    """What pruning would do to one source.

    Args:
        source: The data source.
        policy: Its retention policy.
        retention: What becomes of every point.
        log: The log segments that go.
    """

    source: DataSource
    policy: RetentionPolicy
    retention: RetentionPlan
    log: tuple[LogSpan, ...]

    @property
    def log_bytes(self) -> int:
        """Bytes of the log segments that go."""
        return sum(span.stored for span in self.log)


def plan_prune(
    home: Home,
    vault: Vault,
    source: DataSource,
    *,
    now_ns: int | None = None,
    damaged: Collection[int] | None = None,
    at_most: int | None = None,
    zone: tzinfo | None = None,
) -> PrunePlan:
    """Plan what pruning does to a source; changes nothing.

    Args:
        home: Knows the state of the replica: while it is inconsistent nothing goes.
        vault: The pool.
        source: The data source.
        now_ns: The time, nanoseconds since 1970 UTC; now if ``None``.
        damaged: Numbers of points that are known not to recover whole; what verification noted in the pool if ``None``.
        at_most: Thin the range out to so many points, as far as the log makes up for them; the policy's own limit if
            ``None``.
        zone: The zone of days and weeks; this machine's if ``None``.
    """
    timeline = timeline_of(vault, source.id)
    policy = vault.policy(source.id)
    if damaged is None:
        damaged = vault.known_damage(source.id).points
    if at_most is not None:
        policy = replace(policy, express_fulls=min(at_most, policy.express_fulls))
    retention = plan_retention(
        timeline.points,
        policy,
        now_ns=time.time_ns() if now_ns is None else now_ns,
        holds={hold.number: hold.reason for hold in vault.holds(source.id)},
        damaged=damaged,
        runs=timeline.runs(damaged),
        frozen=_why_frozen(home.replica(source.id)),
        only_made_up_for=at_most is not None,
        zone=zone,
    )
    return PrunePlan(source, policy, retention, _needless_log(vault, source, retention))


def prune_source(vault: Vault, plan: PrunePlan) -> None:
    """Carry out a plan: records first, then log from the oldest on.

    The space comes back when garbage is collected. A run that is cut off leaves less than it was to delete, never
    more deleted than planned, and the next plan has the rest.

    Raises:
        Refused: A point was held, or became the newest, after the plan was made; nothing was deleted.
    """
    numbers = [verdict.point.number for verdict in plan.retention.dropped]
    if numbers:
        vault.delete_points(plan.source.id, numbers)
    if plan.log:
        vault.delete_log(plan.source.id, plan.log)


def _why_frozen(replica: Replica) -> str:
    if replica.state is ReplicaState.OK:
        return ""
    if not replica.history:
        return "this machine does not protect it, so it is not known here whether its replica is consistent"
    return f"the replica is {replica.state.value} ({replica.cause}), and while it is nothing is deleted"


def _needless_log(vault: Vault, source: DataSource, retention: RetentionPlan) -> tuple[LogSpan, ...]:
    """The stored log that ends at or before what is needed, oldest first."""
    if retention.frozen or retention.log_from is None:
        return ()
    return tuple(span for span in vault.spans(source.id) if span.last <= retention.log_from)
