"""``perdure prune``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from perdure.cli.commands.gc import DEFAULT_GRACE, collection_document, collection_lines, grace_seconds
from perdure.cli.commands.retention import policy_document
from perdure.cli.documents import point_document
from perdure.cli.options import DEFAULT_OPTIONS, CommonOptions
from perdure.cli.output import print_json, print_lines
from perdure.cli.progress_bar import progress_bar
from perdure.cli.session import Session
from perdure.cli.wording import count, size
from perdure.model.errors import NotFound
from perdure.model.moments import moment_text

if TYPE_CHECKING:
    from perdure.protection.protected import Protected
    from perdure.protection.pruning import PrunePlan
    from perdure.repository.gc import Collection
    from perdure.repository.pool import Pool

__all__ = ["prune"]


def prune(
    *names: Annotated[str, Parameter(metavar="NAME")],
    plan: bool = False,
    grace: str = DEFAULT_GRACE,
    pool: str | None = None,
    common: CommonOptions = DEFAULT_OPTIONS,
) -> int:
    """Delete the recovery points and the log that the retention policies no longer keep, then collect the garbage.

    The newest recovery point, the newest sound one, held ones, and the one that kept log stands on are never deleted,
    and nothing is while a replica is inconsistent. What is deleted frees its space when the grace period is over and
    prune or gc runs again.

    For example:

        perdure prune --plan
        perdure prune app

    Args:
        names: The data sources; without any, all that are protected on this machine.
        plan: Only show what would go, and why each survivor stays; change nothing.
        grace: The time between finding garbage and deleting it (24h unless given); 0s deletes it now, unless captures
            are at work.
        pool: Do it in the pool at this path, such as a second copy, by the policies that lie there; without names for
            all data sources in it.
    """
    grace_s = grace_seconds(grace)
    with Session(common) as session:
        chosen = _chosen(session, names, pool)
        from perdure.protection.pruning import plan_prune
        from perdure.protection.upkeep import keep_up
        from perdure.repository.gc import collect_garbage

        plans: list[PrunePlan] = []
        pools: dict[str, Pool] = {}
        for opened, protected in chosen:
            pools[opened.id] = opened
            if plan:
                plans.append(plan_prune(session.home, protected.vault, protected.source))
            else:
                plans.append(keep_up(protected, grace_s=grace_s).plan)
        collections: dict[str, Collection] = {}
        if not plan:
            with progress_bar(common) as progress:
                for opened in pools.values():
                    collections[opened.storage.url] = collect_garbage(
                        opened, grace_s=grace_s, progress=lambda done: progress("marking", done, 0)
                    )
    _print(common, plans, collections, carried_out=not plan)
    return 0


def _chosen(session: Session, names: tuple[str, ...], pool: str | None) -> list[tuple[Pool, Protected]]:
    """The data sources to prune, each with its pool."""
    wanted = list(dict.fromkeys(names))
    if pool is not None:
        opened = session.pool_at(pool, remember=False)
        wanted = wanted or [source.name for source in opened.sources()]
        return [(opened, session.protected(name, pool)) for name in wanted]
    known = [session.home.find_source(name) for name in wanted] or session.home.sources()
    if not known:
        raise NotFound(
            "no data source is protected on this machine",
            code="nothing-protected",
            hint="begin with: perdure protect sqlite:PATH --pool PATH",
        )
    return [(session.pool(source.pool_id), session.protected_source(source)) for source in known]


def _print(
    common: CommonOptions, plans: list[PrunePlan], collections: dict[str, Collection], *, carried_out: bool
) -> None:
    if common.json:
        print_json(
            {
                "carried_out": carried_out,
                "sources": [_document(each) for each in plans],
                "collections": [{"pool": url, **collection_document(done)} for url, done in collections.items()],
            }
        )
        return
    for each in plans:
        print_lines(_lines(each, carried_out=carried_out))
    for url, done in collections.items():
        print_lines([f"Storage pool {url}:", *(f"  {line}" for line in collection_lines(done))])


def _document(plan: PrunePlan) -> dict[str, Any]:
    retention = plan.retention
    return {
        "source": plan.source.name,
        "retention": policy_document(plan.policy),
        "frozen": retention.frozen or None,
        "kept": [{**point_document(each.point), "reasons": list(each.reasons)} for each in retention.kept],
        "dropped": [{**point_document(each.point), "reasons": list(each.reasons)} for each in retention.dropped],
        "log_segments_dropped": len(plan.log),
        "log_bytes_dropped": plan.log_bytes,
    }


def _lines(plan: PrunePlan, *, carried_out: bool) -> list[str]:
    retention = plan.retention
    name = plan.source.name
    if retention.frozen:
        return [f"{name}: nothing is deleted: {retention.frozen}."]
    verb = "deleted" if carried_out else "would be deleted"
    lines = [f"{name}: {count(len(retention.dropped), 'recovery point')} {verb}, {len(retention.kept)} stay."]
    for row, (mark, verdicts) in enumerate((("-", retention.dropped), ("+", retention.kept))):
        if row == 1 and carried_out:
            break
        lines += [
            f"  {mark} #{each.point.number}  {moment_text(each.point.time_ns)}  {'; '.join(each.reasons)}"
            for each in verdicts
        ]
    if plan.log:
        lines.append(f"  - {count(len(plan.log), 'log segment')} ({size(plan.log_bytes)}) that nothing kept needs")
    return lines
