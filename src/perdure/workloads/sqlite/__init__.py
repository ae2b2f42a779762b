"""Continuous protection of SQLite databases in WAL mode."""

from perdure.workloads.sqlite.occupancy import clear_companions
from perdure.workloads.sqlite.session import SqliteSession
from perdure.workloads.sqlite.workload import SqliteWorkload

__all__ = ["SqliteSession", "SqliteWorkload", "clear_companions"]
