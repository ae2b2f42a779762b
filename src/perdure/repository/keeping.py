"""What stays in a pool and for how long: deleting points, holds, retention policies, locks."""

from __future__ import annotations

import time
from collections.abc import Sequence

from perdure.model.drills import Drill
from perdure.model.errors import NotFound, Refused
from perdure.model.points import Hold
from perdure.model.retention import DAY_NS, RetentionPolicy
from perdure.repository import records
from perdure.repository.drills import delete_drills_without_point, list_drills, write_drill
from perdure.repository.holds import hold_name, list_holds, write_hold
from perdure.repository.keys import KeyRing
from perdure.repository.leases import deletion_at_work, take_deletion_lease
from perdure.repository.locking import delete_unlocked, lock_written
from perdure.repository.policies import read_policy, write_policy
from perdure.storage.contract import ObjectExists, Storage

__all__ = ["Keeping"]

_POLICY_S = 60.0
"""A source's policy is asked for again after so many seconds, to know how long to lock what is written."""


class Keeping:
    """The part of a pool that decides what may be deleted. All methods may be called from several threads.

    Args:
        storage: Where its objects lie.
        keys: Its keys.
    """

    def __init__(self, storage: Storage, keys: KeyRing) -> None:
        self.storage = storage
        self.keys = keys
        self._locks: dict[str, tuple[float, float | None]] = {}

    def point_numbers(self, source: str) -> list[int]:
        """The numbers of all records of a source, readable or not, ascending."""
        found = (records.point_number(listed.name) for listed in self.storage.list(f"points/{source}"))
        return [number for number in found if number is not None]

    def delete_points(self, source: str, numbers: Sequence[int]) -> Sequence[int]:
        """Delete records; what only they needed is collected later.

        Returns:
            Those that the storage does not let go of yet.

        Raises:
            Refused: One is the source's newest point, or held; nothing was deleted.
        """
        lease = take_deletion_lease(self.storage, source)
        try:
            self._refuse_needed(source, numbers)
            lease.check()
            # Oldest first, so that a crash leaves what is younger.
            locked = delete_unlocked(self.storage, [records.point_name(source, number) for number in sorted(numbers)])
            delete_drills_without_point(self.storage, source, self.point_numbers(source))
        finally:
            lease.release()
        return [number for number in numbers if records.point_name(source, number) in locked]

    def _refuse_needed(self, source: str, numbers: Sequence[int]) -> None:
        newest = max(self.point_numbers(source), default=0)
        held = {hold.number for hold in self.holds(source)}
        for number in numbers:
            if number == newest or number in held:
                why = "held; release it first" if number in held else "the newest point of its source"
                raise Refused(
                    f"recovery point {number} is not deleted: it is {why}; nothing was deleted",
                    code="point-held" if number in held else "newest-point",
                    hint="perdure release NAME#NUMBER releases a hold" if number in held else "make a newer one first",
                )

    # --- drills ---

    def drills(self, source: str) -> list[Drill]:
        return list_drills(self.storage, self.keys, source)

    def keep_drill(self, drill: Drill) -> None:
        """Keep the verdict of a drill as long as its point."""
        write_drill(self.storage, self.keys, drill)

    # --- holds and policies ---

    def holds(self, source: str) -> list[Hold]:
        return list_holds(self.storage, self.keys, source)

    def hold(self, hold: Hold) -> None:
        """Keep a point from being deleted.

        Raises:
            NotFound: There is no such point.
            Refused: It is held already, or points of its source are being deleted at this moment.
        """
        self._find_point(hold)
        try:
            write_hold(self.storage, self.keys, hold)
        except ObjectExists as error:
            raise Refused(
                f"recovery point {hold.number} is held already",
                code="already-held",
                hint="release it first to hold it for another reason",
            ) from error
        try:
            self._refuse_beside_deletion(hold)
            self._find_point(hold)
        except BaseException:
            self.storage.delete(hold_name(hold.source, hold.number))
            raise

    def _refuse_beside_deletion(self, hold: Hold) -> None:
        if deletion_at_work(self.storage, hold.source):
            raise Refused(
                f"recovery point {hold.number} is not held: points of its source are being deleted at this moment",
                code="deletion-at-work",
                hint="run the command again in a moment",
            )

    def _find_point(self, hold: Hold) -> None:
        if hold.number not in self.point_numbers(hold.source):
            raise NotFound(
                f"there is no recovery point {hold.number}", code="point-not-found", hint="see: perdure points NAME"
            )

    def release(self, source: str, number: int) -> None:
        """End a hold.

        Raises:
            NotFound: The point is not held.
        """
        if number not in {hold.number for hold in self.holds(source)}:
            raise NotFound(f"recovery point {number} is not held", code="not-held", hint="see: perdure points NAME")
        self.storage.delete(hold_name(source, number))

    def policy(self, source: str) -> RetentionPolicy:
        return read_policy(self.storage, self.keys, source) or RetentionPolicy()

    def set_policy(self, source: str, policy: RetentionPolicy) -> None:
        """Change a source's retention policy.

        Raises:
            Refused: It asks for locks, and the storage cannot lock.
        """
        if policy.lock and not self.storage.capabilities.immutable:
            raise Refused(
                f"the storage {self.storage.url} cannot lock objects against deletion; the policy was not changed",
                code="no-immutability",
                hint="use a bucket with object lock, and say lock=compliance or lock=governance in the pool's URL",
            )
        write_policy(self.storage, self.keys, source, policy)
        self._locks.pop(source, None)

    def lock_written(self, source: str, names: Sequence[str]) -> None:
        """Lock what was just written for the retention range, where the source's policy asks for it."""
        if not self.storage.capabilities.immutable:
            return
        asked_s, days = self._locks.get(source, (-_POLICY_S, None))
        if time.monotonic() - asked_s >= _POLICY_S:
            policy = self.policy(source)
            days = policy.days if policy.lock else None
            self._locks[source] = (time.monotonic(), days)
        if days is not None:
            lock_written(self.storage, names, time.time_ns() + int(days * DAY_NS))
