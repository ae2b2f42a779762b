"""A store as a process: ``python -m perdure.testing.information_store FOLDER``."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from pathlib import Path

from perdure.snapshots.writer import FREEZE_LIMIT_S, SOCKET_NAME, DatabaseState
from perdure.snapshots.writer_server import serve_writer
from perdure.testing.information_store.backup_writer import BackupWriter
from perdure.testing.information_store.disk import Disk
from perdure.testing.information_store.hosted import HostedDatabase
from perdure.testing.information_store.layout import LogLayout, StorePlan, read_plan
from perdure.testing.information_store.store import InformationStore, StoreOptions

_MEBIBYTE = 1 << 20
_SLICE_S = 0.05


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="information_store", description=__doc__)
    parser.add_argument("folder", type=Path, help="the store's folder; it is made if it holds no store")
    parser.add_argument(
        "--databases", default="Mailbox-01", metavar="NAME,…", help="names of the databases of a new store"
    )
    parser.add_argument("--mailboxes", type=int, default=8, metavar="N", help="mailboxes of every new database")
    parser.add_argument("--size", type=int, default=0, metavar="MIB", help="size to which every new database is filled")
    parser.add_argument("--page-size", type=int, default=32768, choices=(4096, 8192, 16384, 32768))
    parser.add_argument(
        "--rate", type=float, default=20.0, metavar="N", help="transactions a second and database; 0: none"
    )
    parser.add_argument("--layout", type=LogLayout, default=LogLayout.APART, choices=list(LogLayout))
    parser.add_argument("--circular", action="store_true", help="circular logging, in a new store")
    parser.add_argument("--checkpoint-depth", type=int, default=20, metavar="N", help="in log generations")
    parser.add_argument(
        "--log-resilience", type=int, default=1, metavar="N", help="newest generations that may be lost"
    )
    parser.add_argument("--freeze-limit", type=float, default=FREEZE_LIMIT_S, metavar="S")
    parser.add_argument(
        "--sync", action="store_true", help="really sync what is written: slow, and needless for kill -9"
    )
    parser.add_argument("--seed", type=int, default=0)
    return parser


def main() -> int:
    """Serve a store until SIGTERM or SIGINT, and shut it down in order then."""
    arguments = _arguments().parse_args()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    store = _store(arguments)
    writer = BackupWriter(store, freeze_limit_s=arguments.freeze_limit)
    with serve_writer(writer, arguments.folder / SOCKET_NAME):
        sys.stdout.write("serving\n")
        sys.stdout.flush()
        workers = [
            threading.Thread(target=_work, args=(hosted, arguments.rate, stop), name=hosted.name)
            for hosted in store.databases.values()
        ]
        for worker in workers:
            worker.start()
        stop.wait()
        for worker in workers:
            worker.join()
    store.stop()
    return 0


def _store(arguments: argparse.Namespace) -> InformationStore:
    options = StoreOptions(arguments.checkpoint_depth, arguments.log_resilience)
    disk = Disk(really_syncs=arguments.sync)
    if read_plan(arguments.folder) is not None:
        return InformationStore.open(arguments.folder, disk=disk, options=options)
    plan = StorePlan(
        page_size=arguments.page_size,
        circular=arguments.circular,
        layout=arguments.layout,
        seed=arguments.seed,
    )
    store = InformationStore(arguments.folder, plan, disk, options=options)
    for name in arguments.databases.split(","):
        store.add_database(name, mailboxes=arguments.mailboxes, size=arguments.size * _MEBIBYTE)
    return store


def _work(hosted: HostedDatabase, rate: float, stop: threading.Event) -> None:
    """Let a database's clients work at a rate; what a pause has held up is not made up for."""
    if not rate:
        return
    due = time.monotonic()
    while not stop.is_set():
        late = time.monotonic() - due
        if late < 0:
            stop.wait(min(-late, _SLICE_S))
            continue
        due = max(due, time.monotonic() - 1) + 1 / rate
        while hosted.state is DatabaseState.MOUNTED and not hosted.step():
            pass


if __name__ == "__main__":
    sys.exit(main())
