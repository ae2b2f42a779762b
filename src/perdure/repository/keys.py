"""Keys: random master keys, the secrets that they are sealed with, and what is derived from both.

A pool has one master key for each *key epoch*: the first is made with the pool, every rotation adds one. New objects
are sealed under the newest; chunk ids always come from the first, so that deduplication survives a rotation.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from perdure.model.errors import BadInput, PoolUnusable

__all__ = ["MAX_EPOCHS", "KeyFile", "KeyRing", "Passphrase", "RecoveryKey", "Secret", "UnknownKeyEpoch"]

MAX_EPOCHS = 256
"""The epoch is one byte of an object's header."""

_SCRYPT = (1 << 15, 8, 1)
"""Cost of a guess: n, r, p of RFC 7914; 32 MiB of memory and some 70 ms."""

_MOST_MEMORY = 256 << 20
"""A slot whose scrypt would take more bytes than this is refused."""

_MOST_WORK = 64 * (1 << 15) * 8
"""A slot whose scrypt would take more than 64 times the work of today's (some 5 s) is refused."""

_RECOVERY_PREFIX = "PERDURE1"
_KEY_FILE_PREFIX = "PERDURE-KEYFILE1"


class UnknownKeyEpoch(PoolUnusable):
    """An object was sealed under a newer master key than those that this process has."""

    default_code = "unknown-key-epoch"

    def __init__(self, epoch: int) -> None:
        super().__init__(
            f"an object of this pool is sealed with key epoch {epoch}, and the keys used here do not include it: "
            "the pool's keys were rotated",
            hint="run the command again, with a passphrase, key file or recovery key that opens the pool now; "
            "'perdure key list POOL' shows what does",
        )


@dataclass(frozen=True, slots=True)
class Passphrase:
    """What a person types."""

    kind: ClassVar[str] = "passphrase"
    noun: ClassVar[str] = "passphrase"
    text: bytes = field(repr=False)

    @staticmethod
    def fresh_cost() -> tuple[int, ...]:
        """What a guess at a new slot shall cost: n, r, p of scrypt."""
        return _SCRYPT

    @staticmethod
    def may_cost(cost: tuple[int, ...]) -> bool:
        """Whether this is a cost that a slot may ask for: n a power of two, and neither memory nor
        time beyond all measure. Slots are read before anything is authenticated, so anybody may have written them.
        """
        if len(cost) != 3:
            return False
        n, r, p = cost
        powers = 2 <= n <= 1 << 20 and n & (n - 1) == 0 and 1 <= r <= 16 and 1 <= p <= 16
        return powers and 128 * n * r <= _MOST_MEMORY and n * r * p <= _MOST_WORK

    def sealing_key(self, salt: bytes, cost: tuple[int, ...]) -> bytes:
        """The key (32 bytes) that a slot with this salt and cost is sealed with."""
        n, r, p = cost
        return Scrypt(salt=salt, length=32, n=n, r=r, p=p).derive(self.text)


@dataclass(frozen=True, slots=True)
class RecoveryKey:
    """32 random bytes, written down by a person."""

    kind: ClassVar[str] = "recovery"
    noun: ClassVar[str] = "recovery key"
    secret: bytes = field(repr=False)

    @classmethod
    def random(cls) -> RecoveryKey:
        return cls(secrets.token_bytes(32))

    def text(self) -> str:
        """The form for paper: base32 in groups of five, with two check bytes."""
        return _lettered(_RECOVERY_PREFIX, self.secret)

    @classmethod
    def parse(cls, text: str) -> RecoveryKey:
        """Read what a person typed back.

        Raises:
            BadInput: It is not a recovery key, or has a typing error.
        """
        secret = _unlettered(_RECOVERY_PREFIX, text)
        if secret is None:
            raise BadInput(
                "this is not a recovery key, or it has a typing error",
                code="bad-recovery-key",
                hint="type it as it was shown when it was made; dashes, spaces and case do not matter",
            )
        return cls(secret)

    @staticmethod
    def fresh_cost() -> tuple[int, ...]:
        """Nobody guesses 32 random bytes."""
        return ()

    def sealing_key(self, salt: bytes, _cost: tuple[int, ...]) -> bytes:
        """The key (32 bytes) that a slot with this salt is sealed with."""
        return blake3(self.secret + salt, derive_key_context="perdure 2026 v1 recovery slot").digest()


