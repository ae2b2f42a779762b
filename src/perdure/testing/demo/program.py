"""perdure as its users have it: a program, started with arguments, that answers in JSON."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from perdure.testing.demo.failing import DemoFailed

__all__ = ["Answer", "Program", "new_program"]

_LONGEST_REASON = 500


def new_program(folder: Path) -> Program:
    """Perdure with a home and a passphrase in a folder; they are made if they are not there yet."""
    passphrase = folder / "passphrase"
    if not passphrase.exists():
        passphrase.touch(mode=0o600)
        passphrase.write_text(secrets.token_urlsafe(24) + "\n")
    return Program(folder / "home", passphrase, folder / "perdure.stderr")


@dataclass(frozen=True, slots=True)
class Answer:
    """What one command said.

    Args:
        document: Its last JSON document.
        seconds: The whole command, from start to exit.
    """

    document: dict[str, Any]
    seconds: float


@dataclass(frozen=True, slots=True)
class Program:
    """How to start perdure.

    Args:
        home: ``PERDURE_HOME``.
        passphrase_file: The pool's passphrase.
        errors: File that collects what the commands say on standard error.
        through: A program that starts the commands, with its arguments, such as one that measures them.
    """

    home: Path
    passphrase_file: Path
    errors: Path
    through: tuple[str, ...] = ()

    def command(self, *arguments: str | Path) -> list[str]:
        """The command line of one command."""
        return [*self.through, sys.executable, "-m", "perdure", *map(str, arguments), "--json"]

    def environment(self) -> dict[str, str]:
        """The environment of every command."""
        return {**os.environ, "PERDURE_HOME": str(self.home), "PERDURE_PASSPHRASE_FILE": str(self.passphrase_file)}

    def run(self, *arguments: str | Path) -> Answer:
        """Run a command to its end.

        Raises:
            DemoFailed: It did not exit with status 0.
        """
        begun = monotonic()
        with self.errors.open("ab") as errors:
            ended = subprocess.run(
                self.command(*arguments),
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                check=False,
            )
        seconds = monotonic() - begun
        lines = ended.stdout.decode().splitlines()
        if ended.returncode != 0:
            command = " ".join(map(str, arguments))
            raise DemoFailed(f"'perdure {command}' ended with status {ended.returncode}: {self._reason(lines)}")
        return Answer(json.loads(lines[-1]) if lines else {}, seconds)

    def _reason(self, lines: list[str]) -> str:
        """What a failed command said, without the hundreds of lines that SQLite can find wrong with a file."""
        if not lines:
            return f"it said nothing; see {self.errors}"
        said: str = json.loads(lines[-1]).get("error", {}).get("message", lines[-1])
        return said if len(said) <= _LONGEST_REASON else f"{said[:_LONGEST_REASON]} …"
