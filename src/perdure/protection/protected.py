"""A protected data source: its home, vault, record and workload together."""

from __future__ import annotations

import importlib
import time
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import cast

from perdure.model.errors import BadInput, SourceUnusable
from perdure.model.points import DataSource, RecoveryPoint
from perdure.model.replica import Replica, ReplicaState
from perdure.protection.home import Home
from perdure.protection.vault import Vault
from perdure.workloads.contract import FolderWorkload, ImageWorkload

__all__ = ["Protected", "Workload", "folder_workload", "image_workload", "parse_location", "workload_for"]

Workload = ImageWorkload | FolderWorkload

_BUILT_IN = {
    "sqlite": "perdure.workloads.sqlite:SqliteWorkload",
    "files": "perdure.workloads.files:FilesWorkload",
    "postgresql": "perdure.workloads.postgresql:PostgresqlWorkload",
    "exchange": "perdure.workloads.exchange:ExchangeWorkload",
}


@dataclass(frozen=True, slots=True)
class Protected:
    """A data source under protection.

    Args:
        home: Where its state on this machine is kept.
        vault: The pool that keeps it.
        source: Its registration.
        workload: The code that knows its kind.
    """

    home: Home
    vault: Vault
    source: DataSource
    workload: ImageWorkload | FolderWorkload

    @property
    def replica(self) -> Replica:
        """The replica's state now."""
        return self.home.replica(self.source.id)

    def inconsistent_ns(self, previous: RecoveryPoint | None) -> int:
        """Nanoseconds for which the replica was inconsistent, from the first replica until now.

        Args:
            previous: The point before; it knows the time up to when it was committed.
        """
        if previous is None:
            return 0
        return previous.inconsistent_ns + self.replica.inconsistent_ns(previous.committed_ns, time.time_ns())

    def note_state(self, state: ReplicaState, cause: str) -> None:
        """Bring the replica to a state, through those that have to lie between."""
        replica = self.replica
        now = time.time_ns()
        for step in _way(replica.state, state):
            replica = replica.to(step, cause, now)
        self.home.save_replica(self.source.id, replica)


def _way(present: ReplicaState, wanted: ReplicaState) -> list[ReplicaState]:
    """The states to pass on the way; a replica that never was complete stays in initialization."""
    first_copy = (ReplicaState.UNPROTECTED, ReplicaState.INITIALIZING)
    if wanted in (ReplicaState.UNPROTECTED, ReplicaState.INITIALIZING):
        return [wanted] if present in first_copy else []
    if present in first_copy:
        return (
            [ReplicaState.INITIALIZING, ReplicaState.OK] if wanted is ReplicaState.OK else [ReplicaState.INITIALIZING]
        )
    if wanted is ReplicaState.OK and present is not ReplicaState.OK:
        return [ReplicaState.VERIFYING, ReplicaState.OK] if present is not ReplicaState.VERIFYING else [wanted]
    if wanted is ReplicaState.INACTIVE and present is ReplicaState.VERIFYING:
        return [ReplicaState.INCONSISTENT, wanted]
    if wanted is ReplicaState.MISSING and present is ReplicaState.INACTIVE:
        return [ReplicaState.INCONSISTENT, wanted]
    return [wanted]


def workload_for(kind: str) -> Workload:
    """The workload of a kind, from the entry points ``perdure.workloads`` or built in.

    Raises:
        BadInput: There is no such kind; the hint lists those that there are.
    """
    offered = {entry.name: entry.value for entry in entry_points(group="perdure.workloads")}
    kinds = {**_BUILT_IN, **offered}
    if kind not in kinds:
        raise BadInput(
            f"there is no kind of data source called {kind!r}",
            code="unknown-workload",
            hint="there are: " + ", ".join(sorted(kinds)),
        )
    module, _, name = kinds[kind].partition(":")
    return cast("Workload", getattr(importlib.import_module(module), name)())


def parse_location(text: str) -> tuple[str, str]:
    """Split ``sqlite:/srv/app.db`` into ``("sqlite", "/srv/app.db")``.

    Raises:
        BadInput: The kind or the location is missing.
    """
    kind, colon, location = text.partition(":")
    if not colon or not kind or not location or "/" in kind:
        raise BadInput(
            f"{text!r} does not say what kind of data source it is",
            code="bad-location",
            hint="write KIND:LOCATION, for example sqlite:/srv/app.db or files:/srv/share",
        )
    return kind, location


def image_workload(protected: Protected) -> ImageWorkload:
    """The source's workload, when it is a database.

    Raises:
        SourceUnusable: It is a folder.
    """
    if isinstance(protected.workload, FolderWorkload):
        raise SourceUnusable(f"{protected.source.name!r} is a folder: it has no log and no image", code="no-log")
    return protected.workload


def folder_workload(protected: Protected) -> FolderWorkload:
    """The source's workload, when it is a folder.

    Raises:
        SourceUnusable: It is a database.
    """
    if not isinstance(protected.workload, FolderWorkload):
        raise SourceUnusable(f"{protected.source.name!r} is not a folder", code="not-a-folder")
    return protected.workload
