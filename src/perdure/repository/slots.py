"""Key slots: the master keys of a pool, sealed so that one secret opens them.

A slot is a small object ``keys/KIND-XXXXXXXX`` with a twin ``….copy`` that is written first and read when the slot
itself is damaged. Which slots count is told by the key set (:mod:`perdure.repository.key_sets`).
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import msgspec
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from perdure.model.errors import Damaged
from perdure.repository.keys import Passphrase, Secret
from perdure.storage.contract import ObjectMissing, Storage

__all__ = ["KeySlot", "new_slot_name", "open_slot", "read_slot", "seal_slot", "write_slot"]

_NONCE, _MASTER, _TAG = 12, 32, 16


@dataclass(frozen=True, slots=True)
class KeySlot:
    """One way to open a pool.

    Args:
        kind: ``passphrase``, ``recovery`` or ``keyfile``.
        salt: For scrypt, or for deriving from the random secret of the other kinds.
        cost: n, r, p of scrypt; empty for the other kinds.
        sealed: Nonce (12 bytes) and AES-256-GCM of all master keys (32 bytes each, oldest first) with its tag (16);
            associated data is the pool id and the kind.
        check: First 8 bytes of BLAKE3 over everything else, to tell damage from a wrong secret.
    """

    kind: str
    salt: bytes
    cost: tuple[int, ...]
    sealed: bytes = field(repr=False)
    check: bytes

    @property
    def epochs(self) -> int:
        """Number of master keys inside; it shows from outside."""
        return (len(self.sealed) - _NONCE - _TAG) // _MASTER

    def encoded(self) -> bytes:
        return msgspec.msgpack.encode(self)

    @classmethod
    def decode(cls, data: bytes, name: str) -> KeySlot:
        """Read a slot object.

        Raises:
            Damaged: These are not the bytes that were written.
        """
        try:
            slot = msgspec.msgpack.decode(data, type=cls)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise Damaged(f"key slot {name} is damaged: {error}", code="damaged-key-slot") from error
        if slot.check != _check_of(slot.kind, slot.salt, slot.cost, slot.sealed):
            raise Damaged(f"key slot {name} is damaged: its checksum does not match", code="damaged-key-slot")
        if slot.kind == Passphrase.kind and not Passphrase.may_cost(slot.cost):
            raise Damaged(f"key slot {name} is damaged: it asks for an absurd scrypt cost", code="damaged-key-slot")
        if slot.epochs < 1 or len(slot.sealed) != _NONCE + slot.epochs * _MASTER + _TAG:
            raise Damaged(f"key slot {name} is damaged: it cannot hold keys", code="damaged-key-slot")
        return slot


def _check_of(kind: str, salt: bytes, cost: tuple[int, ...], sealed: bytes) -> bytes:
    return blake3(msgspec.msgpack.encode((kind, salt, cost, sealed))).digest(8)


def seal_slot(masters: Sequence[bytes], secret: Secret, pool: bytes) -> KeySlot:
    """Seal the master keys so that a secret opens them.

    Args:
        masters: 32 bytes each, oldest first.
        secret: What shall open the slot.
        pool: The pool's id, 16 bytes.
    """
    kind, cost = secret.kind, secret.fresh_cost()
    salt, nonce = secrets.token_bytes(32), secrets.token_bytes(_NONCE)
    cipher = AESGCM(secret.sealing_key(salt, cost))
    sealed = nonce + cipher.encrypt(nonce, b"".join(masters), pool + kind.encode())
    return KeySlot(kind, salt, cost, sealed, _check_of(kind, salt, cost, sealed))


def open_slot(slot: KeySlot, secret: Secret, pool: bytes) -> tuple[bytes, ...] | None:
    """The master keys, oldest first, or ``None`` when this secret does not open this slot."""
    if slot.kind != secret.kind:
        return None
    cipher = AESGCM(secret.sealing_key(slot.salt, slot.cost))
    try:
        masters = cipher.decrypt(slot.sealed[:_NONCE], slot.sealed[_NONCE:], pool + slot.kind.encode())
    except InvalidTag:
        return None
    return tuple(masters[at : at + _MASTER] for at in range(0, len(masters), _MASTER))


def new_slot_name(secret: Secret, taken: Collection[str]) -> str:
    """A name for a new slot, other than those that are taken."""
    while (name := f"keys/{secret.kind}-{secrets.token_hex(4)}") in taken or f"{name}.copy" in taken:
        pass
    return name


def write_slot(storage: Storage, name: str, slot: KeySlot) -> None:
    """Write a slot, its twin first; both are durable on return."""
    storage.create(f"{name}.copy", slot.encoded())
    storage.create(name, slot.encoded())


def read_slot(storage: Storage, name: str) -> KeySlot:
    """Read a slot, from its twin when it is damaged or gone.

    Raises:
        Damaged: Both are; caused by :class:`ObjectMissing` when neither is there.
    """
    failures: list[Damaged | ObjectMissing] = []
    for copy in (name, f"{name}.copy"):
        try:
            return KeySlot.decode(storage.read(copy), copy)
        except (Damaged, ObjectMissing) as error:
            failures.append(error)
    for failure in failures:
        if isinstance(failure, Damaged):
            raise failure
    raise Damaged(f"key slot {name} is missing", code="damaged-key-slot") from failures[0]
