"""Upkeep of a protected source: pruning, joining its log, and making room when the pool is full."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from perdure.model.retention import WhenFull
from perdure.protection.log_joining import Joined, delete_covered, join_log
from perdure.protection.protected import Protected
from perdure.protection.pruning import PrunePlan, plan_prune, prune_source
from perdure.workloads.contract import FolderWorkload

__all__ = ["Upkeep", "keep_up", "thin_out"]


@dataclass(frozen=True, slots=True)
class Upkeep:
    """What was done for one source.

    Args:
        plan: The plan that was carried out.
        joined: Log that was joined.
        covered: Log segments deleted because wider ones cover them.
    """

    plan: PrunePlan
    joined: Joined
    covered: int


def keep_up(protected: Protected, *, grace_s: float, damaged: Collection[int] | None = None) -> Upkeep:
    """Prune a source by its policy and join its log.

    Args:
        protected: The source.
        grace_s: Seconds for which log stays after wider segments were written over it.
        damaged: Numbers of points that are known not to recover whole; as :func:`plan_prune` finds them if ``None``.
    """
    vault, source = protected.vault, protected.source
    plan = plan_prune(protected.home, vault, source, damaged=damaged)
    if plan.policy.lock and not plan.retention.frozen:
        # Before anything is deleted: what stays must be safe from whoever could delete the rest.
        vault.prolong_locks(source.id, {each.point.number: each.until_ns for each in plan.retention.kept})
    prune_source(vault, plan)
    if isinstance(protected.workload, FolderWorkload):
        return Upkeep(plan, Joined(0, 0), 0)
    joined = join_log(vault, source, protected.workload, most=plan.policy.incrementals)
    return Upkeep(plan, joined, delete_covered(vault, source, grace_s=grace_s))


def thin_out(protected: Protected) -> int:
    """Delete every other point of the range that the log makes up for, if the source's policy says so.

    Returns:
        How many points went. Their space comes back when garbage is collected.
    """
    vault, source = protected.vault, protected.source
    if vault.policy(source.id).when_full is not WhenFull.THIN:
        return 0
    at_most = max(1, len(vault.points(source.id)) // 2)
    plan = plan_prune(protected.home, vault, source, at_most=at_most)
    prune_source(vault, plan)
    return len(plan.retention.dropped)
