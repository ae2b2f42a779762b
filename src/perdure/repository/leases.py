"""Leases of captures: how garbage collection knows which captures may still rely on packs that it condemned.

The name of a lease is ``NNNNNNNN-RANDOM``: the highest condemned list that its holder had seen before it took the
lease. The order is what makes it work. A capture *first* looks for the highest list, *then* takes its lease, and
*then* reads the lists before it reuses its first chunk. A collection *first* publishes its list and *then* looks for
leases. So a lease with a number at or above a list's belongs to a capture that knows the list and reuses nothing
from it, and every other capture is seen and waited for. No clock takes part.
"""

from __future__ import annotations

import secrets
import threading
import time

from perdure.model.errors import Refused
from perdure.repository.condemned import condemned_numbers
from perdure.storage.contract import LEASE_LIFE_S, Lease, Storage

__all__ = ["CaptureLease", "blocking_leases", "take_lease"]

_RENEW_S = 600
_TRUSTED_S = LEASE_LIFE_S / 2


def _now_s() -> float:
    # Goes on while the machine sleeps, and nobody can set it.
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class CaptureLease:
    """A lease that its capture renews while it works, and refuses to commit under when it has run out.

    Args:
        lease: The storage's lease.
        liveness: The storage knows by itself whether the holder lives, so that the lease cannot run out.
    """

    def __init__(self, lease: Lease, *, liveness: bool) -> None:
        self._lease = lease
        self._liveness = liveness
        self._renewed_s = _now_s()
        self._lock = threading.Lock()

    def renew_if_due(self) -> None:
        """Renew it when that was not done for ten minutes."""
        if _now_s() - self._renewed_s < _RENEW_S or not self._lock.acquire(blocking=False):
            return
        try:
            asked_s = _now_s()
            self._lease.renew()
            self._renewed_s = asked_s
        finally:
            self._lock.release()

    def check(self) -> None:
        """Make sure that nobody can have taken the holder for dead.

        Raises:
            Refused: It was not renewed for half of its life: the process was stopped, or the pool out of reach.
        """
        if not self._liveness and _now_s() - self._renewed_s > _TRUSTED_S:
            raise Refused(
                "this capture stood still for so long that its pool may have been cleaned up under it; "
                "nothing of it was committed",
                code="capture-overtaken",
                hint="run the command again",
            )

    def release(self) -> None:
        """End it."""
        self._lease.release()


def take_lease(storage: Storage) -> CaptureLease:
    """Take a lease for a capture; it must read the condemned lists afterwards, before it reuses anything."""
    seen = max(condemned_numbers(storage), default=0)
    lease = storage.lease(f"{seen:08d}-{secrets.token_hex(8)}")
    return CaptureLease(lease, liveness=storage.capabilities.liveness)


def blocking_leases(storage: Storage, number: int) -> list[str]:
    """The leases of captures that may not know the list of this number."""
    blocking = []
    for lease in storage.leases():
        seen, _, _ = lease.name.partition("-")
        knows = seen.isdecimal() and int(seen) >= number
        if not knows and lease.idle_s <= LEASE_LIFE_S:
            blocking.append(lease.name)
    return blocking
