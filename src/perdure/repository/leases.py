"""Leases: how processes that know nothing of each other keep out of each other's way.

Garbage collection learns from them which captures may still rely on packs that it condemned. The name of a capture's
lease is ``NNNNNNNN-RANDOM``: the highest condemned list that its holder had seen before it took the lease. The order
is what makes it work. A capture *first* looks for the highest list, *then* takes its lease, and *then* reads the lists
before it reuses its first chunk. A collection *first* publishes its list and *then* looks for leases. So a lease with a
number at or above a list's belongs to a capture that knows the list and reuses nothing from it, and every other capture
is seen and waited for. No clock takes part.

That holds only as long as lists are published in the order of their numbers, and as long as a list is not removed,
and what it spared used again, while somebody still means to carry it out. So only one collection is at work at a time:
each takes a lease ``collection-RANDOM`` *first* and *then* looks for others; whoever sees another one gives up.

Likewise a hold is *first* written and *then* counts only if no deletion of points is at work, which takes a lease
``delete-SOURCE-RANDOM`` *first* and *then* looks for holds: one of the two sees the other.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable

from perdure.model.errors import PerdureError, Refused
from perdure.repository.condemned import condemned_numbers
from perdure.storage.contract import LEASE_LIFE_S, Storage

__all__ = [
    "WorkLease",
    "blocking_leases",
    "deletion_at_work",
    "take_collection_lease",
    "take_deletion_lease",
    "take_lease",
]

_COLLECTION = "collection-"
_DELETION = "delete-"

_RENEW_S = 600
_TRUSTED_S = LEASE_LIFE_S / 2


def _now_s() -> float:
    # Goes on while the machine sleeps, and nobody can set it.
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class WorkLease:
    """A lease that is renewed while its holder lives, and that refuses what must not happen when it has run out.

    Where the storage cannot tell whether the holder lives, a thread renews it: a capture that compares terabytes and
    finds nothing to store must not seem dead. A process that is stopped does not renew, and what has run out once is
    never brought back to life.

    Args:
        storage: Where it is taken out.
        name: Its name.
        overtaken: Makes what is raised when it may have run out.
    """

    def __init__(self, storage: Storage, name: str, overtaken: Callable[[], Refused]) -> None:
        self.name = name
        self._liveness = storage.capabilities.liveness
        self._overtaken = overtaken
        self._renewed_s = _now_s()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._lease = storage.lease(name)
        if not self._liveness:
            threading.Thread(target=self._keep, name="renew-lease", daemon=True).start()

    def renew_if_due(self) -> None:
        """Renew it when that was not done for ten minutes.

        Raises:
            Refused: As :meth:`check`.
        """
        # The moment is taken first: if the process is stopped right after it, it counts as not renewed.
        asked_s = _now_s()
        self._refuse_if_old(asked_s)
        if asked_s - self._renewed_s < _RENEW_S or not self._lock.acquire(blocking=False):
            return
        try:
            self._lease.renew()
            self._renewed_s = asked_s
        finally:
            self._lock.release()

    def check(self) -> None:
        """Make sure that nobody can have taken the holder for dead.

        Raises:
            Refused: It was not renewed for half of its life: the process was stopped, or the pool out of reach.
        """
        self._refuse_if_old(_now_s())

    def release(self) -> None:
        """End it."""
        self._ended.set()
        self._lease.release()

    def _refuse_if_old(self, now_s: float) -> None:
        if not self._liveness and now_s - self._renewed_s > _TRUSTED_S:
            raise self._overtaken()

    def _keep(self) -> None:
        while not self._ended.wait(_RENEW_S):
            # A storage out of reach is tried again; when it stays so, the holder is refused.
            with contextlib.suppress(PerdureError):
                self.renew_if_due()


def take_lease(storage: Storage) -> WorkLease:
    """Take a lease for a capture; it must read the condemned lists afterwards, before it reuses anything."""
    seen = max(condemned_numbers(storage), default=0)
    return WorkLease(storage, f"{seen:08d}-{secrets.token_hex(8)}", _capture_overtaken)


def take_collection_lease(storage: Storage) -> WorkLease | None:
    """Take the lease of a collection, or ``None`` if another one is at work.

    Two that begin at the same moment may both give up: neither can know which of them the other has seen.
    """
    name = f"{_COLLECTION}{secrets.token_hex(8)}"
    lease = WorkLease(storage, name, _collection_overtaken)
    try:
        alone = set(_at_work(storage, _COLLECTION)) <= {name}
    except BaseException:
        lease.release()
        raise
    if alone:
        return lease
    lease.release()
    return None


def take_deletion_lease(storage: Storage, source: str) -> WorkLease:
    """Take the lease of a deletion of a source's points; it must look for holds afterwards."""
    return WorkLease(storage, f"{_DELETION}{source}-{secrets.token_hex(8)}", _deletion_overtaken)


def deletion_at_work(storage: Storage, source: str) -> bool:
    """Whether points of a source are being deleted by somebody who may not have seen the latest holds."""
    return bool(_at_work(storage, f"{_DELETION}{source}-"))


def blocking_leases(storage: Storage, number: int) -> list[str]:
    """The leases of captures that may not know the list of this number."""
    blocking = []
    for name in _at_work(storage):
        seen, _, _ = name.partition("-")
        knows = seen.isdecimal() and int(seen) >= number
        if not knows and not name.startswith((_COLLECTION, _DELETION)):
            blocking.append(name)
    return blocking


def _at_work(storage: Storage, prefix: str = "") -> list[str]:
    """The names of the leases that have not run out."""
    found = [each for each in storage.leases() if each.name.startswith(prefix)]
    return [each.name for each in found if each.idle_s <= LEASE_LIFE_S]


def _capture_overtaken() -> Refused:
    return Refused(
        "this capture stood still for so long that its pool may have been cleaned up under it; "
        "nothing of it was committed",
        code="capture-overtaken",
        hint="run the command again",
    )


def _collection_overtaken() -> Refused:
    return Refused(
        "this collection stood still for so long that another one may have begun; it deleted nothing from then on",
        code="collection-overtaken",
        hint="run the command again",
    )


def _deletion_overtaken() -> Refused:
    return Refused(
        "this deletion of recovery points stood still for so long that holds may have been placed meanwhile; "
        "nothing was deleted",
        code="deletion-overtaken",
        hint="run the command again",
    )
