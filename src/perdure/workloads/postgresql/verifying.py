"""Checking a recovered directory with PostgreSQL's own means, before any server has started from it."""

from __future__ import annotations

from pathlib import Path

from perdure.workloads.contract import Verification
from perdure.workloads.postgresql.programs import find_programs

__all__ = ["major_of", "verify_directory"]


def verify_directory(directory: Path, hint: str = "") -> Verification:
    """``pg_verifybackup``: every file against the manifest, and the WAL read from the image's start to its end."""
    programs = find_programs(major_of(directory), hint)
    if programs is None or not programs.has("pg_verifybackup"):
        return Verification(True, "authentication of every chunk; pg_verifybackup is not on this machine")
    # As the present user: whoever recovers can read what was written, whoever owns it.
    result = programs.run("pg_verifybackup", ["--exit-on-error", str(directory)], owner={})
    said = tuple(line for line in (result.stdout + result.stderr).splitlines() if line.strip())
    return Verification(result.returncode == 0, "pg_verifybackup", () if result.returncode == 0 else said)


def major_of(directory: Path) -> int:
    """The major version of a data directory."""
    return int((directory / "PG_VERSION").read_text(encoding="ascii").strip())
