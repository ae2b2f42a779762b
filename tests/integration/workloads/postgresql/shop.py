"""A small shop in a real cluster with a real pool on disk, for everything that is done with its recovery points."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from perdure.model.positions import Position
from perdure.model.targets import AtPosition, Latest, Target
from perdure.protection.home import Home
from perdure.protection.image_verbs import protect, synchronize
from perdure.protection.protected import Protected
from perdure.protection.recovery import RecoveryReport, recover
from perdure.repository.key_changes import PoolKeys
from perdure.repository.keys import KeyFile, Passphrase
from perdure.repository.opening import create_pool
from perdure.repository.pool import Pool
from perdure.storage.local import LocalStorage
from perdure.testing.postgres_server import PostgresServer, free_port, owner
from perdure.testing.server_python import server_python

TABLES = """
CREATE TABLE customer (id int PRIMARY KEY, name text NOT NULL);
CREATE TABLE orders (id serial PRIMARY KEY, customer int REFERENCES customer, amount int, note text);
CREATE INDEX orders_by_amount ON orders (amount);
CREATE SCHEMA audit;
CREATE TABLE audit."odd.Name" (id int);
INSERT INTO customer SELECT g, 'customer ' || g FROM generate_series(1, 100) g;
INSERT INTO orders (customer, amount, note) SELECT 1 + g % 100, g, repeat('n', 400) FROM generate_series(1, 20000) g;
"""


class Shop:
    """A protected cluster: 20,000 orders in the image; 500 more up to ``middle``, another 500 up to the end.

    Args:
        server: Runs, with the tables in its database ``shop``.
        room: A directory that the server's user may reach.
    """

    def __init__(self, server: PostgresServer, room: Path) -> None:
        self.server, self.room = server, room
        self.home = Home(room / "home")
        storage = LocalStorage(room / "pool", create=True)
        self.pool: Pool = create_pool(storage, b"a shop", self.home.cache_dir("pool"))[0]
        # A key file opens a pool at once; the work that a passphrase takes would be done for every file of the log.
        key = KeyFile.random()
        PoolKeys.open(storage, Passphrase(b"a shop"), bytes.fromhex(self.pool.id)).add_key_file(key)
        self.key = room / "key"
        self.key.write_text(f"{key.text()}\n", encoding="ascii")
        self.key.chmod(0o600)
        location = f"//postgres@127.0.0.1:{server.port}/postgres"
        self.protected: Protected = protect(self.home, self.pool, "postgresql", location, name="main")[0]
        self.home.remember_pool(self.pool.id, storage.url)
        self.middle = self._orders(500)
        self.end = self._orders(500)
        self._targets = 0

    def _orders(self, count: int) -> Position:
        # Much log, so that it takes several files.
        with self.server.connect(f"{self.server.conninfo} dbname=shop") as connection:
            connection.execute(
                f"CREATE TABLE bulk AS SELECT g, repeat('b', 1000) FROM generate_series(1, {count * 40}) g"
            )
            connection.execute("DROP TABLE bulk")
            connection.execute(
                f"INSERT INTO orders (customer, amount) SELECT 1 + g % 100, g FROM generate_series(1, {count}) g"
            )
        last = synchronize(self.protected).last
        assert last is not None
        return last

    def scratch(self) -> Path:
        """Where scratch copies go: the server's user can get there."""
        place = self.room / "scratch"
        place.mkdir(exist_ok=True)
        return place

    def target(self) -> Path:
        """A new place to recover to."""
        self._targets += 1
        return self.room / f"recovered-{self._targets}"

    def recover(
        self, to: Target | None = None, target: Path | None = None, **options: str
    ) -> tuple[Path, RecoveryReport]:
        """Recover, with options named as in Python."""
        named = {key.replace("_", "-"): value for key, value in options.items()}
        target = target or self.target()
        return target, recover(self.protected, to=to or Latest(), target=target, options=named)

    def at(self, position: Position) -> AtPosition:
        return AtPosition(position)

    # --- fetching --------------------------------------------------------------------------------

    def fetch_words(self, pool: Path | None = None) -> list[str]:
        """``perdure wal-fetch`` as the server's user runs it, up to the names of the files."""
        found = server_python()
        assert found is not None, "the server's user cannot run perdure here"
        where = ["--pool", str(pool or self.room / "pool"), "--passphrase-file", str(self.key)]
        variables = [f"{name}={value}" for name, value in found[1].items()]
        return ["env", *variables, found[0], "-P", "-m", "perdure", "wal-fetch", *where, "main"]

    def fetch(self, *arguments: str, pool: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run it."""
        command = [*self.fetch_words(pool), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", **owner())

    def fetch_command(self, pool: Path | None = None) -> str:
        return shlex.join(self.fetch_words(pool))

    def give_pool_to_server(self) -> None:
        """What root has written is readable for the server's user."""
        if os.geteuid() == 0:
            for path in (self.key, *(self.room / "pool").rglob("*"), self.room / "pool"):
                os.chown(path, owner()["user"], owner()["group"])

    @contextmanager
    def started(self, directory: Path) -> Iterator[PostgresServer]:
        """A server on a recovered directory; afterwards the directory is removed."""
        with PostgresServer(self.server.major, directory, free_port()) as server:
            yield server.start()
        shutil.rmtree(directory)


def count(server: PostgresServer) -> int:
    """How many orders there are."""
    with server.connect(f"{server.conninfo} dbname=shop") as connection:
        return int(connection.execute("SELECT count(*) FROM orders").fetchall()[0][0])
