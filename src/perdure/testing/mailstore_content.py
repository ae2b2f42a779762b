"""What the messages of the mail store say: subjects and bodies that a seed brings back, byte for byte.

A ledger keeps the seed, the size and the digest of a body, never the body.
"""

from __future__ import annotations

import hashlib
import random
from enum import StrEnum

__all__ = ["LARGEST_BODY", "SMALLEST_BODY", "BodyKind", "body", "digest", "draw_size", "subject"]

SMALLEST_BODY = 1 << 10
LARGEST_BODY = 1 << 20

_LETTERS = "etaoinshrdlucmfwypvbgkjqxz"
_SKEW = 3.0
"""Exponent that makes small bodies frequent: half of all are below 2.5 KiB, the mean is about 55 KiB."""


class BodyKind(StrEnum):
    """How well a body compresses."""

    TEXT = "text"
    NOISE = "noise"


def _vocabulary() -> tuple[bytes, ...]:
    """256 made-up words, the frequent letters first, so that one random byte picks a word."""
    source = random.Random(1871)  # noqa: S311 (content, not a secret)
    weights = [1 / (rank + 2) for rank in range(len(_LETTERS))]
    words = ("".join(source.choices(_LETTERS, weights, k=source.randint(2, 11))) for _ in range(256))
    return tuple(word.encode() for word in words)


_WORDS = _vocabulary()
_SHORTEST_WORD = min(map(len, _WORDS))


def body(kind: BodyKind, seed: int, size: int) -> bytes:
    """The body of ``size`` bytes that ``seed`` stands for."""
    source = random.Random(seed)  # noqa: S311 (content, not a secret)
    if kind is BodyKind.NOISE:
        return source.randbytes(size)
    enough = size // (_SHORTEST_WORD + 1) + 1
    mean = 7
    picked = source.randbytes(min(enough, size // mean + 16))
    text = b" ".join(map(_WORDS.__getitem__, picked))
    while len(text) < size:
        text += b"\r\n" + b" ".join(map(_WORDS.__getitem__, source.randbytes(256)))
    return text[:size]


def subject(seed: int) -> str:
    """A subject line of a few words."""
    picked = seed.to_bytes(8, "big")[3:]
    return b" ".join(_WORDS[byte] for byte in picked).decode().capitalize()


def digest(content: bytes) -> str:
    """How a ledger names a body: BLAKE2b, 128 bits, hexadecimal."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def draw_size(source: random.Random) -> int:
    """A body size between :data:`SMALLEST_BODY` and :data:`LARGEST_BODY`, small ones far more often."""
    return int(SMALLEST_BODY * (LARGEST_BODY / SMALLEST_BODY) ** (source.random() ** _SKEW))
