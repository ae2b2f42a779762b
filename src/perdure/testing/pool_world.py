"""A pool with several processes at work on it, driven call by call, and a model of what it must hold.

The model learns from what reaches the storage, not from what processes say: a record that was created is a point, with
the content that its capture meant it to have; a record that goes must have been asked to go by somebody, must not be
held, and must not be the newest. :meth:`PoolWorld.check` then has a process that never saw the pool before read all of
it back.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from unittest import mock

from perdure.model.errors import NotFound, PerdureError, Refused
from perdure.model.points import DataSource, RecoveryPoint
from perdure.model.replica import Replica, ReplicaState
from perdure.model.retention import RetentionPolicy
from perdure.protection.home import Home
from perdure.repository.condemned import condemned_numbers, read_condemned
from perdure.repository.gc import collect_garbage, survey
from perdure.repository.leases import WorkLease
from perdure.repository.opening import create_pool
from perdure.repository.pool import Pool
from perdure.repository.records import point_name
from perdure.repository.verify import verify_pool
from perdure.storage.contract import ObjectExists, Storage
from perdure.testing.memory_storage import MemoryStorage
from perdure.testing.pool_activities import read_content
from perdure.testing.pool_model import BLOCKS, Content, block
from perdure.testing.repeatable import repeatable
from perdure.testing.stepping import Activity, ProcessStorage, Stop

__all__ = ["IMAGES", "TREES", "PoolWorld", "Process"]

IMAGES = ("a" * 32, "b" * 32)
TREES = ("c" * 32,)

HOUR_S = 3600.0
_TRUSTED_S = 11 * HOUR_S
"""For so long a process may stand still between its last look at the clock and what it then does; see
:mod:`perdure.repository.gc` for what remains beyond that."""

_EXPECTED = (Refused, NotFound, ObjectExists)


class Process:
    """One process: a pool opened by itself, and at most one activity.

    Args:
        world: Where it lives.
        name: What to call it.
    """

    def __init__(self, world: PoolWorld, name: str) -> None:
        self.world = world
        self.name = name
        self.activity: Activity | None = None
        self.trusting_since_s: float | None = None
        self._intended: Content = {}
        self.open(keep_cache=False)

    @property
    def busy(self) -> bool:
        """Whether its activity has not come to its end."""
        return self.activity is not None

    def open(self, *, keep_cache: bool) -> None:
        """Begin anew, with or without the index cache of the process before."""
        if not keep_cache:
            self._cache = self.world.new_directory()
        self.storage = self.world.storage_for(self._changed)
        self.pool = self.world.pool_on(self.storage, self._cache)

    # --- driving ---

    def begin(self, what: str, work: Callable[[Process], object], stop: Stop) -> None:
        """Begin an activity and let it come to a stop."""
        self.go_on(None)
        self.activity = Activity(f"{self.name}: {what}", lambda: work(self))
        self.storage.activity = self.activity
        self.go_on(stop)

    def go_on(self, stop: Stop) -> None:
        """Let the activity go on.

        Raises:
            BaseException: It failed as it never should.
        """
        activity = self.activity
        if activity is None:
            return
        with self.world.driving(self):
            activity.go_on(stop)
        if activity.done:
            self._ended(activity)

    def reopen(self, *, keep_cache: bool) -> None:
        """End the process in good order and begin anew."""
        self.go_on(None)
        self.pool.close()
        self.open(keep_cache=keep_cache)

    def kill(self) -> None:
        """End the process wherever it is; another one takes its place."""
        if self.activity is not None:
            with self.world.driving(self):
                self.activity.kill()
            self.activity = None
            self.trusting_since_s = None
        self.storage.end()
        self.open(keep_cache=True)

    def _ended(self, activity: Activity) -> None:
        self.activity = self.storage.activity = None
        self.trusting_since_s = None
        error = activity.failure
        if error is None or (isinstance(error, _EXPECTED) and getattr(error, "code", "") != "collection-blocked"):
            return
        raise AssertionError(f"{activity.what} failed after it was stopped before: {activity.at}") from error

    # --- what activities tell ---

    def pause(self, at: str) -> None:
        """Let others go on."""
        self.storage.pause(at)

    def intend(self, content: Content) -> None:
        """Say what the next record or segment is to hold."""
        self._intended = content

    def content_of(self, point: RecoveryPoint | None) -> Content:
        """What the model says that a point holds."""
        return {} if point is None else self.world.known[point_name(point.source, point.number)]

    @contextlib.contextmanager
    def dooming(self, names: Sequence[str]) -> Iterator[None]:
        """Say which objects this activity may delete; when it returns they are gone.

        If it dies, nothing is known; if it is refused, they may not go any more on its account.
        """
        self.world.doomed.update(names)
        try:
            yield
        except PerdureError:
            self.world.doomed.subtract(names)
            raise
        left = [name for name in names if name in self.world.points or name in self.world.logs]
        assert not left, f"{left} were deleted and are still there"

    def _changed(self, name: str, appeared: bool) -> None:
        if appeared:
            self.world.appeared(name, self._intended)
        else:
            self.world.vanished(name)


class PoolWorld:
    """A pool, its processes and the model; use it as a context manager.

    Args:
        inner: The storage.
        root: A directory for caches and for the home.
        seed: Of everything random.
        liveness: Whether the storage knows when the holder of a lease dies.
        processes: How many there are.
    """

    def __init__(self, inner: Storage, root: Path, seed: int, *, liveness: bool, processes: int = 3) -> None:
        self._inner = inner
        self._root = root
        self._liveness = liveness
        self._directories = itertools.count()
        self._modified_ns: dict[str, int] = {}
        self._driven: Process | None = None
        self._checked = -1
        self.changes = 0
        self.boot_s = 0.0
        self.skew_s = 0.0
        self.ticks = itertools.count()
        self.known: dict[str, Content] = {}
        self.points: dict[str, Content] = {}
        self.logs: dict[str, Content] = {}
        self.doomed: Counter[str] = Counter()
        self.promised: set[tuple[str, int]] = set()
        self.unsure_holds: set[tuple[str, int]] = set()
        self.policies: dict[str, list[RetentionPolicy]] = {s: [RetentionPolicy()] for s in (*IMAGES, *TREES)}
        self._releasing: Counter[tuple[str, int]] = Counter()
        self._policies_begun: Counter[str] = Counter()
        self._policies_done: Counter[str] = Counter()
        self.second_storage = MemoryStorage()
        self._context = contextlib.ExitStack()
        self._context.enter_context(repeatable(seed, pack_size=1200))
        for name, value in {
            "time.time_ns": self.wall_ns,
            "perdure.repository.leases._now_s": lambda: self.boot_s,
            "perdure.repository.leases.WorkLease._keep": lambda _: None,
            "perdure.repository.leases.WorkLease.check": self._noting(WorkLease.check, trusting=True),
            "perdure.repository.leases.WorkLease.renew_if_due": self._noting(WorkLease.renew_if_due, trusting=False),
            "perdure.repository.refreshing._FRUITLESS_S": 0.0,
            "perdure.repository.gc._SMALL": 600,
            "perdure.repository.gc._MANY_SMALL": 8,
            "perdure.repository.repack.BATCH": 3000,
        }.items():
            self._context.enter_context(mock.patch(name, value))
        self._made, _ = create_pool(self.storage_for(lambda _, __: None), b"secret", self.new_directory())
        self._second, _ = create_pool(self.second_storage, b"second", self.new_directory())
        self.home = Home(self.new_directory())
        for source in (*IMAGES, *TREES):
            self._made.register(DataSource(source, f"source {source[0]}", "paged", f"/srv/{source[0]}"))
            ok = Replica().to(ReplicaState.INITIALIZING, "", 0).to(ReplicaState.OK, "", 0)
            self.home.save_replica(source, ok)
        self.processes = [Process(self, f"process {number}") for number in range(processes)]

    def __enter__(self) -> PoolWorld:
        return self

    def __exit__(self, *exc: object) -> None:
        for process in self.processes:
            process.kill()
        self._context.close()

    # --- surroundings ---

    def new_directory(self) -> Path:
        """A directory that does not exist yet."""
        return self._root / str(next(self._directories))

    def storage_for(self, changed: Callable[[str, bool], None]) -> ProcessStorage:
        """The storage as a new process sees it."""
        return ProcessStorage(
            self._inner,
            liveness=self._liveness,
            changed=changed,
            modified_ns=self._modified_ns,
            clock_ns=self._storage_ns,
        )

    def pool_on(self, storage: Storage, cache: Path) -> Pool:
        """The pool, opened by a process."""
        return Pool(storage, self._made.keys, self._made.descriptor, cache)

    def fresh(self) -> Pool:
        """The pool, opened by a process that never saw it before."""
        return self.pool_on(self.storage_for(lambda _, __: None), self.new_directory())

    def second(self) -> Pool:
        """The second pool, opened anew."""
        return Pool(self.second_storage, self._second.keys, self._second.descriptor, self.new_directory())

    def wall_ns(self) -> int:
        """The machines' clock, which can be set."""
        return self._storage_ns() + int(self.skew_s * 1e9)

    def _storage_ns(self) -> int:
        return (1_800_000_000 + int(self.boot_s)) * 10**9 + next(self.ticks)

    def advance(self, hours: float) -> None:
        """Let time pass, as far as no process stands where that would be too long."""
        if not self._liveness:
            for process in self.processes:
                if process.trusting_since_s is not None:
                    left_s = _TRUSTED_S - (self.boot_s - process.trusting_since_s)
                    hours = min(hours, left_s / HOUR_S)
        self._pass(max(0.0, hours))

    def _pass(self, hours: float) -> None:
        self.boot_s += hours * HOUR_S
        for storage in (self._inner, self.second_storage):
            if isinstance(storage, MemoryStorage):
                storage.clock.advance(hours * HOUR_S)

    @contextlib.contextmanager
    def driving(self, process: Process) -> Iterator[None]:
        """Say which process is at work."""
        self._driven = process
        try:
            yield
        finally:
            self._driven = None

    def _noting(self, method: Callable[[WorkLease], None], *, trusting: bool) -> Callable[[WorkLease], None]:
        """A lease's method that notes from when on its process trusts the lease."""

        def noted(lease: WorkLease) -> None:
            method(lease)
            if self._driven is not None and threading.current_thread() is not threading.main_thread():
                self._driven.trusting_since_s = self.boot_s if trusting else None

        return noted

    # --- the model ---

    def dead_blocks(self) -> list[int]:
        """Blocks that were meant to be stored once and that no point needs now."""
        stored, live = (
            {data for content in contents.values() for data in content.values()}
            for contents in (self.known, self.points)
        )
        return [number for number in range(BLOCKS) if block(number) in stored - live]

    def appeared(self, name: str, content: Content) -> None:
        """An object was created."""
        self.changes += 1
        if name.startswith("points/"):
            self.points[name] = self.known[name] = content
        elif name.startswith("logs/"):
            self.logs[name] = content

    def vanished(self, name: str) -> None:
        """An object was deleted."""
        self.changes += 1
        kept = self.points if name.startswith("points/") else self.logs if name.startswith("logs/") else {}
        if name not in kept:
            return
        assert self.doomed[name] > 0, f"{name} was deleted, and nobody asked for that"
        if name.startswith("points/"):
            _, source, number = name.split("/")
            assert (source, int(number)) not in self.promised, f"{name} was deleted although it was held"
            newest = max(each for each in self.points if each.startswith(f"points/{source}/"))
            assert name != newest, f"{name} was deleted, the newest point of its source"
        del kept[name]

    @contextlib.contextmanager
    def promising(self, held: tuple[str, int]) -> Iterator[None]:
        """A hold is being placed; once it is, it is promised."""
        self.unsure_holds.add(held)
        yield
        assert point_name(*held) in self.points, f"{held} was said to be held, and is gone"
        if not self._releasing[held]:
            self.promised.add(held)

    @contextlib.contextmanager
    def releasing(self, held: tuple[str, int]) -> Iterator[None]:
        """A hold is being released: nothing is promised any more, nor what is held meanwhile. If it dies, for ever."""
        self.promised.discard(held)
        self._releasing[held] += 1
        try:
            yield
        except PerdureError:
            self._releasing[held] -= 1
            raise
        self._releasing[held] -= 1

    @contextlib.contextmanager
    def changing_policy(self, source: str, policy: RetentionPolicy) -> Iterator[None]:
        """A policy is being set; until it is, and if others set one at the same time, either counts."""
        began = self._policies_begun[source] = self._policies_begun[source] + 1
        alone = self._policies_done[source] == began - 1
        self.policies[source].append(policy)
        yield
        self._policies_done[source] += 1
        if alone and self._policies_begun[source] == began:
            self.policies[source] = [policy]

    # --- checks ---

    def check(self) -> None:
        """A process that never saw the pool before finds everything that the model calls live, as it was meant."""
        if self.changes == self._checked:
            return
        self._checked = self.changes
        pool = self.fresh()
        assert [source.id for source in pool.sources()] == [*IMAGES, *TREES]
        for source in (*IMAGES, *TREES):
            points = pool.points(source)
            names = {point_name(source, point.number) for point in points}
            assert names == {name for name in self.points if name.startswith(f"points/{source}/")}
            for point in points:
                name = point_name(source, point.number)
                try:
                    content = read_content(pool, point)
                except PerdureError as error:
                    raise AssertionError(f"{name} cannot be recovered: {error.message}") from error
                assert content == self.points[name], f"{name} recovers to something else"
            spans = {span.name: span for span in pool.spans(source)}
            assert spans.keys() == {name for name in self.logs if name.startswith(f"logs/{source}/")}
            for name, span in spans.items():
                assert b"".join(pool.blocks(source, span)) == self.logs[name]["log"]
            held = {(source, hold.number) for hold in pool.holds(source)}
            assert {each for each in self.promised if each[0] == source} <= held <= self.unsure_holds
            assert pool.policy(source) in self.policies[source]
        assert not pool.damage, pool.damage

    def check_end(self) -> None:
        """When all is quiet, collecting leaves no garbage, and everything is sound."""
        for process in self.processes:
            process.kill()
        self._pass(30)
        for _ in range(3):
            done = collect_garbage(self.fresh(), grace_s=0)
            assert not done.waiting, done.waiting
        pool = self.fresh()
        left = survey(pool)
        assert not left.dead, f"{len(left.dead)} packs hold nothing that is needed, and stay"
        for number in condemned_numbers(pool.storage):
            assert not read_condemned(pool.storage, pool.keys, number).packs, "a condemned list stays"
        self._checked = -1
        self.check()
        for each in (pool, self.second()):
            report = verify_pool(each, data=True)
            assert report.sound, report.damage
        self._check_second()

    def _check_second(self) -> None:
        """What was copied is what it was, whatever became of it since."""
        pool = self.second()
        for source in pool.sources():
            for point in pool.points(source.id):
                assert read_content(pool, point) == self.known[point_name(source.id, point.number)]
