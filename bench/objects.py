"""First copies into a pool on an object store, against what obstore alone uploads of the same number of bytes."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from tools import Perdure, run
from workspace import Workspace, generate

from perdure.testing.object_servers import SeaweedFS

OBJECTS = "first copy to an object store"
UPLOAD = Path(__file__).with_name("upload.py")


def first_copy_to_objects(space: Workspace) -> None:
    """``perdure protect`` of a GiB that half compresses, into SeaweedFS on loopback, and as many bytes by obstore."""
    space.results.begin(OBJECTS)
    source = space.fresh("objects-source") / "app.db"
    generate("database", source, space.bytes(1))
    for round_ in range(1, space.rounds + 1):
        work = space.fresh("objects")
        with SeaweedFS(work / "server") as server:
            server.make_bucket("bench")
            server.make_bucket("alone")
            os.environ.update(server.environment)
            perdure = Perdure(work, "objects", pool=server.url("bench", "pool"))
            before = perdure.stored()
            cost = perdure.run("protect", f"sqlite:{source}", "--pool", perdure.pool, "--as", "app")
            stored = perdure.stored() - before
            space.results.add(OBJECTS, "perdure", round_, cost, stored=stored)
            command: list[str | Path] = [sys.executable, UPLOAD, server.endpoint, "alone", str(stored)]
            space.results.add(OBJECTS, "obstore", round_, run(work, command, {}), stored=stored)
        shutil.rmtree(work)
    shutil.rmtree(source.parent)
