"""A writer holds its writes for a limited time only: what was copied after that is worthless, and never counts."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from simulated_store import NAME, SimulatedStore

from perdure.model.errors import ImageFailed
from perdure.model.targets import AtPoint
from perdure.snapshots.writer import FREEZE_LIMIT_S, FailedAtFreeze, Frozen, WriterTimeout
from perdure.testing.information_store.backup_writer import BackupWriter
from perdure.testing.information_store.store import InformationStore


class _ImpatientWriter(BackupWriter):
    """Thaws by itself after a tenth of a second; while ``late``, its answer to ``freeze`` arrives only after that."""

    def __init__(self, store: InformationStore) -> None:
        super().__init__(store, freeze_limit_s=0.1)
        self.late = self.patient = False
        self.thawed = threading.Event()

    def freeze(self, backup_set: str) -> Frozen:
        self._limit = FREEZE_LIMIT_S if self.patient else 0.1
        frozen = super().freeze(backup_set)
        if not self.late:
            return frozen
        assert self.thawed.wait(20)
        return Frozen(FREEZE_LIMIT_S, frozen.current_generations)

    def _thaw_by_itself(self, backup_set: str) -> None:
        super()._thaw_by_itself(backup_set)
        self.thawed.set()


@pytest.mark.parametrize(
    ("late", "kind", "cause"),
    [
        (False, FailedAtFreeze, "could not be copied in the time for which its writer may hold its writes"),
        (True, WriterTimeout, "what was copied of it is worthless"),
    ],
    ids=["seen in time", "seen at the thaw"],
)
def test_a_freeze_that_was_exceeded_makes_no_point(
    tmp_path: Path, late: bool, kind: type[ImageFailed], cause: str
) -> None:
    """Whether perdure sees that the time is up or only the writer does: no point, nothing truncated, and it is said."""
    with SimulatedStore(tmp_path, 4096, transactions=40, writer=_ImpatientWriter) as store:
        writer = store.writer
        assert isinstance(writer, _ImpatientWriter)
        writer.patient = True
        store.protect(folder=store.folder)
        store.engine.work(60)
        before = store.home.ledger(store.protected.source.id).events
        writer.patient, writer.late = False, late
        logs = {path.name for path in store.folder.rglob("E00????????.log")}
        with pytest.raises(kind, match=cause) as failed:
            store.full()
        assert failed.value.hint
        assert len(store.vault.points(store.protected.source.id)) == 1
        assert {path.name for path in store.folder.rglob("E00????????.log")} >= logs
        assert store.home.ledger(store.protected.source.id).events == before
        assert cause in store.home.attention(store.protected.source.id)
        store.engine.work(1)

        writer.patient, writer.late = True, False
        point = store.full()
        assert store.home.attention(store.protected.source.id) == ""
        store.crash()
        assert point.position is not None
        assert store.differences_at(point.position) == []
        target, _ = store.recover(AtPoint(point.number))
        assert (target / f"{NAME}.edb").exists()
