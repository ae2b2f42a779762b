"""The simulated information store comes back from every crash with exactly the rows whose commit is in the log."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from perdure.ese.folders import verify_files
from perdure.testing.information_store.clock import SteppingClock
from perdure.testing.information_store.disk import Disk
from perdure.testing.information_store.journal import Journal
from perdure.testing.information_store.layout import LogLayout, StorePlan
from perdure.testing.information_store.space_audit import audit_space
from perdure.testing.information_store.store import InformationStore, StoreOptions

CRASHES = 3


def options_of(chance: Random) -> StoreOptions:
    return StoreOptions(
        checkpoint_depth=chance.choice([1, 3, 20]),
        log_resilience=chance.choice([0, 1]),
        cached_pages=chance.choice([64, 4096]),
        write_chance=chance.choice([0.05, 0.3, 0.8]),
    )


@pytest.mark.parametrize(
    ("page_size", "layout", "seed", "lose_power"),
    [
        (4096, LogLayout.SHARED, 1, False),
        (4096, LogLayout.SHARED, 2, True),
        (32768, LogLayout.APART, 2, False),
        (32768, LogLayout.APART, 1, True),
    ],
)
def test_rows_after_a_crash_are_those_of_the_log(
    tmp_path: Path, page_size: int, layout: LogLayout, seed: int, *, lose_power: bool
) -> None:
    """After each of several crashes, open transactions under way, every database holds what the journal says."""
    chance = Random(seed)
    clock, options = SteppingClock(), options_of(chance)
    plan = StorePlan(page_size=page_size, layout=layout, seed=seed)
    store = InformationStore(tmp_path / "store", plan, Disk(may_lose_power=lose_power), clock=clock, options=options)
    for name in ("Alpha", "Beta"):
        store.add_database(name, mailboxes=2)
    for _ in range(CRASHES):
        for _ in range(chance.randrange(400)):
            chance.choice(list(store.databases.values())).step()
        store.crash(lose_power=chance if lose_power else None)
        store = InformationStore.open(store.folder, disk=Disk(may_lose_power=lose_power), clock=clock, options=options)
        for hosted in store.databases.values():
            store.dismount(hosted.name)
            assert Journal.load(store.journal_path(hosted.name)).compare(hosted.path) == []
            store.mount(hosted.name)
    store.stop()
    assert [str(finding) for finding in verify_files([store.folder], trees=True).findings] == []
    for hosted in store.databases.values():
        assert [told for told in audit_space(hosted.path) if "neither used" not in told] == []
