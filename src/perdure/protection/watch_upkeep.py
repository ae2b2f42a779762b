"""Upkeep while watching: pruning once a day, and making room when the pool is full."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from perdure.model.errors import PerdureError
from perdure.protection.home import Home
from perdure.protection.protected import Protected
from perdure.protection.upkeep import keep_up, thin_out
from perdure.protection.vault import Vault

__all__ = ["Collect", "UpkeepWatch", "make_room"]

EVERY_S = 86_400.0
LOOK_S = 60.0


class Collect(Protocol):
    """Collects a pool's garbage; returns what it did in words."""

    def __call__(self, vault: Vault, *, at_once: bool) -> Sequence[str]:
        """Collect, with the usual grace period or at once."""
        ...


Say = Callable[[Protected, str], None]


class UpkeepWatch:
    """Prunes the sources that have a retention range and collects garbage, once a day.

    When it last did is remembered on this machine, so that stopping and starting does not put it off for ever.

    Args:
        protected: The sources.
        stop: Ends it.
        collect: Collects garbage.
        tell: Told what was done to a source.
        warn: Told of failures.
        clock: The time, nanoseconds since 1970 UTC.
    """

    name = "upkeep"

    def __init__(
        self,
        protected: Sequence[Protected],
        stop: threading.Event,
        collect: Collect,
        *,
        tell: Say,
        warn: Say,
        clock: Callable[[], int],
    ) -> None:
        self.failure: BaseException | None = None
        self._protected, self._stop, self._collect = protected, stop, collect
        self._tell, self._warn, self._clock = tell, warn, clock

    def run(self) -> None:
        """Look once a minute whether upkeep is due, until stopped."""
        while not self._stop.is_set():
            for vault in {each.vault.id: each.vault for each in self._protected}.values():
                if self._is_due(vault):
                    self._keep_up(vault)
            self._stop.wait(LOOK_S)

    def _is_due(self, vault: Vault) -> bool:
        done_ns = self._home.upkeep_ns(vault.id)
        if done_ns == 0:
            # Nothing is old enough on the first day.
            self._home.note_upkeep(vault.id, self._clock())
            return False
        # A clock that was set back must not put it off by more than a day.
        return not 0 <= self._clock() - done_ns < EVERY_S * 1e9

    def _keep_up(self, vault: Vault) -> None:
        sources = [each for each in self._protected if each.vault.id == vault.id]
        for each in sources:
            try:
                done = keep_up(each, grace_s=EVERY_S)
            except PerdureError as error:
                self._warn(each, f"pruning {each.source.name!r} failed: {error.message}")
                continue
            if done.plan.retention.dropped or done.joined.segments:
                self._tell(
                    each,
                    f"{len(done.plan.retention.dropped)} recovery points pruned, "
                    f"{done.joined.segments} log segments joined",
                )
        try:
            for line in self._collect(vault, at_once=False):
                self._tell(sources[0], line)
        except PerdureError as error:
            self._warn(sources[0], f"garbage was not collected: {error.message}")
        self._home.note_upkeep(vault.id, self._clock())

    @property
    def _home(self) -> Home:
        return self._protected[0].home


def make_room(protected: Protected, collect: Collect | None) -> str:
    """Thin out a source's points in a pool that is full, if its policy says so.

    Returns:
        What was done, in words; empty if nothing could be.
    """
    if collect is None:
        return ""
    gone = thin_out(protected)
    if not gone:
        return ""
    collect(protected.vault, at_once=True)
    return f"the pool was full: {gone} recovery points of {protected.source.name!r} were thinned out"
