"""Single items of a database whose engine finds them: it runs on a scratch copy of the wanted moment meanwhile."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from perdure.model.errors import Damaged
from perdure.model.timeline import RecoveryPlan
from perdure.protection.directory_recovery import recover_directory
from perdure.protection.progress import Progress
from perdure.protection.protected import Protected
from perdure.protection.recovery_places import clear_of_partial, partial_of, refuse_existing, rename_new, sync_path
from perdure.protection.room import refuse_without_room
from perdure.protection.scratch import scratch_directory
from perdure.workloads.contract import RestoredItem, Verification
from perdure.workloads.recovery_contract import ItemServer, ServingWorkload

__all__ = ["dump_items", "list_served", "load_items", "scratch_parent"]

_KEPT = 16
"""Listings of so many moments are kept."""


def list_served(p: Protected, plan: RecoveryPlan, scratch: Path | None, progress: Progress) -> list[RestoredItem]:
    """Everything that a moment holds. What was listed once is known: a moment of the past does not change."""
    folder = p.home.cache_dir(p.vault.id)
    kept = folder / f"items-{p.source.id}-{plan.point.number}-{str(plan.upto).replace(':', '-')}.json"
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        return msgspec.json.decode(kept.read_bytes(), type=list[RestoredItem])
    with _served(p, plan, scratch, progress) as server:
        items = server.items()
    _keep(kept, items)
    return items


def _keep(path: Path, items: Sequence[RestoredItem]) -> None:
    with contextlib.suppress(OSError):
        part = path.with_name(f".{path.name}.{os.getpid()}")
        part.write_bytes(msgspec.json.encode(items))
        part.replace(path)
        older = sorted(path.parent.glob("items-*.json"), key=lambda each: each.stat().st_mtime_ns)[:-_KEPT]
        for each in older:
            each.unlink(missing_ok=True)


def dump_items(
    p: Protected, plan: RecoveryPlan, items: Sequence[str], target: Path, *, scratch: Path | None, progress: Progress
) -> tuple[int, Verification, tuple[str, ...]]:
    """Recover items to a file in the engine's own form; its size, how it was checked, and what a person should know.

    Raises:
        Refused: The target exists, or there is no room for the scratch copy.
        NotFound, BadInput: There is no such item.
        Damaged: What was written cannot be read back.
    """
    _check(p, items, {})
    refuse_existing(target)
    partial = partial_of(target)
    with clear_of_partial(p, [partial]), _served(p, plan, scratch, progress) as server:
        verification, notes = server.dump(items, partial)
        if not verification.passed:
            raise Damaged(
                f"what was written of {p.source.name!r} does not pass {verification.means}: "
                + "; ".join(verification.details[:3]),
                code="verification-failed",
            )
        sync_path(partial)
        rename_new(partial, target)
        sync_path(target.parent)
    return target.stat().st_size, verification, notes


def load_items(
    p: Protected,
    plan: RecoveryPlan,
    items: Sequence[str],
    options: Mapping[str, str],
    *,
    scratch: Path | None,
    progress: Progress,
) -> tuple[Verification, tuple[str, ...]]:
    """Load items into the running engine that ``options["load"]`` names.

    Raises:
        Refused: Something of their names is there, or there is no room for the scratch copy.
        NotFound, BadInput: There is no such item.
    """
    _check(p, items, options)
    with _served(p, plan, scratch, progress) as server:
        return server.load(items, options["load"], options)


def _check(p: Protected, items: Sequence[str], options: Mapping[str, str]) -> None:
    assert isinstance(p.workload, ServingWorkload)
    p.workload.check_items(items, options)


def scratch_parent(p: Protected, chosen: Path | None) -> Path:
    """Where scratch copies go. An engine that does not run as root cannot reach root's own directories."""
    if chosen is not None:
        return chosen
    if os.geteuid() == 0 and isinstance(p.workload, ServingWorkload):
        return Path("/var/tmp")  # noqa: S108 - a directory with a name of its own is made in it
    return p.home.cache_dir(p.vault.id)


@contextlib.contextmanager
def _served(p: Protected, plan: RecoveryPlan, scratch: Path | None, progress: Progress) -> Iterator[ItemServer]:
    workload = p.workload
    assert isinstance(workload, ServingWorkload)
    parent = scratch_parent(p, scratch)
    log = sum(sum(segment.block_sizes) for segment in plan.segments)
    refuse_without_room(
        parent, plan.point.size + log, "looking into a database", "name a larger file system with --scratch"
    )
    with scratch_directory(parent, "items") as place:
        copy = place / "copy"
        recover_directory(p, plan, copy, verify="none", options={}, progress=progress)
        with workload.serving(copy) as server:
            yield server
