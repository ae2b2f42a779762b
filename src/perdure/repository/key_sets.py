"""Key sets: which key slots of a pool count.

A key set is the object ``keys/set-NNNNNNNN`` (with a twin ``….copy``): the names of all slots that count, which all
seal the same master keys. The one with the highest number counts; sets are never deleted. A set is made with
create-if-absent, so it is the one commit point of every change of the keys: see
:mod:`perdure.repository.key_changes`. Before the first change a pool has none; then every slot with one master key
counts.

When both copies of the newest set are damaged, every slot counts that seals as many master keys as any does. That may
bring back a slot which was dropped but not deleted yet; getting at the data matters more.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import msgspec
from blake3 import blake3

from perdure.model.errors import Damaged, PoolUnusable
from perdure.repository.keys import KeyRing, Secret, UnknownKeyEpoch
from perdure.repository.slots import KeySlot, open_slot, read_slot
from perdure.storage.contract import ObjectMissing, Storage

__all__ = ["HeldKeys", "KeySet", "check_key_object", "open_ring", "read_keys", "set_name", "slot_kind"]

_SLOT_NAME = re.compile(r"keys/(?!set-)[a-z]+-[0-9a-f]{8}", re.ASCII)
_SET_NAME = re.compile(r"keys/set-([0-9]{8})", re.ASCII)
_LOOKS = 5
"""Somebody may change the keys while they are read; so often in a row nobody does."""


@dataclass(frozen=True, slots=True)
class KeySet:
    """The slots that count from one change of the keys to the next.

    Args:
        number: Counts up from 1; it is in the object's name.
        epochs: Number of master keys that every one of the slots seals.
        slots: Object names of the slots, in name order.
        made_ns: When it was made, nanoseconds since 1970 UTC.
        check: First 8 bytes of BLAKE3 over everything else.
    """

    number: int
    epochs: int
    slots: tuple[str, ...]
    made_ns: int
    check: bytes

    @classmethod
    def of(cls, number: int, epochs: int, slots: Sequence[str], made_ns: int) -> KeySet:
        names = tuple(sorted(slots))
        return cls(number, epochs, names, made_ns, _check_of(number, epochs, names, made_ns))

    def encoded(self) -> bytes:
        return msgspec.msgpack.encode(self)

    @classmethod
    def decode(cls, data: bytes, name: str) -> KeySet:
        """Read a key set object.

        Raises:
            Damaged: These are not the bytes that were written, or not those of this name.
        """
        try:
            found = msgspec.msgpack.decode(data, type=cls)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise Damaged(f"key set {name} is damaged: {error}", code="damaged-key-set") from error
        whole = found.check == _check_of(found.number, found.epochs, found.slots, found.made_ns)
        # A name from here is read, and may be deleted one day, so it must be that of a slot.
        possible = found.epochs >= 1 and found.slots and all(map(_SLOT_NAME.fullmatch, found.slots))
        if not whole or not possible or set_name(found.number) != name.removesuffix(".copy"):
            raise Damaged(f"key set {name} is damaged: it is not what was written", code="damaged-key-set")
        return found


def _check_of(number: int, epochs: int, slots: tuple[str, ...], made_ns: int) -> bytes:
    return blake3(msgspec.msgpack.encode((number, epochs, slots, made_ns))).digest(8)


def set_name(number: int) -> str:
    """Object name of a key set."""
    return f"keys/set-{number:08d}"


@dataclass(frozen=True, slots=True)
class HeldKeys:
    """What a pool holds about its keys.

    Args:
        number: Number of the newest set; 0 when there is none.
        epochs: Number of master keys.
        slots: The slots that count, by object name; those that can be read.
        damaged: Those that cannot be read, and why.
        listed: Names of all slot objects and twins that are there, whether they count or not.
        made_ns: When each slot object was written by the storage's clock, nanoseconds since 1970 UTC.
    """

    number: int
    epochs: int
    slots: Mapping[str, KeySlot]
    damaged: Mapping[str, Damaged]
    listed: tuple[str, ...]
    made_ns: Mapping[str, int]

    @property
    def names(self) -> tuple[str, ...]:
        """Object names of all slots that count."""
        return tuple(sorted({*self.slots, *self.damaged}))

    def opened_by(self, secret: Secret, pool: bytes) -> Iterator[tuple[str, tuple[bytes, ...]]]:
        """Every slot that a secret opens: its name and the master keys, oldest first."""
        for name, slot in self.slots.items():
            masters = open_slot(slot, secret, pool)
            if masters is not None:
                yield name, masters

    def masters(self, secret: Secret, pool: bytes) -> tuple[bytes, ...]:
        """The master keys, oldest first.

        Raises:
            PoolUnusable: The secret opens no slot.
            Damaged: It opens none, and one that it may open is damaged; or there is none that can be read.
        """
        for _, masters in self.opened_by(secret, pool):
            return masters
        for name, failure in self.damaged.items():
            if slot_kind(name) == secret.kind:
                raise failure
        if not self.slots:
            raise Damaged(
                "no key slot of this pool can be read, so no passphrase opens it",
                code="damaged-key-slot",
                hint="bring the objects below keys/ back from a copy of this pool's storage",
            )
        raise PoolUnusable(
            f"wrong {secret.noun}: it does not open this pool",
            code="wrong-passphrase",
            hint="check the passphrase file; any passphrase, key file or recovery key of the pool opens it, "
            "and 'perdure key list POOL' shows which there are",
        )


def slot_kind(name: str) -> str:
    """The kind that a slot's object name tells."""
    return name.removeprefix("keys/").partition("-")[0]


