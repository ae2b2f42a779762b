"""A live SQLite mail store under several writer processes, with a ledger of its own to check recoveries against.

Mailboxes, folders with counters, messages with bodies from 1 KiB to 1 MiB (small ones far more often, two
thirds text-like, one third incompressible); deliveries, flags, moves and deletions. Every transaction counts
the single row of ``clock`` up, so the number in a recovered copy names the commit that it shows, and the
:class:`~perdure.testing.mailstore_ledger.Ledger` knows what it must hold, row for row::

    fill(database, ledger_folder, size=300 << 20)
    writers = [start_writer(database, ledger_folder, f"writer-{i}", seed=i, rate=25) for i in range(4)]
    …
    for writer in writers: stop_writer(writer)
    ledger = Ledger.load(ledger_folder)
    assert ledger.compare(recovered, clock_of(recovered)) == []

The writers use the standard library's ``sqlite3`` and are processes of their own: two SQLite libraries in one
process would drop each other's locks on the database.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import apsw

from perdure.testing.mailstore_content import BodyKind, draw_size
from perdure.testing.mailstore_ledger import Bounds, Commit, Ledger, LedgerBroken, LedgerWriter
from perdure.testing.mailstore_operations import SCHEMA, AddFolder, AddMailbox, Deliver, Operation
from perdure.testing.mailstore_writer import transact

__all__ = [
    "Bounds",
    "Commit",
    "Ledger",
    "LedgerBroken",
    "clock_of",
    "fill",
    "make_mistake",
    "start_writer",
    "stop_writer",
]

MAILBOXES = 12
FOLDERS = ("Inbox", "Archive", "Sent", "Trash")
_BATCH = 8 << 20
"""Bytes of bodies in one transaction of the filler."""


def fill(
    database: Path,
    ledger: Path,
    *,
    size: int,
    seed: int = 0,
    page_size: int = 4096,
    progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Make a mail store of at least ``size`` bytes in WAL mode, recorded in the ledger as writer ``fill``.

    Args:
        database: Must not exist.
        ledger: Folder for the ledger files.
        size: Bytes of message bodies; the file is a little larger.
        seed: Decides the contents.
        page_size: SQLite page size.
        progress: Called with the number of bytes added since the last call.
    """
    if database.exists():
        raise FileExistsError(database)
    source = random.Random(seed)  # noqa: S311 (content, not a secret)
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute(f"PRAGMA page_size = {page_size:d}")
    # Nobody else has it open and nothing is lost if this is cut short, so the first contents need no journal.
    connection.execute("PRAGMA journal_mode = MEMORY")
    connection.execute("PRAGMA synchronous = OFF")
    connection.executescript(SCHEMA)
    with LedgerWriter(ledger, "fill") as book:
        transact(connection, book, lambda: _furnish(connection))
        done, next_id = 0, 1
        while done < size:
            batch = _drawn(source, next_id, min(_BATCH, size - done))
            transact(connection, book, lambda: [_inserted(connection, *item) for item in batch])  # noqa: B023
            added = sum(len(content) for _, content in batch)
            done, next_id = done + added, next_id + len(batch)
            progress(added)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()


def _furnish(connection: sqlite3.Connection) -> list[Operation]:
    operations: list[Operation] = [AddMailbox(key, f"person{key}@example.com") for key in range(1, MAILBOXES + 1)]
    places = [(mailbox, name) for mailbox in range(1, MAILBOXES + 1) for name in FOLDERS]
    operations += [AddFolder(key, mailbox, name) for key, (mailbox, name) in enumerate(places, 1)]
    for operation in operations:
        operation.execute(connection)
    return operations


def _drawn(source: random.Random, next_id: int, size: int) -> list[tuple[Deliver, bytes]]:
    """Messages with ``size`` bytes of bodies or a little more."""
    batch: list[tuple[Deliver, bytes]] = []
    drawn = 0
    while drawn < size:
        kind = source.choice((BodyKind.TEXT, BodyKind.TEXT, BodyKind.NOISE))
        folder, received = source.randint(1, MAILBOXES * len(FOLDERS)), source.getrandbits(60)
        key = next_id + len(batch)
        batch.append(
            Deliver.make(
                key, folder=folder, received=received, kind=kind, seed=source.getrandbits(48), size=draw_size(source)
            )
        )
        drawn += len(batch[-1][1])
    return batch


def _inserted(connection: sqlite3.Connection, operation: Deliver, content: bytes) -> Operation:
    operation.insert(connection, content)
    return operation


def start_writer(
    database: Path,
    ledger: Path,
    name: str,
    *,
    seed: int = 0,
    rate: float = 0.0,
    commits: int = 0,
    small: bool = False,
    mistake: bool = False,
) -> subprocess.Popen[bytes]:
    """Start a writer process; see :mod:`perdure.testing.mailstore_writer` for what the arguments mean."""
    command = [sys.executable, "-m", "perdure.testing.mailstore_writer", str(database), str(ledger), name]
    command += [f"--seed={seed}", f"--rate={rate}", f"--commits={commits}"]
    command += ["--small"] * small + ["--mistake"] * mistake
    return subprocess.Popen(command, stdin=subprocess.DEVNULL)


def make_mistake(database: Path, ledger: Path, name: str = "mistake") -> None:
    """Run the wrong ``DELETE FROM messages`` in a process of its own, and wait for it.

    Raises:
        subprocess.CalledProcessError: It failed.
    """
    with start_writer(database, ledger, name, mistake=True) as process:
        if process.wait():
            raise subprocess.CalledProcessError(process.returncode, process.args)


def stop_writer(process: subprocess.Popen[bytes], *, kill: bool = False, seconds: float = 90.0) -> None:
    """End a writer cleanly, after its transaction; with ``kill`` at once, wherever it is.

    Raises:
        subprocess.CalledProcessError: A writer that was stopped cleanly had failed.
        subprocess.TimeoutExpired: It did not end in ``seconds``.
    """
    if process.poll() is None:
        os.kill(process.pid, signal.SIGKILL if kill else signal.SIGTERM)
    status = process.wait(seconds)
    # A writer that was told to stop before it could listen ends by the signal; nothing was begun.
    if status not in {0, -signal.SIGKILL if kill else -signal.SIGTERM}:
        raise subprocess.CalledProcessError(status, process.args)


def clock_of(database: Path) -> int:
    """The number of the last commit that a copy of the mail store holds.

    Raises:
        apsw.Error: It cannot be read as a mail store.
    """
    alone = "&immutable=1" if not Path(f"{database}-wal").exists() else ""
    address = f"{database.absolute().as_uri()}?mode=ro{alone}"
    connection = apsw.Connection(address, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
    try:
        ((n,),) = connection.execute("SELECT n FROM clock")
    finally:
        connection.close()
    return int(n)
