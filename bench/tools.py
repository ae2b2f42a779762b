"""perdure and its peers, each started as its users start it, and what every run cost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MEASURE = Path(__file__).with_name("measure.py")
PASSPHRASE = "a passphrase for the benchmark"


@dataclass(frozen=True)
class Cost:
    """What one command cost, and what it said: seconds by the clock, CPU seconds, peak memory in bytes."""

    command: str
    seconds: float
    cpu: float
    memory: int
    answer: dict[str, Any]

    @classmethod
    def of_report(cls, report: Path, command: str, answer: dict[str, Any] | None = None) -> Cost:
        """What ``measure.py`` wrote."""
        cost = json.loads(report.read_text())
        return cls(command, cost["seconds"], cost["cpu"], cost["memory"], answer or {})


def run(work: Path, command: list[str | Path], environment: dict[str, str], *, answer: bool = False) -> Cost:
    """Run a command to its end, with everything written before on disk, so that nobody pays for others.

    Raises:
        RuntimeError: It failed.
    """
    os.sync()
    report = work / "cost.json"
    ended = subprocess.run(
        [sys.executable, MEASURE, report, *command],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    words = " ".join(map(str, command))
    if ended.returncode != 0:
        raise RuntimeError(f"{words}: status {ended.returncode}\n{ended.stdout[-2000:]}{ended.stderr[-2000:]}")
    return Cost.of_report(report, words, json.loads(ended.stdout.splitlines()[-1]) if answer else None)


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


class Perdure:
    """perdure with a pool and a home of its own."""

    name = "perdure"

    def __init__(self, work: Path, label: str, pool: str | None = None) -> None:
        self._work = work
        self.folder = work / f"perdure-{label}"
        self.pool: str | Path = pool or self.folder / "pool"
        self.home = self.folder / "home"
        self.folder.mkdir()
        self.passphrase_file = self.folder / "passphrase"
        self.passphrase_file.touch(mode=0o600)
        self.passphrase_file.write_text(PASSPHRASE + "\n")
        self.run("pool", "create", self.pool)

    def run(self, *arguments: str | Path) -> Cost:
        environment = {"PERDURE_HOME": str(self.home), "PERDURE_PASSPHRASE_FILE": str(self.passphrase_file)}
        return run(self._work, [sys.executable, "-m", "perdure", *arguments, "--json"], environment, answer=True)

    def size(self) -> int:
        return size_of(Path(self.pool))

    def stored(self) -> int:
        """Bytes of the pool's objects, wherever they lie."""
        return int(self.run("pool", "info", self.pool).answer["pool"]["bytes"])


class Restic:
    """Debian's restic: AES-256-CTR with Poly1305, zstd at its default (``auto``)."""

    name = "restic"

    def __init__(self, work: Path, label: str) -> None:
        self._work = work
        self.folder = work / f"restic-{label}"
        self.repository = self.folder / "repository"
        self.folder.mkdir()
        self._run("init")

    def _run(self, *arguments: str | Path) -> Cost:
        cache = self.folder / "cache"
        command = ["restic", "--quiet", "--repo", self.repository, "--cache-dir", cache, *arguments]
        return run(self._work, command, {"RESTIC_PASSWORD": PASSPHRASE})

    def backup(self, path: Path) -> Cost:
        return self._run("backup", path)

    def restore(self, target: Path) -> Cost:
        return self._run("restore", "latest", "--target", target)

    def size(self) -> int:
        return size_of(self.repository)


class Borg:
    """Debian's borg: repokey-blake2, zstd at a level."""

    def __init__(self, work: Path, label: str, level: int) -> None:
        self._work, self._level, self._archives = work, level, 0
        self.name = f"borg zstd,{level}"
        self.folder = work / f"borg{level}-{label}"
        self.repository = self.folder / "repository"
        self.folder.mkdir()
        self._run("init", "--encryption", "repokey-blake2", self.repository)

    def _run(self, *arguments: str | Path) -> Cost:
        environment = {"BORG_PASSPHRASE": PASSPHRASE, "BORG_BASE_DIR": str(self.folder)}
        return run(self._work, ["borg", *arguments], environment)

    def backup(self, path: Path) -> Cost:
        self._archives += 1
        place = f"{self.repository}::{self._archives}"
        return self._run("create", "--compression", f"zstd,{self._level}", place, path)

    def size(self) -> int:
        return size_of(self.repository)


Peer = Restic | Borg


def peers(work: Path, label: str) -> list[Peer]:
    """All peers with empty repositories."""
    return [Restic(work, label), Borg(work, label, 1), Borg(work, label, 3)]


def version(*command: str) -> str:
    """What a program says about its version."""
    if shutil.which(command[0]) is None:
        return "not installed"
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")[0].strip()
