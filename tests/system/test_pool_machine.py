"""Many processes on one pool, stopped, resumed and killed between any two calls: nothing that is live is ever lost.

A quick profile runs with the other tests. ``PERDURE_POOL_MACHINE=10000`` runs so many examples of each machine instead
(hours), with new random seeds each time. A failure prints what to put above the class to see it again.
"""

from __future__ import annotations

import os
import shutil
import tempfile
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
from perdure.testing.pool_model import SLOTS
from perdure.testing.pool_world import IMAGES, TREES, PoolWorld, Process

EXAMPLES = int(os.environ.get("PERDURE_POOL_MACHINE", "0"))

PROCESS = st.integers(0, 2)
STEPS = st.none() | st.integers(0, 30) | st.integers(0, 200)
SOURCE = st.sampled_from((*IMAGES, *TREES))
IMAGE = st.sampled_from(IMAGES)
BLOCKS = st.integers(0, 9)
WHICH = st.integers(0, 7)
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
        for source, block in ((IMAGES[0], 0), (IMAGES[1], 1)):
            changes = {slot: block + slot for slot in range(SLOTS)}
            self.process(0).begin(
                "first image",
                partial(activities.capture_image, source=source, changes=changes, delta=False, broken=False),
                None,
            )

    def process(self, number: int) -> Process:
        assert self.world is not None
        return self.world.processes[number]

    def begin(self, number: int, what: str, work: object, steps: int | None) -> None:
        self.process(number).begin(what, work, steps)  # type: ignore[arg-type]
        self.checked()

    def checked(self) -> None:
        assert self.world is not None
        self.world.check()

    def numbers(self, source: str) -> list[int]:
        assert self.world is not None
        return sorted(int(name[-8:]) for name in self.world.points if name.startswith(f"points/{source}/"))

    # --- work ---

    @rule(
        number=PROCESS,
        source=IMAGE,
        changes=st.dictionaries(st.integers(0, SLOTS - 1), BLOCKS, max_size=SLOTS),
        delta=st.booleans(),
        broken=st.sampled_from((False, False, False, True)),
        steps=STEPS,
    )
    def image(
        self, *, number: int, source: str, changes: dict[int, int], delta: bool, broken: bool, steps: int | None
    ) -> None:
        work = partial(activities.capture_image, source=source, changes=changes, delta=delta, broken=broken)
        self.begin(number, f"image of {source[0]}", work, steps)

    @rule(
        number=PROCESS,
        changes=st.dictionaries(st.tuples(st.integers(0, 1), st.integers(0, 2)), BLOCKS, min_size=1, max_size=4),
        steps=STEPS,
    )
    def tree(self, number: int, changes: dict[tuple[int, int], int], steps: int | None) -> None:
        self.begin(number, "tree", partial(activities.capture_tree, source=TREES[0], changes=changes), steps)

    @rule(number=PROCESS, source=SOURCE, which=st.lists(WHICH, min_size=1, max_size=4, unique=True), steps=STEPS)
    def delete(self, number: int, source: str, which: list[int], steps: int | None) -> None:
        numbers = [each for row, each in enumerate(self.numbers(source)[:-1]) if row in which]
        work = partial(activities.delete, source=source, numbers=numbers)
        self.begin(number, f"delete {numbers} of {source[0]}", work, steps)

    @rule(number=PROCESS, source=SOURCE, policy=POLICY, steps=STEPS)
    def prune(self, number: int, source: str, policy: RetentionPolicy, steps: int | None) -> None:
        self.begin(number, f"prune {source[0]}", partial(activities.prune, source=source, policy=policy), steps)

    @rule(number=PROCESS, grace_h=st.sampled_from((0, 0, 1)), steps=STEPS)
    def collect(self, number: int, grace_h: int, steps: int | None) -> None:
        self.begin(number, f"collect after {grace_h} h", partial(activities.collect, grace_s=grace_h * 3600), steps)

    @rule(
        number=PROCESS,
        what=st.sampled_from(("log", "hold", "hold", "release", "read", "read", "copy")),
        source=SOURCE,
        which=WHICH,
        steps=STEPS,
    )
    def smaller(self, number: int, what: str, source: str, which: int, steps: int | None) -> None:
        assert self.world is not None
        numbers = self.numbers(source)
        point = numbers[which % len(numbers)] if numbers else 1
        works = {
            "log": partial(activities.append, source=source, length=which + 1),
            "hold": partial(activities.hold, source=source, number=point),
            "release": partial(activities.release, source=source, number=point),
            "read": partial(activities.read, source=source, which=which),
            "copy": partial(activities.copy, target=self.world.second),
        }
        self.begin(number, f"{what} {source[0]} {point}", works[what], steps)

    # --- what happens to processes ---

    @rule(number=PROCESS, steps=STEPS)
    def go_on(self, number: int, steps: int | None) -> None:
        self.process(number).go_on(steps)
        self.checked()

    @rule(number=PROCESS, how=st.sampled_from(("kill", "kill", "close", "close and lose the cache")))
    def end(self, number: int, how: str) -> None:
        if how == "kill":
            self.process(number).kill()
        else:
            self.process(number).reopen(keep_cache=how == "close")
        self.checked()

    @rule(hours=st.sampled_from((0.3, 2, 13, 25)), days=st.sampled_from((0, 0, 0, -2, 1, 3)))
    def wait(self, hours: float, days: int) -> None:
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
        phases=(Phase.generate,) if os.environ.get("NOSHRINK") else (Phase.generate, Phase.shrink),
    )


TestOnObjectStore = OnObjectStore.TestCase
TestOnObjectStore.settings = profile(60, 40)
TestOnWatchedStorage = OnWatchedStorage.TestCase
TestOnWatchedStorage.settings = profile(40, 40)
TestOnLocalStorage = OnLocalStorage.TestCase
TestOnLocalStorage.settings = profile(15, 30)

for each in (TestOnObjectStore, TestOnWatchedStorage, TestOnLocalStorage):
    each.pytestmark = [pytest.mark.slow]
