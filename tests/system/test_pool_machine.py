"""Many processes on one pool, stopped, resumed and killed between any two calls: nothing that is live is ever lost.

A quick profile runs with the other tests. ``PERDURE_POOL_MACHINE=10000`` runs so many examples of each machine instead
(hours), with new random seeds each time. A failure prints what to put above the class to see it again.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from perdure.model.retention import RetentionPolicy
from perdure.storage.local import LocalStorage
from perdure.testing import pool_activities as activities
from perdure.testing.memory_storage import MemoryStorage
from perdure.testing.pool_model import BLOCKS, SLOTS
from perdure.testing.pool_world import IMAGES, TREES, PoolWorld, Process
from perdure.testing.stepping import Stop

EXAMPLES = int(os.environ.get("PERDURE_POOL_MACHINE", "0"))

PROCESS = st.integers(0, 2)
WHICH = st.integers(0, BLOCKS - 1)
WORK = st.sampled_from(
    [
        *["again"] * 4,
        *["turn-over"] * 3,
        *["collect"] * 5,
        *["image", "tree", "delete", "hold"] * 2,
        *["prune", "release", "log", "read", "copy"],
    ]
)
STOP = st.sampled_from(
    (
        *(None, None, None, None, None, None),
        *("commit points", "commit points", "commit points", "barrier", "between", "list points", "commit holds"),
        *("list gc", "leases", "list packs", "commit gc", "delete packs", "delete gc", "delete points", "release"),
        *(1, 2, 3, 5, 8, 13, 21, 34, 55),
    )
)
POLICY = st.builds(
    RetentionPolicy,
    days=st.sampled_from((0.0, 0.5, 2.0)),
    daily=st.integers(0, 2),
    express_fulls=st.integers(1, 5),
)


class PoolMachine(RuleBasedStateMachine):
    """The rules; subclasses say where the pool lies."""

    liveness = False

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.world: PoolWorld | None = None

    def storage(self) -> MemoryStorage | LocalStorage:
        return MemoryStorage()

    @initialize(seed=st.integers(0, 2**16))
    def make(self, seed: int) -> None:
        self.world = PoolWorld(self.storage(), self.directory, seed, liveness=self.liveness)
        for source in IMAGES:
            self.begin(0, f"first image of {source[0]}", self.whole_image(source, 0), None)

    def whole_image(self, source: str, number: int) -> Callable[[Process], None]:
        """An image of one block in all slots, so that the blocks of the point before become garbage when that goes."""
        changes = dict.fromkeys(range(SLOTS), number)
        return partial(activities.capture_image, source=source, changes=changes, delta=False, broken=False)

    def idle(self, number: int) -> Process:
        """A process that has nothing to do, or one that ends first what it does."""
        assert self.world is not None
        processes = self.world.processes
        idle = [each for each in processes if not each.busy]
        return idle[number % len(idle)] if idle else processes[number]

    def busy(self, number: int) -> Process:
        """A process that is at work, or any if none is."""
        assert self.world is not None
        processes = [each for each in self.world.processes if each.busy] or self.world.processes
        return processes[number % len(processes)]

    def begin(self, number: int, what: str, work: Callable[[Process], None], stop: Stop) -> None:
        self.idle(number).begin(what, work, stop)
        self.checked()

    def checked(self) -> None:
        assert self.world is not None
        self.world.check()

    def numbers(self, source: str) -> list[int]:
        assert self.world is not None
        return sorted(int(name[-8:]) for name in self.world.points if name.startswith(f"points/{source}/"))

    # --- work ---

    # One rule for all work: hypothesis leaves out whole rules for whole runs, and most losses take several kinds.
    @rule(
        number=PROCESS,
        what=WORK,
        source=st.sampled_from(IMAGES),
        which=WHICH,
        more=st.lists(st.tuples(WHICH, WHICH), max_size=4),
        policy=POLICY,
        stop=STOP,
    )
    def work(
        self,
        *,
        number: int,
        what: str,
        source: str,
        which: int,
        more: list[tuple[int, int]],
        policy: RetentionPolicy,
        stop: Stop,
    ) -> None:
        match what:
            case "turn-over":
                self.turn_over(number, source, which, stop)
            case "delete":
                numbers = [each for row, each in enumerate(self.numbers(source)) if not more or (row, row) < more[0]]
                self.begin(
                    number, f"delete {numbers}", partial(activities.delete, source=source, numbers=numbers), stop
                )
            case "collect":
                grace_s = 3600 if which == 1 else 0
                self.begin(number, f"collect {grace_s}", partial(activities.collect, grace_s=grace_s), stop)
            case "again" | "image" | "tree":
                self.begin(number, what, self.capture(what, source, which, more), stop)
            case _:
                self.begin(number, what, self.smaller(what, source, which, policy), stop)

    def capture(self, what: str, source: str, which: int, more: list[tuple[int, int]]) -> Callable[[Process], None]:
        assert self.world is not None
        if what == "again":
            # Garbage that is wanted again: a block that was stored once and that no point needs any more.
            dead = self.world.dead_blocks() or [which]
            return self.whole_image(source, dead[which % len(dead)])
        if what == "tree":
            files = {(at % 2, at % 3): block for at, block in [*more, (which, which)]}
            return partial(activities.capture_tree, source=TREES[0], changes=files)
        slots = {at % SLOTS: block for at, block in more}
        return partial(
            activities.capture_image, source=source, changes=slots, delta=which % 3 > 0, broken=which % 7 == 6
        )

    def turn_over(self, number: int, source: str, block: int, stop: Stop) -> None:
        """Days go by: what the points of a source held becomes garbage, all or, if it stops, perhaps."""
        assert self.world is not None
        for turn in (block, block + 1):
            self.begin(number, "turn over", self.whole_image(source, turn % BLOCKS), None)
        old = [each for each in self.numbers(source)[:-1] if (source, each) not in self.world.promised]
        self.begin(number, f"delete {old}", partial(activities.delete, source=source, numbers=old), stop)

    def smaller(self, what: str, source: str, which: int, policy: RetentionPolicy) -> Callable[[Process], None]:
        assert self.world is not None
        source = (*IMAGES, *TREES)[which % 3] if what == "read" else source
        point = self.numbers(source)[which % len(self.numbers(source))] if self.numbers(source) else 1
        works: dict[str, Callable[[Process], None]] = {
            "log": partial(activities.append, source=source, length=which + 1),
            "prune": partial(activities.prune, source=source, policy=policy),
            "hold": partial(activities.hold, source=source, number=point),
            "release": partial(activities.release, source=source, number=point),
            "read": partial(activities.read, source=source, which=which),
            "copy": partial(activities.copy, target=self.world.second),
        }
        return works[what]

    # --- what happens to processes ---

    @rule(number=PROCESS, stop=STOP)
    def go_on(self, *, number: int, stop: Stop) -> None:
        self.busy(number).go_on(stop)
        self.checked()

    @rule(number=PROCESS, how=st.sampled_from(("kill", "kill", "close", "close and lose the cache")))
    def end(self, *, number: int, how: str) -> None:
        if how == "kill":
            self.busy(number).kill()
        else:
            self.idle(number).reopen(keep_cache=how == "close")
        self.checked()

    @rule(hours=st.sampled_from((0.3, 2, 13, 25)), days=st.sampled_from((0, 0, 0, -2, 1, 3)))
    def wait(self, *, hours: float, days: int) -> None:
        assert self.world is not None
        self.world.advance(hours)
        self.world.skew_s += days * 86_400

    def teardown(self) -> None:
        try:
            if self.world is not None:
                with self.world:
                    self.world.check_end()
        finally:
            shutil.rmtree(self.directory)


class OnObjectStore(PoolMachine):
    """Nobody knows whether the holder of a lease lives."""


class OnWatchedStorage(PoolMachine):
    """A lease ends with the process that holds it."""

    liveness = True


class OnLocalStorage(PoolMachine):
    """A directory."""

    liveness = True

    def storage(self) -> MemoryStorage | LocalStorage:
        return LocalStorage(self.directory / "pool", create=True)


def profile(examples: int, steps: int) -> settings:
    """So many examples of so many steps; always the same ones unless more were asked for."""
    return settings(
        max_examples=EXAMPLES or examples,
        stateful_step_count=steps,
        deadline=None,
        derandomize=not EXAMPLES,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )


TestOnObjectStore = OnObjectStore.TestCase
TestOnObjectStore.settings = profile(60, 40)
TestOnWatchedStorage = OnWatchedStorage.TestCase
TestOnWatchedStorage.settings = profile(40, 40)
TestOnLocalStorage = OnLocalStorage.TestCase
TestOnLocalStorage.settings = profile(15, 30)

for each in (TestOnObjectStore, TestOnWatchedStorage, TestOnLocalStorage):
    each.pytestmark = [pytest.mark.slow]
