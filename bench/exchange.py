"""Exchange stores: an express full of a large one by the log's map, and a backlog of log shipped to a local pool.

``python bench/exchange.py [SCALE]`` measures these alone, at a sixteenth of the size unless told, and writes nothing.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import zstandard
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from exchange_backlog import GrowingStream
from results import Results
from tools import Cost, Perdure, run
from workspace import Workspace

from perdure.ese.checksums import block_checksums
from perdure.ese.logs.files import examine_logs
from perdure.snapshots.writer import SOCKET_NAME, DatabaseState
from perdure.snapshots.writer_server import serve_writer
from perdure.testing.small_store import SmallStore

MAPPED = "Exchange: express full of 1 % changed pages, by the log's map"
BACKLOG = "Exchange: backlog of log, whole command"
CEILINGS = "Exchange: what a backlog costs at least, each alone on one core"
PAGE = 32 << 10
LOG_PAGES, RECORD = 1400, 600
"""Pages that a log changes, and bytes of a change."""

_BATCH = 1024
_LOGS = 64
_COUNTED = Path(__file__).with_name("counted_reads.py")


def exchange(space: Workspace) -> None:
    """Protect a store of 4 GiB and change 1 % of its pages; ship a backlog of a thousand logs."""
    _mapped(space)
    _backlog(space)


def _mapped(space: Workspace) -> None:
    space.results.begin(MAPPED)
    random = np.random.default_rng(3)
    work = space.fresh("exchange")
    store = SmallStore(work / "store", pages=64, page_size=PAGE, sectors=256)
    _grow(store, space.bytes(4) // PAGE)
    # At rest a first replica needs no copy beside the database.
    store.dismount()
    perdure = Perdure(work, "exchange")
    perdure.run("protect", f"exchange:{store.folder}", "--pool", perdure.pool, "--as", "mail")
    store.state = DatabaseState.MOUNTED
    store.write_header()
    with serve_writer(store, store.folder / SOCKET_NAME):
        for round_ in range(1, space.rounds + 1):
            pages = random.choice(store.pages, store.pages // 100, replace=False) + 1
            for some in np.array_split(pages, max(1, len(pages) // LOG_PAGES)):
                store.change(some.tolist(), RECORD)
                store.roll()
            # One page stays in memory, so that the image needs the log of all the others.
            store.flush(pages[1:].tolist())
            perdure.run("sync", "mail")
            cost, read = _counted(work, perdure, "express-full", "mail")
            point = cost.answer["point"]
            if "compared" in point["cause"]:
                raise RuntimeError(f"the changed pages should have been known: {point['cause']}")
            size = store.database.stat().st_size
            figures = {
                "changed": len(pages) * PAGE,
                "stored": point["stored"],
                "captured": point["changed"],
                "read": read,
                "bytes": size,
            }
            space.results.add(MAPPED, "perdure", round_, cost, **figures)
    shutil.rmtree(work)


def _counted(work: Path, perdure: Perdure, *arguments: str) -> tuple[Cost, int]:
    """Run a command and count what it reads."""
    report = work / "read"
    environment = {"PERDURE_HOME": str(perdure.home), "PERDURE_PASSPHRASE_FILE": str(perdure.passphrase_file)}
    cost = run(work, [sys.executable, _COUNTED, report, *arguments, "--json"], environment, answer=True)
    return cost, int(report.read_text())


def _backlog(space: Workspace) -> None:
    space.results.begin(BACKLOG)
    space.results.begin(CEILINGS)
    work = space.fresh("exchange")
    stream = GrowingStream(work / "store")
    perdure = Perdure(work, "backlog")
    perdure.run("protect", f"exchange:{stream.folder}", "--pool", perdure.pool, "--as", "mail")
    count = max(_LOGS, int(1000 * space.scale))
    for round_ in range(1, space.rounds + 1):
        stream.grow(count)
        cost = perdure.run("sync", "mail")
        shipped = int(cost.answer["bytes"])
        if shipped < count << 20:
            raise RuntimeError(f"{count} logs should have been shipped: {cost.answer}")
        space.results.add(BACKLOG, "perdure", round_, cost, bytes=shipped, per_second=shipped / cost.seconds)
        for name, measured, figures in _ceilings(work, sorted(stream.logs.glob("E00????????.log"))[-_LOGS:]):
            space.results.add(CEILINGS, name, round_, measured, **figures)
    shutil.rmtree(work)


def _ceilings(work: Path, paths: list[Path]) -> Iterator[tuple[str, Cost, dict[str, float]]]:
    """What the parts of the work take for some logs, one after the other."""
    logs = [path.read_bytes() for path in paths]
    named = list(zip(paths, logs, strict=True))
    compressor, cipher = zstandard.ZstdCompressor(level=2), AESGCM(bytes(32))
    packed = [compressor.compress(log) for log in logs]
    size = sum(map(len, logs))

    def verify() -> None:
        for start in range(0, len(named), 32):
            examine_logs(named[start : start + 32])

    def write() -> None:
        folder = work / "written"
        folder.mkdir()
        descriptors = [os.open(folder / f"{number}", os.O_WRONLY | os.O_CREAT) for number in range(len(packed))]
        for descriptor, content in zip(descriptors, packed, strict=True):
            os.write(descriptor, content)
        with ThreadPoolExecutor(8) as several:
            list(several.map(os.fsync, descriptors))
        for descriptor in descriptors:
            os.close(descriptor)
        shutil.rmtree(folder)

    yield _timed("read, from memory", lambda: [path.read_bytes() for path in paths], size)
    yield _timed("check segments, find records", verify, size)
    yield _timed("zstd (level 2)", lambda: [compressor.compress(log) for log in logs], size)
    yield _timed("BLAKE3", lambda: [blake3(log).digest() for log in logs], size)
    yield _timed("AES-256-GCM of what is left", lambda: [cipher.encrypt(bytes(12), one, b"") for one in packed], size)
    yield _timed("write and fsync what is left, 8 at once", write, size)


def _timed(name: str, work: Callable[[], object], size: int) -> tuple[str, Cost, dict[str, float]]:
    began, before = time.perf_counter(), time.process_time()
    work()
    seconds, cpu = time.perf_counter() - began, time.process_time() - before
    return (
        name,
        Cost(name, seconds, cpu, 0, {}),
        {"per_second": size / seconds, "per_cpu_second": size / max(cpu, 1e-6)},
    )


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
    scale = float(sys.argv[1]) if len(sys.argv) > 1 else 1 / 16
    with tempfile.TemporaryDirectory(prefix="perdure-bench-") as name:
        folder = Path(name)
        results = Results(folder / "results.jsonl")
        exchange(Workspace(folder, scale, 2, results))
        for run_ in results.of(MAPPED, "perdure"):
            figures, size = run_.figures, run_.figures["bytes"]
            shares = {name: figures[name] / size for name in ("changed", "read", "captured", "stored")}
            shown = ", ".join(f"{name} {share:.2%}" for name, share in shares.items())
            print(f"{MAPPED} ({size / 2**30:.2f} GiB): {shown}; {run_.seconds:.1f} s")
        for run_ in results.of(BACKLOG, "perdure"):
            print(
                f"{BACKLOG}: {run_.figures['per_second'] / 1e6:,.0f} MB/s, {run_.seconds:.1f} s, "
                f"{run_.cpu:.1f} CPU s, {run_.memory >> 20} MiB"
            )
        for tool in results.tools(CEILINGS):
            best = max(results.of(CEILINGS, tool), key=lambda one: one.figures["per_second"])
            by_cpu = max(one.figures["per_cpu_second"] for one in results.of(CEILINGS, tool))
            print(f"  {tool}: {best.figures['per_second'] / 1e6:,.0f} MB/s, {by_cpu / 1e6:,.0f} MB a CPU second")
    return 0


if __name__ == "__main__":
    sys.exit(main())
