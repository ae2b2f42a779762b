"""Holds: recovery points that no rule and nobody deletes until they are released.

A hold is the sealed document ``holds/SOURCE/NUMBER``, so it comes back with the pool.
"""

from __future__ import annotations

from perdure.model.errors import Damaged
from perdure.model.points import Hold
from perdure.repository.container import Kind
from perdure.repository.documents import numbered, read_document, write_document
from perdure.repository.keys import KeyRing
from perdure.storage.contract import ObjectMissing, Storage

__all__ = ["hold_name", "list_holds", "write_hold"]


def hold_name(source: str, number: int) -> str:
    """Object name of a hold."""
    return f"holds/{source}/{number:08d}"


def write_hold(storage: Storage, keys: KeyRing, hold: Hold) -> None:
    """Place a hold; durable on return.

    Raises:
        ObjectExists: The point is held already.
    """
    write_document(storage, keys, hold_name(hold.source, hold.number), Kind.HOLD, hold)


def list_holds(storage: Storage, keys: KeyRing, source: str) -> list[Hold]:
    """The holds on a source's points. One that cannot be read holds all the same: its name says what."""
    found = []
    for listed in storage.list(f"holds/{source}"):
        number = numbered(listed.name)
        if number is None:
            continue
        try:
            found.append(read_document(storage, keys, listed.name, Kind.HOLD, Hold))
        except ObjectMissing:
            continue  # released since the listing
        except Damaged:
            found.append(Hold(source, number, "the reason cannot be read: the hold is damaged"))
    return found
