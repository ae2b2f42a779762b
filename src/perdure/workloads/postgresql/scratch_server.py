"""A server on a scratch copy: on a private socket, touching nothing outside, gone afterwards."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg.rows import tuple_row

from perdure.workloads.postgresql.connecting import Sql
from perdure.workloads.postgresql.programs import Programs

__all__ = ["ScratchServer", "private_room", "scratch_settings"]

_PORT = 5432


@dataclass(frozen=True, slots=True)
class ScratchServer:
    """A running server.

    Args:
        programs: Of its version.
        directory: Its data directory.
        room: Where its socket is.
        superuser: The role that owns the cluster.
    """

    programs: Programs
    directory: Path
    room: Path
    superuser: str

    def connect(self, database: str = "postgres") -> Sql:
        """An autocommitting connection."""
        return psycopg.connect(
            host=str(self.room),
            port=_PORT,
            user=self.superuser,
            dbname=database,
            autocommit=True,
            row_factory=tuple_row,
        )

    @property
    def address(self) -> list[str]:
        """How PostgreSQL's programs reach it."""
        return ["-h", str(self.room), "-p", str(_PORT), "-U", self.superuser]


@contextlib.contextmanager
def private_room(directory: Path) -> Iterator[Path]:
    """A short-named directory that only the server's user can enter: for its socket, its rules and its log."""
    room = Path(tempfile.mkdtemp(prefix="perdure-drill-"))
    status = directory.stat()
    try:
        (room / "hba").write_text("local all all trust\n", encoding="ascii")
        if os.geteuid() == 0:
            # The server's user has to reach its directory.
            directory.parent.chmod(0o711)
            for path in (room, room / "hba"):
                os.chown(path, status.st_uid, status.st_gid)
        yield room
    finally:
        shutil.rmtree(room, ignore_errors=True)


def scratch_settings(room: Path) -> tuple[str, ...]:
    """Nothing outside of the room is touched, nothing is listened on, and durability is not waited for."""
    return (
        f"port={_PORT}",
        "listen_addresses=''",
        f"unix_socket_directories={room}",
        f"hba_file={room / 'hba'}",
        "external_pid_file=''",
        "ssl=off",
        "logging_collector=off",
        "log_destination=stderr",
        "log_min_messages=warning",
        # It is read how long the replay took.
        "lc_messages=C",
        "archive_mode=off",
        "primary_conninfo=''",
        "synchronous_standby_names=''",
        "fsync=off",
        "shared_buffers=128MB",
        "huge_pages=off",
        # A subscriber would go on reading its publication, and take away what its origin is to get.
        "max_logical_replication_workers=0",
    )
