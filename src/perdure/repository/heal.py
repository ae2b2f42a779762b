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
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from perdure.model.errors import Refused
from perdure.repository.condemned import publish_condemned
from perdure.repository.damage import MISSING, Damage, failures_of
from perdure.repository.damage_walk import DamageWalk
from perdure.repository.heal_objects import heal_object
from perdure.repository.leases import WorkLease, take_collection_lease
from perdure.repository.new_packs import NewPacks
from perdure.repository.packs import pack_id
from perdure.repository.pool import Pool
from perdure.repository.records import read_point
from perdure.repository.replacing import finish_replacements
from perdure.repository.second_copy import SecondCopy
from perdure.repository.verify import VerifyReport, verify_pool
from perdure.repository.whole_reading import known_rows, read_pack
from perdure.storage.contract import ObjectExists, ObjectLocked, ObjectMissing, Storage

__all__ = ["Healed", "Healing", "Origin", "heal_pool"]

_CONDEMNED = "what is sound in it lies elsewhere too, and it is condemned"
_ROUNDS = 16
"""Healing a map shows what is missing below it, so a run goes round until nothing more can be healed."""

Progress = Callable[[int], None]
Points = tuple[tuple[str, int], ...]


class Origin(Protocol):
    """A place where good content may be."""

    @property
    def name(self) -> str:
        """What people call it, after ``from``."""
        ...

    def contents(self, wanted: Collection[bytes], points: Sequence[tuple[str, int]]) -> Iterator[tuple[bytes, bytes]]:
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
    lease: WorkLease
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
        Refused: Another process heals this pool or collects its garbage (``collection-at-work``).
        StorageFull: No room. Nothing that was good is lost.
    """
    if report.sound:
        return Healing((), 0, 0, report)
    second = SecondCopy(pool, other) if other is not None else None
    with _alone(pool.storage) as lease:
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


# --- objects with a name of their own ----------------------------------------------------------------


def _heal_objects(run: _Run, damage: Sequence[Damage]) -> None:
    for name in finish_replacements(run.pool.storage):
        run.note(name, "unfinished healing", "finished")
    for each in damage:
        if each.kind in ("pack", "map", "tree", "unfinished healing"):
            continue
        run.lease.renew_if_due()
        # What is locked against deletion stays damaged, and named, until the lock runs out.
        with contextlib.suppress(ObjectLocked):
            how = heal_object(run.pool, each, run.other)
            if how:
                run.note(each.object, each.kind, how)


# --- packs -------------------------------------------------------------------------------------------


def _heal_packs(run: _Run, damage: Sequence[Damage]) -> None:
    if not damage:
        return
    pool = run.pool
    # From here on the index prefers every copy that does not lie in a damaged pack.
    pool.matched.refresh()
    listed = {pack_id(each.name): each.size for each in pool.storage.list("packs")}
    hurt = {pack: each for each in damage if (pack := pack_id(each.object)) is not None and pack in listed}
    # What is not avoided by everybody cannot be told from a sound copy.
    hurt = {pack: each for pack, each in hurt.items() if pack in pool.matched.avoided()}
    needed = _needed(pool, frozenset(chunk for each in damage for chunk in each.chunks))
    wanted = {chunk: points for chunk, points in needed.items() if not pool.index.has(chunk)}
    how: dict[bytes, str] = {}
    with NewPacks(pool, run.lease.renew_if_due) as packs:
        for chunk, content, origin in _good_content(run, wanted, {pack: listed[pack] for pack in hurt}):
            if chunk not in how:
                packs.add(chunk, content)
                how[chunk] = origin
        packs.make_durable()
        run.look_at.update(packs.names)
        run.written += packs.written
    lost = wanted.keys() - how.keys()
    for each in damage:
        if each.object == MISSING and not how.keys().isdisjoint(each.chunks):
            run.note(each.object, each.kind, _words(each, how))
    _retire(run, {pack: each for pack, each in hurt.items() if lost.isdisjoint(each.chunks)}, listed, how)
    for each in hurt.values():
        if not lost.isdisjoint(each.chunks) and not how.keys().isdisjoint(each.chunks):
            run.note(each.object, each.kind, _words(each, how))


def _words(damage: Damage, how: Mapping[bytes, str]) -> str:
    healed = [how[chunk] for chunk in damage.chunks if chunk in how]
    return f"{len(healed)} chunks from {', '.join(sorted(set(healed)))}" if healed else ""


def _good_content(
    run: _Run, wanted: Mapping[bytes, Points], hurt: Mapping[bytes, int]
) -> Iterator[tuple[bytes, bytes, str]]:
    """Content of wanted chunks, checked, with where it comes from; a chunk may come several times.

    Args:
        run: The healing.
        wanted: Ids of chunks, each with the points that need it.
        hurt: Damaged packs and their sizes.
    """
    left = set(wanted)
    for origin in (_OwnCopies(run, hurt), *run.origins):
        if not left:
            return
        points = sorted({point for chunk in left for point in wanted[chunk]}, key=_newest_first)
        for chunk, content in origin.contents(frozenset(left), points):
            run.lease.renew_if_due()
            run.progress(len(content))
            if chunk in left and run.pool.keys.content_id(content) == chunk:
                left.discard(chunk)
                yield chunk, content, origin.name


def _newest_first(point: tuple[str, int]) -> tuple[str, int]:
    source, number = point
    return source, -number


class _OwnCopies:
    """What the pool itself still has: in damaged packs that are readable by other means, and in condemned ones."""

    name = "this pool"

    def __init__(self, run: _Run, hurt: Mapping[bytes, int]) -> None:
        self._run = run
        self._hurt = hurt

    def contents(self, wanted: Collection[bytes], points: Sequence[tuple[str, int]]) -> Iterator[tuple[bytes, bytes]]:
        """As :class:`Origin`; the points do not matter."""
        del points
        pool = self._run.pool
        failures = failures_of(pool.storage)
        left = set(wanted)
        for chunk in wanted:
            with contextlib.suppress(*failures):
                content = pool.read_chunk(chunk)
                left.discard(chunk)
                yield chunk, content
        for pack, size in self._hurt.items():
            if left:
                found = _contents_of(pool, pack, size, left)
                yield from found
                left.difference_update(chunk for chunk, _ in found)


def _contents_of(pool: Pool, pack: bytes, size: int, wanted: Collection[bytes]) -> list[tuple[bytes, bytes]]:
    """What of a damaged pack can be read after all. A pack is small enough to be held."""
    found: list[tuple[bytes, bytes]] = []

    def take(chunk: bytes, content: bytes) -> None:
        if chunk in wanted:
            found.append((chunk, content))

    with contextlib.suppress(*failures_of(pool.storage)):
        read_pack(pool.storage, pool.keys, pack, size, known=partial(known_rows, pool, pack), on_content=take)
    return found


def _retire(
    run: _Run, hurt: Mapping[bytes, Damage], sizes: Mapping[bytes | None, int], how: Mapping[bytes, str]
) -> None:
    """Copy what is sound in damaged packs and lies nowhere else, and condemn them."""
    pool = run.pool
    if not hurt:
        return
    with NewPacks(pool, run.lease.renew_if_due) as packs:
        for pack in hurt:
            read_pack(
                pool.storage,
                pool.keys,
                pack,
                sizes[pack],
                known=partial(known_rows, pool, pack),
                on_content=packs.add_if_new,
                progress=run.progress,
            )
        packs.make_durable()
        run.look_at.update(packs.names)
        run.written += packs.written
    _condemn(run, hurt)
    run.condemned += len(hurt)
    for each in hurt.values():
        words = _words(each, how)
        run.note(each.object, each.kind, f"{words}; {_CONDEMNED}" if words else _CONDEMNED[:1].upper() + _CONDEMNED[1:])


def _condemn(run: _Run, packs: Collection[bytes]) -> None:
    """Publish a condemned list."""
    pool = run.pool
    while True:
        number = max(pool.matched.heed_condemned(), default=0) + 1
        run.lease.check()
        with contextlib.suppress(ObjectExists):
            publish_condemned(pool.storage, pool.keys, number, packs)
            break
    pool.matched.heed_condemned()


def _needed(pool: Pool, chunks: frozenset[bytes]) -> dict[bytes, Points]:
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
