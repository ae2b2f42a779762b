"""The verification ledger: when every pack and log segment was last read whole and found sound, and what was not.

``checks/NUMBER`` is a sealed document. A run writes the next number at its end and every few minutes within; the
newest that can be read counts, and the one before is kept in case it cannot. Two runs at once are safe: whoever finds
the number taken reads that ledger and adds its own part to it. A ledger that is lost costs an early verification and
nothing else.

What the ledger names as damaged is not relied on: captures store such chunks again, and garbage collection never takes
a good copy for needless because of a damaged one (see :mod:`perdure.repository.matching`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import zstandard
from blake3 import blake3
from numpy.typing import NDArray

from perdure.model.errors import Damaged
from perdure.repository.container import Kind, decompressed
from perdure.repository.damage import Damage
from perdure.repository.documents import numbered, read_document, write_document
from perdure.repository.index_segment import PACK_ID, as_pack_ids, find_packs
from perdure.repository.keys import KeyRing
from perdure.repository.packs import pack_id
from perdure.storage.contract import ObjectExists, ObjectLocked, ObjectMissing, Storage

__all__ = [
    "Ledger",
    "RunFindings",
    "ledger_numbers",
    "merged",
    "object_key",
    "read_damage",
    "read_ledger",
    "read_one",
    "write_findings",
]

_PREFIX = "checks"
_KEPT = 2
_MOST = 1 << 30
"""Bytes of the columns of fifty million objects; a hostile ledger cannot ask for more memory than this."""
_SECOND_NS = 10**9


def object_key(name: str) -> bytes:
    """The 16 bytes by which a ledger knows an object: a pack's id, else half a hash of the name."""
    return pack_id(name) or blake3(name.encode()).digest(16)


@dataclass(frozen=True, eq=False)
class Ledger:
    """One ledger.

    Args:
        objects: Keys of objects that were read whole and found sound, dtype ``V16``, ascending.
        times: When, seconds since 1970 UTC, dtype ``u4``.
        damage: Damage that is neither healed nor gone.
        number: Its number; 0 if there is none yet.
    """

    objects: NDArray[np.void] = field(default_factory=lambda: np.empty(0, dtype=PACK_ID))
    times: NDArray[np.uint32] = field(default_factory=lambda: np.empty(0, dtype=np.uint32))
    damage: tuple[Damage, ...] = ()
    number: int = 0

    def times_of(self, objects: NDArray[np.void]) -> NDArray[np.uint32]:
        """When objects (keys, dtype ``V16``) were last found sound, seconds since 1970 UTC; 0 for never."""
        at = find_packs(self.objects, objects)
        if not len(self.times):
            return np.zeros(len(objects), dtype=np.uint32)
        return np.where(at >= 0, self.times[np.maximum(at, 0)], 0).astype(np.uint32)


@dataclass(slots=True)
class RunFindings:
    """What one run adds to the ledger.

    Args:
        begun_ns: When it began, nanoseconds since 1970 UTC.
        listed: Keys of every pack and log segment there was then, dtype ``V16``, ascending.
        sound: Keys of objects that it read and found sound, with the time in nanoseconds since 1970 UTC.
        hurt: Damage by reading that it found, or knew already from the ledger, by the object's name.
        read_hurt: Keys of those objects that it read itself and found damaged, with the time.
        structure: All other damage; ``None`` while that is not known yet.
    """

    begun_ns: int
    listed: NDArray[np.void]
    sound: dict[bytes, int] = field(default_factory=dict)
    hurt: dict[str, Damage] = field(default_factory=dict)
    read_hurt: dict[bytes, int] = field(default_factory=dict)
    structure: tuple[Damage, ...] | None = None


@dataclass(frozen=True, slots=True)
class _StoredDamage:
    object: str
    kind: str
    what: str
    affected: tuple[str, ...]
    points: tuple[tuple[str, int], ...]
    chunks: bytes
    found_ns: int
    by_reading: bool


@dataclass(frozen=True, slots=True)
class _Stored:
    """``times`` is zstd of the keys (16 bytes each, ascending) followed by the times (u32 seconds)."""

    times: bytes
    damage: tuple[_StoredDamage, ...]


def _name(number: int) -> str:
    return f"{_PREFIX}/{number:08d}"


def ledger_numbers(storage: Storage) -> list[int]:
    """The numbers of all ledgers, ascending."""
    found = (numbered(listed.name) for listed in storage.list(_PREFIX))
    return sorted(number for number in found if number is not None)


def read_one(storage: Storage, keys: KeyRing, number: int) -> Ledger:
    """Read the ledger of a number.

    Raises:
        Damaged: It is not what was written.
        ObjectMissing: It is not there any more.
    """
    stored = read_document(storage, keys, _name(number), Kind.CHECK, _Stored)
    try:
        columns = decompressed(stored.times, _MOST) if stored.times else b""
    except zstandard.ZstdError as error:
        raise Damaged(f"{_name(number)} is damaged: {error}", code="damaged-object") from error
    count, rest = divmod(len(columns), 20)
    if rest:
        raise Damaged(f"{_name(number)} is damaged: its columns have a wrong length", code="damaged-object")
    times = np.frombuffer(columns, dtype="<u4", offset=16 * count)
    return Ledger(as_pack_ids(columns[: 16 * count]), times, _taken_out(stored, number), number)


def read_ledger(storage: Storage, keys: KeyRing) -> Ledger:
    """The newest ledger that can be read; an empty one if there is none."""
    for number in reversed(ledger_numbers(storage)):
        with contextlib.suppress(Damaged, ObjectMissing):
            return read_one(storage, keys, number)
    return Ledger()


