"""The pool machine would notice: with a protection of captures left out, it loses something that is live.

The quick profile leaves out the one that is noticed at once. ``PERDURE_POOL_MACHINE=3000`` leaves out each in turn, and
looks for at most so many examples (minutes).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from perdure.model.errors import PerdureError
from perdure.repository import gc
from perdure.repository.index import ChunkIndex
from perdure.repository.pool import Pool

sys.path.insert(0, str(Path(__file__).parent))

from test_pool_machine import EXAMPLES, OnObjectStore

pytestmark = pytest.mark.slow

QUICK = 500


def reuse_condemned_chunks(patch: pytest.MonkeyPatch) -> None:
    """Captures take a chunk for stored that lies in condemned packs only."""
    patch.setattr(ChunkIndex, "has", lambda index, chunk: index.find(chunk) is not None)


def sweep_beside_captures(patch: pytest.MonkeyPatch) -> None:
    """The sweep does not wait for captures that may not know its list."""
    patch.setattr(gc, "blocking_leases", lambda *_: [])


def pardon_nothing(patch: pytest.MonkeyPatch) -> None:
    """A condemned pack goes although it alone holds something that is needed."""
    only_elsewhere = gc._only_elsewhere

    def nothing(pool: Pool, elsewhere: Iterable[bytes]) -> frozenset[bytes]:
        only_elsewhere(pool, elsewhere)
        return frozenset()

    patch.setattr(gc, "_only_elsewhere", nothing)


@pytest.mark.parametrize(
    "leave_out",
    [
        reuse_condemned_chunks,
        pytest.param(sweep_beside_captures, marks=pytest.mark.skipif(not EXAMPLES, reason="takes a minute")),
        pytest.param(pardon_nothing, marks=pytest.mark.skipif(not EXAMPLES, reason="takes minutes")),
    ],
)
def test_the_machine_notices(leave_out: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without this protection something that is live is lost, and the machine fails."""
    leave_out(monkeypatch)
    profile = settings(
        max_examples=EXAMPLES or QUICK,
        stateful_step_count=40,
        deadline=None,
        derandomize=not EXAMPLES,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate,),
    )
    with pytest.raises((AssertionError, PerdureError)):
        run_state_machine_as_test(OnObjectStore, settings=profile)
