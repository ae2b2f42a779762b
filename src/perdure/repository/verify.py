"""Verification: is every object of a pool what was written, and which recovery points does damage touch?

Always checked: descriptor, key slots and key sets (both copies), sources, holds, policies, condemned lists, ledgers,
every recovery-point record with its maps and trees, that every chunk that a point names is in some pack, and every log
segment's footer and the chain that they make. Without ``data`` every pack's footer is read too; with it packs and log
segments are read whole: every block decrypted, decompressed and hashed. Given a time limit, those are read that were
not read for the longest time, so that one run after the other covers the whole pool (see
:mod:`perdure.repository.ledger`).

Damage that an earlier run found by reading stands until the object is read again, healed or gone.

Beside others: points are listed before the index is matched with the packs, and a record is only written when its
packs are durable, so what a capture commits meanwhile is either not looked at or complete. What garbage collection
deletes meanwhile is no damage: whatever is found wrong counts only if its object is still listed.

Memory: one map or listing at a time, some bytes for every map and folder, the index (mapped), and one byte for each
of its chunks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from perdure.model.errors import Damaged
from perdure.model.points import RecoveryPoint
from perdure.model.positions import Position
from perdure.repository import logs, records
from perdure.repository.damage import MISSING, Damage, failures_of
from perdure.repository.damage_walk import DamageWalk
from perdure.repository.index_segment import PACK_ID, as_pack_ids
from perdure.repository.known_damage import damaged_copies
from perdure.repository.ledger import Ledger, RunFindings, read_ledger, write_findings
from perdure.repository.packs import pack_id, pack_name, read_pack_index
from perdure.repository.pool import Pool
from perdure.repository.scrub import Target, by_age, each_in_time
from perdure.repository.small_objects import SmallObjects
from perdure.repository.verify_report import VerifyReport
from perdure.repository.whole_reading import PackReading, known_rows, read_log, read_pack
from perdure.storage.contract import ObjectInfo, ObjectMissing, StorageFull, StorageReadOnly

__all__ = ["Damage", "VerifyReport", "verify_pool"]

Progress = Callable[[int], None]

_NOTE_EVERY_S = 300.0
"""How often a long run writes what it found so far into the ledger."""


def verify_pool(
    pool: Pool,
    *,
    data: bool = False,
    max_duration_s: float | None = None,
    only: Collection[str] | None = None,
    progress: Progress = lambda _: None,
    threads: int = 2,
    clock: Callable[[], float] = time.monotonic,
) -> VerifyReport:
    """Check every object of a pool, and note in its ledger what was found.

    Args:
        pool: The pool.
        data: Also read packs and log segments whole.
        max_duration_s: With ``data``: begin no other pack or segment when so many seconds are over. One at least is
            always read.
        only: With ``data``: read these objects and no others.
        progress: Called with the number of stored bytes dealt with since the last call.
        threads: Readers at once.
        clock: Seconds that go on steadily.

    Raises:
        PerdureError: The storage fails. What was found before is in the ledger.
    """
    run = _Run(pool, progress, threads, clock)
    deadline_s = run.begun_s + max_duration_s if max_duration_s is not None else None
    run.check_structure()
    try:
        if data:
            run.scrub(lambda: deadline_s is None or clock() < deadline_s, only)
        else:
            run.check_footers()
    except BaseException:
        run.note_findings(final=False)
        raise
    run.attribute()
    ledger = run.note_findings(final=True)
    return run.report(ledger)


class _Run:
    """One verification, step by step."""

    def __init__(self, pool: Pool, progress: Progress, threads: int, clock: Callable[[], float]) -> None:
        self.pool = pool
        self.progress = progress
        self.threads = threads
        self.clock = clock
        self.begun_s = self.noted_s = clock()
        begun_ns = time.time_ns()
        self.failures = failures_of(pool.storage)
        self.ledger = read_ledger(pool.storage, pool.keys)
        self.small = SmallObjects(pool, {source.id: source.name for source in pool.sources()}, progress, begun_ns)
        self.notes: list[str] = []
        self.chunks = self.bytes = self.points = self.read = self.packs_checked = 0
        self.records = list(pool.storage.list("points"))
        pool.matched.refresh()
        self.targets = self._targets()
        self.findings = RunFindings(begun_ns, np.empty(0, dtype=PACK_ID))
        self._list(self.targets)

    def _list(self, targets: list[Target]) -> None:
        """Take these for the packs and log segments there are; what the ledger says of others is forgotten."""
        self.targets = targets
        self.findings.listed = np.sort(as_pack_ids([target.key for target in targets]))
        there = {target.name for target in targets} if self.ledger.damage else set()
        self.findings.hurt = {
            damage.object: self.findings.hurt.get(damage.object, damage)
            for damage in self.ledger.damage
            if damage.by_reading and damage.object in there
        }

    def _targets(self) -> list[Target]:
        found = []
        for listed in self.pool.storage.list("packs"):
            if pack_id(listed.name) is None:
                self.small.note(listed.name, "pack", "this is not the name of a pack")
            else:
                found.append(Target.of(listed))
        log = (listed for listed in self.pool.storage.list("logs") if logs.span_of(listed) is not None)
        return [*found, *map(Target.of, log)]

    # --- structure ---

    def check_structure(self) -> None:
        """Everything but the content of packs and log."""
        self.small.check_all()
        images: dict[str, list[Position]] = {}
        walk, points = self._walk(self._hurt_groups(), images)
        self.small.check_logs(images)
        self.points = len(points)
        # What is condemned and needed no more is on its way out, whatever it is like.
        leaving = self.pool.matched.condemned() - walk.needed_packs()
        self._take(walk, points)
        self.followed = walk, points
        self._list([target for target in self.targets if target.key not in leaving])

    def attribute(self) -> None:
        """Find out which points the damage touches that was found after the points had been followed."""
        groups = self._hurt_groups()
        walk, points = self.followed if groups == self.walked else self._walk(groups, {}, counting=False)
        self._take(walk, points)

    def _hurt_groups(self) -> dict[bytes, set[str]]:
        """Chunks that are damaged and of which there is no other copy, with the objects that hold them."""
        copies = damaged_copies(self.findings.hurt.values())
        groups: dict[bytes, set[str]] = {}
        for pack, chunks in copies.items():
            for chunk in chunks:
                places = self.pool.index.find_all(chunk)
                if all(chunk in copies.get(place.pack, ()) for place in places):
                    groups.setdefault(chunk, set()).add(pack_name(pack))
        return groups

    def _walk(
        self, groups: dict[bytes, set[str]], images: dict[str, list[Position]], *, counting: bool = True
    ) -> tuple[DamageWalk, list[RecoveryPoint]]:
        self.walked = groups
        self.names = sorted(set[str]().union(*groups.values()))
        numbers = {name: number for number, name in enumerate(self.names)}
        hurt = {chunk: {numbers[name] for name in names} for chunk, names in groups.items()}
        walk = DamageWalk(self.pool, self.pool.index.snapshot(), hurt)
        points = []
        for listed in self.records:
            point = self._point(listed, counting=counting)
            if point is not None:
                walk.visit(point)
                points.append(replace(point, files=(), tree=None))
                if point.position is not None:
                    images.setdefault(point.source, []).append(point.position)
        return walk, points

    def _point(self, listed: ObjectInfo, *, counting: bool) -> RecoveryPoint | None:
        if counting:
            return self.small.read_point(listed)
        try:
            return records.read_point(self.pool.storage, self.pool.keys, listed.name)
        except self.failures:
            return None

    def _take(self, walk: DamageWalk, points: Sequence[RecoveryPoint]) -> None:
        """Note what a walk found, with the points that it touches."""
        touched = walk.touched()
        places = (self.pool.index.find_all(chunk) for broken in walk.broken for chunk in broken.chunks)
        self.suspects = {place.pack for copies in places for place in copies}
        for name, damage in self.findings.hurt.items():
            if damage.kind == "pack":
                number = self.names.index(name) if name in self.names else -1
                affected = self._still_there(touched.hurt.get(number, frozenset()), points)
                self.findings.hurt[name] = self._with_points(damage, affected)
        found = []
        for number, at in touched.broken.items():
            broken = walk.broken[number]
            affected = self._still_there(at, points)
            if affected:
                named = points[broken.point] if points[broken.point] in affected else affected[0]
                record = records.point_name(named.source, named.number)
                damage = Damage(record, broken.kind, broken.what, found_ns=self.findings.begun_ns)
                found.append(self._with_points(damage, affected))
        affected = self._still_there(touched.missing, points)
        if affected:
            one = len(walk.missing) == 1
            which = (
                "1 chunk that recovery points need is"
                if one
                else (f"{len(walk.missing):,} chunks that recovery points need are")
            )
            what = f"{which} in no pack"
            missing = Damage(MISSING, "pack", what, chunks=tuple(sorted(walk.missing)), found_ns=self.findings.begun_ns)
            found.append(self._with_points(missing, affected))
        self.findings.structure = (*self.small.damage, *found)

    def _still_there(self, numbers: Iterable[int], points: Sequence[RecoveryPoint]) -> list[RecoveryPoint]:
        """Points that were not deleted meanwhile, oldest first."""
        found = (points[number] for number in sorted(numbers))
        return [point for point in found if self.small.is_there(records.point_name(point.source, point.number))]

    def _with_points(self, damage: Damage, points: Sequence[RecoveryPoint]) -> Damage:
        labels = tuple(self.small.label(point.source, point.number) for point in points)
        return replace(damage, points_affected=labels, points=tuple((point.source, point.number) for point in points))

    # --- content ---

    def check_footers(self) -> None:
        """Read the footer of every pack."""
        packs = [target for target in self.targets if pack_id(target.name) is not None]
        for target, found in each_in_time(packs, self._read_footer, threads=self.threads, in_time=lambda: True):
            if isinstance(found, int):
                self.chunks += found
                self.packs_checked += 1
                self.bytes += target.size
            elif found is not None:
                self._settle(target, found)

    def _read_footer(self, target: Target) -> int | PackReading | Damaged | None:
        """The number of chunks in a pack whose footer is right, else what is wrong; ``None`` if it is gone."""
        pack, storage = target.key, self.pool.storage
        if pack in self.suspects:
            return self._read_whole(target)
        try:
            rows = read_pack_index(storage, self.pool.keys, pack, target.size)
        except ObjectMissing:
            return None
        except self.failures:
            return self._read_whole(target)
        self.progress(target.size)
        return len(rows)

    def scrub(self, in_time: Callable[[], bool], only: Collection[str] | None) -> None:
        """Read packs and log segments whole."""
        chosen = [each for each in self.targets if only is None or each.name in only or each.key in self.suspects]
        oldest = by_age(chosen, self.ledger)
        # Whatever a map or listing could not be read from is read now, so that the damage has a name.
        first = [each for each in oldest if each.key in self.suspects]
        ordered = first + [each for each in oldest if each.key not in self.suspects]
        for target, found in each_in_time(
            ordered, self._read_whole, threads=self.threads, in_time=in_time, at_least=max(1, len(first))
        ):
            if found is not None:
                self._settle(target, found)
            if self.clock() - self.noted_s >= _NOTE_EVERY_S:
                self.note_findings(final=False)

    def _read_whole(self, target: Target) -> PackReading | Damaged | int | None:
        """What reading found: of a pack a reading, of log an error or 0; ``None`` if the object is gone."""
        storage, keys = self.pool.storage, self.pool.keys
        try:
            if target.name.startswith("packs/"):
                known = partial(known_rows, self.pool, target.key)
                return read_pack(storage, keys, target.key, target.size, known=known, progress=self.progress)
            span = logs.span_of(ObjectInfo(target.name, target.size))
            assert span is not None
            read_log(storage, keys, span, self.progress)
        except ObjectMissing:
            return None
        except self.failures as error:
            return Damaged(error.message)
        return 0

    def _settle(self, target: Target, found: PackReading | Damaged | int) -> None:
        self.read += 1
        self.packs_checked += 1
        self.bytes += target.size
        now_ns = time.time_ns()
        if isinstance(found, Damaged):
            span = logs.span_of(ObjectInfo(target.name, target.size))
            assert span is not None
            affected = self.small.log_affected(target.name.split("/")[1], span)
            damage = Damage(target.name, "log", found.message, affected, (), (), now_ns, by_reading=True)
            self._note_hurt(target, damage, now_ns)
            if any(each.object == target.name for each in self.small.damage):
                del self.findings.hurt[target.name]
        elif isinstance(found, PackReading) and not found.sound:
            self.chunks += found.chunks
            self._note_pack(target, found)
        else:
            self.chunks += found.chunks if isinstance(found, PackReading) else 0
            self.findings.sound[target.key] = now_ns
            self.findings.read_hurt.pop(target.key, None)
            self.findings.hurt.pop(target.name, None)

    def _note_pack(self, target: Target, found: PackReading) -> None:
        chunks = tuple(sorted(found.hurt))
        what = "; ".join(found.problems)
        if chunks:
            reasons = sorted(set(found.hurt.values()))
            what = "; ".join(
                filter(None, [what, f"{len(chunks):,} of its {found.chunks:,} chunks damaged", *reasons[:1]])
            )
        now_ns = time.time_ns()
        damage = Damage(target.name, "pack", what, (), (), chunks, now_ns, by_reading=True)
        self._note_hurt(target, damage, now_ns)

    def _note_hurt(self, target: Target, damage: Damage, now_ns: int) -> None:
        self.findings.hurt[target.name] = damage
        self.findings.read_hurt[target.key] = now_ns
        self.findings.sound.pop(target.key, None)

    # --- outcome ---

    def note_findings(self, *, final: bool) -> Ledger:
        """Write the ledger; a pool that cannot be written to is verified all the same."""
        self.noted_s = self.clock()
        try:
            return write_findings(self.pool.storage, self.pool.keys, self.findings, final=final)
        except (StorageReadOnly, StorageFull) as error:
            self.notes.append(f"what was found could not be noted in the pool: {error.message}")
            return self.ledger

    def report(self, ledger: Ledger) -> VerifyReport:
        """What came of it."""
        hurt = sorted(self.findings.hurt.values(), key=lambda damage: damage.object)
        structure = self.findings.structure or ()
        named = {(damage.object, damage.kind): damage.found_ns for damage in ledger.damage}
        damage = [
            replace(each, found_ns=named.get((each.object, each.kind), each.found_ns)) for each in (*structure, *hurt)
        ]
        times = ledger.times_of(as_pack_ids([target.key for target in self.targets]))
        return VerifyReport(
            objects=self.small.objects + self.packs_checked,
            chunks=self.chunks,
            bytes=self.bytes + self.small.bytes,
            points=self.points,
            damage=tuple(damage),
            read=self.read,
            to_read=len(self.targets),
            oldest_ns=int(times.min()) * 10**9 if len(times) else 0,
            notes=tuple(self.notes),
        )
