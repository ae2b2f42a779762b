"""Starting a server on a recovered directory: to stay, or for a drill that leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psycopg
from psycopg.rows import tuple_row

from perdure.model.drills import DrillStep
from perdure.model.errors import Partial
from perdure.workloads.postgresql.connecting import Sql, server_sentence
from perdure.workloads.postgresql.programs import Programs, owner_of, require_programs
from perdure.workloads.postgresql.verifying import major_of, verify_directory

__all__ = ["drill_directory", "start_server"]

_START_S = 24 * 3600
_LOOK_S = 0.05
_STATE = "Database cluster state:"


def start_server(directory: Path, hint: str) -> tuple[str, ...]:
    """Start the server and wait until it has reached its target and takes writes; it goes on running.

    A standby is waited for until it takes connections.

    Returns:
        What a person should know.

    Raises:
        PerdureError: The programs are not here.
        Partial: It does not start, or ends before it has reached its target; the directory is whole and stays.
    """
    programs = require_programs(major_of(directory), hint)
    log = directory / "perdure-start.log"
    began = time.monotonic()
    follows = (directory / "standby.signal").exists()
    failure = _start(programs, directory, log, ())
    if failure:
        raise Partial(
            f"the recovered server in {directory} does not start: {failure}",
            code="server-not-started",
            hint=f"see {log}; what was recovered is whole",
        )
    seconds = time.monotonic() - began
    if follows:
        return (f"the standby runs, is consistent and takes connections ({seconds:.1f} s after it was started)",)
    return (f"the server runs, has reached its target and takes writes ({seconds:.1f} s after it was started)",)


def drill_directory(directory: Path, hint: str, superuser: str, checks: Sequence[str]) -> Iterator[DrillStep]:
    """The steps of a drill; none follows one without which the cluster is of no use.

    Args:
        directory: The recovered data directory, a scratch copy.
        hint: Where the programs were.
        superuser: The role that owns the cluster.
        checks: SQL. One passes if it runs and the first value of its first row is true.
    """
    programs = require_programs(major_of(directory), hint)
    began = time.monotonic()
    verdict = verify_directory(directory, hint)
    yield DrillStep(verdict.means, verdict.passed, time.monotonic() - began, verdict.details)
    if os.geteuid() == 0:
        # The server's user has to reach its directory.
        directory.parent.chmod(0o711)
    with _private_room(directory) as room:
        log = room / "log"
        began = time.monotonic()
        failure = _start(programs, directory, log, _drill_settings(room))
        seconds = time.monotonic() - began
        if failure:
            yield DrillStep("start", passed=False, seconds=seconds, details=(failure,), recovers=True)
            _stop(programs, directory)
            return
        try:
            yield DrillStep("start", passed=True, seconds=seconds, recovers=True)
            yield _amcheck(programs, directory, room, superuser)
            for check in checks:
                yield _check(room, superuser, check)
        finally:
            _stop(programs, directory)


def _start(programs: Programs, directory: Path, log: Path, settings: Sequence[str]) -> str:
    """Start, and wait for the end of recovery; why it failed, or nothing."""
    owner = owner_of(directory)
    options = " ".join(f"-c {setting}" for setting in settings)
    arguments = ["start", "-w", "-s", "-t", str(_START_S), "-D", str(directory), "-l", str(log)]
    result = programs.run("pg_ctl", [*arguments, *(["-o", options] if options else [])], owner=owner)
    if result.returncode:
        return _last_words(log) or " ".join((result.stdout + result.stderr).split())
    if (directory / "standby.signal").exists():
        return ""
    while (state := _state(programs, directory)) != "in production":
        if not (directory / "postmaster.pid").exists() or state.startswith("shut down"):
            return _last_words(log) or f"it is {state}"
        time.sleep(_LOOK_S)
    return ""


def _stop(programs: Programs, directory: Path) -> None:
    if (directory / "postmaster.pid").exists():
        programs.run("pg_ctl", ["stop", "-m", "immediate", "-s", "-D", str(directory)], owner=owner_of(directory))


def _state(programs: Programs, directory: Path) -> str:
    said = programs.run("pg_controldata", ["-D", str(directory)], owner=owner_of(directory)).stdout
    return next((line.partition(":")[2].strip() for line in said.splitlines() if line.startswith(_STATE)), "unknown")


def _last_words(log: Path) -> str:
    """What the server said when it gave up."""
    with contextlib.suppress(OSError):
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        told = [line for line in lines if "FATAL" in line or "PANIC" in line] or lines[-3:]
        return " ".join(" ".join(told[-2:]).split())
    return ""


@contextlib.contextmanager
def _private_room(directory: Path) -> Iterator[Path]:
    """A short-named directory that only the server's user can enter: for its socket, its rules and its log."""
    room = Path(tempfile.mkdtemp(prefix="perdure-drill-"))
    status = directory.stat()
    try:
        (room / "hba").write_text("local all all trust\n", encoding="ascii")
        if os.geteuid() == 0:
            for path in (room, room / "hba"):
                os.chown(path, status.st_uid, status.st_gid)
        yield room
    finally:
        shutil.rmtree(room, ignore_errors=True)


def _drill_settings(room: Path) -> tuple[str, ...]:
    """Nothing outside of the room is touched, nothing is listened on, and durability is not waited for."""
    return (
        "port=5432",
        "listen_addresses=''",
        f"unix_socket_directories={room}",
        f"hba_file={room / 'hba'}",
        "external_pid_file=''",
        "ssl=off",
        "logging_collector=off",
        "log_destination=stderr",
        "archive_mode=off",
        "primary_conninfo=''",
        "synchronous_standby_names=''",
        "fsync=off",
        "shared_buffers=128MB",
        "huge_pages=off",
        # A subscriber would go on reading its publication, and take away what its origin is to get.
        "max_logical_replication_workers=0",
    )


def _amcheck(programs: Programs, directory: Path, room: Path, superuser: str) -> DrillStep:
    began = time.monotonic()
    if not programs.has("pg_amcheck"):
        return DrillStep("pg_amcheck", passed=True, seconds=0.0, details=("it is not on this machine",))
    arguments = ["-h", str(room), "-p", "5432", "-U", superuser, "--all", "--install-missing", "--heapallindexed"]
    result = programs.run("pg_amcheck", arguments, owner=owner_of(directory))
    said = tuple(line for line in (result.stdout + result.stderr).splitlines() if line.strip())
    return DrillStep("pg_amcheck", result.returncode == 0, time.monotonic() - began, said if result.returncode else ())


def _check(room: Path, superuser: str, statement: str) -> DrillStep:
    began = time.monotonic()
    try:
        with _connected(room, superuser) as connection:
            cursor = connection.execute(statement)
            row = cursor.fetchone() if cursor.description else None
    except psycopg.Error as error:
        return DrillStep(statement, passed=False, seconds=time.monotonic() - began, details=(server_sentence(error),))
    true = row is not None and bool(row[0])
    seen = "it gave no row" if row is None else f"it gave {row[0]!r}"
    return DrillStep(statement, true, time.monotonic() - began, () if true else (seen,))


def _connected(room: Path, superuser: str) -> Sql:
    return psycopg.connect(
        host=str(room), port=5432, user=superuser, dbname="postgres", autocommit=True, row_factory=tuple_row
    )
