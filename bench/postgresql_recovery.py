"""PostgreSQL recoveries: onto a damaged directory against to a new one, and a replay against its estimate.

``python bench/postgresql_recovery.py [SCALE]`` measures these alone, at an eighth of the size unless told otherwise,
and writes nothing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from results import Results
from tools import Perdure
from workspace import Workspace

from perdure.testing.postgres_server import PostgresServer

NEW = "PostgreSQL: recovery of the newest point to a new directory"
ONTO = "PostgreSQL: recovery onto that directory with 1 % of its pages damaged"
REPLAY = "PostgreSQL: replay of log after an image, as estimated"
PAGE = 8192
_PER_SCALE = 15 << 20
"""Bytes of a pgbench database for each of its units of scale."""


@dataclass(frozen=True)
class Scene:
    """A server with a pgbench database, and perdure that protects it."""

    server: PostgresServer
    perdure: Perdure
    work: Path

    def load(self, transactions: int) -> None:
        """Run pgbench transactions."""
        self.server.program("pgbench", "-n", "-c", "4", "-j", "2", "-t", str(transactions), *_address(self.server))


def postgresql_recovery(space: Workspace) -> None:
    """A database of 4 GiB: recover it, damage a hundredth of it, recover it again; and judge replays beforehand."""
    with _scene(space) as scene:
        _delta(space, scene)
        _estimate(space, scene)
    shutil.rmtree(space.folder / "postgresql-recovery")


@contextmanager
def _scene(space: Workspace) -> Iterator[Scene]:
    work = space.fresh("postgresql-recovery")
    work.chmod(0o755)
    room = work / "server"
    room.mkdir()
    if os.geteuid() == 0:
        os.chown(room, 65534, 65534)
    with PostgresServer(18, room / "data").initialize(max_wal_size="4GB", shared_buffers="512MB") as server:
        server.start()
        units = max(1, space.bytes(4) // _PER_SCALE)
        server.program("pgbench", "-i", "-q", "-s", str(units), *_address(server))
        perdure = Perdure(work, "postgresql")
        location = f"postgresql://postgres@127.0.0.1:{server.port}/postgres"
        perdure.run("protect", location, "--pool", perdure.pool, "--as", "main")
        yield Scene(server, perdure, room)


def _address(server: PostgresServer) -> list[str]:
    return ["-h", "127.0.0.1", "-p", str(server.port), "-U", "postgres", "postgres"]


def _delta(space: Workspace, scene: Scene) -> None:
    space.results.begin(NEW)
    space.results.begin(ONTO)
    random = np.random.default_rng(5)
    for round_ in range(1, space.rounds + 1):
        target = scene.work / "recovered"
        words = ("recover", "main", "--to", "latest", "--target", target)
        cost = scene.perdure.run(*words)
        space.results.add(NEW, "perdure", round_, cost, bytes=cost.answer["bytes"])
        damaged = _damage(target, random)
        cost = scene.perdure.run(*words, "--delta")
        written = int(cost.answer["notes"][0].split()[0].replace(",", ""))
        space.results.add(ONTO, "perdure", round_, cost, damaged=damaged, written=written)
        shutil.rmtree(target)


def _damage(directory: Path, random: np.random.Generator) -> int:
    """Spoil a hundredth of the pages of all tables; returns the bytes."""
    spoilt = 0
    for path in (directory / "base").rglob("*"):
        pages = path.stat().st_size // PAGE if path.is_file() else 0
        with path.open("r+b") if pages else tempfile.TemporaryFile() as file:
            for page in random.choice(pages, pages // 100, replace=False).tolist() if pages else ():
                file.seek(page * PAGE + 64)
                file.write(random.bytes(64))
                spoilt += PAGE
    return spoilt


def _estimate(space: Workspace, scene: Scene) -> None:
    """A drill measures one replay; the next ones, of more log, are estimated by it and then measured."""
    space.results.begin(REPLAY)
    scene.load(5000)
    scene.perdure.run("sync", "main")
    scene.perdure.run("drill", "main", "--scratch", scene.work)
    for round_ in range(1, space.rounds + 1):
        scene.load(5000 * (1 + round_))
        scene.perdure.run("sync", "main")
        estimated = scene.perdure.run("points", "main").answer["points"][-1]["replay_seconds"]
        cost = scene.perdure.run("drill", "main", "--scratch", scene.work)
        (replay,) = [step for step in cost.answer["steps"] if step["name"] == "replay"]
        figures = {"estimated_ms": estimated * 1000, "replay_ms": replay["seconds"] * 1000, "log": replay["bytes"]}
        space.results.add(REPLAY, "perdure", round_, cost, **figures)


def main() -> None:
    scale = float(sys.argv[1]) if len(sys.argv) > 1 else 0.125
    with tempfile.TemporaryDirectory(prefix="bench-postgresql-", dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        began = time.monotonic()
        postgresql_recovery(Workspace(Path(folder), scale, 2, Results(Path(folder) / "runs.jsonl")))
        print(f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(str(error))
