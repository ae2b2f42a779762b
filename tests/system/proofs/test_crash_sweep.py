"""Power failures and kills at every system call of a pool's life, on a simulated file system."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from perdure.model.errors import PerdureError
from perdure.storage.local import LocalStorage
from perdure.storage.staged_file import StagedFile
from perdure.testing.crash_sweep import ALL_KEPT, ALL_LOST, KILLED, crash_sweep
from perdure.testing.history import Disagreement
from perdure.testing.pool_history import pool_history

SEED = int(os.environ.get("PERDURE_PROOF_SEED", "0"))
"""Another seed gives other keys, other moments of background work and other mixtures of what survives."""

EVERY = int(os.environ.get("PERDURE_PROOF_EVERY", "5"))
"""1: every disaster at every system call. 5: at every fifth, so that the disasters together strike at every one."""

DISASTERS = {
    "nothing unsynced survives": ALL_LOST,
    "everything survives": ALL_KEPT,
    "only the process dies": KILLED,
    "a mixture survives and power fails again": 3,
    "another mixture survives": 4,
}


@pytest.mark.slow
@pytest.mark.parametrize("disaster", DISASTERS.values(), ids=list(DISASTERS))
def test_a_disaster_at_any_system_call_loses_nothing_acknowledged(tmp_path: Path, disaster: int) -> None:
    """Everything acknowledged is there byte for byte, nothing else is wrong, and the rest of the work can be done."""
    report = crash_sweep(pool_history(), tmp_path, seed=SEED, disasters=[disaster], every=EVERY)

    assert report.cuts > 500
    assert report.disasters >= report.cuts // EVERY


def _skip(*_: object, **__: object) -> None:
    """Do nothing."""


def _publish_without_fsync(self: StagedFile) -> None:
    """Believe that data reaches the disk by itself."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("owner", "name", "broken", "disaster"),
    [
        (StagedFile, "sync", _publish_without_fsync, ALL_LOST),
        (LocalStorage, "_make_names_durable", _skip, ALL_LOST),
        (LocalStorage, "_settle", _skip, KILLED),
    ],
)
def test_the_sweep_notices_every_missing_fsync(  # noqa: PLR0917 - one for every column of the table
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, broken: object, disaster: int
) -> None:
    """A storage that leaves out any one of its durability steps is found out, so the sweep can fail."""
    monkeypatch.setattr(owner, name, broken)

    with pytest.raises((Disagreement, PerdureError)):
        crash_sweep(pool_history(), tmp_path, disasters=[disaster])
