"""A simulated availability group that is protected as one data source, and compared with its journal."""

from __future__ import annotations

import contextlib
from pathlib import Path
from random import Random

from simulated_store import NAME, SimulatedStore

from perdure.model.points import RecoveryPoint
from perdure.protection.home import Home
from perdure.protection.points import timeline_of
from perdure.snapshots.writer import SOCKET_NAME
from perdure.snapshots.writer_server import serve_writer
from perdure.testing.information_store.availability import AvailabilityGroup
from perdure.testing.information_store.journal import Journal
from perdure.testing.information_store.layout import LogLayout, StorePlan
from perdure.testing.information_store.node_writer import NodeWriter
from perdure.testing.information_store.store import StoreOptions
from perdure.testing.memory_vault import MemoryVault

ACTIVE, PASSIVE, LAGGED = "EX1", "EX2", "EX3"


class SimulatedGroup(SimulatedStore):
    """A database that is active on EX1, with a passive copy on EX2 and one on EX3 that stays an hour behind."""

    def __init__(self, root: Path, *, transactions: int = 60, depth: int = 2) -> None:
        self.root = root
        folders = {node: root / node for node in (ACTIVE, PASSIVE, LAGGED)}
        plan = StorePlan(page_size=4096, layout=LogLayout.APART, seed=1)
        self.group = AvailabilityGroup(folders, plan, root / "journals", options=StoreOptions(checkpoint_depth=depth))
        self.group.add_database(NAME, ACTIVE, mailboxes=3)
        self.work(transactions)
        self.group.add_copy(NAME, PASSIVE)
        self.group.add_copy(NAME, LAGGED, lag_s=3600)
        self.home, self.vault = Home(root / "home"), MemoryVault()
        self._serving = contextlib.ExitStack()
        for node, folder in folders.items():
            self._serving.enter_context(serve_writer(NodeWriter(self.group, node), folder / SOCKET_NAME))
        self._targets = 0
        self.random = Random(1)

    def protect_group(self, **options: str) -> RecoveryPoint:
        """Protect the database with all of its copies."""
        copies = [str(self.group.folders[node]) for node in (PASSIVE, LAGGED)]
        given = {key.replace("_", "-"): [value] for key, value in options.items()}
        return self.protect({"copy": copies, **given}, self.group.folders[ACTIVE])

    def work(self, transactions: int, *, ship: bool = True) -> None:
        """Clients work on the active copy, and its complete logs are copied to the others."""
        self.group.active(NAME).store.work(transactions)
        if ship:
            self.group.ship()

    def roll(self) -> None:
        """Complete the log that is being written, and leave it on the active node only."""
        engine = self.group.hosted(NAME).engine
        assert engine is not None
        with engine.operating():
            engine.roll()

    def logs(self, node: str) -> set[str]:
        """The complete logs of a node."""
        return {path.name for path in self.group.folders[node].rglob("E00????????.log")}

    def gaps(self) -> int:
        """Breaks in the timeline."""
        return len(timeline_of(self.vault, self.protected.source.id).gaps())

    def crash(self) -> None:
        """Lose all nodes at once."""
        self.stop_serving()
        for node in self.group.nodes.values():
            node.store.crash()

    @property
    def journal(self) -> Journal:
        return Journal.load(self.group.active(NAME).store.journal_path(NAME))
