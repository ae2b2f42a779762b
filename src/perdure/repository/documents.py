"""Documents: small sealed objects whose footer is one msgpack value (records, sources, policies, holds, lists)."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from perdure.model.errors import Damaged
from perdure.repository.container import Kind, create_sealed, read_sealed
from perdure.repository.keys import KeyRing
from perdure.storage.contract import Storage

__all__ = ["numbered", "read_document", "write_document"]

_Value = TypeVar("_Value")


def write_document(storage: Storage, keys: KeyRing, name: str, kind: Kind, value: object) -> int:
    """Write a document; durable on return. Returns its size.

    Raises:
        ObjectExists: The name is taken.
    """
    return create_sealed(storage, name, kind, keys, msgspec.msgpack.encode(value))


def read_document(storage: Storage, keys: KeyRing, name: str, kind: Kind, of: type[_Value]) -> _Value:
    """Read a document.

    Raises:
        Damaged: It is not what was written.
        ObjectMissing: No such object.
    """
    try:
        return msgspec.msgpack.decode(read_sealed(storage, name, kind, keys), type=of)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Damaged(f"{name} is damaged: {error}", code="damaged-object") from error


def numbered(name: str) -> int | None:
    """The number that a name ends with, as eight decimal digits, or ``None`` if it does not."""
    text = name.rsplit("/", 1)[-1]
    return int(text) if len(text) == 8 and text.isdecimal() and text.isascii() else None
