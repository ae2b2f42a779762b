"""The fault sweep: every call of every step of a history goes wrong once, in every way.

A step either succeeds and keeps all promises, or fails with a :class:`PerdureError`. Either way what was
acknowledged is still there. In the same process (as under ``perdure watch``) the step is tried again as it is; then the
history is taken up again without faults and ends as it does undisturbed. In a new process the step has its result.
"""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from perdure.model.errors import PerdureError
from perdure.storage.contract import Storage
from perdure.storage.local import LocalStorage
from perdure.testing.crash_filesystem import CrashFileSystem
from perdure.testing.crash_sweep import ROOT, storage_opener
from perdure.testing.faults import Fault, FaultyFileSystem, FaultyStorage, SystemFault
from perdure.testing.history import Disagreement, History, Ledger, World
from perdure.testing.repeatable import SeededExecutor, repeatable

__all__ = ["FaultReport", "fault_sweep"]


@dataclass(frozen=True, slots=True)
class FaultReport:
    """What a sweep did.

    Args:
        faults: Calls that went wrong.
        refused: Steps that failed, loudly, because of it; the others succeeded all the same.
        struck: How often each kind of call went wrong.
    """

    faults: int
    refused: int
    struck: dict[str, int]


@dataclass(frozen=True, slots=True)
class _Before:
    """How things stood before a step."""

    filesystem: CrashFileSystem
    cache: Path
    ledger: Ledger


def fault_sweep(
    history: History,
    directory: Path,
    fault: Fault | SystemFault,
    *,
    seed: int = 0,
    steps: range | None = None,
    calls: range = range(1, 10**9),
    every: int = 1,
) -> FaultReport:
    """Let every call of every step go wrong once.

    Args:
        history: What happens.
        directory: An empty directory for caches.
        fault: What goes wrong: in the storage, or in the system calls below it.
        seed: Of everything that is random.
        steps: Numbers of the steps; all by default.
        calls: Which calls of a step, counting from 1 those to which the fault applies; all by default.
        every: Of so many neighbouring calls only one goes wrong, another one for every seed and step.

    Raises:
        Disagreement: A pool was not what it must be. A note says how to repeat it.
    """
    sweep = _FaultSweep(history, directory, fault, seed)
    for step in range(len(history.steps)) if steps is None else steps:
        for at in calls:
            if (at + step + seed) % every == 0 and not sweep.strike(step, at):
                break
    return FaultReport(sum(sweep.struck.values()), sweep.refused, sweep.struck)


class _FaultSweep:
    def __init__(self, history: History, directory: Path, fault: Fault | SystemFault, seed: int) -> None:
        self._history = history
        self._directory = directory
        self._fault = fault
        self._seed = seed
        self.refused = 0
        self.struck: dict[str, int] = {}
        self._states: list[_Before] = []
        self._record()

    def _record(self) -> None:
        """Play the history undisturbed and keep how things stand before every step and at the end."""
        with repeatable(self._seed):
            filesystem, cache, ledger = CrashFileSystem(), self._directory / "undisturbed", Ledger()
            world = World(storage_opener(filesystem, self._seed), cache)
            for step in self._history.play(world, ledger):
                world.close()
                kept = self._directory / f"before {step}"
                if cache.exists():
                    shutil.copytree(cache, kept)
                self._states.append(_Before(filesystem.killed(), kept, ledger.copy()))
            self._final = self._history.check(world, ledger)

    def strike(self, step: int, at: int) -> bool:
        """Let one call go wrong; whether there was one."""
        struck = ""
        for same_process in (True, False):
            machine = _Machine(self._states[step].filesystem.killed(), self._fault, at)
            try:
                self._strike(step, at, machine, same_process)
            except BaseException as error:
                error.add_note(
                    f"call {at} ({machine.struck}) of step {self._history.steps[step].name!r}, fault: {self._fault}; "
                    f"to repeat: fault_sweep(…, {self._fault.__class__.__name__}.{self._fault.name}, "
                    f"seed={self._seed}, steps=range({step}, {step + 1}), calls=range({at}, {at + 1}))"
                )
                raise
            struck = machine.struck
            if not struck:
                return False
        self.struck[struck] = self.struck.get(struck, 0) + 1
        return True

    def _strike(self, number: int, at: int, machine: _Machine, same_process: bool) -> None:
        before, step, cache = self._states[number], self._history.steps[number], self._directory / "cache"
        shutil.rmtree(cache, ignore_errors=True)
        # Half of the time the cache was lost, so that everything is read again.
        if before.cache.exists() and at % 2:
            shutil.copytree(before.cache, cache)
        world, ledger = World(machine.open_storage, cache), before.ledger.copy()
        with repeatable(self._seed + 1000 * number + at, hours=1):
            ledger.begins(step)
            machine.arm(at)
            try:
                step.run(world)
                ledger.returned(step)
            except PerdureError:
                self.refused += same_process
            finally:
                machine.arm(None)
            if not machine.struck:
                return
            if not same_process:
                world.close()
            if not self._history.check(world, ledger, verify=not same_process):
                # What a failed creation left is no pool; a person removes it.
                machine.filesystem = CrashFileSystem()
                world.forget()
            self._take_up(number, world, ledger, to_the_end=same_process)

    def _take_up(self, number: int, world: World, ledger: Ledger, *, to_the_end: bool) -> None:
        if to_the_end:
            with contextlib.suppress(PerdureError):
                self._history.steps[number].run(world)
            self._history.play_all(world, ledger, start=number, resume=True)
            world.close()
            ended = self._history.check(world, ledger)
            expected = self._final
        else:
            next(islice(self._history.play(world, ledger, start=number, resume=True), 1, 2), None)
            ended = self._history.check(world, ledger, verify=False)
            expected = self._states[number + 1].ledger.must if number + 1 < len(self._states) else self._final
        if ended != expected:
            raise Disagreement("taken up again, the history goes on otherwise than undisturbed")


class _Machine:
    """A file system, and how processes open the storage on it, with a fault in between."""

    def __init__(self, filesystem: CrashFileSystem, fault: Fault | SystemFault, seed: int) -> None:
        self.filesystem = filesystem
        self._fault = fault
        self._seed = seed
        self._at: int | None = None
        self._faulty: list[FaultyStorage | FaultyFileSystem] = []

    def open_storage(self, create: bool) -> Storage:
        """Open the storage as a process does."""
        executor = SeededExecutor(self._seed)
        if isinstance(self._fault, SystemFault):
            filesystem = FaultyFileSystem(self.filesystem, self._fault)
            self._add(filesystem)
            return LocalStorage(ROOT, create=create, filesystem=filesystem, syncing=executor)
        inner = LocalStorage(ROOT, create=create, filesystem=self.filesystem, syncing=executor)
        storage = FaultyStorage(inner, self._fault, self._seed)
        self._add(storage)
        return storage

    def _add(self, faulty: FaultyStorage | FaultyFileSystem) -> None:
        faulty.arm(self._at)
        self._faulty.append(faulty)

    def arm(self, at: int | None) -> None:
        """Go wrong at the ``at``-th call from now; ``None``: work."""
        self._struck = self.struck
        self._at = at
        for faulty in self._faulty:
            faulty.arm(at)

    _struck = ""

    @property
    def struck(self) -> str:
        """Name of the call that went wrong; empty when none has."""
        return self._struck or next((faulty.struck for faulty in self._faulty if faulty.struck), "")
