"""What may be the name of an object, in every storage alike."""

from __future__ import annotations

__all__ = ["LEASES", "check_name"]

LEASES = "leases"
"""Leases lie below this name where a storage keeps them beside its objects; they are no part of the pool."""

_RESERVED = ("tmp", LEASES)
"""First components that storages need for themselves; reserved in all, so that a pool can move between them."""


def check_name(name: str) -> tuple[str, ...]:
    """The components of an object's name.

    Raises:
        ValueError: It is not one: an empty component, ``.`` or ``..``, a backslash or control character, or reserved.
    """
    parts = tuple(name.split("/"))
    if not all(parts) or any(part in (".", "..") for part in parts) or parts[0] in _RESERVED or not _printable(name):
        raise ValueError(f"not an object name: {name!r}")
    return parts


def _printable(name: str) -> bool:
    return "\\" not in name and not any(ord(letter) < 32 or ord(letter) == 127 for letter in name)
