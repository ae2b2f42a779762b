"""A process that starts perdure commands quickly, to be killed: ``python -m perdure.testing.nursery``.

It has imported everything once and forks a child for each command, so that a test can kill hundreds of real
processes in minutes. The child is what ``perdure ARGUMENTS`` would be, with its output in a file of its own.
The nursery itself opens no database and no pool.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perdure.cli import app

__all__ = ["Nursery", "main"]

_WARM = (
    *(
        f"perdure.cli.commands.{verb}"
        for verb in ("check", "copy", "express_full", "gc", "protect", "prune", "recover", "sync", "watch")
    ),
    "perdure.protection.image_verbs",
    "perdure.protection.recovery",
    "perdure.protection.watch",
    "perdure.repository.copying",
    "perdure.repository.pool",
    "perdure.workloads.sqlite",
)
"""What the commands import when they run; imported beforehand, so that a child starts at once."""


class Nursery:
    """Starts such a process; use it as a context manager.

    Args:
        environment: Environment variables of the commands, over those of this process.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "perdure.testing.nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.communicate()

    def start(self, output: Path, *arguments: object) -> int:
        """Start ``perdure ARGUMENTS`` with its output appended to a file; returns its process id."""
        return int(self._ask({"start": [str(one) for one in arguments], "output": str(output)}))

    def kill(self, pid: int) -> bool:
        """End a child as a power cut would end it; false if it had ended by itself before."""
        return bool(self._ask({"kill": pid}))

    def wait(self, pid: int) -> int:
        """Wait for a child; returns its exit status."""
        return int(self._ask({"wait": pid}))

    def _ask(self, question: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


def main() -> None:
    """Serve until standard input ends."""
    for module in _WARM:
        importlib.import_module(module)
    for line in sys.stdin:
        question = json.loads(line)
        if "start" in question:
            answer = _forked(question["start"], question["output"])
        elif "kill" in question:
            pid = question["kill"]
            os.kill(pid, signal.SIGKILL)
            answer = int(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL)
        else:
            answer = os.waitstatus_to_exitcode(os.waitpid(question["wait"], 0)[1])
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


def _forked(arguments: list[str], output: str) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(file, 1)
        os.dup2(file, 2)
        # The nursery's buffered output must not be written twice.
        sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        status = app.run(arguments)
        sys.stdout.flush()
    finally:
        os._exit(status)


if __name__ == "__main__":
    main()
