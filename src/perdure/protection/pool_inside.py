"""A storage pool that lies in the folder it protects would be copied into itself, and double with every point."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from perdure.model.errors import Refused
from perdure.workloads.files.patterns import Patterns

__all__ = ["refuse_pool_inside"]


def refuse_pool_inside(folder: Path, pool: Path, exclude: Sequence[str] = ()) -> None:
    """Refuse to protect a folder that holds the pool, unless an exclude pattern leaves the pool out.

    Raises:
        Refused: The pool would be copied into itself (``pool-inside-source``).
    """
    folder, pool = folder.expanduser().resolve(), pool.resolve()
    if folder != pool and folder not in pool.parents:
        return
    below = pool.relative_to(folder)
    patterns = Patterns(exclude)
    for part in (below, *below.parents):
        if part != Path() and patterns.excludes(os.fsencode(part), directory=True):
            return
    hint = "choose a pool outside of it with --pool"
    raise Refused(
        f"the folder {folder} holds the storage pool {pool}, which would be copied into itself again and again; "
        "nothing was changed",
        code="pool-inside-source",
        hint=hint if folder == pool else f"{hint}, or leave it out with --exclude '/{below}/'",
    )
