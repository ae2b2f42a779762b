"""What the model checker knows of content: a few blocks, so that captures meet again what others stored and lost."""

from __future__ import annotations

from functools import cache

from blake3 import blake3

__all__ = ["BLOCK", "BLOCKS", "SLOTS", "Content", "block"]

BLOCK = 400
"""Bytes of a block."""

BLOCKS = 10
"""How many different blocks there are."""

SLOTS = 5
"""Blocks of an image."""

Content = dict[str, bytes]
"""What a point restores to, by slot of an image or path of a file."""


@cache
def block(number: int) -> bytes:
    """A block that does not compress."""
    return blake3(number.to_bytes(4, "little")).digest(length=BLOCK)
