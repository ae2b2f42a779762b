"""The SQLite workload: databases in WAL mode."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import apsw

from perdure.model.drills import DrillStep
from perdure.model.errors import BadInput, Refused, SourceUnusable
from perdure.model.logs import LogSegment
from perdure.model.points import DataSource
from perdure.model.positions import Position
from perdure.workloads.contract import Capabilities, LogReader, RestoredItem, Verification, WorkloadInfo
from perdure.workloads.sqlite.drilling import drill_database
from perdure.workloads.sqlite.files import companions
from perdure.workloads.sqlite.header import read_database_header
from perdure.workloads.sqlite.image import DATABASE
from perdure.workloads.sqlite.inspecting import list_columns, list_tables, verify_database
from perdure.workloads.sqlite.joining import join_segments
from perdure.workloads.sqlite.occupancy import refuse_if_in_use
from perdure.workloads.sqlite.rolling import roll_forward
from perdure.workloads.sqlite.session import SqliteSession

__all__ = ["SqliteWorkload"]


class SqliteWorkload:
    """Implements :class:`perdure.workloads.contract.ImageWorkload` for SQLite."""

    kind = "sqlite"
    capabilities = Capabilities(log=True, items=True)

    def discover(self, location: str) -> WorkloadInfo:
        path = Path(location).expanduser().absolute()
        header = read_database_header(path)
        size = path.stat().st_size
        version = f"{header.writer // 1_000_000}.{header.writer // 1000 % 1000}.{header.writer % 1000}"
        return WorkloadInfo(
            location=str(path),
            description=f"SQLite, {size / 1e6:.1f} MB, {header.page_size}-byte pages, WAL mode, SQLite {version}",
            default_name=path.stem or path.name,
        )

    def prepare(self, location: str) -> str:
        path = Path(location).expanduser().absolute()
        if read_database_header(path, wal_required=False).wal:
            return f"{path} is in WAL mode already; nothing was changed"
        try:
            connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
            try:
                connection.set_busy_timeout(5000)
                mode = connection.pragma("journal_mode", "wal")
            finally:
                connection.close()
        except (apsw.BusyError, apsw.LockedError) as error:
            raise Refused(
                f"{path} cannot be switched to WAL mode while another process uses it",
                code="source-in-use",
                hint="stop the application for a moment and try again",
            ) from error
        except apsw.Error as error:
            raise SourceUnusable(f"{path} cannot be switched to WAL mode: {error}", code="not-wal") from error
        if mode != "wal":
            raise SourceUnusable(
                f"{path} cannot be switched to WAL mode: SQLite keeps it in {mode} mode", code="not-wal"
            )
        return f"{path} was switched to WAL mode; the setting stays in the file"

    def open(self, source: DataSource) -> SqliteSession:
        return SqliteSession(source.location)

    def target_paths(self, names: Sequence[str], target: Path) -> dict[str, Path]:
        if list(names) != [DATABASE]:
            raise BadInput(f"an image of a SQLite database has one file, {DATABASE!r}, not {list(names)}")
        for file in companions(target):
            if os.path.lexists(file):
                raise Refused(
                    f"{file} exists: SQLite would take it for the recovered database's own log and damage the database",
                    code="target-exists",
                    hint="choose another target, or move that file away",
                )
        return {DATABASE: target}

    def live_paths(self, names: Sequence[str], location: str) -> dict[str, Path]:
        return {DATABASE: Path(location).resolve()} if DATABASE in names else {}

    def in_place_target(self, location: str) -> Path:
        """As in the contract. Call :func:`~perdure.workloads.sqlite.clear_companions` just before the replacement."""
        path = Path(location).resolve()
        refuse_if_in_use(path)
        return path

    def apply_log(self, paths: Mapping[str, Path], log: LogReader, upto: Position) -> None:
        roll_forward(paths[DATABASE], log, upto)

    def join_log(self, log: LogReader) -> LogSegment:
        return join_segments(log)

    def verify(self, paths: Mapping[str, Path], thorough: bool) -> Verification:
        return verify_database(paths[DATABASE], thorough=thorough)

    def drill(self, paths: Mapping[str, Path], checks: Sequence[str]) -> Iterator[DrillStep]:
        return drill_database(paths[DATABASE], checks)

    def items(self, paths: Mapping[str, Path], within: str) -> list[RestoredItem]:
        return list_columns(paths[DATABASE], within) if within else list_tables(paths[DATABASE])
