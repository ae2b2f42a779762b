"""Changing the ways into a pool, and rotating its master keys, without touching data.

Every change goes the same way:

1. Read the newest key set, number N, and open the pool by it. A pool that has none yet gets its first, of all slots
   that are there.
2. Write the new slots, each twin first, and open each of them again from the storage.
3. Show the person a new recovery key, if there is one.
4. Write key set N + 1 with create-if-absent. *This is the change*: from here on the new slots count, and those that
   the set does not name do not. Then its twin.
5. Delete the slots that were there at step 1 and that the new set does not name.

Power that fails before 4 leaves the pool as it was, with slots that do not count; step 5 of the next change deletes
them. Power that fails after 4 leaves the change done, with old slots that do not count. At no moment is there no way
in: the new slots were opened before the old ones ceased to count, and a new recovery key is on the screen by then.

Two changes at once: both want to write set N + 1, and one is refused with nothing changed. The loser deletes its own
slots, which no set names. The winner's step 5 deletes only what was there before it read set N; a slot that a later
set names was written after set N + 1 and has a name of its own. A process that was stopped for a week at any step
and goes on is no different, since sets are never deleted. When it is not known whether step 4 happened (the storage
failed while it was writing), nothing is deleted.

A rotation adds a master key. It can seal it only for secrets that it has: those that it was given, and a new
recovery key. All other slots cease to count, as they do not hold the new key. A new master key is used by nobody
before step 4, since it is only in slots that do not count and in the memory of this process.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from perdure.model.errors import Damaged, NotFound, Partial, PerdureError, Refused
from perdure.repository.key_sets import HeldKeys, KeySet, read_keys, set_name, slot_kind
from perdure.repository.keys import MAX_EPOCHS, KeyFile, Passphrase, RecoveryKey, Secret
from perdure.repository.slots import KeySlot, new_slot_name, open_slot, seal_slot, write_slot
from perdure.storage.contract import ObjectExists, ObjectMissing, Storage

__all__ = ["KeyChange", "PoolKeys", "SlotInfo", "list_slots", "slot_id"]


@dataclass(frozen=True, slots=True)
class SlotInfo:
    """One way into a pool, as far as that shows without a secret.

    Args:
        id: Eight hexadecimal digits.
        kind: ``passphrase``, ``recovery`` or ``keyfile``.
        made_ns: When it was written by the storage's clock, nanoseconds since 1970 UTC; 0 when it is gone.
        damaged: It opens with nothing any more, since both of its copies are damaged or gone.
    """

    id: str
    kind: str
    made_ns: int
    damaged: bool


@dataclass(frozen=True, slots=True)
class KeyChange:
    """What a change of the keys does.

    Args:
        added: New ways in.
        dropped: Ways that no longer open the pool.
        epochs: Number of master keys afterwards.
    """

    added: tuple[SlotInfo, ...]
    dropped: tuple[SlotInfo, ...]
    epochs: int


def slot_id(name: str) -> str:
    """What a person calls a slot by, from its object name."""
    return name.rpartition("-")[2]


def list_slots(storage: Storage) -> tuple[list[SlotInfo], int]:
    """All ways into a pool, and the number of its master keys. Takes no secret."""
    held = read_keys(storage)
    return [_info(held, name) for name in held.names], held.epochs


def _info(held: HeldKeys, name: str) -> SlotInfo:
    return SlotInfo(slot_id(name), slot_kind(name), held.made_ns.get(name, 0), name in held.damaged)


def _changed_by_another() -> Refused:
    return Refused(
        "another process changed the pool's keys at the same time; this change was not made",
        code="keys-changed",
        hint="see what there is now with 'perdure key list POOL', then run the command again",
    )


def _nothing_to_show(_change: KeyChange) -> None:
    """Most changes have nothing that must be seen before they happen."""


@dataclass(frozen=True, slots=True)
class PoolKeys:
    """The keys of one pool, opened to change them. Good for one change: what it does rests on what was read.

    Args:
        storage: Where the pool lies.
        pool: The pool's id, 16 bytes.
        secret: What opened them.
        held: What the pool held when they were opened.
        masters: The master keys, oldest first.
        opened: Object names of the slots that the secret opens.
    """

    storage: Storage
    pool: bytes
    secret: Secret
    held: HeldKeys
    masters: tuple[bytes, ...] = field(repr=False)
    opened: frozenset[str]

    @classmethod
    def open(cls, storage: Storage, secret: Secret, pool: bytes) -> PoolKeys:
        """Open the keys of a pool.

        Raises:
            PoolUnusable: The secret opens no slot.
            Damaged: It opens none, and one that it may open is damaged.
        """
        held = read_keys(storage)
        masters = held.masters(secret, pool)
        return cls(storage, pool, secret, held, masters, frozenset(name for name, _ in held.opened_by(secret, pool)))

    # --- changes ---

    def change_passphrase(self, new: Passphrase) -> KeyChange:
        """Let a new passphrase open the pool instead of every earlier one."""
        kept = [name for name in self.held.names if slot_kind(name) != Passphrase.kind]
        return self._change(kept, [new])

    def add_key_file(self, key_file: KeyFile) -> KeyChange:
        """Let a key file open the pool as well."""
        return self._change(self.held.names, [key_file])

    def replace_recovery_key(self, new: RecoveryKey, show: Callable[[KeyChange], None]) -> KeyChange:
        """Let a new recovery key open the pool instead of every earlier one.

        Args:
            new: The new one.
            show: Called when it is certain to work, and before the earlier one ceases to: the key must be seen now.
        """
        kept = [name for name in self.held.names if slot_kind(name) != RecoveryKey.kind]
        return self._change(kept, [new], show)

    def remove(self, slot: str) -> KeyChange:
        """Let a way in be one no longer.

        The way that the pool was opened by stays: a way in that is known to work is never the one that goes.

        Args:
            slot: The slot's id, or its kind and id as in the object's name.

        Raises:
            NotFound: There is no such slot.
            Refused: It is the only one that the secret at hand opens.
        """
        named = [name for name in self.held.names if slot in (slot_id(name), name.removeprefix("keys/"))]
        if not named:
            raise NotFound(
                f"the pool has no key slot {slot!r}",
                code="slot-not-found",
                hint="there are: " + ", ".join(slot_id(name) for name in self.held.names),
            )
        if not self.opened - set(named):
            raise Refused(
                f"key slot {slot} is what the {self.secret.noun} at hand opens; without it, it is not certain that "
                "anything opens the pool, so it stays",
                code="last-way-in",
                hint="open the pool in another way to remove this one, or replace it: perdure key passphrase, "
                "perdure key recovery",
            )
        return self._change([name for name in self.held.names if name not in named], [])

    def rotate(
        self, recovery: RecoveryKey, others: Sequence[Secret], show: Callable[[KeyChange], None], *, yes: bool
    ) -> KeyChange:
        """Make a new master key, which everything that is written from now on is sealed with.

        Args:
            recovery: The new recovery key.
            others: Further passphrases and key files that shall go on opening the pool; they must open it now.
            show: As for :meth:`replace_recovery_key`.
            yes: Go on when a passphrase or key file ceases to work because it was not given.

        Raises:
            Refused: One would, and ``yes`` is false; or there are too many master keys.
            PoolUnusable: One of ``others`` does not open the pool.
        """
        if len(self.masters) >= MAX_EPOCHS:
            raise Refused(
                f"the pool has {len(self.masters)} master keys, and there can be no more",
                code="too-many-key-epochs",
                hint="make a new pool, and protect the data sources there",
            )
        given = [secret for secret in dict.fromkeys([self.secret, *others]) if secret.kind != RecoveryKey.kind]
        resealed = set(self.opened)
        for secret in others:
            self.held.masters(secret, self.pool)
            resealed.update(name for name, _ in self.held.opened_by(secret, self.pool))
        lost = [n for n in self.held.names if n not in resealed and slot_kind(n) != RecoveryKey.kind]
        if lost and not yes:
            raise Refused(
                "the new master key cannot be sealed for ways in that were not given; these would open the pool no "
                f"longer: {', '.join(name.removeprefix('keys/') for name in lost)}; nothing was changed",
                code="confirmation-needed",
                hint="give them with --keep FILE, or add --yes to let them go",
            )
        return self._change([], [*given, recovery], show, (*self.masters, secrets.token_bytes(32)))

    # --- inside ---

    def _change(
        self,
        kept: Sequence[str],
        new: Sequence[Secret],
        show: Callable[[KeyChange], None] = _nothing_to_show,
        masters: tuple[bytes, ...] = (),
    ) -> KeyChange:
        """The steps of the module's docstring from the second on."""
        masters = masters or self.masters
        number = (self.held.number or self._first_set()) + 1
        written: list[str] = []
        try:
            for secret in new:
                self._write_slot(secret, masters, written)
            change = KeyChange(
                tuple(SlotInfo(slot_id(name), slot_kind(name), time.time_ns(), damaged=False) for name in written),
                tuple(_info(self.held, name) for name in self.held.names if name not in kept),
                len(masters),
            )
            show(change)
        except BaseException as error:
            self._discard(written)
            if isinstance(error, ObjectMissing):
                raise _changed_by_another() from error
            raise
        names = [*kept, *written]
        key_set = KeySet.of(number, len(masters), names, time.time_ns())
        self._commit(key_set, written)
        self._finish(key_set)
        return change

    def _first_set(self) -> int:
        """Write down which slots count so far, so that those of a change that is under way never do; returns 1."""
        key_set = KeySet.of(1, self.held.epochs, self.held.names, time.time_ns())
        self._commit(key_set, ())
        self.storage.create(f"{set_name(1)}.copy", key_set.encoded())
        return key_set.number

    def _write_slot(self, secret: Secret, masters: tuple[bytes, ...], written: list[str]) -> None:
        """Write a slot and open it again.

        Raises:
            ObjectMissing: Another change, which has been made, took the slot for a left-over.
            Damaged: It is not what was written.
        """
        name = new_slot_name(secret, (*self.held.listed, *self.held.names, *written))
        slot = seal_slot(masters, secret, self.pool)
        written.append(name)
        write_slot(self.storage, name, slot)
        for copy in (f"{name}.copy", name):
            found = KeySlot.decode(self.storage.read(copy), copy)
            # The twin is the same bytes, so deriving the key once is enough.
            if found != slot or (copy == name and open_slot(found, secret, self.pool) != masters):
                raise Damaged(
                    f"key slot {copy} does not read back as it was written; the keys were not changed",
                    code="damaged-key-slot",
                    hint="check the pool's disk, then run the command again",
                )

    def _commit(self, key_set: KeySet, written: Sequence[str]) -> None:
        name, data = set_name(key_set.number), key_set.encoded()
        try:
            self.storage.create(name, data)
        except ObjectExists as error:
            # It may be our own, if the storage tried twice by itself.
            if self.storage.read(name) == data:
                return
            self._discard(written)
            raise _changed_by_another() from error

    def _finish(self, key_set: KeySet) -> None:
        """Write the set's twin and delete the slots that no longer count."""
        gone = [name for name in self.held.listed if name.removesuffix(".copy") not in key_set.slots]
        try:
            self.storage.create(f"{set_name(key_set.number)}.copy", key_set.encoded())
            self.storage.delete(*gone)
        except PerdureError as error:
            raise Partial(
                f"the keys were changed, but old key slots could not be deleted: {error.message}. They no longer open "
                "the pool, but whoever has a copy of them and their passphrase, key file or recovery key can still "
                "read what was protected so far",
                code="old-keys-left",
                hint="once the pool can be written to, any further change of the keys deletes them",
            ) from error

    def _discard(self, names: Sequence[str]) -> None:
        """Delete slots that no set names; if that fails, the next change does it."""
        with contextlib.suppress(PerdureError):
            self.storage.delete(*(each for name in names for each in (name, f"{name}.copy")))
