"""A small store that is protected in a vault in memory, by the verbs as the command line calls them."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from perdure.ese.findings import damage_in
from perdure.ese.folders import verify_files
from perdure.model.points import RecoveryPoint
from perdure.model.positions import Position
from perdure.model.targets import AtPosition, Latest, Target
from perdure.protection.home import Home
from perdure.protection.image_verbs import SyncResult, express_full, protect, synchronize
from perdure.protection.points import timeline_of
from perdure.protection.protected import Protected
from perdure.protection.recovery import RecoveryReport, recover
from perdure.snapshots.writer import SOCKET_NAME
from perdure.snapshots.writer_server import serve_writer
from perdure.testing.memory_vault import MemoryVault
from perdure.testing.small_store import SmallStore


class ProtectedStore:
    """A store in ``root / "store"`` with its writer served, a home and a vault."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = SmallStore(root / "store")
        self.home = Home(root / "home")
        self.vault = MemoryVault()
        self.protected: Protected
        self._serving = contextlib.ExitStack()
        self._targets = 0
        self.serve(self.store)

    def __enter__(self) -> ProtectedStore:
        return self

    def __exit__(self, *exc: object) -> None:
        self._serving.close()

    def serve(self, store: SmallStore) -> None:
        """Serve a store's writer until the end."""
        self._serving.enter_context(serve_writer(store, store.folder / SOCKET_NAME))

    def stop_serving(self) -> None:
        """End all writers, as when the service stops."""
        self._serving.close()

    def protect(self, options: Mapping[str, Sequence[str]] | None = None, folder: Path | None = None) -> RecoveryPoint:
        """Make the first replica."""
        location = str(folder or self.store.folder)
        self.protected, point = protect(self.home, self.vault, "exchange", location, options=options)
        return point

    def sync(self) -> SyncResult:
        return synchronize(self.protected)

    def full(self) -> RecoveryPoint:
        return express_full(self.protected)

    @property
    def state(self) -> str:
        return self.protected.replica.state.value

    @property
    def cause(self) -> str:
        return self.protected.replica.cause

    def recover(self, to: Target | None = None, **options: str) -> tuple[Path, RecoveryReport]:
        """Recover to a new folder and verify it."""
        self._targets += 1
        target = self.root / f"recovered-{self._targets}"
        report = recover(self.protected, to=to or Latest(), target=target, options=options)
        assert report.verification is not None
        assert report.verification.passed
        return target, report

    def positions(self) -> list[Position]:
        """Every place that can be recovered."""
        timeline = timeline_of(self.vault, self.protected.source.id)
        found = {stretch.start for stretch in timeline.stretches}
        for stretch in timeline.stretches:
            for span in stretch.spans:
                marks = self.vault.segment(self.protected.source.id, span).marks["place"]
                found |= {Position(span.generation, int(place)) for place in marks}
        return sorted(place for place in found if place >= timeline.stretches[0].start)


def logs_of(folder: Path) -> dict[str, bytes]:
    """The logs in a folder and below it, by name."""
    return {path.name: path.read_bytes() for path in folder.rglob("E*.log")}


def is_whole(folder: Path) -> bool:
    """Whether everything in a folder verifies as a store that the engine can recover."""
    return not damage_in(verify_files([folder]).findings)


def at(position: Position) -> Target:
    """A position as a target."""
    return AtPosition(position)
