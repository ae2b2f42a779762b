"""Garbage collection: two phases with a grace period, safe beside captures of other processes.

*Condemn*: mark what the records need; publish the packs that hold nothing of it as a condemned list; copy what is
needed out of packs that are mostly garbage, and condemn those too. *Sweep*, when the grace period of a list is over
and no capture that may not know the list is at work: mark again without any condemned pack; pardon a condemned pack
that holds something needed that lies nowhere else; delete the others; remove the list.

Who excludes whom
-----------------

=====================  ============================  =========================================================
beside …               condemn                       sweep
=====================  ============================  =========================================================
capture                its new packs may be          waits for it, if its lease is older than the list; then
                       condemned; the sweep pardons  its record is in the second mark. A younger lease knows
                       them                          the list and reuses nothing from it
capture that builds    the point's chunks are live   the point is the newest, which is never deleted. If
on an earlier point    as long as the point is       somebody else commits meanwhile, the capture's number is
                                                     taken and its commit refused
deleting of points     what is deleted later is      the second mark sees more garbage than the list names,
                       condemned by the next run     which is left for the next run
second collection      one is at work at a time      as beside condemn. Otherwise a pack that one spares and
                       (a lease of its own); so      captures use again could be deleted by the other, whose
                       lists are published in the    mark is older
                       order of their numbers
list of a collection   its copies lie in packs of    the second mark leaves out the packs of every list, so
that died              their own, perhaps twice      two lists cannot each rely on a copy in the other's packs
recovery, verify       nothing is deleted            a chunk that was repacked is found after the reader has
                                                     matched its index again; a point that is deleted while it
                                                     is read fails loudly
append of log          log names no chunks           log names no chunks
damage                 a record, map or listing that cannot be read stops both phases: what it needs is unknown
kill -9, power cut     packs copied twice, of which  the list is still there, and the next sweep goes on
                       the next run condemns one
a process that stood   its lease runs out after 24 h where the storage cannot tell whether it lives; it refuses
still                  to commit, condemn or delete after 12 h
=====================  ============================  =========================================================

What remains: on a storage without liveness a process that stands still for more than 12 hours exactly between its
last look at the clock and the write of its record (or a deletion). Verification finds the damage that this would do.

Memory: a bitmap of one byte per chunk, the index (mapped), one map or listing at a time.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from perdure.model.errors import Damaged
from perdure.repository.condemned import (
    CondemnedList,
    condemned_name,
    condemned_numbers,
    publish_condemned,
    read_condemned,
)
from perdure.repository.index_snapshot import IndexSnapshot, PackUse
from perdure.repository.leases import WorkLease, blocking_leases, take_collection_lease
from perdure.repository.locking import delete_unlocked
from perdure.repository.marking import blocked, mark
from perdure.repository.packs import pack_name
from perdure.repository.pool import Pool
from perdure.repository.repack import Thin, repack
from perdure.storage.contract import ObjectExists

__all__ = ["GRACE_S", "REPACK_BELOW", "Collection", "Survey", "collect_garbage", "survey"]

GRACE_S = 24 * 3600.0
"""Seconds between condemning and deleting."""

REPACK_BELOW = 0.8
"""A pack of which less than this share is needed is repacked. With 0.5 the benchmark of pruning got 94 % of the garbage
back, with 0.8 it got 97 % for a fifth more time."""

_SMALL = 4 << 20
_MANY_SMALL = 64
_AT_ONCE = 1000

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Survey:
    """How much of a pool's packs its points need.

    Args:
        points: Points that were looked at.
        packs: Packs that are not condemned.
        stored: Bytes of their chunks.
        live: Bytes of those that are needed.
        dead: Ids of packs of which nothing is needed.
        dead_bytes: Bytes of these packs.
        thin: Packs that are worth repacking.
    """

    points: int
    packs: int
    stored: int
    live: int
    dead: frozenset[bytes]
    dead_bytes: int
    thin: tuple[Thin, ...]


@dataclass(frozen=True, slots=True)
class Collection:
    """What a run did.

    Args:
        points: Points whose needs were marked; 0 if no mark was made.
        condemned: Packs condemned by this run.
        condemned_bytes: Their bytes.
        repacked: How many of them were repacked.
        written: Bytes that repacking wrote.
        deleted: Packs deleted.
        deleted_bytes: Their bytes.
        pardoned: Condemned packs that turned out to be needed.
        locked: Packs that the storage does not let go of yet.
        waiting: Lists that wait, with the reason.
        notes: What a person should know.
    """

    points: int = 0
    condemned: int = 0
    condemned_bytes: int = 0
    repacked: int = 0
    written: int = 0
    deleted: int = 0
    deleted_bytes: int = 0
    pardoned: int = 0
    locked: int = 0
    waiting: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class _Run:
    """The counts so far."""

    pool: Pool
    lease: WorkLease
    tell: Progress
    counts: dict[str, int] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def progress(self, points: int) -> None:
        self.lease.renew_if_due()
        self.tell(points)

    def count(self, **more: int) -> None:
        for name, value in more.items():
            self.counts[name] = self.counts.get(name, 0) + value


def collect_garbage(
    pool: Pool,
    *,
    grace_s: float = GRACE_S,
    repack_below: float = REPACK_BELOW,
    progress: Progress = lambda _: None,
) -> Collection:
    """Carry out the lists whose time has come, then condemn what is garbage now.

    Args:
        pool: The pool.
        grace_s: Seconds between condemning and deleting; with 0 this run also deletes what it condemns, unless
            captures are at work.
        repack_below: Share of a pack that must be needed for it to be left alone.
        progress: Told 1 for every point that was looked at.

    Returns:
        What was done; nothing if another process collects this pool's garbage just now.

    Raises:
        Refused: Something cannot be read, so that it is not known what is needed (``collection-blocked``), or the
            process stood still for so long that another collection may have begun (``collection-overtaken``).
    """
    lease = take_collection_lease(pool.storage)
    if lease is None:
        return Collection(waiting=("another process collects the garbage of this pool at the moment",))
    try:
        return _collected(_Run(pool, lease, progress), grace_s, repack_below)
    finally:
        lease.release()


def _collected(run: _Run, grace_s: float, repack_below: float) -> Collection:
    _remove_unreadable_lists(run)
    _sweep(run, grace_s)
    while not _condemn(run, repack_below):
        run.notes.append("another process condemned packs at the same time; everything was looked at again")
    if grace_s <= 0:
        run.waiting.clear()
        _sweep(run, grace_s)
    return Collection(**run.counts, waiting=tuple(run.waiting), notes=tuple(run.notes))


def survey(pool: Pool, *, repack_below: float = REPACK_BELOW, progress: Progress = lambda _: None) -> Survey:
    """Find out how much of a pool's packs is needed; changes nothing.

    Raises:
        Refused: As :func:`collect_garbage`.
    """
    pool.matched.refresh()
    snapshot = pool.index.snapshot()
    marks = mark(pool, snapshot, progress)
    _only_elsewhere(pool, marks.elsewhere)
    return _surveyed(snapshot, marks.live, marks.points, repack_below)


def _remove_unreadable_lists(run: _Run) -> None:
    """Remove damaged lists: what they condemned is found again. Only this collection is at work, so nobody means to
    carry one out.
    """
    storage, keys = run.pool.storage, run.pool.keys
    numbers = condemned_numbers(storage)
    for number in numbers:
        try:
            read_condemned(storage, keys, number)
        except Damaged as error:
            if number == max(numbers):
                publish_condemned(storage, keys, number + 1, ())
            storage.delete(condemned_name(number))
            run.notes.append(f"removed: {error.message}")


# --- condemning --------------------------------------------------------------------------------------


def _condemn(run: _Run, repack_below: float) -> bool:
    """Condemn what is garbage; false when another process was faster and everything has to be looked at again."""
    pool = run.pool
    number = max(pool.matched.heed_condemned(), default=0) + 1
    use = survey(pool, repack_below=repack_below, progress=run.progress)
    run.counts["points"] = use.points
    try:
        run.lease.check()
        if use.dead:
            publish_condemned(pool.storage, pool.keys, number, use.dead)
            number += 1
            run.count(condemned=len(use.dead), condemned_bytes=use.dead_bytes)
        sizes = {each.pack: each.size for each in use.thin}
        for batch in repack(pool, use.thin):
            run.notes.extend(f"not repacked: {error.message}" for error in batch.damaged)
            run.lease.renew_if_due()
            if not batch.packs:
                continue
            run.lease.check()
            publish_condemned(pool.storage, pool.keys, number, batch.packs)
            number += 1
            size = sum(sizes[pack] for pack in batch.packs)
            run.count(
                condemned=len(batch.packs), condemned_bytes=size, repacked=len(batch.packs), written=batch.written
            )
    except ObjectExists:
        return False
    finally:
        pool.matched.heed_condemned()
    return True


def _surveyed(snapshot: IndexSnapshot, live: NDArray[np.bool_], points: int, repack_below: float) -> Survey:
    use = snapshot.per_pack(live)
    dead = ~use.condemned & (use.live_chunks == 0)
    rest = ~use.condemned & ~dead
    thin = rest & (use.live_stored < repack_below * use.stored)
    small = rest & (use.stored < _SMALL)
    if int(small.sum()) >= _MANY_SMALL:
        thin |= small
    return Survey(
        points=points,
        packs=int((~use.condemned).sum()),
        stored=int(use.stored[~use.condemned].sum()),
        live=int(use.live_stored.sum()),
        dead=frozenset(pack.tobytes() for pack in use.packs[dead]),
        dead_bytes=int(use.sizes[dead].sum()),
        thin=tuple(_thin_packs(snapshot, live, use, np.flatnonzero(thin))),
    )


def _thin_packs(
    snapshot: IndexSnapshot, live: NDArray[np.bool_], use: PackUse, thin: NDArray[np.intp]
) -> Iterator[Thin]:
    """Thin packs with their needed chunks in the order in which they lie."""
    wanted = np.zeros(len(use.packs), dtype=np.bool_)
    wanted[thin] = True
    rows = snapshot.rows_of_packs(wanted, live)
    ends = np.cumsum(use.live_chunks[thin])
    for number, end in zip(thin.tolist(), ends.tolist(), strict=True):
        chunks = snapshot.ids(rows[end - int(use.live_chunks[number]) : end])
        yield Thin(use.packs[number].tobytes(), [chunk.tobytes() for chunk in chunks], int(use.sizes[number]))


# --- sweeping ----------------------------------------------------------------------------------------


def _sweep(run: _Run, grace_s: float) -> None:
    """Carry out every list whose grace period is over and that no capture stands in the way of."""
    pool = run.pool
    lists = pool.matched.heed_condemned()
    due = [each for each in lists.values() if _is_due(run, each, grace_s)]
    if not any(each.packs for each in due):
        return
    # The leases were looked at before; every capture that could rely on these packs has committed or given up.
    pool.matched.refresh()
    snapshot = pool.index.snapshot()
    marks = mark(pool, snapshot, run.progress)
    needed = _only_elsewhere(pool, marks.elsewhere)
    condemned = frozenset[bytes]().union(*(each.packs for each in due))
    run.count(pardoned=len(condemned & needed))
    use = snapshot.per_pack(marks.live)
    sizes = {
        pack.tobytes(): int(size) for pack, size in zip(use.packs[use.condemned], use.sizes[use.condemned], strict=True)
    }
    _delete(run, {pack: size for pack, size in sizes.items() if pack in condemned - needed})
    run.lease.check()
    _remove_lists(pool, due, highest=max(lists))


def _only_elsewhere(pool: Pool, elsewhere: Iterable[bytes]) -> frozenset[bytes]:
    """The condemned packs that hold what is needed and lies in no other pack.

    What a snapshot did not have may also lie in a pack that is younger than it.

    Raises:
        Refused: Something lies nowhere.
    """
    if any(pool.index.find(chunk) is None for chunk in elsewhere):
        pool.matched.refresh()
    packs: set[bytes] = set()
    for chunk in elsewhere:
        places = pool.index.find_all(chunk)
        if not places:
            raise blocked(f"chunk {chunk.hex()[:16]} is missing")
        if not pool.index.has(chunk):
            packs.update(place.pack for place in places)
    return frozenset(packs)


def _is_due(run: _Run, condemned: CondemnedList, grace_s: float) -> bool:
    if not condemned.packs:
        # The number of a marker must stay taken, too, while somebody may still mean to publish under it.
        return not blocking_leases(run.pool.storage, condemned.number)
    left_s = grace_s - (time.time_ns() - condemned.published_ns) / 1e9
    # Without a grace period no clock is asked: that of the storage may go before this machine's.
    if grace_s > 0 and left_s > 0:
        run.waiting.append(f"{len(condemned.packs)} packs wait for {left_s / 3600:.1f} h of their grace period")
        return False
    blocking = blocking_leases(run.pool.storage, condemned.number)
    if blocking:
        run.waiting.append(f"{len(condemned.packs)} packs wait for captures at work: {', '.join(blocking[:3])}")
        return False
    return True


def _delete(run: _Run, doomed: Mapping[bytes, int]) -> None:
    """Delete packs, given with their sizes."""
    ordered = sorted(doomed)
    for at in range(0, len(ordered), _AT_ONCE):
        run.lease.renew_if_due()
        run.lease.check()
        part = ordered[at : at + _AT_ONCE]
        locked = delete_unlocked(run.pool.storage, [pack_name(pack) for pack in part])
        gone = [pack for pack in part if pack_name(pack) not in locked]
        run.count(locked=len(locked))
        run.pool.index.forget(gone)
        run.count(deleted=len(gone), deleted_bytes=sum(doomed[pack] for pack in gone))


def _remove_lists(pool: Pool, done: list[CondemnedList], *, highest: int) -> None:
    """Remove lists that were carried out; the highest number must stay taken, so a marker goes before it."""
    if any(each.number == highest for each in done):
        if next(each for each in done if each.number == highest).packs:
            # Taken by somebody else is as good.
            with contextlib.suppress(ObjectExists):
                publish_condemned(pool.storage, pool.keys, highest + 1, ())
        else:
            done = [each for each in done if each.number != highest]
    pool.storage.delete(*(each.name for each in done))
    pool.matched.heed_condemned()
