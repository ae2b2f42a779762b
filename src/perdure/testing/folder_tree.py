"""A folder to be protected, with a pool in memory: scans of one into the other and restores back."""

from collections.abc import Callable
from pathlib import Path

from perdure.model.entries import Entry
from perdure.model.points import DataSource
from perdure.testing.memory_content import MemoryContent
from perdure.workloads.contract import FolderScan
from perdure.workloads.files import FilesWorkload, RestoreReport, restore_tree
from perdure.workloads.files.scan import OpenFile, open_for_reading

__all__ = ["LATER", "FolderTree"]

LATER = 1 << 62
"""A clock reading so late that no file counts as just changed."""


class FolderTree:
    """A source folder, a pool and scans of one into the other."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.path = base / "source"
        self.path.mkdir()
        self.pool = MemoryContent()
        self._restores = 0

    def scan(
        self,
        previous: Entry | None = None,
        *,
        check: bool = False,
        clock: Callable[[], int] = lambda: LATER,
        open_file: OpenFile = open_for_reading,
        progress: Callable[[int], None] = lambda _: None,
        **options: list[str],
    ) -> FolderScan:
        """Scan the folder; without a clock of its own no file counts as just changed."""
        named = {key.replace("_", "-"): value for key, value in options.items()}
        source = DataSource("0" * 32, "tree", "files", str(self.path), named)
        before = (previous, self.pool) if previous is not None else None
        workload = FilesWorkload(clock, open_file)
        return workload.scan(source, self.pool, before, check_content=check, progress=progress)

    def restore(self, root: Entry, *items: str) -> tuple[Path, RestoreReport]:
        """Restore into a new directory beside the folder."""
        self._restores += 1
        target = self.base / f"restored-{self._restores}"
        return target, restore_tree(root, self.pool, target, items=items)
