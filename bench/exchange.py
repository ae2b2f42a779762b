"""Exchange stores: an express full of a large one by the log's map, and a backlog of log shipped to a local pool.

``python bench/exchange.py`` measures these alone, at a sixteenth of the size, and writes nothing.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from results import Results
from tools import Perdure
from workspace import Workspace

from perdure.ese.checksums import block_checksums
from perdure.snapshots.writer import SOCKET_NAME
from perdure.snapshots.writer_server import serve_writer
from perdure.testing.small_store import SmallStore

MAPPED = "Exchange: express full of 1 % changed pages, by the log's map"
BACKLOG = "Exchange: backlog of log, whole command"
PAGE = 32 << 10
LOG_PAGES, RECORD = 1400, 600
"""Pages that a log changes, and bytes of a change: a log of a mebibyte."""

_BATCH = 1024


def exchange(space: Workspace) -> None:
    """Protect a store of 4 GiB, change 1 % of its pages, ship a backlog of a thousand logs."""
    with _store(space) as (store, perdure):
        perdure.run("protect", f"exchange:{store.folder}", "--pool", perdure.pool, "--as", "mail")
        _mapped(space, store, perdure)
        _backlog(space, store, perdure)
    shutil.rmtree(space.folder / "exchange")


@contextmanager
def _store(space: Workspace) -> Iterator[tuple[SmallStore, Perdure]]:
    work = space.fresh("exchange")
    store = SmallStore(work / "store", pages=64, page_size=PAGE, sectors=256)
    _grow(store, space.bytes(4) // PAGE)
    with serve_writer(store, store.folder / SOCKET_NAME):
        yield store, Perdure(work, "exchange")


def _mapped(space: Workspace, store: SmallStore, perdure: Perdure) -> None:
    space.results.begin(MAPPED)
    random = np.random.default_rng(3)
    for round_ in range(1, space.rounds + 1):
        pages = random.choice(store.pages, store.pages // 100, replace=False) + 1
        for some in np.array_split(pages, max(1, len(pages) // 400)):
            store.change(some.tolist(), RECORD)
            store.roll()
        store.flush()
        perdure.run("sync", "mail")
        cost = perdure.run("express-full", "mail")
        point = cost.answer["point"]
        if "compared" in point["cause"]:
            raise RuntimeError(f"the changed pages should have been known: {point['cause']}")
        size = store.database.stat().st_size
        figures = {"changed": len(pages) * PAGE, "stored": point["stored"], "read": point["read"], "bytes": size}
        space.results.add(MAPPED, "perdure", round_, cost, **figures)


def _backlog(space: Workspace, store: SmallStore, perdure: Perdure) -> None:
    space.results.begin(BACKLOG)
    random = np.random.default_rng(4)
    count = max(16, int(1000 * space.scale))
    for round_ in range(1, space.rounds + 1):
        for _ in range(count):
            store.change((random.integers(0, store.pages, LOG_PAGES) + 1).tolist(), RECORD)
            store.roll()
        cost = perdure.run("sync", "mail")
        shipped = int(cost.answer["bytes"])
        space.results.add(BACKLOG, "perdure", round_, cost, bytes=shipped, per_second=shipped / cost.seconds)
        store.flush()


def _grow(store: SmallStore, pages: int) -> None:
    """Give a store so many pages of random content that nobody has changed."""
    random = np.random.default_rng(5)
    with store.database.open("r+b") as file:
        for first in range(store.pages + 1, pages + 1, _BATCH):
            numbers = np.arange(first, min(first + _BATCH, pages + 1), dtype=np.uint32)
            content = random.integers(0, 256, (len(numbers), PAGE), dtype=np.uint8)
            content[:, :80] = 0
            content[:, 8] = 5
            content[:, 36:40] = np.frombuffer((0x2802).to_bytes(4, "little"), np.uint8)
            content[:, 40:64] = block_checksums(content, numbers)[:, 1:].astype("<u8").view(np.uint8).reshape(-1, 24)
            content[:, :8] = block_checksums(content, numbers)[:, :1].astype("<u8").view(np.uint8).reshape(-1, 8)
            file.seek((first + 1) * PAGE)
            file.write(content.tobytes())
    store.pages = pages


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="perdure-bench-") as name:
        folder = Path(name)
        results = Results(folder / "results.jsonl")
        exchange(Workspace(folder, 1 / 16, 2, results))
        for run in results.of(MAPPED, "perdure"):
            figures, size = run.figures, run.figures["bytes"]
            part = f"{figures['read'] / size:.2%} read, {figures['stored'] / size:.2%} stored"
            print(f"{MAPPED}: {part}, {run.seconds:.1f} s")
        for run in results.of(BACKLOG, "perdure"):
            print(f"{BACKLOG}: {run.figures['per_second'] / 1e6:,.0f} MB/s, {run.seconds:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
