"""Marking: which chunks of a pool its recovery points need.

The mark is a bitmap over the rows of an index snapshot, so a pool of ten million chunks takes ten megabytes. A point
that cannot be read stops the whole mark: what it needs is not known, so nothing may be taken for garbage.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perdure.model.errors import Damaged, Refused
from perdure.repository import records
from perdure.repository.index_snapshot import IndexSnapshot
from perdure.repository.pool import Pool
from perdure.repository.reach import Reach
from perdure.repository.replacing import RESCUED
from perdure.storage.contract import ObjectMissing

__all__ = ["Marks", "blocked", "mark"]


@dataclass(frozen=True, slots=True, eq=False)
class Marks:
    """What the points of a pool need.

    Args:
        live: For every row of the snapshot whether a point needs it.
        elsewhere: Chunks that are needed and lie in no pack of the snapshot, but perhaps in a condemned one.
        points: Number of points that were looked at.
    """

    live: NDArray[np.bool_]
    elsewhere: frozenset[bytes]
    points: int


def mark(pool: Pool, snapshot: IndexSnapshot, progress: Callable[[int], None] = lambda _: None) -> Marks:
    """Mark from all records of a pool.

    Args:
        pool: The pool.
        snapshot: The index, without the packs that are condemned.
        progress: Told 1 for every point.

    Raises:
        Refused: A record, map or listing is damaged, or being healed (code ``collection-blocked``).
    """
    live = np.zeros(snapshot.row_count, dtype=np.bool_)
    elsewhere: set[bytes] = set()
    reach = Reach(pool)
    points = 0
    if any(True for _ in pool.storage.list(RESCUED)):
        raise blocked("the healing of an object was cut off, and perdure verify --heal has to finish it first")
    for listed in pool.storage.list("points"):
        if records.point_number(listed.name) is None:
            continue
        try:
            point = records.read_point(pool.storage, pool.keys, listed.name)
        except ObjectMissing:
            continue
        except Damaged as error:
            raise blocked(f"{listed.name} cannot be followed: {error.message}") from error
        try:
            for ids in reach.of(point):
                rows = snapshot.rows(ids)
                found = rows >= 0
                live[rows[found]] = True
                if not found.all():
                    elsewhere.update(chunk.tobytes() for chunk in ids[~found])
        except (Damaged, ObjectMissing) as error:
            # Nothing but this collection deletes packs, so whatever is missing here is lost.
            raise blocked(f"{listed.name} cannot be followed: {error.message}") from error
        points += 1
        progress(1)
    return Marks(live, frozenset(elsewhere), points)


def blocked(why: str) -> Refused:
    """The refusal to collect anything while it is not known what is needed."""
    return Refused(
        f"no garbage was collected, since it is not known what is still needed: {why}",
        code="collection-blocked",
        hint="perdure verify names the recovery points that are damaged; heal them, or remove them with perdure delete",
    )
