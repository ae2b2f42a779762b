"""PostgreSQL clusters: streamed WAL, express fulls of changed blocks, recovery to any transaction."""

from __future__ import annotations

from perdure.workloads.postgresql.workload import PostgresqlWorkload

__all__ = ["PostgresqlWorkload"]
