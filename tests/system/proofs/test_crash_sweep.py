"""Power failures and kills at every system call of a pool's life."""

from __future__ import annotations

from pathlib import Path

import pytest

from perdure.testing.crash_sweep import ALL_KEPT, ALL_LOST, KILLED, crash_sweep
from perdure.testing.pool_history import pool_history


def test_whatever_was_acknowledged_survives_a_power_failure_at_any_system_call(tmp_path: Path) -> None:
    """Nothing unsynced survives, and yet everything acknowledged is there; the history then ends as if undisturbed."""
    report = crash_sweep(pool_history(), tmp_path, disasters=[ALL_LOST])

    assert report.cuts > 200
