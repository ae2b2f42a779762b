"""Opening a live database: its lock, its session, and what to do when tracking is lost under it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

from perdure.model.errors import SourceUnusable, TrackingLost
from perdure.model.replica import ReplicaState
from perdure.protection.live import LiveSource
from perdure.protection.live_results import Shipped
from perdure.protection.protected import Protected, image_workload

__all__ = ["open_session", "surviving_loss"]

_Result = TypeVar("_Result")

MOST_LOSSES = 2
"""After so many losses in a row the source is left alone."""


@contextlib.contextmanager
def open_session(
    protected: Protected, verb: str = "session", on_shipped: Callable[[Shipped], None] = lambda _: None
) -> Iterator[LiveSource]:
    """Hold a database: its lock, its session, resumed after what the pool holds.

    Raises:
        Refused: Another perdure process holds it.
        SourceUnusable: It cannot be opened; the replica's state then says so.
    """
    workload = image_workload(protected)
    with protected.home.lock(protected.source.id, verb), contextlib.ExitStack() as held:
        try:
            session = held.enter_context(workload.open(protected.source))
            live = LiveSource(protected, session, on_shipped)
            live.begin()
        except SourceUnusable as error:
            protected.note_state(ReplicaState.MISSING, error.message)
            raise
        yield live


def surviving_loss(protected: Protected, verb: str, work: Callable[[LiveSource], _Result]) -> _Result:
    """Do work with a live source; when tracking is lost under it, open the source anew and do it once more.

    Where the new session shows that the log goes on after all, it does; the replica is compared in any case. When
    tracking is lost again, the log is broken, and the work is done for the last time.
    """
    losses: list[str] = []
    while True:
        try:
            with open_session(protected, verb) as live:
                live.recall(losses)
                return work(live)
        except TrackingLost as error:
            if len(losses) == MOST_LOSSES:
                raise
            protected.note_state(ReplicaState.INCONSISTENT, error.message)
            losses.append(error.message)
