"""A simulated information store that works, is protected, is lost, and is compared with its own journal."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from protected_store import ProtectedStore

from perdure.ese.structures import LogPosition
from perdure.model.positions import Position
from perdure.model.targets import AtPosition, Target
from perdure.protection.home import Home
from perdure.protection.recovery import recover
from perdure.snapshots.writer import SOCKET_NAME
from perdure.snapshots.writer_server import serve_writer
from perdure.testing.information_store.backup_writer import BackupWriter
from perdure.testing.information_store.journal import Journal
from perdure.testing.information_store.layout import LogLayout, StorePlan
from perdure.testing.information_store.store import InformationStore, StoreOptions
from perdure.testing.memory_vault import MemoryVault

NAME = "Mailbox-01"


class SimulatedStore(ProtectedStore):
    """An information store in ``root / "store"`` with its writer, a home and a vault."""

    def __init__(
        self,
        root: Path,
        page_size: int,
        *,
        seed: int = 1,
        transactions: int = 200,
        depth: int = 4,
        writer: Callable[[InformationStore], BackupWriter] = BackupWriter,
    ) -> None:
        self.root = root
        self.folder = root / "store"
        plan = StorePlan(page_size=page_size, layout=LogLayout.APART, seed=seed)
        options = StoreOptions(checkpoint_depth=depth)
        self.engine = InformationStore(self.folder, plan, options=options)
        self.engine.add_database(NAME, mailboxes=3)
        self.engine.work(transactions)
        self.writer = writer(self.engine)
        self.home, self.vault = Home(root / "home"), MemoryVault()
        self._serving = contextlib.ExitStack()
        self._serving.enter_context(serve_writer(self.writer, self.folder / SOCKET_NAME))
        self._targets = 0
        self.random = Random(seed)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Its clients work all the while, in a thread of their own."""
        stop = threading.Event()

        def work() -> None:
            while not stop.is_set():
                self.engine.work(1)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def crash(self) -> None:
        """Lose the machine: everything ends at once."""
        self.stop_serving()
        self.engine.crash()

    def clean_copy(self, to: Target) -> tuple[Path, Position | None]:
        """A recovery that is replayed to a clean shutdown and verified."""
        self._targets += 1
        target = self.root / f"clean-{self._targets}"
        report = recover(self.protected, to=to, target=target, options={"clean": "yes"})
        assert report.verification is not None
        assert report.verification.passed
        return target / f"{NAME}.edb", report.position

    def differences_at(self, position: Position) -> list[str]:
        """How a recovery to a place differs from what the journal has there."""
        database, reached = self.clean_copy(AtPosition(position))
        assert reached == position
        return self.journal.compare(database, log_position(position))

    @property
    def journal(self) -> Journal:
        return Journal.load(self.engine.journal_path(NAME))


def log_position(position: Position) -> LogPosition:
    """A place of the timeline as the engine's."""
    return LogPosition(position.generation, position.place >> 16, position.place & 0xFFFF)
