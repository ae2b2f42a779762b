"""Doing everything twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from perdure.testing.pool_history import pool_history
from perdure.testing.repeat_sweep import repeat_sweep


@pytest.mark.parametrize("new_process", [False, True])
def test_doing_a_thing_twice_changes_nothing_more(tmp_path: Path, new_process: bool) -> None:
    """The second run of every step leaves what is visible as it was, or is refused with a typed error."""
    refusals = repeat_sweep(pool_history(), tmp_path, new_process=new_process)

    assert refusals["create the pool"] == "pool-exists"
    assert refusals["register mail"] == "name-taken"
    assert refusals["log mail/1:10 to 1:14"] == ""
    assert refusals["third image"] == ""
