"""The drill: a recovered cluster is started, looked through, and asked."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psycopg

from perdure.model.drills import DrillStep
from perdure.model.errors import Partial, PerdureError
from perdure.workloads.postgresql.connecting import server_sentence
from perdure.workloads.postgresql.programs import Programs, owner_of, require_programs
from perdure.workloads.postgresql.provenance import read_provenance
from perdure.workloads.postgresql.running import Scratch, scratch_server

__all__ = ["drill_directory"]

_START_S = 24 * 3600.0
_SHOWN = 20


def drill_directory(directory: Path, checks: Sequence[str]) -> Iterator[DrillStep]:
    """See :meth:`perdure.workloads.contract.DrilledWorkload.drill`.

    A check is an SQL statement whose first value is true, asked in the database ``postgres``, or, written as
    ``DATABASE: STATEMENT``, in another one.
    """
    began = time.monotonic()
    origin = read_provenance(directory)
    try:
        programs = require_programs(origin.major, origin.programs)
        _let_in(directory)
        yield _verified(programs, directory)
        began = time.monotonic()
        with scratch_server(programs, directory, origin.superuser, _START_S) as scratch:
            yield DrillStep("start", passed=True, seconds=scratch.seconds, recovers=True)
            yield _examined(programs, directory, scratch)
            for check in checks:
                yield _asked(scratch, check)
    except PerdureError as error:
        yield DrillStep(
            "start",
            False,
            time.monotonic() - began,
            (f"{error.message}; {error.hint}" if error.hint else error.message,),
            recovers=True,
        )


def _let_in(directory: Path) -> None:
    """The server's user has to reach the copy; the scratch directory right above is perdure's own.

    Raises:
        Partial: Another one on the way keeps it out.
    """
    owner = owner_of(directory)
    if not owner:
        return
    os.chown(directory.parent, owner["user"], owner["group"])
    for above in directory.parents:
        status = above.stat()
        wanted = stat.S_IXUSR if status.st_uid == owner["user"] else stat.S_IXOTH
        if not status.st_mode & wanted and not (status.st_gid == owner["group"] and status.st_mode & stat.S_IXGRP):
            raise Partial(
                f"the user {owner['user']}, who owns the cluster's files, may not enter {above}",
                code="scratch-unreachable",
                hint="name a directory that this user may enter with --scratch",
            )


def _verified(programs: Programs, directory: Path) -> DrillStep:
    """The files against the backup manifest, before the server changes them."""
    began = time.monotonic()
    done = programs.run("pg_verifybackup", [str(directory)], owner=owner_of(directory))
    return DrillStep("pg_verifybackup", done.returncode == 0, time.monotonic() - began, _lines(done.stderr))


def _examined(programs: Programs, directory: Path, scratch: Scratch) -> DrillStep:
    """Every B-tree and heap, as far as the extension amcheck is to be had."""
    began = time.monotonic()
    done = programs.run(
        "pg_amcheck",
        ["--all", "--install-missing", "--no-strict-names", "--heapallindexed", "--maintenance-db=postgres"],
        owner=owner_of(directory),
        environment=scratch.environment(),
    )
    words = _lines(done.stdout + done.stderr)
    return DrillStep("pg_amcheck", done.returncode == 0, time.monotonic() - began, () if not done.returncode else words)


def _asked(scratch: Scratch, check: str) -> DrillStep:
    began = time.monotonic()
    database, statement = _split(check)
    name = f"check {statement}"
    try:
        with scratch.connect(database) as connection:
            cursor = connection.execute(statement)
            row = cursor.fetchone() if cursor.description else None
    except psycopg.Error as error:
        return DrillStep(name, False, time.monotonic() - began, (server_sentence(error),))
    passed = row is not None and bool(row[0])
    details = () if passed else (f"it answered {row[0]!r}" if row is not None else "it answered nothing",)
    return DrillStep(name, passed, time.monotonic() - began, details)


def _split(check: str) -> tuple[str, str]:
    database, colon, statement = check.partition(": ")
    return (database, statement) if colon and database.isidentifier() else ("postgres", check)


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line for line in text.splitlines() if line.strip())[:_SHOWN]
