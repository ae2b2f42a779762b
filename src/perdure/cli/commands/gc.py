"""``perdure gc``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from perdure.cli.intervals import seconds_of
from perdure.cli.options import DEFAULT_OPTIONS, CommonOptions
from perdure.cli.output import print_json, print_lines
from perdure.cli.progress_bar import progress_bar
from perdure.cli.session import Session
from perdure.cli.wording import count, size
from perdure.model.errors import NotFound

if TYPE_CHECKING:
    from perdure.repository.gc import Collection

__all__ = ["DEFAULT_GRACE", "collection_document", "collection_lines", "gc", "grace_seconds"]

DEFAULT_GRACE = "24h"


def gc(
    *pools: Annotated[str, Parameter(metavar="PATH")],
    grace: str = DEFAULT_GRACE,
    repack_below: float = 0.8,
    common: CommonOptions = DEFAULT_OPTIONS,
) -> int:
    """Collect garbage: delete the packs that no recovery point needs, and repack those that are mostly garbage.

    It runs in two phases. What is garbage is first only condemned; a later run deletes it, after the grace period and
    after looking again. It is safe beside captures of other processes, which it waits for, and may be stopped at any
    moment.

    For example:

        perdure gc
        perdure gc /mnt/backup/pool --grace 0s

    Args:
        pools: The storage pools; without any, all that are known on this machine.
        grace: The time between finding garbage and deleting it (24h unless given); 0s deletes it now, unless captures
            are at work.
        repack_below: Repack a pack when less than this share of it is needed (0.8 unless given).
    """
    grace_s = grace_seconds(grace)
    with Session(common) as session:
        urls = list(pools) or [known.url for known in session.home.pools()]
        if not urls:
            raise NotFound(
                "no storage pool is known on this machine",
                code="pool-missing",
                hint="name one, or tell of it with: perdure pool open PATH",
            )
        from perdure.repository.gc import collect_garbage

        done: dict[str, Collection] = {}
        with progress_bar(common) as progress:
            for url in urls:
                pool = session.pool_at(url)
                done[pool.storage.url] = collect_garbage(
                    pool,
                    grace_s=grace_s,
                    repack_below=repack_below,
                    progress=lambda points: progress("marking", points, 0),
                )
    if common.json:
        print_json({"collections": [{"pool": url, **collection_document(each)} for url, each in done.items()]})
    else:
        for url, each in done.items():
            print_lines([f"Storage pool {url}:", *(f"  {line}" for line in collection_lines(each))])
    return 0


def grace_seconds(text: str) -> float:
    """Read a grace period, which may be zero.

    Raises:
        BadInput: It is not a length of time.
    """
    return 0.0 if text.strip() in ("0", "0s") else seconds_of(text, "--grace")


def collection_document(done: Collection) -> dict[str, Any]:
    """What a collection did, as JSON has it."""
    return asdict(done)


def collection_lines(done: Collection) -> list[str]:
    """What a collection did, for people."""
    lines = []
    if done.deleted:
        lines.append(f"Deleted {count(done.deleted, 'pack')}, {size(done.deleted_bytes)}.")
    if done.condemned:
        repacked = f", {done.repacked} of them repacked into {size(done.written)}" if done.repacked else ""
        lines.append(f"Condemned {count(done.condemned, 'pack')}, {size(done.condemned_bytes)}{repacked}.")
    if done.pardoned:
        lines.append(f"Spared {count(done.pardoned, 'condemned pack')} that turned out to be needed.")
    if done.locked:
        lines.append(f"{count(done.locked, 'pack')} cannot be deleted yet: locked by the storage.")
    lines += [f"Waiting: {each}." for each in done.waiting]
    lines += list(done.notes)
    return lines or ["No garbage."]
