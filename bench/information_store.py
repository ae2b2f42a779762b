"""The simulated information store: row operations that its clients complete a second, on one core.

``python bench/information_store.py [--page-size 32768] [--seconds 8]``. A row operation is a row inserted, replaced or
deleted with its index entries and long values, logged, committed, and written to the file by lazy flushes on the way.
Rates are per second that the core was busy.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from time import process_time

from perdure.testing.information_store.layout import StorePlan
from perdure.testing.information_store.store import InformationStore, StoreOptions

_FILL = 8 << 20
_SLICE = 100
_CLIENTS = 4
"""So many commit at the same time, and share a write of the log."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page-size", type=int, action="append")
    parser.add_argument("--seconds", type=float, default=8.0)
    arguments = parser.parse_args()
    for page_size in arguments.page_size or (4096, 32768):
        folder = Path(tempfile.mkdtemp(prefix="information-store-"))
        try:
            measure(folder, page_size, arguments.seconds)
        finally:
            shutil.rmtree(folder)


def measure(folder: Path, page_size: int, seconds: float) -> None:
    store = InformationStore(
        folder, StorePlan(page_size=page_size, seed=1), options=StoreOptions(commit_group=_CLIENTS)
    )
    hosted = store.add_database("Mailbox-01", mailboxes=12, size=_FILL)
    engine = hosted.engine
    assert engine is not None
    begun = process_time()
    before, logged = hosted.operations, engine.stream.written_bytes
    transactions = 0
    while process_time() - begun < seconds:
        hosted.work(_SLICE)
        transactions += _SLICE
    busy = process_time() - begun
    rows = hosted.operations - before
    megabytes = (engine.stream.written_bytes - logged) / 1e6
    print(
        f"{page_size // 1024:2} KiB pages: {rows / busy:7,.0f} row operations/s of a core, "
        f"{transactions / busy:,.0f} transactions/s, {megabytes / busy:.1f} MB/s of log"
    )
    store.stop()


if __name__ == "__main__":
    main()
