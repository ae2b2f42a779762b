"""Leases as objects below ``leases/``: renewed by overwriting, measured by the store's own clock.

Nobody can tell whether the holder of such a lease lives, so it ends when it is released or has run out.
To learn what time it is at the store, :meth:`ObjectLeases.all` overwrites a small object beside the leases and looks
at all of them in one listing. The times in a listing are whole seconds on most stores, so ages are only so exact.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Callable, Iterable, Sequence

from perdure.model.errors import PerdureError
from perdure.storage.contract import LEASE_LIFE_S, LeaseInfo, ObjectInfo
from perdure.storage.names import LEASES

__all__ = ["ObjectLease", "ObjectLeases"]

_CLOCK = f"{LEASES}/.clock"
_FORGOTTEN_S = 7 * LEASE_LIFE_S
"""A lease that was not renewed for so long is removed: it has run out by any measure."""


class ObjectLease:
    """One lease, held by this process."""

    def __init__(self, name: str, write: Callable[[], None], remove: Callable[[], None]) -> None:
        self.name = name
        self._write = write
        self._remove = remove
        self._lock = threading.Lock()
        self._released = False
        self.renew()

    def renew(self) -> None:
        with self._lock:
            if not self._released:
                self._write()

    def release(self) -> None:
        with self._lock:
            released, self._released = self._released, True
            if not released:
                with contextlib.suppress(PerdureError):
                    self._remove()


class ObjectLeases:
    """All leases of a pool on an object store.

    Args:
        overwrite: Writes an object, whether it is there or not.
        remove: Removes objects, whether they are there or not.
        listed: Lists what lies below a prefix.
    """

    def __init__(
        self,
        overwrite: Callable[[str, bytes], None],
        remove: Callable[[Sequence[str]], None],
        listed: Callable[[str], Iterable[ObjectInfo]],
    ) -> None:
        self._overwrite = overwrite
        self._remove = remove
        self._listed = listed

    def take(self, name: str) -> ObjectLease:
        """Take out a lease, seen by everybody on return."""
        if not name or "/" in name or name.startswith("."):
            raise ValueError(f"not the name of a lease: {name!r}")
        full = f"{LEASES}/{name}"
        return ObjectLease(
            name,
            lambda: self._overwrite(full, secrets.token_bytes(8)),
            lambda: self._remove([full]),
        )

    def all(self) -> list[LeaseInfo]:
        """Every lease and its age, in name order."""
        self._overwrite(_CLOCK, secrets.token_bytes(8))
        written = {info.name: info.modified_ns for info in self._listed(LEASES)}
        now = written.pop(_CLOCK, 0)
        found = [
            LeaseInfo(name.partition("/")[2], max(0.0, (now - at) / 1e9))
            for name, at in sorted(written.items())
            if not name.startswith(f"{LEASES}/.")
        ]
        forgotten = [f"{LEASES}/{lease.name}" for lease in found if lease.idle_s > _FORGOTTEN_S]
        if forgotten:
            with contextlib.suppress(PerdureError):
                self._remove(forgotten)
        return [lease for lease in found if lease.idle_s <= _FORGOTTEN_S]
