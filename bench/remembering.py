"""Peak memory of the verbs, on 4 GiB and on 8 GiB."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from application import Application
from tools import MEASURE, Cost, Perdure
from workspace import Workspace, generate

from perdure.testing.demo.program import Program
from perdure.testing.demo.watching import Watch

MEMORY = "memory on {} GiB"
SIZES = (4, 8)


def peak_memory(space: Workspace) -> None:
    """Every verb that reads or writes data, on one database and on one folder of each size."""
    for gib in SIZES:
        case = MEMORY.format(gib)
        space.results.begin(case)
        _database_verbs(space, case, gib)
        _folder_verbs(space, case, gib)


def _database_verbs(space: Workspace, case: str, gib: int) -> None:
    work = space.fresh("memory")
    database = work / "app.db"
    generate("database", database, space.bytes(gib))
    perdure = Perdure(work, "sqlite")

    def verb(name: str, *arguments: str | Path) -> None:
        space.results.add(case, f"{name} sqlite:", 1, perdure.run(name, *arguments))

    with Application(database) as application:
        application.change(0, 0.0)
        verb("protect", f"sqlite:{database}", "--pool", perdure.pool, "--as", "app")
        application.change(1)
        verb("sync", "app")
        application.change(2)
        verb("express-full", "app")
        application.change(3)
        application.checkpoint()
        cost = perdure.run("express-full", "app")
        space.results.add(case, "express-full (compare) sqlite:", 1, cost)
        verb("check", "app")
        _watch(space, case, perdure, application)
        application.change(5)
        perdure.run("sync", "app")
        verb("points", "app")
        verb("status")
    verb("recover", "app", "--to", "latest", "--target", work / "recovered.db")
    (work / "recovered.db").unlink()
    verb("browse", "app")
    verb("verify", perdure.pool, "--data")
    shutil.rmtree(work)


def _watch(space: Workspace, case: str, perdure: Perdure, application: Application) -> None:
    report = perdure.folder / "watch-cost.json"
    through = (sys.executable, str(MEASURE), str(report))
    program = Program(perdure.home, perdure.passphrase_file, perdure.folder / "stderr", through)
    with Watch(program, "app", "--express-full-every", "5s") as watch:
        watch.wait_for("express full", 300.0)
        seen = len(watch.events)
        application.change(4)
        watch.wait_for("express full", 300.0, after=seen)
        watch.stop()
    cost = Cost.of_report(report, "perdure watch app --express-full-every 5s")
    space.results.add(case, "watch sqlite:", 1, cost)


def _folder_verbs(space: Workspace, case: str, gib: int) -> None:
    work = space.fresh("memory")
    data = work / "data"
    data.mkdir()
    generate("files", data / "files", space.bytes(min(1.0, gib / 4)))
    generate("noise", data / "noise", space.bytes(gib - min(1.0, gib / 4)))
    perdure = Perdure(work, "files")

    def verb(name: str, *arguments: str | Path) -> None:
        space.results.add(case, f"{name} files:", 1, perdure.run(name, *arguments))

    verb("protect", f"files:{data}", "--pool", perdure.pool, "--as", "data")
    verb("sync", "data")
    verb("check", "data")
    verb("browse", "data")
    verb("recover", "data", "--to", "latest", "--target", work / "recovered")
    shutil.rmtree(work / "recovered")
    verb("verify", perdure.pool, "--data")
    shutil.rmtree(work)
