"""What a recovery point holds: directories of a folder, tables of a database."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from perdure.model.errors import Damaged, Refused
from perdure.model.listings import load_root
from perdure.model.points import RecoveryPoint
from perdure.model.positions import Position
from perdure.model.targets import Latest, Target
from perdure.protection.image_restore import restore_image
from perdure.protection.item_recovery import list_served
from perdure.protection.planning import plan_for
from perdure.protection.progress import Progress, quiet
from perdure.protection.protected import Protected
from perdure.protection.room import refuse_without_room
from perdure.protection.scratch import scratch_directory
from perdure.workloads.contract import DirectoryWorkload, FolderWorkload, RestoredItem
from perdure.workloads.files.tree import browse as browse_tree
from perdure.workloads.recovery_contract import ServingWorkload

__all__ = ["LARGE", "Listing", "browse"]

LARGE = 1 << 30
"""Databases larger than this many bytes get a note that listing them takes a temporary copy."""


@dataclass(frozen=True, slots=True)
class Listing:
    """What a place of the timeline holds.

    Args:
        point: The record that it stands on.
        position: The position, for databases.
        time_ns: The moment that it shows, nanoseconds since 1970 UTC.
        items: What it holds.
        notes: What a person should know.
    """

    point: RecoveryPoint
    position: Position | None
    time_ns: int
    items: tuple[RestoredItem, ...]
    notes: tuple[str, ...]


def browse(
    p: Protected,
    *,
    to: Target | None = None,
    path: str = "",
    scratch: Path | None = None,
    progress: Progress = quiet,
) -> Listing:
    """List what a target holds, below ``path``.

    A folder's listings are read from the pool. A database is recovered to a temporary place in perdure's
    cache, or in ``scratch``, which is deleted afterwards.

    Raises:
        NotFound: There is no such target or path.
        Refused: The workload cannot list items, or there is no room for the temporary copy.
    """
    plan = plan_for(p, to or Latest())
    notes = [plan.note] if plan.note else []
    if isinstance(p.workload, FolderWorkload):
        if plan.point.tree is None:
            raise Damaged(f"recovery point {plan.point.number} holds no tree", code="damaged-record")
        items = browse_tree(load_root(plan.point.tree, p.vault), p.vault, path)
        notes += plan.point.notes
        return Listing(plan.point, None, plan.time_ns, tuple(items), tuple(notes))
    if not p.workload.capabilities.items:
        raise Refused(
            p.workload.capabilities.why_not.get("items", f"items of a {p.workload.kind} source cannot be listed"),
            code="no-items",
        )
    if isinstance(p.workload, ServingWorkload):
        items = p.workload.items_within(list_served(p, plan, scratch, progress), path)
        return Listing(plan.point, plan.upto, plan.time_ns, tuple(items), tuple(notes))
    cache = scratch or p.home.cache_dir(p.vault.id)
    refuse_without_room(
        cache,
        plan.point.size,
        "listing a database",
        "name a larger file system with --scratch, or recover the database with --target",
    )
    if plan.point.size > LARGE:
        notes.append(f"listing it took a temporary copy of {plan.point.size:,} bytes in {cache}")
    with scratch_directory(cache, "browse") as place:
        copy = place / "copy"
        if isinstance(p.workload, DirectoryWorkload):
            copy.mkdir()
        paths = p.workload.target_paths([file.name for file in plan.point.files], copy)
        restore_image(p, plan, paths, progress)
        items = p.workload.items(paths, path)
    return Listing(plan.point, plan.upto, plan.time_ns, tuple(items), tuple(notes))