def read_damage(storage: Storage, keys: KeyRing) -> tuple[Damage, ...]:
    """The damage that the newest readable ledger names; quick, whatever the size of the pool."""
    for number in reversed(ledger_numbers(storage)):
        with contextlib.suppress(Damaged, ObjectMissing):
            return _taken_out(read_document(storage, keys, _name(number), Kind.CHECK, _Stored), number)
    return ()


def _taken_out(stored: _Stored, number: int) -> tuple[Damage, ...]:
    if any(len(each.chunks) % 32 for each in stored.damage):
        raise Damaged(f"{_name(number)} is damaged: it holds half a chunk id", code="damaged-object")
    return tuple(
        Damage(
            each.object,
            each.kind,
            each.what,
            each.affected,
            each.points,
            tuple(each.chunks[at : at + 32] for at in range(0, len(each.chunks), 32)),
            each.found_ns,
            each.by_reading,
        )
        for each in stored.damage
    )


# --- writing -----------------------------------------------------------------------------------------


def write_findings(storage: Storage, keys: KeyRing, findings: RunFindings, *, final: bool) -> Ledger:
    """Add what a run found to the ledger; durable on return. Nothing is written when nothing changed.

    Args:
        storage: The pool's storage.
        keys: Its keys.
        findings: What the run found so far.
        final: The run is over, so objects that are gone drop out.
    """
    while True:
        before = read_ledger(storage, keys)
        after = merged(before, findings, final=final)
        if _same(before, after):
            return before
        numbers = ledger_numbers(storage)
        number = max(numbers, default=0) + 1
        try:
            write_document(storage, keys, _name(number), Kind.CHECK, _stored(after))
        except ObjectExists:
            continue
        # A ledger that is locked or was removed by another run does no harm.
        with contextlib.suppress(ObjectLocked):
            storage.delete(*(_name(old) for old in numbers if old <= number - _KEPT))
        return replace(after, number=number)


def merged(before: Ledger, findings: RunFindings, *, final: bool) -> Ledger:
    """A ledger with what a run found."""
    sound = {key: time_ns // _SECOND_NS for key, time_ns in findings.sound.items()}
    objects = np.concatenate([before.objects, as_pack_ids(list(sound))])
    times = np.concatenate([before.times, np.array(list(sound.values()), dtype=np.uint32)])
    # Of two times of one object the later one is kept.
    order = np.lexsort((times, _rank(objects)))
    objects, times = objects[order], times[order]
    last = np.append(objects[1:] != objects[:-1], np.ones(min(1, len(objects)), dtype=np.bool_))
    hurt = _still_hurt(before, findings)
    stays = last & (find_packs(np.sort(as_pack_ids([object_key(name) for name in hurt])), objects) < 0)
    if final:
        gone = find_packs(findings.listed, objects) < 0
        # What another run found sound after this one began may be younger than this one's listing.
        stays &= ~(gone & (times < findings.begun_ns // _SECOND_NS))
    return Ledger(objects[stays], times[stays], _damage(before.damage, hurt, findings), before.number)


def _still_hurt(before: Ledger, findings: RunFindings) -> dict[str, Damage]:
    """The damage by reading that a run knows, without what another run has read later and found sound."""
    known = {damage.object for damage in before.damage if damage.by_reading}
    found = {}
    for name, damage in findings.hurt.items():
        key = object_key(name)
        read_ns = findings.read_hurt.get(key)
        later = int(before.times_of(as_pack_ids(key))[0]) * _SECOND_NS
        if name in known if read_ns is None else later <= read_ns:
            found[name] = damage
    return found


def _rank(objects: NDArray[np.void]) -> NDArray[np.int64]:
    """For each key its place among all of them in order; equal keys have the same."""
    order = np.argsort(objects, kind="stable")
    ordered = objects[order]
    rank = np.empty(len(objects), dtype=np.int64)
    rank[order] = np.cumsum(np.append(np.zeros(min(1, len(objects)), dtype=np.int64), ordered[1:] != ordered[:-1]))
    return rank


def _damage(before: Iterable[Damage], hurt: Mapping[str, Damage], findings: RunFindings) -> tuple[Damage, ...]:
    known = {(each.object, each.kind): each.found_ns for each in before}
    ours = [*hurt.values(), *(findings.structure or ())]
    kept = [replace(each, found_ns=known.get((each.object, each.kind), each.found_ns)) for each in ours]
    have = {(each.object, each.kind, each.by_reading) for each in ours}
    kept += [
        each
        for each in before
        if (each.object, each.kind, each.by_reading) not in have and _stands(each, findings, findings.listed)
    ]
    return tuple(sorted(kept, key=lambda each: (each.object, each.kind, each.what)))


def _stands(damage: Damage, findings: RunFindings, listed: NDArray[np.void]) -> bool:
    """Whether damage that is in the ledger and that a run has not found is still there."""
    if not damage.by_reading:
        return findings.structure is None or damage.found_ns > findings.begun_ns
    key = object_key(damage.object)
    looked_ns = findings.sound.get(key)
    if looked_ns is not None:
        return damage.found_ns > looked_ns
    return damage.found_ns > findings.begun_ns or bool(find_packs(listed, as_pack_ids(key))[0] >= 0)


def _same(before: Ledger, after: Ledger) -> bool:
    return (
        before.damage == after.damage
        and np.array_equal(before.objects, after.objects)
        and np.array_equal(before.times, after.times)
    )


def _stored(ledger: Ledger) -> _Stored:
    columns = ledger.objects.tobytes() + ledger.times.astype("<u4").tobytes()
    return _Stored(
        zstandard.compress(columns),
        tuple(
            _StoredDamage(
                each.object,
                each.kind,
                each.what,
                each.points_affected,
                each.points,
                b"".join(each.chunks),
                each.found_ns,
                each.by_reading,
            )
            for each in ledger.damage
        ),
    )
