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

Beside others: a lease keeps garbage collection from deleting anything while healing is under way, and a second healing
away. Captures go on: they avoid damaged packs by themselves.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from perdure.model.errors import Damaged, Refused
from perdure.repository.condemned import publish_condemned
from perdure.repository.damage import MISSING, Damage, failures_of
from perdure.repository.damage_walk import DamageWalk
from perdure.repository.heal_objects import heal_object
from perdure.repository.packs import PackWriter, pack_id, pack_name
from perdure.repository.pool import Pool
from perdure.repository.records import read_point
from perdure.repository.replacing import finish_replacements
from perdure.repository.second_copy import SecondCopy
from perdure.repository.verify import VerifyReport, verify_pool
from perdure.repository.whole_reading import known_rows, read_pack
from perdure.storage.contract import LEASE_LIFE_S, Lease, ObjectExists, ObjectMissing, Storage

__all__ = ["Healed", "Healing", "Origin", "heal_pool"]

_LEASE = "heal"
_ROUNDS = 16
"""Healing a map shows what is missing below it, so a run goes round until nothing more can be healed."""

Progress = Callable[[int], None]


class Origin(Protocol):
    """A place where good content may be."""

    @property
    def name(self) -> str:
        """What people call it, after ``from``."""
        ...

    def contents(
        self, wanted: Collection[bytes], points: Sequence[tuple[str, int]]
    ) -> Iterator[tuple[bytes, bytes]]:
        """Chunk ids with what may be their content; the caller checks it.

        Args:
            wanted: Ids of chunks.
            points: Points that name them, as source id and number.
        """
        ...


@dataclass(frozen=True, slots=True)
class Healed:
    """Something that was healed: an object's name, its kind as in :class:`Damage`, and how."""

    object: str
    kind: str
    how: str


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


@dataclass(slots=True)
class _Run:
    """One healing so far."""

    pool: Pool
    other: SecondCopy | None
    origins: Sequence[Origin]
    lease: Lease
    progress: Progress
    healed: list[Healed] = field(default_factory=list)
    written: int = 0
    condemned: int = 0
    look_at: set[str] = field(default_factory=set)

    def note(self, name: str, kind: str, how: str) -> None:
        self.healed.append(Healed(name, kind, how))
        self.look_at.add(name)


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
        Refused: Another process heals this pool (``healing-under-way``).
        StorageFull: No room. Nothing that was good is lost.
    """
    if report.sound:
        return Healing((), 0, 0, report)
    second = SecondCopy(pool, other) if other is not None else None
    with _only_one(pool.storage) as lease:
        run = _Run(pool, second, (*((second,) if second is not None else ()), *origins), lease, progress)
        found = report
        for _ in range(_ROUNDS):
            before = len(run.healed)
            _heal_objects(run, found.damage)
            _heal_packs(run, [damage for damage in found.damage if damage.kind == "pack"])
            if len(run.healed) == before:
                break
            found = verify_pool(pool, data=True, only=run.look_at, progress=progress)
            if found.sound:
                break
    return Healing(tuple(run.healed), run.written, run.condemned, found)


@contextlib.contextmanager
def _only_one(storage: Storage) -> Iterator[Lease]:
    """A lease that keeps garbage collection from deleting, held by one process at a time.

    Raises:
        Refused: Another one holds it.
    """
    name = f"{_LEASE}-{secrets.token_hex(8)}"
    lease = storage.lease(name)
    try:
        others = (
            each.name
            for each in storage.leases()
            if each.name.startswith(f"{_LEASE}-") and each.name != name and each.idle_s <= LEASE_LIFE_S
        )
        if next(others, None) is not None:
            raise Refused(
                "another process is healing this storage pool; nothing was changed",
                code="healing-under-way",
                hint="wait for it to end, then run the command again",
            )
        yield lease
    finally:
        lease.release()


# --- objects with a name of their own ----------------------------------------------------------------


def _heal_objects(run: _Run, damage: Sequence[Damage]) -> None:
    for name in finish_replacements(run.pool.storage):
        run.note(name, "unfinished healing", "finished")
    for each in damage:
        if each.kind in ("pack", "map", "tree", "unfinished healing"):
            continue
        run.lease.renew()
        how = heal_object(run.pool, each, run.other)
        if how:
            run.note(each.object, each.kind, how)


# --- packs -------------------------------------------------------------------------------------------


def _heal_packs(run: _Run, damage: Sequence[Damage]) -> None:
    if not damage:
        return
    pool = run.pool
    pool.matched.refresh()
    hurt = {pack: frozenset(each.chunks) for each in damage if (pack := pack_id(each.object)) is not None}
    sizes = {listed.name: listed.size for listed in pool.storage.list("packs")} if hurt else {}
    hurt = {pack: chunks for pack, chunks in hurt.items() if pack_name(pack) in sizes}
    missing = frozenset[bytes]().union(*(each.chunks for each in damage if each.object == MISSING))
    needed = _needed(pool, frozenset[bytes]().union(missing, *hurt.values()))
    written = _Written(run)
    how = _gather(run, needed, hurt, sizes, written)
    lost = needed.keys() - how.keys()
    for each in damage:
        mine = needed.keys() & frozenset(each.chunks)
        origins = sorted({how[chunk] for chunk in mine if how.get(chunk)})
        pack = pack_id(each.object)
        if pack is None and mine & how.keys():
            run.note(each.object, each.kind, f"{len(mine & how.keys())} chunks {'; '.join(origins)}")
        elif pack in hurt and not mine & lost:
            _retire(run, pack, hurt[pack], sizes[pack_name(pack)])
            how_many = f"{len(mine)} chunks {'; '.join(origins)}; " if origins else ""
            run.note(each.object, each.kind, f"{how_many}its sound chunks lie elsewhere now, and it is condemned")
        elif mine & how.keys() - _held(run, mine):
            run.note(each.object, each.kind, f"{len(mine & how.keys())} of {len(mine)} chunks {'; '.join(origins)}")


def _held(run: _Run, chunks: Collection[bytes]) -> frozenset[bytes]:
    return frozenset(chunk for chunk in chunks if run.pool.index.has(chunk))


def _needed(pool: Pool, chunks: frozenset[bytes]) -> dict[bytes, tuple[tuple[str, int], ...]]:
    """Those of some chunks that points name, each with the points. All of them when a point cannot be followed."""
    numbered = sorted(chunks)
    walk = DamageWalk(pool, pool.index.snapshot(), {chunk: (number,) for number, chunk in enumerate(numbered)})
    points: list[tuple[str, int]] = []
    unknown = False
    for listed in pool.storage.list("points"):
        try:
            point = read_point(pool.storage, pool.keys, listed.name)
        except ObjectMissing:
            continue
        except failures_of(pool.storage):
            unknown = True
            continue
        walk.visit(point)
        points.append((point.source, point.number))
    touched = walk.touched()
    by_number = {number: tuple(points[at] for at in sorted(found)) for number, found in touched.hurt.items()}
    lacking = tuple(points[at] for at in sorted(touched.missing))
    guess = tuple(points) if unknown or walk.broken else ()
    needed = {}
    for number, chunk in enumerate(numbered):
        affected = by_number.get(number) or (lacking if chunk in walk.missing else ()) or guess
        if affected:
            needed[chunk] = affected
    return needed
