"""Where a benchmark runs, how large it is, and the data that its cases share."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from results import Results

GIB = 1 << 30
DATASET = Path(__file__).with_name("dataset.py")


@dataclass(frozen=True)
class Workspace:
    """Everything that a case needs to know.

    Args:
        folder: All files are below it.
        scale: Factor on all sizes; 1 is what the targets are for.
        rounds: How often every tool takes its turn.
        results: Where runs are noted.
    """

    folder: Path
    scale: float
    rounds: int
    results: Results

    @property
    def data(self) -> Path:
        """The data set: ``app.db``, ``noise`` and ``files``."""
        return self.folder / "data"

    def bytes(self, gib: float) -> int:
        """A size in GiB at this scale, in bytes."""
        return int(gib * GIB * self.scale)

    def make_data(self) -> None:
        """Make the data set if it is not there: 2.2 GiB of database, 1 GiB of noise, 1 GiB of ordinary files."""
        if self.data.exists():
            return
        making = self.folder / "data.making"
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir()
        generate("database", making / "app.db", self.bytes(2.2))
        generate("noise", making / "noise", self.bytes(1))
        generate("files", making / "files", self.bytes(1))
        making.rename(self.data)

    def fresh(self, name: str) -> Path:
        """An empty folder for one case."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    def copy_of_database(self, folder: Path, name: str) -> Path:
        """A database of its own for a case, with the contents of the data set's."""
        target = folder / name
        shutil.copyfile(self.data / "app.db", target)
        return target


def generate(what: str, path: Path, size: int) -> None:
    """Make data in a process of its own."""
    print(f"  making {what}: {size >> 20} MiB", flush=True)
    subprocess.run([sys.executable, DATASET, what, path, str(size)], check=True)
