"""Damage: what a verification found wrong, with which object, and what it costs."""

from __future__ import annotations

from dataclasses import dataclass

from perdure.model.errors import Damaged, PerdureError
from perdure.storage.contract import ObjectMissing, Storage, StorageFailed

__all__ = ["MISSING", "Damage", "failures_of"]

MISSING = "packs"
"""The object that stands for chunks that are in no pack."""


@dataclass(frozen=True, slots=True)
class Damage:
    """One finding.

    Args:
        object: Name of the object in the pool; ``packs`` for chunks that are in no pack.
        kind: What the object is: ``descriptor``, ``key slot``, ``source``, ``record``, ``map``, ``tree``, ``log``,
            ``pack``, ``hold``, ``policy``, ``condemned list``, ``ledger`` or ``unfinished healing``. Of a map or tree
            the object is the record of one point that names it.
        what: What is wrong.
        points_affected: Recovery points that do not recover whole because of it, as ``NAME #NUMBER``, or
            ``NAME after POSITION`` for a damaged piece of log.
        points: The same recovery points, as source id and number.
        chunks: Ids of the damaged or missing chunks.
        found_ns: When it was found first, nanoseconds since 1970 UTC.
        by_reading: Whether it shows only when the whole object is read, so that a run that does not read it still
            takes it as damaged.
    """

    object: str
    kind: str
    what: str
    points_affected: tuple[str, ...] = ()
    points: tuple[tuple[str, int], ...] = ()
    chunks: tuple[bytes, ...] = ()
    found_ns: int = 0
    by_reading: bool = False


def failures_of(storage: Storage) -> tuple[type[PerdureError], ...]:
    """What reading a damaged object of a storage raises.

    A bad sector of a local disk spoils one object. What fails elsewhere is the way to the storage, and no damage.
    """
    return (Damaged, ObjectMissing, StorageFailed) if storage.capabilities.local else (Damaged, ObjectMissing)
