"""Keys: one random master key per pool, sealed in key slots; every other key is derived from it.

A slot seals the master key with AES-256-GCM under a key that comes from a passphrase (scrypt) or from the
recovery key (a random secret on paper). Slots are small objects of their own, so a passphrase can be
changed without touching data.
"""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass, field

import msgspec
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from perdure.model.errors import BadInput, Damaged, PoolUnusable

__all__ = ["KeyRing", "KeySlot", "Passphrase", "RecoveryKey", "Secret", "open_slots", "seal_slot"]

_SCRYPT = (1 << 15, 8, 1)
"""Cost of a guess: n, r, p of RFC 7914; 32 MiB of memory and some 70 ms."""

_RECOVERY_PREFIX = "PERDURE1"


@dataclass(frozen=True, slots=True)
class Passphrase:
    """What a person types."""

    text: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class RecoveryKey:
    """32 random bytes, written down by a person when the pool is made."""

    secret: bytes = field(repr=False)

    @classmethod
    def random(cls) -> RecoveryKey:
        return cls(secrets.token_bytes(32))

    def text(self) -> str:
        """The form for paper: base32 in groups of five, with two check bytes."""
        check = blake3(self.secret).digest(2)
        letters = base64.b32encode(self.secret + check).decode().rstrip("=")
        return "-".join([_RECOVERY_PREFIX, *(letters[i : i + 5] for i in range(0, len(letters), 5))])

    @classmethod
    def parse(cls, text: str) -> RecoveryKey:
        """Read what a person typed back.

        Raises:
            BadInput: It is not a recovery key, or has a typing error.
        """
        letters = "".join(text.upper().split()).replace("-", "").removeprefix(_RECOVERY_PREFIX)
        letters = letters.replace("0", "O").replace("1", "I").replace("8", "B")
        try:
            raw = base64.b32decode(letters + "=" * (-len(letters) % 8))
        except ValueError:
            raw = b""
        if len(raw) != 34 or blake3(raw[:32]).digest(2) != raw[32:]:
            raise BadInput(
                "this is not a recovery key, or it has a typing error",
                code="bad-recovery-key",
                hint="type it as it was shown when the pool was made; dashes, spaces and case do not matter",
            )
        return cls(raw[:32])


Secret = Passphrase | RecoveryKey


class KeyRing:
    """All keys derived from a pool's master key."""

    def __init__(self, master: bytes) -> None:
        self._master = master
        self._ids = blake3(master, derive_key_context="perdure 2026 v1 chunk ids").digest()
        self._objects = blake3(master, derive_key_context="perdure 2026 v1 object keys").digest()

    def __repr__(self) -> str:
        return "KeyRing(...)"

    def content_id(self, data: bytes | bytearray | memoryview) -> bytes:
        """Keyed BLAKE3-256 of some content: its chunk id."""
        return blake3(data, key=self._ids).digest()

    def object_cipher(self, header: bytes) -> AESGCM:
        """The cipher of one object; its key depends on the object's whole header (kind and random id)."""
        return AESGCM(blake3(header, key=self._objects).digest())

    def sealed_in(self, secret: Secret, pool: bytes) -> KeySlot:
        """A slot that opens with ``secret``."""
        return seal_slot(self._master, secret, pool)


@dataclass(frozen=True, slots=True)
class KeySlot:
    """One way to open a pool.

    Args:
        kind: ``passphrase`` or ``recovery``.
        salt: For scrypt, or for deriving from the recovery key.
        cost: n, r, p of scrypt; empty for the recovery key.
        sealed: Nonce (12 bytes) and AES-256-GCM of the master key; associated data is the pool id and the kind.
        check: First 8 bytes of BLAKE3 over everything else, to tell damage from a wrong passphrase.
    """

    kind: str
    salt: bytes
    cost: tuple[int, ...]
    sealed: bytes
    check: bytes

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
        except msgspec.MsgspecError as error:
            raise Damaged(f"key slot {name} is damaged: {error}", code="damaged-key-slot") from error
        if slot.check != _check_of(slot.kind, slot.salt, slot.cost, slot.sealed):
            raise Damaged(f"key slot {name} is damaged: its checksum does not match", code="damaged-key-slot")
        return slot


def _check_of(kind: str, salt: bytes, cost: tuple[int, ...], sealed: bytes) -> bytes:
    return blake3(msgspec.msgpack.encode((kind, salt, cost, sealed))).digest(8)


def _slot_key(secret: Secret, salt: bytes, cost: tuple[int, ...]) -> bytes:
    if isinstance(secret, RecoveryKey):
        return blake3(secret.secret + salt, derive_key_context="perdure 2026 v1 recovery slot").digest()
    n, r, p = cost
    if not (n <= 1 << 20 and r <= 16 and p <= 16):
        raise Damaged("a key slot asks for an absurd scrypt cost", code="damaged-key-slot")
    return Scrypt(salt=salt, length=32, n=n, r=r, p=p).derive(secret.text)


def seal_slot(master: bytes, secret: Secret, pool: bytes) -> KeySlot:
    """Seal the master key so that ``secret`` opens it."""
    kind = "recovery" if isinstance(secret, RecoveryKey) else "passphrase"
    cost = () if isinstance(secret, RecoveryKey) else _SCRYPT
    salt, nonce = secrets.token_bytes(32), secrets.token_bytes(12)
    sealed = nonce + AESGCM(_slot_key(secret, salt, cost)).encrypt(nonce, master, pool + kind.encode())
    return KeySlot(kind, salt, cost, sealed, _check_of(kind, salt, cost, sealed))


def open_slots(slots: list[KeySlot], secret: Secret, pool: bytes) -> KeyRing:
    """Try a secret on every slot of its kind.

    Raises:
        PoolUnusable: It opens none of them.
    """
    kind = "recovery" if isinstance(secret, RecoveryKey) else "passphrase"
    for slot in slots:
        if slot.kind != kind:
            continue
        cipher = AESGCM(_slot_key(secret, slot.salt, slot.cost))
        try:
            return KeyRing(cipher.decrypt(slot.sealed[:12], slot.sealed[12:], pool + kind.encode()))
        except InvalidTag:
            continue
    what = "recovery key" if kind == "recovery" else "passphrase"
    raise PoolUnusable(
        f"wrong {what}: it does not open this pool",
        code="wrong-passphrase",
        hint="check the passphrase file; the recovery key shown when the pool was made opens it too",
    )
