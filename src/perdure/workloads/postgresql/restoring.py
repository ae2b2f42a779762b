"""The ``restore_command`` by which a recovering server fetches WAL from the pool."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from perdure.model.positions import Position

__all__ = ["ABSENT", "FATAL", "SPOOL", "recovery_commands"]

ABSENT = 44
"""Status of ``wal-fetch --absent-status 44`` for a file that does not exist. Not 1, which a program that cannot even
begin gives too: taken for the end of the log, that would end a recovery too early, and nobody would notice."""

FATAL = 200
"""Status at which the server stops: PostgreSQL takes everything above 125 for that."""

SPOOL = "pg_wal/perdure-spool"
"""Files fetched ahead, below the data directory: on the file system of ``pg_wal``, so that they are only renamed."""


def recovery_commands(fetch: str, upto: Position | None) -> Mapping[str, str]:
    """Settings for a server that fetches WAL.

    Args:
        fetch: The shell command for ``perdure wal-fetch SOURCE --option …``.
        upto: Where the log is to end; ``None`` for a standby, which follows it.
    """
    end = "" if upto is None else f" --upto {upto}"
    failed = f"{{ [ $? -eq {ABSENT} ] && exit 1; exit {FATAL}; }}"
    if upto is None:
        # A standby never takes an absent file for the end of the log: it goes on with its primary, and asks again.
        failed = "exit 1"
    # What is in the spool takes no program at all.
    command = (
        f'mv -f {SPOOL}/%f "%p" 2>/dev/null || {fetch.replace("%", "%%")} %f "%p" --spool {SPOOL}{end} '
        f"--absent-status {ABSENT} || {failed}"
    )
    return {
        "restore_command": command,
        "recovery_end_command": f"rm -rf {shlex.quote(SPOOL)}",
        "archive_cleanup_command": "",
    }
