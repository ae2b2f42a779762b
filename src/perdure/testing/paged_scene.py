"""A protected simulated database with everything around it, for tests of the verbs."""

from __future__ import annotations

from pathlib import Path

from perdure.protection.home import Home
from perdure.protection.image_verbs import protect
from perdure.protection.protected import Protected
from perdure.testing.memory_vault import MemoryVault
from perdure.testing.paged_engine import PagedEngine, PagedSource, PagedWorkload

__all__ = ["Scene"]


class Scene:
    """A home, a vault in memory and a simulated database at ``root / "live.db"``.

    Args:
        root: An empty directory for the home and for recoveries.
    """

    def __init__(self, root: Path) -> None:
        self.now = 1_000
        self.home = Home(root / "home")
        self.vault = MemoryVault()
        self.engine = PagedEngine()
        self.database = PagedSource(clock=self.tick)
        self.location = str(root / "live.db")
        self.engine.sources[self.location] = self.database
        self.workload = PagedWorkload(self.engine)
        self.root = root

    def tick(self) -> int:
        """A clock that goes on by 10 ns whenever it is looked at."""
        self.now += 10
        return self.now

    def page(self, text: str) -> bytes:
        """A page that begins with a text."""
        return text.encode().ljust(self.database.page_size, b".")

    def protect(self, name: str = "live") -> Protected:
        """Make the first replica."""
        protected, _ = protect(self.home, self.vault, "paged", self.location, name=name, workload=self.workload)
        return protected