def read_keys(storage: Storage) -> HeldKeys:
    """Read which slots count.

    Damage is in the result, not raised: a pool opens as long as one slot does.
    """
    for _ in range(_LOOKS):
        held = _looked_up(storage)
        # A slot that counted may have been deleted by a change of the keys, after that change made a newer set.
        if not any(isinstance(failure.__cause__, ObjectMissing) for failure in held.damaged.values()):
            break
    return held


def _looked_up(storage: Storage) -> HeldKeys:
    listed = {found.name: found for found in storage.list("keys")}
    objects = {name.removesuffix(".copy") for name in listed}
    present = sorted(filter(_SLOT_NAME.fullmatch, objects))
    number = max((int(match[1]) for match in map(_SET_NAME.fullmatch, objects) if match), default=0)
    newest = _read_set(storage, number) if number else None
    slots: dict[str, KeySlot] = {}
    damaged: dict[str, Damaged] = {}
    for name in present if newest is None else newest.slots:
        try:
            slots[name] = read_slot(storage, name)
        except Damaged as error:
            damaged[name] = error
    epochs = 1 if number == 0 else max((slot.epochs for slot in slots.values()), default=1)
    if newest is not None:
        epochs = newest.epochs
        damaged |= {name: _foreign(name) for name, slot in slots.items() if slot.epochs != epochs}
    return HeldKeys(
        number=number,
        epochs=epochs,
        slots={name: slot for name, slot in slots.items() if slot.epochs == epochs},
        damaged=damaged,
        listed=tuple(name for name in listed if name.removesuffix(".copy") in present),
        made_ns={name.removesuffix(".copy"): found.modified_ns for name, found in listed.items()},
    )


def _read_set(storage: Storage, number: int) -> KeySet | None:
    """A key set, from its twin when it is damaged or gone; ``None`` when both are."""
    for name in (set_name(number), f"{set_name(number)}.copy"):
        with contextlib.suppress(ObjectMissing, Damaged):
            return KeySet.decode(storage.read(name), name)
    return None


def _foreign(name: str) -> Damaged:
    return Damaged(f"key slot {name} is not the one that the key set means", code="damaged-key-slot")


def open_ring(storage: Storage, secret: Secret, pool: bytes) -> KeyRing:
    """All keys of a pool; the ring reads the slots again when it meets an object of a later epoch.

    Args:
        storage: Where the pool lies.
        secret: What opens it. The ring keeps it.
        pool: The pool's id, 16 bytes.

    Raises:
        PoolUnusable: The secret opens no slot.
        Damaged: It opens none, and one that it may open is damaged.
    """
    masters = read_keys(storage).masters(secret, pool)
    return KeyRing(*masters, later=partial(_later_masters, storage, secret, pool))


def _later_masters(storage: Storage, secret: Secret, pool: bytes, epoch: int) -> tuple[bytes, ...] | None:
    held = read_keys(storage)
    if epoch >= held.epochs:
        return None
    try:
        return held.masters(secret, pool)
    except (PoolUnusable, Damaged) as error:
        raise UnknownKeyEpoch(epoch) from error


def check_key_object(data: bytes, name: str) -> None:
    """Check one object below ``keys/`` as far as that goes without a secret.

    Raises:
        Damaged: It is not what was written.
    """
    if _SET_NAME.fullmatch(name.removesuffix(".copy")):
        KeySet.decode(data, name)
    else:
        KeySlot.decode(data, name)
