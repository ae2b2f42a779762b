"""Starting a server on a recovered directory: to stay, or for a drill that leaves nothing behind."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psycopg

from perdure.model.drills import DrillStep
from perdure.model.errors import Partial
from perdure.workloads.postgresql.connecting import server_sentence
from perdure.workloads.postgresql.programs import Programs, owner_of, require_programs, running_server
from perdure.workloads.postgresql.replay import replay_of
from perdure.workloads.postgresql.scratch_server import ScratchServer, private_room, scratch_settings
from perdure.workloads.postgresql.verifying import major_of, verify_directory

__all__ = ["drill_directory", "serving", "start_server"]

_START_S = 24 * 3600
_LOOK_S = 0.05
_IN_DATABASE = re.compile(r"\s*([A-Za-z_][\w$-]*):\s*(.+)", re.DOTALL)
"""No SQL begins with a word and a colon."""
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
        checks: SQL, after ``DATABASE:`` where it is not for ``postgres``. A check passes if it runs and the first value
            of its first row is true.
    """
    programs = require_programs(major_of(directory), hint)
    began = time.monotonic()
    verdict = verify_directory(directory, hint)
    yield DrillStep(verdict.means, verdict.passed, time.monotonic() - began, verdict.details)
    with private_room(directory) as room:
        server = ScratchServer(programs, directory, room, superuser)
        log = room / "log"
        began = time.monotonic()
        failure = _start(programs, directory, log, scratch_settings(room))
        seconds = time.monotonic() - began
        if failure:
            yield DrillStep("start", passed=False, seconds=seconds, details=(failure,), recovers=True)
            _stop(programs, directory)
            return
        try:
            yield from _started(log, seconds)
            yield _amcheck(server)
            for check in checks:
                yield _check(server, check)
        finally:
            _stop(programs, directory)


def _started(log: Path, seconds: float) -> Iterator[DrillStep]:
    """The start without the replay, and the replay."""
    replay = replay_of(log.read_text(encoding="utf-8", errors="replace"))
    if replay is None:
        yield DrillStep("start", passed=True, seconds=seconds, recovers=True)
        return
    yield DrillStep("start", passed=True, seconds=max(0.0, seconds - replay.seconds), recovers=True)
    details = (f"{replay.bytes:,} bytes of WAL",)
    yield DrillStep("replay", passed=True, seconds=replay.seconds, details=details, recovers=True, bytes=replay.bytes)


@contextlib.contextmanager
def serving(directory: Path, hint: str, superuser: str) -> Iterator[ScratchServer]:
    """A server on a scratch copy of a cluster, as a drill has it, out of recovery; stopped in the end.

    Raises:
        PerdureError: The programs are not here.
        Partial: It does not start, or fails while it is used.
    """
    programs = require_programs(major_of(directory), hint)
    with private_room(directory) as room:
        failure = _start(programs, directory, room / "log", scratch_settings(room))
        try:
            if failure:
                raise Partial(f"the scratch server does not start: {failure}", code="server-not-started")
            yield ScratchServer(programs, directory, room, superuser)
        except psycopg.Error as error:
            raise Partial(
                f"the scratch server did not answer as it should: {server_sentence(error)}",
                code="scratch-server-failed",
            ) from error
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
        # Not by the state: while the checkpoint at the end of recovery is written, that is "shut down" for a moment.
        if running_server(directory) is None:
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


def _amcheck(server: ScratchServer) -> DrillStep:
    began = time.monotonic()
    if not server.programs.has("pg_amcheck"):
        return DrillStep("pg_amcheck", passed=True, seconds=0.0, details=("it is not on this machine",))
    arguments = [*server.address, "--all", "--install-missing", "--heapallindexed"]
    result = server.programs.run("pg_amcheck", arguments, owner=owner_of(server.directory))
    said = tuple(line for line in (result.stdout + result.stderr).splitlines() if line.strip())
    return DrillStep("pg_amcheck", result.returncode == 0, time.monotonic() - began, said if result.returncode else ())


def _check(server: ScratchServer, statement: str) -> DrillStep:
    began = time.monotonic()
    match = _IN_DATABASE.fullmatch(statement)
    database, query = (match[1], match[2]) if match else ("postgres", statement)
    try:
        with server.connect(database) as connection:
            cursor = connection.execute(query)
            row = cursor.fetchone() if cursor.description else None
    except psycopg.Error as error:
        return DrillStep(statement, passed=False, seconds=time.monotonic() - began, details=(server_sentence(error),))
    true = row is not None and bool(row[0])
    seen = "it gave no row" if row is None else f"it gave {row[0]!r}"
    return DrillStep(statement, true, time.monotonic() - began, () if true else (seen,))
