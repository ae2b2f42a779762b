"""Continuous protection: the log as it is written, points on schedule, until stopped. A thread per source."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Sequence

from perdure.model.errors import (
    BadInput,
    ImageFailed,
    PerdureError,
    PoolUnusable,
    Refused,
    SourceUnusable,
    TrackingLost,
)
from perdure.model.points import DataSource, RecoveryPoint
from perdure.model.replica import ReplicaState
from perdure.protection.building import newest_tree
from perdure.protection.folder_verbs import protect_folder
from perdure.protection.live import LiveSource
from perdure.protection.live_results import Shipped
from perdure.protection.live_session import open_session
from perdure.protection.protected import Protected
from perdure.protection.watch_activity import ActivityRecord
from perdure.protection.watch_events import WatchEvent, WatchKind
from perdure.protection.watch_upkeep import Collect, UpkeepWatch, make_room
from perdure.workloads.contract import FolderWorkload

__all__ = ["WatchEvent", "WatchKind", "express_full_interval_s", "watch"]

POLL_S = 0.01
DEFAULT_EXPRESS_FULL_S = 3600.0
WAITING_BYTES = 8 << 20
"""More log than this is shipped at once, whatever the ship interval."""

IMAGE_RETRY_NS = 300 * 10**9
"""After so long an express full that could not be taken is tried again."""

FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 30.0

_INTERVAL = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd]?)")
_UNIT_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}

OnEvent = Callable[[WatchEvent], None]


def watch(
    protected: Sequence[Protected],
    *,
    stop: threading.Event,
    on_event: OnEvent,
    ship_every_ms: float = 200,
    express_full_every_s: float | None = None,
    file_point_every_s: float = 900,
    collect: Collect | None = None,
    clock: Callable[[], int] = time.time_ns,
) -> None:
    """Protect sources continuously until ``stop`` is set; then ship the last log and return.

    Args:
        protected: The sources.
        stop: Ends it.
        on_event: Told of everything, from the threads of the sources.
        ship_every_ms: How long a committed transaction waits for others before it is shipped.
        express_full_every_s: Seconds between express fulls; ``None``: the source's option
            ``express-full-every``, else an hour.
        file_point_every_s: Seconds between the recovery points of folders.
        collect: Collects garbage; with it sources are pruned once a day, and room is made in a full pool.
        clock: The time, nanoseconds since 1970 UTC.

    Raises:
        PerdureError: The first failure that waiting cannot cure (a source held by another process);
            the other sources are watched until ``stop`` all the same.
    """
    watches: list[_ImageWatch | _FolderWatch | UpkeepWatch] = []
    if collect is not None and protected:
        watches.append(
            UpkeepWatch(
                protected,
                stop,
                collect,
                tell=lambda one, message: _Teller(one, on_event, clock).upkeep(message),
                warn=lambda one, message: _Teller(one, on_event, clock).warning(message),
                clock=clock,
            )
        )
    for one in protected:
        tell = _Teller(one, on_event, clock, collect)
        if isinstance(one.workload, FolderWorkload):
            watches.append(_FolderWatch(one, stop, tell, file_point_every_s, clock))
        else:
            every = express_full_every_s or express_full_interval_s(one.source)
            watches.append(
                _ImageWatch(one, stop, tell, ship_every_s=ship_every_ms / 1000, express_full_every_s=every, clock=clock)
            )
    threads = [threading.Thread(target=each.run, name=f"watch-{each.name}") for each in watches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for each in watches:
        if each.failure is not None:
            raise each.failure


def express_full_interval_s(source: DataSource) -> float:
    """Seconds between express fulls that a source's options ask for.

    Raises:
        BadInput: The option is not a number with an optional unit s, m, h or d.
    """
    values = source.options.get("express-full-every") or []
    if not values:
        return DEFAULT_EXPRESS_FULL_S
    match = _INTERVAL.fullmatch(values[-1].strip())
    if match is None or float(match[1]) <= 0:
        raise BadInput(f"{values[-1]!r} is not an interval", hint="write it like 30s, 15m, 1h or 1d")
    return float(match[1]) * _UNIT_S[match[2]]


class _Teller:
    """Makes events of one source."""

    def __init__(
        self, protected: Protected, on_event: OnEvent, clock: Callable[[], int], collect: Collect | None = None
    ) -> None:
        self._protected, self._on_event, self._clock = protected, on_event, clock
        self._collect = collect

    def shipped(self, shipped: Shipped) -> None:
        self._on_event(
            WatchEvent(
                self._clock(),
                self._protected.source.name,
                WatchKind.LOG,
                shipped.commits,
                shipped.bytes,
                shipped.last,
                shipped.durable_ns,
                shipped.oldest_commit_ns,
                shipped.lags_ns,
            )
        )

    def made(self, point: RecoveryPoint, kind: WatchKind) -> None:
        name = self._protected.source.name
        now = self._clock()
        self._on_event(
            WatchEvent(now, name, kind, bytes=point.stored, position=point.position, message=point.cause, point=point)
        )

    def state(self) -> None:
        replica = self._protected.replica
        self._say(WatchKind.STATE, f"{replica.state.value}: {replica.cause}")

    def warning(self, message: str) -> None:
        self._say(WatchKind.WARNING, message)

    def upkeep(self, message: str) -> None:
        self._say(WatchKind.UPKEEP, message)

    def unusable(self, error: PoolUnusable, consequence: str) -> None:
        """Tell that the pool took nothing, and make room in it where it is full and the source's policy allows it."""
        self._say(WatchKind.WARNING, f"{error.message}; {consequence}")
        if error.code != "pool-full":
            return
        try:
            done = make_room(self._protected, self._collect)
        except PerdureError as failure:
            self._say(WatchKind.WARNING, f"no room could be made: {failure.message}")
            return
        if done:
            self._say(WatchKind.UPKEEP, done)

    def _say(self, kind: WatchKind, message: str) -> None:
        self._on_event(WatchEvent(self._clock(), self._protected.source.name, kind, message=message))


