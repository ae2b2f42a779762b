"""Verdicts of recovery drills in the pool: ``drills/SOURCE/NUMBER-BEGAN``.

NUMBER is that of the record which was recovered from (eight decimal digits), BEGAN the nanoseconds since 1970 UTC when
the drill began (16 hexadecimal digits). Verdicts go with their record; without it they are of no use to anybody.
"""

from __future__ import annotations

from collections.abc import Collection

from perdure.model.drills import Drill
from perdure.model.errors import Damaged
from perdure.repository.container import Kind
from perdure.repository.documents import read_document, write_document
from perdure.repository.keys import KeyRing
from perdure.storage.contract import ObjectMissing, Storage

__all__ = ["delete_drills_without_point", "drill_name", "list_drills", "read_drill", "write_drill"]


def drill_name(source: str, number: int, began_ns: int) -> str:
    """Object name of a verdict."""
    return f"drills/{source}/{number:08d}-{began_ns:016x}"


def write_drill(storage: Storage, keys: KeyRing, drill: Drill) -> None:
    """Keep a verdict; durable on return.

    Raises:
        ObjectExists: Another drill of this point began at the same nanosecond.
    """
    write_document(storage, keys, drill_name(drill.source, drill.number, drill.began_ns), Kind.DRILL, drill)


def read_drill(storage: Storage, keys: KeyRing, name: str) -> Drill:
    """Read a verdict.

    Raises:
        Damaged: It is not what was written.
        ObjectMissing: No such object.
    """
    drill = read_document(storage, keys, name, Kind.DRILL, Drill)
    if drill_name(drill.source, drill.number, drill.began_ns) != name:
        raise Damaged(f"{name} is damaged: it holds another drill", code="damaged-object")
    return drill


def list_drills(storage: Storage, keys: KeyRing, source: str) -> list[Drill]:
    """All readable verdicts of a source, in the order in which the drills began."""
    found = []
    for listed in storage.list(f"drills/{source}"):
        try:
            found.append(read_drill(storage, keys, listed.name))
        except (ObjectMissing, Damaged):
            # Deleted since the listing, or damaged: verification names it, and a new drill replaces what it said.
            continue
    return sorted(found, key=lambda drill: drill.began_ns)


def delete_drills_without_point(storage: Storage, source: str, numbers: Collection[int]) -> None:
    """Delete the verdicts of all points but these."""
    kept = {f"{number:08d}" for number in numbers}
    names = [listed.name for listed in storage.list(f"drills/{source}")]
    gone = [name for name in names if name.rsplit("/", 1)[-1].split("-")[0] not in kept]
    if gone:
        storage.delete(*gone)
