"""The crash sweep: a history is interrupted at every system call, and the pool must be what was promised each time.

One history is played on a :class:`~perdure.testing.crash_filesystem.CrashFileSystem`. Before every call that
changes something a disaster happens to a copy of it, the copy is examined, the history is taken up again at the step
that was interrupted and played to its end, and the power fails once more. The original goes on undisturbed.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from perdure.storage.contract import Storage
from perdure.storage.filesystem import FileSystem
from perdure.storage.local import LocalStorage
from perdure.testing.crash_filesystem import CHANGING, CrashFileSystem, PowerCut
from perdure.testing.history import Disagreement, History, Ledger, World
from perdure.testing.repeatable import SeededExecutor, repeatable

__all__ = ["ALL_KEPT", "ALL_LOST", "KILLED", "ROOT", "CrashReport", "crash_sweep", "storage_opener"]

ALL_LOST, ALL_KEPT, KILLED = 0, 1, 2
"""Disasters by number: power fails and nothing unsynced survives; power fails and everything does; the process is
killed and the machine goes on. Every other number is a seed: power fails, any mixture survives, and it fails a second
time while the history is taken up again."""

ROOT = Path("/pool")
"""Where the pool lies in the simulated file system."""


@dataclass(frozen=True, slots=True)
class CrashReport:
    """What a sweep did.

    Args:
        calls: System calls of the undisturbed history.
        cuts: Places at which it can be interrupted.
        disasters: Interruptions in all.
    """

    calls: int
    cuts: int
    disasters: int


def crash_sweep(
    history: History,
    directory: Path,
    *,
    seed: int = 0,
    disasters: Sequence[int] = (ALL_LOST, ALL_KEPT, KILLED, 3),
    cuts: Collection[int] | None = None,
    every: int = 1,
) -> CrashReport:
    """Interrupt a history everywhere.

    Args:
        history: What happens.
        directory: An empty directory for caches.
        seed: Of everything that is random.
        disasters: What happens at every place; see above.
        cuts: Numbers of the system calls before which it happens; all that change something by default.
        every: Of so many neighbouring places only one is struck, another one for every seed and disaster.

    Raises:
        Disagreement: A pool was not what it must be. A note says how to repeat it.
    """
    return _CrashSweep(history, directory, seed=seed, disasters=disasters, cuts=cuts, every=every).run()


def storage_opener(filesystem: FileSystem, seed: int) -> Callable[[bool], Storage]:
    """How a process opens the local storage at :data:`ROOT` of a simulated file system, for a ``World``."""

    def open_storage(create: bool) -> Storage:
        return LocalStorage(ROOT, create=create, filesystem=filesystem, syncing=SeededExecutor(seed))

    return open_storage


class _CrashSweep:
    def __init__(
        self,
        history: History,
        directory: Path,
        *,
        seed: int,
        disasters: Sequence[int],
        cuts: Collection[int] | None,
        every: int,
    ) -> None:
        self._history = history
        self._directory = directory
        self._seed = seed
        self._disasters = disasters
        self._wanted = cuts
        self._every = every if cuts is None else 1
        self._ledger = Ledger()
        self._step = 0
        self._cuts = self._done = 0
        self._final: dict[str, str] = {}

    def run(self) -> CrashReport:
        self._final = self._undisturbed()
        with repeatable(self._seed):
            self._original = CrashFileSystem(self._before_call)
            self._cache = self._directory / "cache"
            world = World(storage_opener(self._original, self._seed), self._cache)
            for step in self._history.play(world, self._ledger):
                self._step = step
                # Some steps follow in the same process, some in a new one that finds the cache of the one before.
                if step % 3 == 0:
                    world.close()
            self._step = len(self._history.steps)
            self._original.before_call = lambda _number, _name, _path: None
            calls = self._original.calls
            if self._wanted is None or calls + 1 in self._wanted:
                self._examine(calls + 1, "the end")
        return CrashReport(calls, self._cuts, self._done)

    def _undisturbed(self) -> dict[str, str]:
        with repeatable(self._seed):
            world = World(storage_opener(CrashFileSystem(), self._seed), self._directory / "undisturbed")
            ledger = Ledger()
            self._history.play_all(world, ledger)
            seen = self._history.check(world, ledger)
            if seen != ledger.must:
                raise Disagreement(f"without any disaster the history gives {seen}, not {ledger.must}")
            return seen

    def _before_call(self, number: int, name: str, path: Path) -> None:
        if name in CHANGING and (self._wanted is None or number in self._wanted):
            self._examine(number, f"{name} {path}")

    def _examine(self, number: int, call: str) -> None:
        self._cuts += 1
        for disaster in self._disasters:
            if (self._cuts + self._seed + disaster) % self._every:
                continue
            self._done += 1
            try:
                self._strike(number, disaster)
            except BaseException as error:
                step = self._history.steps[self._step].name if self._step < len(self._history.steps) else "the end"
                error.add_note(
                    f"before system call {number} ({call}) of step {step!r}, disaster {disaster}; to repeat: "
                    f"crash_sweep(…, seed={self._seed}, disasters=[{disaster}], cuts=[{number}])"
                )
                raise

    def _strike(self, number: int, disaster: int) -> None:
        rng = random.Random(f"{self._seed} {number} {disaster}")  # noqa: S311 - repeatable, not secret
        cache = self._directory / f"cache {number} {disaster}"
        if rng.random() < 0.5 and self._cache.exists():
            shutil.copytree(self._cache, cache)
        with repeatable(rng.getrandbits(32), hours=1):
            fate = disaster if disaster < KILLED else rng.randint(2, 1 << 32)
            filesystem = self._original.killed() if disaster == KILLED else self._original.crashed(fate)
            ledger, step = self._ledger.copy(), self._step
            if disaster > KILLED:
                filesystem, step = self._second_time(filesystem, ledger, step, cache, rng)
            filesystem = self._taken_up(filesystem, ledger, step, cache, rng)
            # Whatever was acknowledged, before or after the disaster, survives the next one.
            ended = World(storage_opener(filesystem.crashed(ALL_LOST), 0), cache)
            if self._history.check(ended, ledger) != self._final:
                raise Disagreement("taken up again, the history ends otherwise than undisturbed")
        shutil.rmtree(cache, ignore_errors=True)

    def _second_time(
        self, filesystem: CrashFileSystem, ledger: Ledger, step: int, cache: Path, rng: random.Random
    ) -> tuple[CrashFileSystem, int]:
        """Take the history up again, only to be interrupted again soon."""
        world = World(storage_opener(filesystem, rng.getrandbits(32)), cache)
        if not self._history.check(world, ledger):
            filesystem = CrashFileSystem()
            world = World(storage_opener(filesystem, rng.getrandbits(32)), cache)
        filesystem.crash_after(filesystem.calls + rng.randint(1, 200))
        try:
            for taken in self._history.play(world, ledger, start=step, resume=True):
                step = taken
        except PowerCut:
            return filesystem.crashed(rng.getrandbits(32)), step
        return filesystem.killed(), len(self._history.steps)

    def _taken_up(
        self, filesystem: CrashFileSystem, ledger: Ledger, step: int, cache: Path, rng: random.Random
    ) -> CrashFileSystem:
        """Examine what is left and play the rest of the history; returns the file system that has the result."""
        world = World(storage_opener(filesystem, rng.getrandbits(32)), cache)
        seen = self._history.check(world, ledger)
        if not seen:
            # What an interrupted creation left is no pool; a person removes it.
            filesystem = CrashFileSystem()
            world = World(storage_opener(filesystem, rng.getrandbits(32)), cache)
        self._history.play_all(world, ledger, start=step, resume=True)
        self._history.check(world, ledger, verify=False)
        world.close()
        leftovers = _leftovers(filesystem)
        if leftovers:
            raise Disagreement(f"nobody removes {leftovers}")
        return filesystem


def _leftovers(filesystem: CrashFileSystem) -> list[str]:
    """Temporary files that stay after the next writer has begun."""
    after = filesystem.killed()
    LocalStorage(ROOT, filesystem=after).stage().discard()
    return [found.name for found in after.scan(ROOT / "tmp") if not found.directory]
