"""A real cluster that is protected in a vault in memory, by the verbs as the command line calls them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from perdure.model.points import RecoveryPoint
from perdure.model.positions import Position
from perdure.model.targets import AtPosition, Latest, Target
from perdure.protection.home import Home
from perdure.protection.image_verbs import SyncResult, express_full, protect, synchronize
from perdure.protection.points import timeline_of
from perdure.protection.protected import Protected
from perdure.protection.recovery import RecoveryReport, recover
from perdure.protection.watch import watch
from perdure.protection.watch_events import WatchEvent
from perdure.testing.memory_vault import MemoryVault
from perdure.testing.postgres_server import PostgresServer
from perdure.workloads.postgresql.lsn import parse_lsn


@contextmanager
def watching(p: Protected, express_full_every_s: float = 3600) -> Iterator[list[WatchEvent]]:
    """Watch a source meanwhile; what was told about it."""
    events: list[WatchEvent] = []
    stop = threading.Event()
    arguments = {"ship_every_ms": 20, "express_full_every_s": express_full_every_s}
    with ThreadPoolExecutor(1) as beside:
        watched = beside.submit(watch, [p], stop=stop, on_event=events.append, **arguments)
        try:
            yield events
        finally:
            stop.set()
        watched.result()


class ProtectedCluster:
    """A running server with a home and a vault.

    Args:
        server: The server.
        root: A directory that the server's user may reach.
    """

    def __init__(self, server: PostgresServer, root: Path) -> None:
        self.server = server
        self.root = root
        self.home = Home(root / "home")
        self.vault = MemoryVault()
        self.protected: Protected
        self.targets = 0
        self._recovered: list[PostgresServer] = []

    def __enter__(self) -> ProtectedCluster:
        return self

    def __exit__(self, *exc: object) -> None:
        for server in self._recovered:
            server.kill()

    @property
    def location(self) -> str:
        return f"//postgres@127.0.0.1:{self.server.port}/postgres"

    def protect(self, options: Mapping[str, Sequence[str]] | None = None, location: str | None = None) -> RecoveryPoint:
        """Make the first replica."""
        self.protected, point = protect(self.home, self.vault, "postgresql", location or self.location, options=options)
        return point

    def sync(self) -> SyncResult:
        return synchronize(self.protected)

    def full(self) -> RecoveryPoint:
        return express_full(self.protected)

    def gaps(self) -> int:
        """Breaks in the timeline."""
        return len(timeline_of(self.vault, self.protected.source.id).gaps())

    def lsn(self) -> int:
        """Where the server's log ends now."""
        return parse_lsn(self.server.execute("SELECT pg_current_wal_insert_lsn()")[0][0])

    def at(self, lsn: int, generation: int = 1) -> AtPosition:
        return AtPosition(Position(generation, lsn))

    def recover(self, to: Target | None = None, verify: str = "thorough") -> tuple[Path, RecoveryReport]:
        """Recover to a new directory."""
        self.targets += 1
        target = self.root / f"recovered-{self.targets}"
        report = recover(self.protected, to=to or Latest(), target=target, verify=verify)  # type: ignore[arg-type]
        return target, report

    def start(self, directory: Path) -> PostgresServer:
        """Start a server on a recovered directory and wait until it is on its own."""
        server = PostgresServer(self.server.major, directory)
        self._recovered.append(server)
        server.start()
        server.wait_until_primary()
        return server

    def rows_at(self, query: str, to: Target | None = None, verify: str = "none") -> list[tuple[Any, ...]]:
        """Recover, start, ask, stop."""
        directory, report = self.recover(to, verify)
        server = self.start(directory)
        try:
            return server.execute(query)
        except psycopg.Error as error:
            raise AssertionError(f"{report}\n{server.log.read_text(errors='replace')}") from error
        finally:
            server.stop()
