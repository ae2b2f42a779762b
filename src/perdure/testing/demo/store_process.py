"""The simulated information store as a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from perdure.testing.demo.failing import DemoFailed

__all__ = ["StoreProcess"]


@dataclass(frozen=True, slots=True)
class StoreProcess:
    """A running store; use it as a context manager, it does not outlive the block.

    Args:
        folder: Its files.
        output: What it says.
        process: The process.
    """

    folder: Path
    output: Path
    process: subprocess.Popen[str]

    @classmethod
    def start(cls, folder: Path, size: int, rate: float, seed: int, output: Path) -> StoreProcess:
        """Make a store with one database of so many bytes, and wait until its clients are at work.

        Raises:
            DemoFailed: It ended instead.
        """
        command = [sys.executable, "-m", "perdure.testing.information_store", str(folder)]
        options = ["--size", str(size >> 20), "--rate", f"{rate:g}", "--seed", str(seed), "--mailboxes", "12"]
        with output.open("ab") as errors:
            process = subprocess.Popen(
                [*command, *options],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        assert process.stdout is not None
        if process.stdout.readline().strip() != "serving":
            raise DemoFailed(f"the information store ended with status {process.wait()}; see {output}")
        return cls(folder, output, process)

    @property
    def journal(self) -> Path:
        """Where the store notes every commit."""
        (journal,) = self.folder.rglob("*.journal")
        return journal

    def __enter__(self) -> StoreProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def must_be_running(self) -> None:
        """Check that it has not ended by itself.

        Raises:
            DemoFailed: It has.
        """
        if self.process.poll() is not None:
            raise DemoFailed(f"the information store ended by itself with status {self.process.returncode}")

    def kill(self) -> None:
        """End it as a power cut would."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
