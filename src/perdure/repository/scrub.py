"""Scrubbing: reading packs and log segments whole, the ones longest unread first, until there is no time left."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from perdure.repository.index_segment import as_pack_ids
from perdure.repository.ledger import Ledger, object_key
from perdure.storage.contract import ObjectInfo

__all__ = ["Target", "by_age", "each_in_time"]

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Target:
    """A pack or log segment.

    Args:
        name: Its name in the pool.
        size: Its bytes.
        key: How the ledger knows it, 16 bytes.
    """

    name: str
    size: int
    key: bytes

    @classmethod
    def of(cls, listed: ObjectInfo) -> Target:
        return cls(listed.name, listed.size, object_key(listed.name))


def by_age(targets: Sequence[Target], ledger: Ledger) -> list[Target]:
    """What was not found sound for the longest time first; what is damaged or was never read before all else."""
    times = ledger.times_of(as_pack_ids([target.key for target in targets]))
    hurt = {damage.object for damage in ledger.damage}
    times = np.where([target.name in hurt for target in targets], 0, times) if targets else times
    return [targets[at] for at in np.argsort(times, kind="stable").tolist()]


def each_in_time(
    targets: Sequence[Target],
    work: Callable[[Target], _Result],
    *,
    threads: int,
    in_time: Callable[[], bool],
    at_least: int = 1,
) -> Iterator[tuple[Target, _Result]]:
    """Do some work on targets from several threads; yields what came of it as it comes.

    The first ones are worked on in any case; no other is begun when there is no time left, and every one that was
    begun is finished.

    Args:
        targets: In their order.
        work: What to do with each.
        threads: How many at once.
        in_time: Whether there is time for another one.
        at_least: How many are the first ones.
    """
    with ThreadPoolExecutor(threads, thread_name_prefix="verify") as workers:
        under_way: dict[Future[_Result], Target] = {}
        try:
            for number, target in enumerate(targets):
                if number >= at_least and not in_time():
                    break
                under_way[workers.submit(work, target)] = target
                while len(under_way) >= threads:
                    yield from _finished(under_way)
            while under_way:
                yield from _finished(under_way)
        finally:
            for left in under_way:
                left.cancel()


def _finished(under_way: dict[Future[_Result], Target]) -> Iterator[tuple[Target, _Result]]:
    """Wait for one or some; an error of theirs is raised."""
    for done in wait(under_way, return_when=FIRST_COMPLETED).done:
        yield under_way.pop(done), done.result()
