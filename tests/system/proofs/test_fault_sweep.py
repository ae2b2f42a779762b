"""Every call that a pool makes goes wrong once, in every way, at the storage's seam and at the operating system's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from perdure.testing.fault_sweep import fault_sweep
from perdure.testing.faults import Fault, SystemFault
from perdure.testing.pool_history import pool_history

SEED = int(os.environ.get("PERDURE_PROOF_SEED", "0"))

EVERY = int(os.environ.get("PERDURE_PROOF_EVERY", "7"))
"""1: every call goes wrong. 7: every seventh, other ones for every seed."""

LOUD = {Fault.FAILED, Fault.FULL, Fault.LOST_ANSWER, Fault.LATE, Fault.TORN}
"""Faults that a storage reports: the step must fail."""

RARE = {Fault.LOST_ANSWER, Fault.LATE}
"""Faults of calls that are few: all of them go wrong."""


@pytest.mark.slow
@pytest.mark.parametrize("fault", list(Fault), ids=lambda fault: fault.name)
def test_a_storage_call_that_goes_wrong_is_survived(tmp_path: Path, fault: Fault) -> None:
    """The step keeps its promises or fails with a typed error, and a clean run afterwards ends as without faults."""
    report = fault_sweep(pool_history(), tmp_path, fault, seed=SEED, every=1 if fault in RARE else EVERY)

    assert report.struck.keys() <= fault.applies_to
    assert report.faults >= 100 // EVERY
    if fault in LOUD:
        assert report.refused == report.faults


@pytest.mark.slow
@pytest.mark.parametrize("fault", list(SystemFault), ids=lambda fault: fault.name)
def test_a_system_call_that_goes_wrong_is_survived(tmp_path: Path, fault: SystemFault) -> None:
    """As for a storage call; a short read or write is no error at all."""
    report = fault_sweep(pool_history(), tmp_path, fault, seed=SEED, every=EVERY)

    assert report.struck.keys() <= fault.applies_to
    assert report.faults > 250 // EVERY
    assert (report.refused == 0) == (fault is SystemFault.SHORT)
