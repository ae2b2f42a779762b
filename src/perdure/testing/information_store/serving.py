"""A store or an availability group at work: its clients, its writers, and the orders of an administrator."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from perdure.snapshots.writer import SOCKET_NAME, DatabaseState, StoreWriter
from perdure.snapshots.writer_server import serve_writer
from perdure.testing.information_store import administration
from perdure.testing.information_store.availability import AvailabilityGroup
from perdure.testing.information_store.backup_writer import BackupWriter
from perdure.testing.information_store.hosted import HostedDatabase
from perdure.testing.information_store.node_writer import NodeWriter
from perdure.testing.information_store.store import InformationStore

__all__ = ["ORDERS", "Serving"]

_SLICE_S = 0.05

ORDERS = {
    "dismount": 1,
    "mount": 1,
    "add": 1,
    "repair": 1,
    "reset": 1,
    "move": 3,
    "circular": 1,
    "rate": 1,
    "switch": 2,
    "failover": 2,
    "reseed": 2,
}
"""Orders of an administrator, with the number of their arguments."""


class Serving:
    """Runs a store, or all nodes of a group, until it is told to stop.

    Args:
        world: What to run.
        rate: Transactions a second and database.
        mailboxes: Of a database that is added.
        freeze_limit_s: Seconds after which writers thaw by themselves.
    """

    def __init__(
        self, world: InformationStore | AvailabilityGroup, *, rate: float, mailboxes: int, freeze_limit_s: float
    ) -> None:
        self._world, self._rate, self._mailboxes = world, rate, mailboxes
        self._limit = freeze_limit_s
        self._stop = threading.Event()
        self._locks: dict[str, threading.RLock] = {}
        self._threads: list[threading.Thread] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Serve while the context is open; end in order then."""
        with ExitStack() as stack:
            for folder, writer in self._writers():
                stack.enter_context(serve_writer(writer, folder / SOCKET_NAME))
            for name in self._names():
                self._start_worker(name)
            if isinstance(self._world, AvailabilityGroup):
                self._start(self._ship, "shipping")
            yield
            self._stop.set()
            for thread in self._threads:
                thread.join()
        self._world.stop()

    def obey(self, line: str) -> str:
        """Carry out one order of an administrator, and say how that went."""
        words = line.split()
        if not words or words[0] not in ORDERS or len(words) - 1 != ORDERS[words[0]]:
            return f"refused: {line!r} is no order; there are: {', '.join(ORDERS)}"
        try:
            with ExitStack() as stack:
                for lock in list(self._locks.values()):
                    stack.enter_context(lock)
                self._carry_out(words[0], words[1:])
        except Exception as error:  # noqa: BLE001 - whatever went wrong is the answer
            return f"failed: {error}"
        return "done"

    def _carry_out(self, order: str, words: Sequence[str]) -> None:
        name = words[0]
        match order:
            case "rate":
                self._rate = float(name)
            case "circular":
                administration.switch_circular_logging(self._only_store(), circular=name == "on")
            case "add":
                self._store_of_new().add_database(name, mailboxes=self._mailboxes)
                self._start_worker(name)
            case "switch":
                self._group().switch(name, words[1])
            case "failover":
                self._group().fail_over(name, words[1])
            case "reseed":
                self._group().reseed(name, words[1])
            case "move":
                administration.move(self._store_of(name), name, file=words[1], log_folder=words[2])
            case _:
                orders: dict[str, Callable[[InformationStore, str], object]] = {
                    "dismount": InformationStore.dismount,
                    "mount": InformationStore.mount,
                    "repair": administration.repair,
                    "reset": administration.reset_log_stream,
                }
                orders[order](self._store_of(name), name)

    def _writers(self) -> list[tuple[Path, StoreWriter]]:
        world = self._world
        if isinstance(world, InformationStore):
            return [(world.folder, BackupWriter(world, freeze_limit_s=self._limit))]
        return [
            (node.folder, NodeWriter(world, node.name, freeze_limit_s=self._limit)) for node in world.nodes.values()
        ]

    def _names(self) -> list[str]:
        world = self._world
        stores = [world] if isinstance(world, InformationStore) else [node.store for node in world.nodes.values()]
        return [name for store in stores for name in store.databases]

    def _group(self) -> AvailabilityGroup:
        assert isinstance(self._world, AvailabilityGroup), "this is no availability group"
        return self._world

    def _only_store(self) -> InformationStore:
        assert isinstance(self._world, InformationStore), "this is an availability group"
        return self._world

    def _store_of(self, name: str) -> InformationStore:
        world = self._world
        return world if isinstance(world, InformationStore) else world.active(name).store

    def _store_of_new(self) -> InformationStore:
        world = self._world
        return world if isinstance(world, InformationStore) else next(iter(world.nodes.values())).store

    def _hosted(self, name: str) -> HostedDatabase:
        return self._store_of(name).databases[name]

    def _start_worker(self, name: str) -> None:
        self._locks[name] = threading.RLock()
        self._start(lambda: self._work(name), name)

    def _start(self, target: Callable[[], None], name: str) -> None:
        thread = threading.Thread(target=target, name=name)
        self._threads.append(thread)
        thread.start()

    def _work(self, name: str) -> None:
        """Let a database's clients work at a rate; what a pause has held up is not made up for."""
        due = time.monotonic()
        while not self._stop.is_set():
            late = time.monotonic() - due
            if late < 0 or not self._rate:
                self._stop.wait(min(-late, _SLICE_S) if late < 0 else _SLICE_S)
                continue
            due = max(due, time.monotonic() - 1) + 1 / self._rate
            with self._locks[name]:
                hosted = self._hosted(name)
                while hosted.state is DatabaseState.MOUNTED and not hosted.step():
                    pass

    def _ship(self) -> None:
        while not self._stop.wait(_SLICE_S):
            self._group().ship()
