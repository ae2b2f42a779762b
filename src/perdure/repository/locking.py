"""Locking what is kept: object-lock retention that follows the retention policy.

What is written is locked for the retention range at once. Points that live longer, by the daily, weekly, monthly and
yearly rules, have their locks prolonged by upkeep, and with them every pack that they need, whoever wrote it. So a
pool is never locked as a whole for as long as its oldest point.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from perdure.model.points import RecoveryPoint
from perdure.repository.index_snapshot import IndexSnapshot
from perdure.repository.packs import pack_name
from perdure.repository.reach import Reach, StreamReader
from perdure.repository.records import point_name
from perdure.storage.contract import ObjectLocked, Storage

__all__ = ["delete_unlocked", "lock_points", "lock_written"]

_THREADS = 8


def lock_written(storage: Storage, names: Sequence[str], until_ns: int) -> None:
    """Lock objects until a moment, nanoseconds since 1970 UTC.

    Raises:
        Refused: The storage cannot.
    """
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="lock") as workers:
        for _ in workers.map(lambda name: storage.retain(name, until_ns), names):
            pass


def delete_unlocked(storage: Storage, names: Sequence[str]) -> frozenset[str]:
    """Delete objects, in order, but for those that are locked; returns these."""
    if not storage.capabilities.immutable:
        storage.delete(*names)
        return frozenset()
    locked = set()
    for name in names:
        try:
            storage.delete(name)
        except ObjectLocked:
            locked.add(name)
    return frozenset(locked)


def lock_points(
    storage: Storage,
    streams: StreamReader,
    snapshot: IndexSnapshot,
    points: Sequence[RecoveryPoint],
    until_ns: Mapping[int, int],
) -> int:
    """Prolong the locks of points and of every pack that they need; returns how many objects were looked at.

    Args:
        storage: The pool's storage.
        streams: Reads maps and listings.
        snapshot: Where chunks lie.
        points: The points.
        until_ns: By the point's number until when it is to be locked, nanoseconds since 1970 UTC.

    Raises:
        Refused: The storage cannot lock.
        Damaged: A map or listing cannot be read.
    """
    packs_until = np.zeros(len(snapshot.packs), dtype=np.int64)
    reach = Reach(streams)
    wanted: dict[str, int] = {}
    # Those that live longest come first: a map that several points share is walked for the first of them only.
    for point in sorted(points, key=lambda point: -until_ns[point.number]):
        until = until_ns[point.number]
        wanted[point_name(point.source, point.number)] = until
        for ids in reach.of(point):
            rows = snapshot.rows(ids, condemned=True)
            packs = np.unique(snapshot.pack_of_row(rows[rows >= 0]))
            packs_until[packs] = np.maximum(packs_until[packs], until)
    for number in np.flatnonzero(packs_until).tolist():
        wanted[pack_name(snapshot.packs[number].tobytes())] = int(packs_until[number])
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="lock") as workers:
        for _ in workers.map(lambda item: storage.retain(*item), wanted.items()):
            pass
    return len(wanted)