class _Backoff:
    """Growing waits between attempts, back to the first after a success."""

    def __init__(self) -> None:
        self._next = FIRST_BACKOFF_S

    def worked(self) -> None:
        self._next = FIRST_BACKOFF_S

    def seconds(self) -> float:
        now, self._next = self._next, min(self._next * 2, LONGEST_BACKOFF_S)
        return now


class _ImageWatch:
    """Watches one database."""

    def __init__(
        self,
        protected: Protected,
        stop: threading.Event,
        tell: _Teller,
        *,
        ship_every_s: float,
        express_full_every_s: float,
        clock: Callable[[], int],
    ) -> None:
        self.name = protected.source.name
        self.failure: BaseException | None = None
        self._protected, self._stop, self._tell, self._clock = protected, stop, tell, clock
        self._ship_every_s = ship_every_s
        self._full_every_ns = int(express_full_every_s * 1e9)
        self._backoff = _Backoff()
        self._activity = ActivityRecord(protected, clock)
        self._waiting_since: float | None = None
        self._wal_shipped = 0
        self._pool_retry_at = 0.0
        self._next_full_ns = 0
        self._losses: list[str] = []

    def run(self) -> None:
        """Open the source again and again until stopped."""
        try:
            while not self._attempt():
                self._stop.wait(self._backoff.seconds())
                if self._stop.is_set():
                    return
        except BaseException as error:  # noqa: BLE001 - raised again by watch() in the caller's thread
            self.failure = error
            self._tell.warning(f"watching {self.name!r} ended: {error}")
        finally:
            self._activity.ended()

    def _attempt(self) -> bool:
        """Follow the source until stopped; false: try again after a wait."""
        try:
            with open_session(self._protected, "watch", self._shipped) as live:
                live.recall(self._losses)
                self._follow(live)
        except TrackingLost as error:
            self._losses.append(error.message)
            self._protected.note_state(ReplicaState.INCONSISTENT, error.message)
            self._tell.state()
            return self._stop.is_set()
        except SourceUnusable as error:
            self._protected.note_state(ReplicaState.MISSING, error.message)
            self._tell.state()
            return False
        except Refused:
            raise
        except PerdureError as error:
            self._tell.warning(error.message)
            return False
        return True

    def _follow(self, live: LiveSource) -> None:
        newest = live.newest_image()
        if live.must_compare or newest is None:
            if live.must_compare:
                self._tell.state()
            newest = self._express_full(live, "first replica")
            self._tell.state()
        self._losses.clear()
        self._next_full_ns = newest.time_ns + self._full_every_ns
        self._backoff.worked()
        while not self._stop.is_set():
            self._go_on_with_log(live)
            if self._express_full_is_due():
                self._scheduled_express_full(live)
            self._stop.wait(POLL_S)
        self._ship_last(live)

    def _go_on_with_log(self, live: LiveSource) -> None:
        """Poll, and ship when it is time; a pool that takes nothing is tried again later, and the log held."""
        wal_bytes = int(getattr(live.session, "wal_bytes", 0))
        now = time.monotonic()
        if live.session.poll() and self._waiting_since is None:
            self._waiting_since = now
        try:
            if self._ship_is_due(now, wal_bytes) and not live.lost:
                live.ship()
                self._waiting_since = None
                self._wal_shipped = int(getattr(live.session, "wal_bytes", 0))
                self._backoff.worked()
            if now >= self._pool_retry_at:
                live.maintain()
        except PoolUnusable as error:
            self._pool_retry_at = now + self._backoff.seconds()
            self._activity.warn(error.message)
            self._tell.unusable(error, f"the log of {self.name!r} is held and shipped when the pool can be used")
        warning = str(getattr(live.session, "warning", ""))
        self._activity.refresh(wal_bytes, warning, self._next_full_ns)

    def _ship_is_due(self, now: float, wal_bytes: int) -> bool:
        if self._waiting_since is None or now < self._pool_retry_at:
            return False
        return now - self._waiting_since >= self._ship_every_s or wal_bytes - self._wal_shipped > WAITING_BYTES

    def _express_full_is_due(self) -> bool:
        """A clock that was set back must not put the next one off by more than the interval."""
        left_ns = self._next_full_ns - self._clock()
        return not 0 < left_ns <= self._full_every_ns

    def _scheduled_express_full(self, live: LiveSource) -> None:
        try:
            self._express_full(live, "schedule")
        except PoolUnusable as error:
            self._tell.unusable(error, f"the express full of {self.name!r} failed")
        except ImageFailed as error:
            self._tell.warning(f"the express full of {self.name!r} failed: {error.message}")
            self._next_full_ns = self._clock() + min(self._full_every_ns, IMAGE_RETRY_NS)
            return
        self._next_full_ns = self._clock() + self._full_every_ns

    def _express_full(self, live: LiveSource, cause: str) -> RecoveryPoint:
        point = live.express_full(cause, meanwhile=lambda: self._go_on_with_log(live)).point
        self._tell.made(point, WatchKind.EXPRESS_FULL)
        return point

    def _ship_last(self, live: LiveSource) -> None:
        try:
            live.ship()
        except PoolUnusable as error:
            self._tell.warning(f"the last log of {self.name!r} could not be shipped: {error.message}")

    def _shipped(self, shipped: Shipped) -> None:
        self._activity.shipped(shipped)
        self._tell.shipped(shipped)


