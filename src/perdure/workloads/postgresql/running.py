"""Bringing a recovered directory into service: for good, or on a scratch server that only this process can reach."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import tuple_row

from perdure.model.errors import Partial
from perdure.workloads.postgresql.connecting import Sql
from perdure.workloads.postgresql.programs import Programs, owner_of

__all__ = ["Scratch", "scratch_server", "start_for_good"]

_LOOK_S = 0.05
_STOP_S = 30.0
_LAST_LINES = 3
_STATE = re.compile(r"^Database cluster state:\s*(.*)$", re.MULTILINE)
_IN_PRODUCTION = "in production"

_ON_ITS_OWN = {
    "listen_addresses": "",
    "shared_buffers": "128MB",
    "huge_pages": "off",
    "ssl": "off",
    "logging_collector": "off",
    "log_destination": "stderr",
    "external_pid_file": "",
    "fsync": "off",
    # A subscriber would go on reading its publication, and take away what the original is to get.
    "max_logical_replication_workers": "0",
}
"""Settings under which a scratch server disturbs nobody."""


@dataclass(frozen=True, slots=True)
class Scratch:
    """A scratch server that takes writes.

    Args:
        socket: The directory of its socket, which only this process and the server's user may enter.
        superuser: Its first role.
        seconds: From its start until recovery had ended.
    """

    socket: Path
    superuser: str
    seconds: float

    def connect(self, database: str = "postgres") -> Sql:
        """A connection as the superuser."""
        return psycopg.connect(
            host=str(self.socket), user=self.superuser, dbname=database, autocommit=True, row_factory=tuple_row
        )

    def environment(self) -> dict[str, str]:
        """How PostgreSQL's programs find it."""
        return {"PGHOST": str(self.socket), "PGUSER": self.superuser, "PGPORT": "5432"}


def start_for_good(programs: Programs, directory: Path, timeout_s: float) -> float:
    """Start a server with its own configuration, and wait until recovery has ended.

    Returns:
        Seconds that it took.

    Raises:
        Partial: It does not come up; the directory stays.
    """
    began = time.monotonic()
    log = directory / "log-of-recovery"
    owner = owner_of(directory)
    arguments = ["-D", str(directory), "-l", str(log), "-w", "-t", str(int(timeout_s)), "start"]
    started = programs.run("pg_ctl", arguments, owner=owner)
    state = ""
    while started.returncode == 0 and time.monotonic() - began < timeout_s:
        state = cluster_state(programs, directory, owner)
        if state == _IN_PRODUCTION:
            return time.monotonic() - began
        if not (directory / "postmaster.pid").exists():
            break
        time.sleep(_LOOK_S)
    words = last_words(log) or " ".join((started.stderr + started.stdout).split())
    raise Partial(
        f"the directory was recovered, but the server on {directory} did not come up: {words}",
        code="server-not-started",
        hint=f"see {log}; the directory is whole and may be started again with pg_ctl",
    )


def cluster_state(programs: Programs, directory: Path, owner: Mapping[str, Any]) -> str:
    """The state of a cluster as its control file has it."""
    match = _STATE.search(programs.run("pg_controldata", ["-D", str(directory)], owner=owner).stdout)
    return match[1].strip() if match else ""


@contextlib.contextmanager
def scratch_server(programs: Programs, directory: Path, superuser: str, timeout_s: float) -> Iterator[Scratch]:
    """Run a server on a copy that is thrown away afterwards, and end it.

    Raises:
        Partial: It does not come up; its last words are in the message.
    """
    began = time.monotonic()
    owner = owner_of(directory)
    # A socket's path has to be short.
    room = Path(tempfile.mkdtemp(prefix="perdure-"))
    try:
        access = room / "pg_hba.conf"
        access.write_text("local all all trust\n", encoding="ascii")
        if owner:
            os.chown(room, owner["user"], owner["group"])
            os.chown(access, owner["user"], owner["group"])
        settings = {**_ON_ITS_OWN, "unix_socket_directories": str(room), "hba_file": str(access)}
        given = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        log = room / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [programs.path("postgres"), "-D", str(directory), "-p", "5432", *given],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                start_new_session=True,
                env={**os.environ, "LC_ALL": "C"},
                **owner,
            )
        try:
            yield _wait_for(process, log, Scratch(room, superuser, 0.0), began, timeout_s)
        finally:
            _stop(process)
    finally:
        shutil.rmtree(room, ignore_errors=True)


def _wait_for(process: subprocess.Popen[bytes], log: Path, scratch: Scratch, began: float, timeout_s: float) -> Scratch:
    while process.poll() is None and time.monotonic() - began < timeout_s:
        with contextlib.suppress(psycopg.OperationalError), scratch.connect() as connection:
            if not connection.execute("SELECT pg_is_in_recovery()").fetchall()[0][0]:
                return Scratch(scratch.socket, scratch.superuser, time.monotonic() - began)
        time.sleep(_LOOK_S)
    raise Partial(f"the server did not come up: {last_words(log)}", code="server-not-started")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stop at once; what is left behind is thrown away."""
    if process.poll() is None:
        process.send_signal(3)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_S)
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait()


def last_words(log: Path) -> str:
    """The last lines of a server's log that say what is wrong."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    wrong = [line for line in lines if "FATAL:" in line or "PANIC:" in line or "ERROR:" in line]
    return " / ".join((wrong or lines)[-_LAST_LINES:])
