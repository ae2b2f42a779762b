"""Healing: putting good content in the place of what a verification found damaged.

Content comes from wherever it still is: from the damaged pack itself (when only its header or index is hurt), from
another copy in the same pool, or from an :class:`Origin`: another pool with the same recovery points, or the live
source. It is taken only if its keyed hash is the id of the chunk.

The order, for packs. What an earlier verification found is in the ledger, so every process avoids the copies in damaged
packs before anything is written. Then (1) the content that points need is written to new packs, which are read back;
(2) if everything needed of a damaged pack is sound elsewhere now, its other sound chunks are copied too, and read back;
(3) only then is the damaged pack condemned, and garbage collection deletes it after its grace period, when it has
looked again. A pack that holds something that could not be healed stays as it is and stays named. A crash leaves, at
every moment, the damaged pack, or a second copy that the next run or garbage collection clears away.

Other objects are replaced by their twin, or from the other pool (see :mod:`perdure.repository.replacing`). A damaged
condemned list is removed: the packs that it named are then simply not condemned.

Beside others: healing publishes condemned lists, so it takes the lease of a garbage collection, which keeps collections
and other healings away. Captures go on: they avoid damaged packs by themselves.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from perdure.model.errors import Refused
from perdure.repository.damage import Damage
from perdure.repository.heal_objects import heal_object
from perdure.repository.heal_packs import heal_packs
from perdure.repository.healing_run import Healed, HealingRun, Origin
from perdure.repository.leases import WorkLease, take_collection_lease
from perdure.repository.pool import Pool
from perdure.repository.replacing import finish_replacements
from perdure.repository.second_copy import SecondCopy
from perdure.repository.verify import verify_pool
from perdure.repository.verify_report import VerifyReport
from perdure.storage.contract import ObjectLocked, Storage

__all__ = ["Healed", "Healing", "Origin", "heal_pool"]

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Healing:
    """What a healing did.

    Args:
        healed: What is sound again.
        written: Bytes of content written.
        condemned: Damaged packs that nothing needs any more.
        report: What the pool is like now.
    """

    healed: tuple[Healed, ...]
    written: int
    condemned: int
    report: VerifyReport


def heal_pool(
    pool: Pool,
    report: VerifyReport,
    *,
    other: Pool | None = None,
    origins: Sequence[Origin] = (),
    progress: Progress = lambda _: None,
) -> Healing:
    """Heal what a verification found, as far as there is good content, and verify what was touched.

    A pool without damage is not changed.

    Args:
        pool: The pool.
        report: What :func:`perdure.repository.verify.verify_pool` found.
        other: A pool that holds the same recovery points.
        origins: More places where content may be, in the order in which they are asked.
        progress: Told of bytes dealt with.

    Raises:
        Refused: Another process heals this pool or collects its garbage (``collection-at-work``).
        StorageFull: No room. Nothing that was good is lost.
    """
    if report.sound:
        return Healing((), 0, 0, report)
    second = SecondCopy(pool, other) if other is not None else None
    with _alone(pool.storage) as lease:
        run = HealingRun(pool, (*((second,) if second is not None else ()), *origins), lease, progress)
        found = report
        # Healing a map shows what is missing below it, so a run goes round until nothing more can be healed.
        while not found.sound:
            before = len(run.healed)
            _heal_objects(run, second, found.damage)
            heal_packs(run, [damage for damage in found.damage if damage.kind == "pack"])
            if len(run.healed) == before:
                break
            found = verify_pool(pool, data=True, only=run.look_at, progress=progress)
    return Healing(tuple(run.healed), run.written, run.condemned, found)


@contextlib.contextmanager
def _alone(storage: Storage) -> Iterator[WorkLease]:
    """The lease of a garbage collection.

    Raises:
        Refused: A collection or another healing is at work.
    """
    lease = take_collection_lease(storage)
    if lease is None:
        raise Refused(
            "another process collects the garbage of this storage pool, or heals it; nothing was healed",
            code="collection-at-work",
            hint="wait for it to end, then run the command again",
        )
    try:
        yield lease
    finally:
        lease.release()


def _heal_objects(run: HealingRun, other: SecondCopy | None, damage: Sequence[Damage]) -> None:
    for name in finish_replacements(run.pool.storage):
        run.note(name, "unfinished healing", "finished")
    # What was replaced already and is damaged again lies on a failing disk; once is enough.
    tried = {(each.object, each.kind) for each in run.healed}
    for each in damage:
        if each.kind in ("pack", "map", "tree", "unfinished healing") or (each.object, each.kind) in tried:
            continue
        run.lease.renew_if_due()
        # What is locked against deletion stays damaged, and named, until the lock runs out.
        with contextlib.suppress(ObjectLocked):
            how = heal_object(run.pool, each, other)
            if how:
                run.note(each.object, each.kind, how)
