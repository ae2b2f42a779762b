"""An application that writes to SQLite on command: ``python -m perdure.testing.sqlite_writer DATABASE``.

It uses the standard library's ``sqlite3``, whatever version that is, like the applications that perdure protects.
Each line on
standard input is a JSON list of SQL statements, run one by one outside any transaction but their own; each answer on
standard output is a JSON object with ``rows`` of the last statement, or ``error``.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["SqliteWriter", "main"]


class SqliteWriter:
    """Drives such a process; use it as a context manager.

    Args:
        database: Path of the database, created if it is missing.
        pragmas: Run first, for example ``page_size=8192``.
    """

    def __init__(self, database: Path, *pragmas: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "perdure.testing.sqlite_writer", str(database)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for pragma in pragmas:
            self.run(f"PRAGMA {pragma}")

    def __enter__(self) -> SqliteWriter:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def run(self, *statements: str) -> list[list[Any]]:
        """Run statements and wait for them; returns the last one's rows.

        Raises:
            sqlite3.OperationalError: One failed.
        """
        self.begin(*statements)
        return self.finish()

    def begin(self, *statements: str) -> None:
        """Send statements without waiting."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(statements) + "\n")
        self._process.stdin.flush()

    def finish(self) -> list[list[Any]]:
        """Wait for what :meth:`begin` sent."""
        assert self._process.stdout is not None
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise sqlite3.OperationalError(answer["error"])
        rows: list[list[Any]] = answer["rows"]
        return rows

    def close(self) -> None:
        """Close the connection in an orderly way and end the process."""
        if self._process.poll() is None:
            self._process.communicate()

    def kill(self) -> None:
        """End it as a crash would."""
        self._process.kill()
        self._process.communicate()


def main() -> None:
    """Serve until standard input ends."""
    connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=10)
    for line in sys.stdin:
        rows: list[Any] = []
        try:
            for statement in json.loads(line):
                rows = connection.execute(statement).fetchall()
            answer: dict[str, Any] = {"rows": rows}
        except sqlite3.Error as error:
            answer = {"error": str(error)}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    connection.close()


if __name__ == "__main__":
    main()