@dataclass(frozen=True, slots=True)
class KeyFile:
    """32 random bytes in a file that perdure made, for runs that nobody attends."""

    kind: ClassVar[str] = "keyfile"
    noun: ClassVar[str] = "key file"
    secret: bytes = field(repr=False)

    @classmethod
    def random(cls) -> KeyFile:
        return cls(secrets.token_bytes(32))

    def text(self) -> str:
        """The first line of the file: base32 in groups of five, with two check bytes."""
        return _lettered(_KEY_FILE_PREFIX, self.secret)

    @classmethod
    def parse(cls, text: str) -> KeyFile:
        """Read the first line of a key file.

        Raises:
            BadInput: It is not what perdure wrote.
        """
        secret = _unlettered(_KEY_FILE_PREFIX, text)
        if secret is None:
            raise BadInput(
                "this key file is not as perdure made it",
                code="bad-key-file",
                hint="take a good copy of it, or open the pool in another way and make a new one: perdure key add-file",
            )
        return cls(secret)

    @staticmethod
    def fresh_cost() -> tuple[int, ...]:
        """Nobody guesses 32 random bytes."""
        return ()

    def sealing_key(self, salt: bytes, _cost: tuple[int, ...]) -> bytes:
        """The key (32 bytes) that a slot with this salt is sealed with."""
        return blake3(self.secret + salt, derive_key_context="perdure 2026 v1 key file slot").digest()


Secret = Passphrase | RecoveryKey | KeyFile


def _lettered(prefix: str, secret: bytes) -> str:
    letters = base64.b32encode(secret + blake3(secret).digest(2)).decode().rstrip("=")
    return "-".join([prefix, *(letters[i : i + 5] for i in range(0, len(letters), 5))])


def _unlettered(prefix: str, text: str) -> bytes | None:
    """The 32 bytes that were written so, or ``None``."""
    letters = "".join(text.upper().split()).replace("-", "").removeprefix(prefix.replace("-", ""))
    letters = letters.replace("0", "O").replace("1", "I").replace("8", "B")
    try:
        raw = base64.b32decode(letters + "=" * (-len(letters) % 8))
    except ValueError:
        return None
    return raw[:32] if len(raw) == 34 and blake3(raw[:32]).digest(2) == raw[32:] else None


Later = Callable[[int], tuple[bytes, ...] | None]
"""Finds the masters that a pool has by now, when an object of an unknown epoch turns up; ``None`` when the pool has no
such epoch. Raises :class:`UnknownKeyEpoch` when it has, but the secret at hand does not open it."""


class KeyRing:
    """All keys derived from a pool's master keys. May be used by several threads.

    Args:
        masters: The master keys, oldest first; at least one.
        later: Asked once for every object of an unknown epoch.
    """

    def __init__(self, *masters: bytes, later: Later | None = None) -> None:
        self._ids = blake3(masters[0], derive_key_context="perdure 2026 v1 chunk ids").digest()
        self._roots = _object_roots(masters)
        self._later = later

    def __repr__(self) -> str:
        return "KeyRing(...)"

    @property
    def newest_epoch(self) -> int:
        """The epoch of new objects."""
        return len(self._roots) - 1

    def content_id(self, data: bytes | bytearray | memoryview) -> bytes:
        """Keyed BLAKE3-256 of some content: its chunk id."""
        return blake3(data, key=self._ids).digest()

    def has_epoch(self, epoch: int) -> bool:
        """Whether objects of an epoch can be opened; when not, the pool has no such epoch.

        Raises:
            UnknownKeyEpoch: The pool has it, or may have it, but these keys do not include it.
        """
        if epoch < len(self._roots):
            return True
        if self._later is None:
            raise UnknownKeyEpoch(epoch)
        masters = self._later(epoch)
        if masters is None:
            return False
        self._roots = _object_roots(masters)
        return epoch < len(masters)

    def object_cipher(self, header: bytes, epoch: int) -> AESGCM:
        """The cipher of one object; its key depends on the object's whole header (kind, epoch and random id)."""
        return AESGCM(blake3(header, key=self._roots[epoch]).digest())


def _object_roots(masters: tuple[bytes, ...]) -> tuple[bytes, ...]:
    return tuple(blake3(master, derive_key_context="perdure 2026 v1 object keys").digest() for master in masters)
