"""Doing everything twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from perdure.testing.history import Ledger, World
from perdure.testing.memory_storage import MemoryObjects, MemoryStorage
from perdure.testing.pool_history import pool_history
from perdure.testing.repeat_sweep import repeat_sweep
from perdure.testing.repeatable import repeatable


@pytest.mark.parametrize("new_process", [False, True])
def test_doing_a_thing_twice_changes_nothing_more(tmp_path: Path, new_process: bool) -> None:
    """The second run of every step leaves what is visible as it was, or is refused with a typed error."""
    refusals = repeat_sweep(pool_history(), tmp_path, new_process=new_process)

    assert refusals["create the pool"] == "pool-exists"
    assert refusals["register mail"] == "name-taken"
    assert refusals["log mail/1:10 to 1:14"] == ""
    assert refusals["third image"] == ""


def test_a_pool_asks_no_more_than_the_storage_contract_promises(tmp_path: Path) -> None:
    """On a storage that publishes in the barrier and no earlier, and has no liveness, all ends the same."""
    history, ledger, objects = pool_history(), Ledger(), MemoryObjects()
    with repeatable(0):
        world = World(lambda _: MemoryStorage(objects), tmp_path)
        history.play_all(world, ledger)

        assert history.check(world, ledger) == ledger.must
