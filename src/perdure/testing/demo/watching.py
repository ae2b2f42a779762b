"""``perdure watch`` in the background, and what it says while it runs."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from types import TracebackType
from typing import Any

from perdure.testing.demo.failing import DemoFailed
from perdure.testing.demo.program import Program

__all__ = ["Watch"]


class Watch:
    """A running ``perdure watch NAME --json``; collects its events, one JSON document on every line.

    Args:
        program: How to start perdure.
        arguments: What to watch, and how.
    """

    def __init__(self, program: Program, *arguments: str) -> None:
        self.events: list[dict[str, Any]] = []
        self._program = program
        self._changed = threading.Condition()
        self._ended = False
        with program.errors.open("ab") as errors:
            self._process = subprocess.Popen(
                program.command("watch", *arguments),
                env=program.environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._reader.join()

    def wait_for(self, kind: str, seconds: float, *, after: int = 0) -> dict[str, Any]:
        """The first event of a kind, from number ``after`` on; waits for it.

        Raises:
            DemoFailed: It did not come in time, or watch ended.
        """

        def found() -> dict[str, Any] | None:
            return next((event for event in self.events[after:] if event["kind"] == kind), None)

        with self._changed:
            self._changed.wait_for(lambda: found() is not None or self._ended, seconds)
            event = found()
        if event is None:
            raise DemoFailed(f"'perdure watch' did not report {kind!r} within {seconds:.0f} s{self._last_words()}")
        return event

    def must_be_running(self) -> None:
        """Check that watch has not ended by itself.

        Raises:
            DemoFailed: It has.
        """
        if self._process.poll() is not None:
            raise DemoFailed(
                f"'perdure watch' ended by itself with status {self._process.returncode}{self._last_words()}"
            )

    def stop(self, seconds: float = 60.0) -> None:
        """Ask it to stop (SIGTERM), as a service manager does.

        Raises:
            DemoFailed: It did not end with status 0 in time.
        """
        self.must_be_running()
        self._process.send_signal(signal.SIGTERM)
        try:
            status = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise DemoFailed(f"'perdure watch' did not stop within {seconds:.0f} s of SIGTERM") from None
        self._reader.join()
        if status != 0:
            raise DemoFailed(f"'perdure watch' ended with status {status} after SIGTERM{self._last_words()}")

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            event = json.loads(line)
            with self._changed:
                self.events.append(event)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _last_words(self) -> str:
        return f"; its last event: {json.dumps(self.events[-1])}" if self.events else f"; see {self._program.errors}"
