"""ESE files: pages verified from memory, logs read, verified and parsed, and replayed, each on one core.

Rates are bytes for every second that a core was busy.

``python bench/ese.py`` measures these alone, at a sixteenth of the size, and writes nothing.
"""

from __future__ import annotations

import os
import struct
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
from results import Results
from tools import Cost
from workspace import Workspace

from perdure.ese.checksums import PageState, verify_pages
from perdure.ese.logs.files import read_logs
from perdure.ese.repair import sealed_page
from perdure.ese.replay.copying import new_file
from perdure.ese.replay.plans import plan_replay
from perdure.ese.replay.redo import Redo
from perdure.ese.replay.replaying import DEFAULT_MEMORY
from perdure.ese.replay.stops import END_OF_LOGS
from perdure.testing.ese_logs import EXAMPLE_BEGINNING, LogMaker, example_times, node_record, stream_signature
from perdure.testing.information_store.layout import LogLayout, StorePlan
from perdure.testing.information_store.store import InformationStore

PAGES = "ESE pages of {} KiB from memory"
LOGS = "ESE logs"
REPLAY = "ESE replay"
PAGE_SIZES = (4, 8, 16, 32)
FASTEST = 32
SEALED = 64
LOG_SEGMENTS = 256


def ese_files(space: Workspace) -> None:
    """Verify pages of every size, and read logs whose records have 250 bytes on average, as in a real one."""
    for kib in PAGE_SIZES:
        case = PAGES.format(kib)
        space.results.begin(case)
        pages, numbers = _pages(kib << 10, space.bytes(0.5))
        _measure(space, case, pages.nbytes, "verify_pages", partial(_verify, pages, numbers))
    space.results.begin(LOGS)
    logs = _logs(space.fresh("ese-logs"), max(2, space.bytes(0.125) >> 20))
    size = sum(path.stat().st_size for path in logs)
    _measure(space, LOGS, size, "read_logs", partial(_read, logs))

    space.results.begin(REPLAY)
    made = _mailbox_logs(space.fresh("ese-replay"), max(4, space.bytes(0.03) >> 20))
    size = sum(path.stat().st_size for path in made)
    _measure(space, REPLAY, size, "replay", partial(_replay, made, space.fresh("ese-replayed") / "built.edb"))


def _measure(space: Workspace, case: str, size: int, what: str, work: Callable[[], None]) -> None:
    for round_ in range(1, space.rounds + 1):
        begun, begun_cpu = perf_counter(), process_time()
        work()
        cost = Cost(what, perf_counter() - begun, process_time() - begun_cpu, 0, {})
        space.results.add(case, "perdure", round_, cost, bytes=size, per_second=size / max(cost.cpu, 1e-9))


def _pages(size: int, total: int) -> tuple[np.ndarray, np.ndarray]:
    """Sound pages of random content: a few, over and over."""
    random = np.random.default_rng(1)
    sealed = []
    for number in range(SEALED):
        page = random.integers(0, 256, size, dtype=np.uint8)
        page[36:40] = np.frombuffer((0x2000).to_bytes(4, "little"), np.uint8)
        sealed.append(sealed_page(page.tobytes(), number))
    times = max(1, total // (size * SEALED))
    pages = np.tile(np.frombuffer(b"".join(sealed), np.uint8).reshape(SEALED, size), (times, 1))
    return pages, np.tile(np.arange(SEALED, dtype=np.uint32), times)


def _verify(pages: np.ndarray, numbers: np.ndarray) -> None:
    if (verify_pages(pages, numbers) != PageState.SOUND_ECC).any():
        raise RuntimeError("a sound page was called damaged")


def _logs(folder: Path, count: int) -> list[Path]:
    maker = LogMaker(stream_signature(1, EXAMPLE_BEGINNING), sectors=LOG_SEGMENTS)
    random = np.random.default_rng(2)
    paths = []
    for generation in range(1, count + 1):
        records: list[bytes] = []
        left = (LOG_SEGMENTS - 6) * 4000
        while left > 0:
            data = random.bytes(int(random.integers(40, 1330)))
            insert = node_record(29, 1, int(random.integers(1, 1 << 20)), struct.pack("<HHH", 0, 0, len(data)) + data)
            transaction = [struct.pack("<BHBI", 8, 1, 0x10, 1), insert, struct.pack("<BHBI", 9, 1, 0, 2)]
            records += transaction
            left -= sum(map(len, transaction)) + 2
        path = folder / f"E00{generation:08X}.log"
        path.write_bytes(maker.log(records, generation, example_times(1)[0]))
        paths.append(path)
    return paths


def _read(paths: list[Path]) -> None:
    for log in read_logs(paths):
        if log.findings or not log.records:
            raise RuntimeError(f"{log.file}: {log.findings}")


def _mailbox_logs(folder: Path, count: int) -> list[Path]:
    """The logs of a simulated mailbox database from its creation on."""
    plan = StorePlan(page_size=32768, layout=LogLayout.APART, seed=5)
    store = InformationStore(folder / "store", plan)
    hosted = store.add_database("Mailbox-01", mailboxes=5)
    while hosted.engine is None or hosted.engine.stream.generation < count:
        store.work(200)
    hosted.engine.make_durable()
    store.crash()
    return sorted(hosted.log_folder.glob("*.log"))


def _replay(logs: list[Path], output: Path) -> None:
    """Redo and undo into a new file, without the verification that follows."""
    output.unlink(missing_ok=True)
    descriptor = new_file(output)
    redo = Redo(plan_replay(logs, None, END_OF_LOGS), descriptor, output.name, name="", memory=DEFAULT_MEMORY)
    redo.run(lambda _done, _total: None)
    redo.undo()
    redo.interpreter.target.cache.write()
    os.close(descriptor)


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="perdure-bench-") as name:
        folder = Path(name)
        results = Results(folder / "results.jsonl")
        ese_files(Workspace(folder, 1 / 16, 5, results))
        for case in dict.fromkeys(run.case for run in results.runs):
            rates = [run.figures["per_second"] / 1e6 for run in results.of(case, "perdure")]
            print(f"{case}: {min(rates):,.0f} to {max(rates):,.0f} MB/s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