class _FolderWatch:
    """Makes the recovery points of one folder."""

    def __init__(
        self, protected: Protected, stop: threading.Event, tell: _Teller, every_s: float, clock: Callable[[], int]
    ) -> None:
        self.name = protected.source.name
        self.failure: BaseException | None = None
        self._protected, self._stop, self._tell, self._clock = protected, stop, tell, clock
        self._every_s = every_s
        self._backoff = _Backoff()
        self._activity = ActivityRecord(protected, clock)

    def run(self) -> None:
        """Make a point whenever one is due, until stopped."""
        try:
            newest = newest_tree(self._protected.vault.points(self._protected.source.id))
            wait_s = 0.0 if newest is None else newest.time_ns / 1e9 + self._every_s - self._clock() / 1e9
            while not self._wait(wait_s):
                wait_s = self._make_point()
        except BaseException as error:  # noqa: BLE001 - raised again by watch() in the caller's thread
            self.failure = error
            self._tell.warning(f"watching {self.name!r} ended: {error}")
        finally:
            self._activity.ended()

    def _wait(self, seconds: float) -> bool:
        due_ns = self._clock() + int(max(0.0, seconds) * 1e9)
        # A clock that was set back must not put the next point off by more than the interval.
        while 0 < (left := (due_ns - self._clock()) / 1e9) <= seconds:
            self._activity.refresh(0, "", due_ns)
            if self._stop.wait(min(left, 1.0)):
                return True
        return self._stop.is_set()

    def _make_point(self) -> float:
        """Returns after how many seconds to go on."""
        try:
            point = protect_folder(self._protected, "schedule", verb="watch")
        except SourceUnusable:
            self._tell.state()
            return self._backoff.seconds()
        except Refused as error:
            # Another verb holds the folder for as long as its own walk takes.
            self._tell.warning(error.message)
            return self._backoff.seconds()
        except PoolUnusable as error:
            self._tell.unusable(error, f"no recovery point of {self.name!r} was made")
            return self._backoff.seconds()
        self._backoff.worked()
        self._tell.made(point, WatchKind.FILE_POINT)
        return self._every_s
