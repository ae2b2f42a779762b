"""An application that has the benchmark's database open: ``python application.py DATABASE``.

Reads one JSON command from every line of standard input and answers with one line. It uses the standard
library's ``sqlite3``, like the applications that perdure protects.
"""

from __future__ import annotations

import hashlib
import json
import random
import sqlite3
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from dataset import PAGE, row_body


class Application:
    """A handle on such a process.

    Args:
        database: What it has open.
    """

    def __init__(self, database: Path) -> None:
        self.database = database
        command = [sys.executable, str(Path(__file__)), str(database)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Application:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def change(self, seed: int, share: float = 0.01) -> int:
        """Rewrite a share of all rows, picked at random, in one transaction; returns the bytes of their pages."""
        return int(self._ask("change", seed, share))

    def checkpoint(self) -> None:
        """Copy the WAL into the database file, and begin it anew with a small commit."""
        self._ask("checkpoint")

    def _ask(self, *words: object) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the application that has {self.database} open has ended")
        return json.loads(answer)


def digest(database: Path) -> str:
    """A hash of all rows, computed in a process of its own."""
    command = [sys.executable, str(Path(__file__)), "--digest", str(database)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _open(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=60)
    connection.execute("PRAGMA synchronous = NORMAL")
    # An application that leaves checkpoints to whoever protects it, as Litestream's users do too.
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    return connection


def _change(connection: sqlite3.Connection, seed: int, share: float) -> int:
    ((rows,),) = connection.execute("SELECT max(id) FROM rows")
    picked = sorted(random.Random(seed).sample(range(1, rows + 1), max(1, int(rows * share))))
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(
        "UPDATE rows SET body = ? WHERE id = ?", ((row_body((seed << 32) + 2 * key), key) for key in picked)
    )
    connection.execute("COMMIT")
    return len(picked) * PAGE


def _checkpoint(connection: sqlite3.Connection) -> int:
    ((busy, _, _),) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.execute("UPDATE rows SET body = body WHERE id = 1")
    return int(busy)


def _digest(path: str) -> str:
    hashed = hashlib.blake2b(digest_size=16)
    for key, content in sqlite3.connect(path).execute("SELECT id, body FROM rows ORDER BY id"):
        hashed.update(b"%d " % key)
        hashed.update(content)
    return hashed.hexdigest()


def _serve(path: str) -> None:
    connection = _open(path)
    for line in sys.stdin:
        word, *rest = json.loads(line)
        print(_change(connection, *rest) if word == "change" else _checkpoint(connection), flush=True)
    connection.close()


if __name__ == "__main__":
    if sys.argv[1] == "--digest":
        print(_digest(sys.argv[2]))
    else:
        _serve(sys.argv[1])
