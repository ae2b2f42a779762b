"""The repeat sweep: every step of a history is run twice, as by somebody who is not sure whether it was done."""

from __future__ import annotations

from pathlib import Path

from perdure.model.errors import PerdureError
from perdure.testing.crash_filesystem import CrashFileSystem
from perdure.testing.crash_sweep import storage_opener
from perdure.testing.history import Disagreement, History, Ledger, World
from perdure.testing.repeatable import repeatable

__all__ = ["repeat_sweep"]


def repeat_sweep(history: History, directory: Path, *, seed: int = 0, new_process: bool = False) -> dict[str, str]:
    """Run every step twice; the second run changes nothing that can be seen, or is refused with a typed error.

    Args:
        history: What happens.
        directory: An empty directory for the cache.
        seed: Of everything that is random.
        new_process: Whether the second run is a new process's.

    Returns:
        For every step the code of the error that refused its second run; empty for one that succeeded.

    Raises:
        Disagreement: A second run changed something.
    """
    outcome = {}
    with repeatable(seed):
        world = World(storage_opener(CrashFileSystem(), seed), directory)
        ledger = Ledger()
        for step in history.steps:
            ledger.begins(step)
            step.run(world)
            ledger.returned(step)
            before = history.check(world, ledger)
            if new_process:
                world.close()
            outcome[step.name] = ""
            try:
                step.run(world)
            except PerdureError as error:
                outcome[step.name] = error.code
            after = history.check(world, ledger)
            if before != after:
                raise Disagreement(f"the second run of {step.name!r} changed {before.items() ^ after.items()}")
    return outcome
