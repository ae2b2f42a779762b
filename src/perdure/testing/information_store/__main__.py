"""A store as a process: ``python -m perdure.testing.information_store FOLDER``.

It serves the writer protocol on ``perdure-writer.sock`` in the folder, and with ``--copies`` in the folder of every
other node. It prints ``serving`` when it is ready, ends in order on SIGTERM, and may be killed at any moment: the next
start recovers. With ``--control`` it reads orders of an administrator, one a line, and answers each with a line.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path

from perdure.snapshots.writer import FREEZE_LIMIT_S
from perdure.testing.information_store.availability import AvailabilityGroup
from perdure.testing.information_store.disk import Disk
from perdure.testing.information_store.layout import LogLayout, StorePlan, read_plan
from perdure.testing.information_store.serving import ORDERS, Serving
from perdure.testing.information_store.store import InformationStore, StoreOptions

_MEBIBYTE = 1 << 20


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="information_store", description=__doc__)
    add = parser.add_argument
    add("folder", type=Path, help="the store's folder; it is made if it holds no store")
    add("--databases", default="Mailbox-01", metavar="NAME,…", help="names of the databases of a new store")
    add("--mailboxes", type=int, default=8, metavar="N", help="mailboxes of every new database")
    add("--size", type=int, default=0, metavar="MIB", help="size to which every new database is filled")
    add("--page-size", type=int, default=32768, choices=(4096, 8192, 16384, 32768), help="of a new store")
    add("--rate", type=float, default=20.0, metavar="N", help="transactions a second and database; 0 for none")
    add("--layout", type=LogLayout, default=LogLayout.APART, choices=list(LogLayout), help="of a new store's log")
    add("--circular", action="store_true", help="circular logging, in a new store")
    add("--checkpoint-depth", type=int, default=20, metavar="N", help="in log generations")
    add("--log-resilience", type=int, default=1, metavar="N", help="newest generations that may be lost")
    add("--freeze-limit", type=float, default=FREEZE_LIMIT_S, metavar="S", help="seconds until writers thaw")
    add("--node", default="node-1", help="this node's name, with --copies")
    add("--copies", default="", metavar="NODE=FOLDER[:LAG],…", help="other nodes, with the seconds they stay behind")
    add("--sync", action="store_true", help="really sync what is written: slow, and needless for kill -9")
    add("--control", action="store_true", help=f"read orders: {', '.join(ORDERS)}")
    add("--seed", type=int, default=0, help="decides what clients do in a new store")
    return parser


def main() -> int:
    """Serve a store until SIGTERM or SIGINT, and shut it down in order then."""
    arguments = _arguments().parse_args()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    world = _group(arguments) if arguments.copies else _store(arguments)
    serving = Serving(world, rate=arguments.rate, mailboxes=arguments.mailboxes, freeze_limit_s=arguments.freeze_limit)
    with serving.running():
        _say("serving")
        if arguments.control:
            threading.Thread(target=_obey, args=(serving,), daemon=True).start()
        stop.wait()
    return 0


def _obey(serving: Serving) -> None:
    for line in sys.stdin:
        _say(serving.obey(line))


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _options(arguments: argparse.Namespace) -> StoreOptions:
    return StoreOptions(arguments.checkpoint_depth, arguments.log_resilience)


def _plan(arguments: argparse.Namespace) -> StorePlan:
    return StorePlan(
        page_size=arguments.page_size,
        circular=arguments.circular,
        layout=arguments.layout,
        seed=arguments.seed,
    )


def _store(arguments: argparse.Namespace) -> InformationStore:
    disk, options = Disk(really_syncs=arguments.sync), _options(arguments)
    if read_plan(arguments.folder) is not None:
        return InformationStore.open(arguments.folder, disk=disk, options=options)
    store = InformationStore(arguments.folder, _plan(arguments), disk, options=options)
    for name in arguments.databases.split(","):
        store.add_database(name, mailboxes=arguments.mailboxes, size=arguments.size * _MEBIBYTE)
    return store


def _group(arguments: argparse.Namespace) -> AvailabilityGroup:
    """The nodes of a group; the journal lies in the first one's folder."""
    folders, lags = {arguments.node: arguments.folder}, {}
    for copy in arguments.copies.split(","):
        node, _, rest = copy.partition("=")
        folder, _, lag = rest.partition(":")
        folders[node], lags[node] = Path(folder), float(lag or 0)
    journals = arguments.folder / "journal"
    new = read_plan(arguments.folder) is None
    group = AvailabilityGroup(folders, _plan(arguments), journals, options=_options(arguments))
    if not new:
        return group
    for name in arguments.databases.split(","):
        group.add_database(name, arguments.node, mailboxes=arguments.mailboxes, size=arguments.size * _MEBIBYTE)
        for node, lag in lags.items():
            group.add_copy(name, node, lag_s=lag)
    return group


if __name__ == "__main__":
    sys.exit(main())
