"""The installed program as a stranger runs it: every command a process of its own, every answer looked at."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any
from unittest import mock

from perdure.cli.app import run

__all__ = [
    "CommandLine",
    "Refusal",
    "WithinProcess",
    "fingerprint",
    "query",
    "unprivileged",
    "wait_until_said",
    "write",
]

# Programs of their own: perdure's SQLite and an application's are never in one process.
_WRITER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
for statement in sys.argv[2:]:
    connection.execute(statement)
"""
_READER = """
import json, sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
print(json.dumps([connection.execute("PRAGMA integrity_check").fetchall(), connection.execute(sys.argv[2]).fetchall()]))
"""

_NOBODY = 65534


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a command said no.

    Args:
        code: The stable error code.
        message: What happened, to what, and what it means.
        hint: What to do.
    """

    code: str
    message: str
    hint: str


@dataclass(slots=True)
class CommandLine:
    """Runs ``perdure`` with a home and a passphrase of its own.

    Args:
        home: ``PERDURE_HOME``.
        passphrase: ``PERDURE_PASSPHRASE_FILE``; ``None`` for none.
        prefix: Words before the program, to run it as another user.
        variables: More of the environment.
    """

    home: Path
    passphrase: Path | None
    prefix: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        """The environment that every command runs in."""
        known = {key: value for key, value in os.environ.items() if not key.startswith("PERDURE_")}
        known |= {"PERDURE_HOME": str(self.home), "PYTHONDONTWRITEBYTECODE": "1", **self.variables}
        return known if self.passphrase is None else {**known, "PERDURE_PASSPHRASE_FILE": str(self.passphrase)}

    def command(self, *arguments: object) -> list[str]:
        """The words that run ``perdure ARGUMENTS``."""
        return [*self.prefix, sys.executable, "-m", "perdure", *map(str, arguments)]

    def run(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run one command to its end, without a terminal."""
        command = self.command(*arguments)
        return subprocess.run(
            command, env=self.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )

    def document(self, *arguments: object, status: int = 0) -> Any:
        """Run with ``--json``; the one document that it printed, once the exit status is the expected one."""
        result = self.run(*arguments, "--json")
        if result.returncode != status:
            said = f"{result.stdout}{result.stderr}"
            raise AssertionError(f"perdure {arguments} ended with {result.returncode}, not {status}: {said}")
        return json.loads(result.stdout)

    def refusal(self, *arguments: object, status: int) -> Refusal:
        """Run with ``--json`` a command that must fail, and give back its error."""
        return Refusal(**self.document(*arguments, status=status)["error"])


class WithinProcess(CommandLine):
    """Runs ``perdure`` in this process, for tests of many commands: most of a short command is starting Python.

    Commands of another user, and those that have to find a passphrase by themselves, are processes all the same.
    """

    def run(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        if self.prefix or self.passphrase is None:
            return super().run(*arguments)
        words = [str(argument) for argument in arguments]
        with (
            mock.patch.dict(os.environ, self.environment(), clear=True),
            Path(os.devnull).open() as nothing,
            mock.patch.object(sys, "stdin", nothing),
            redirect_stdout(StringIO()) as said,
            redirect_stderr(StringIO()) as remarked,
        ):
            status = run(words)
        return subprocess.CompletedProcess(words, status, said.getvalue(), remarked.getvalue())


def wait_until_said(events: Path, text: str, *, more_than: int = 0) -> None:
    """Wait until a running command has written a text to its output file more than so many times.

    How long that takes is not judged; the limit only ends a wait that would never end.
    """
    deadline = time.monotonic() + 90
    while (said := events.read_text()).count(text) <= more_than:
        if time.monotonic() > deadline:
            raise AssertionError(f"perdure never said {text!r}: {said}")
        time.sleep(0.02)


def write(database: Path, *statements: str) -> None:
    """Let another process execute statements, each a transaction of its own."""
    subprocess.run([sys.executable, "-c", _WRITER, str(database), *statements], check=True)


def query(database: Path, statement: str) -> list[list[Any]]:
    """Rows of a database that passes SQLite's integrity check."""
    command = [sys.executable, "-c", _READER, str(database), statement]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    integrity, rows = json.loads(result.stdout)
    if integrity != [["ok"]]:
        raise AssertionError(f"{database} does not pass the integrity check: {integrity}")
    return list(rows)


def fingerprint(*paths: Path) -> str:
    """Names, modes and bytes of everything at and below some paths, as one hash; what is missing counts as such."""
    found = hashlib.sha256()
    for path in paths:
        for each in [path, *sorted(path.rglob("*"))]:
            found.update(f"{each}\0".encode("utf-8", "surrogateescape"))
            if each.is_symlink():
                found.update(os.fsencode(each.readlink()))
            elif each.is_file():
                found.update(f"{each.stat().st_mode:o}\0".encode() + hashlib.sha256(each.read_bytes()).digest())
    return found.hexdigest()


def unprivileged() -> tuple[str, ...] | None:
    """Words that run a command as somebody whom file modes bind; ``None`` if there is no way to do that here."""
    if os.geteuid() != 0:
        return ()
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return None
    prefix = (setpriv, f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups")
    works = subprocess.run([*prefix, sys.executable, "-c", "import perdure"], capture_output=True, check=False)
    return prefix if works.returncode == 0 else None
