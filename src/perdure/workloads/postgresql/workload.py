"""The PostgreSQL workload."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import psycopg

from perdure.model.drills import DrillStep
from perdure.model.errors import SourceUnusable
from perdure.model.logs import LogSegment, StoredSegment
from perdure.model.points import DataSource
from perdure.model.positions import Position
from perdure.workloads.contract import (
    Arranged,
    Capabilities,
    LogReader,
    RestoredItem,
    Verification,
    WorkloadInfo,
)
from perdure.workloads.postgresql.arranging import RECOVERY_OPTIONS, arrange_directory, refuse_in_place, start_directory
from perdure.workloads.postgresql.cluster import look_at_cluster
from perdure.workloads.postgresql.connecting import connect, normal_location, server_sentence, shown
from perdure.workloads.postgresql.drilling import drill_directory
from perdure.workloads.postgresql.inspecting import verify_directory
from perdure.workloads.postgresql.joining import join_segments
from perdure.workloads.postgresql.marks import find_mark
from perdure.workloads.postgresql.preflight import data_directory_sentence, lacks, require_nothing_missing
from perdure.workloads.postgresql.session import PostgresqlSession
from perdure.workloads.postgresql.spreading import spread_image, write_log

__all__ = ["PostgresqlWorkload"]


class PostgresqlWorkload:
    """Implements :class:`perdure.workloads.contract.ImageWorkload` for PostgreSQL clusters."""

    kind = "postgresql"
    capabilities = Capabilities(
        log=True,
        items=False,
        why_not={"items": "single tables are not listed; recover the cluster to another directory and dump them there"},
    )
    recovery_options = RECOVERY_OPTIONS

    def discover(self, location: str) -> WorkloadInfo:
        with connect(location) as connection:
            try:
                cluster = look_at_cluster(connection)
                missing = lacks(location, connection, cluster)
            except psycopg.Error as error:
                raise SourceUnusable(
                    f"the PostgreSQL server at {shown(location)} does not answer: {server_sentence(error)}",
                    code="server-gone",
                ) from error
            require_nothing_missing(location, missing)
            version = cluster.settings.get("server_version", "").split(" ")[0]
            name = cluster.settings.get("cluster_name") or f"postgresql-{cluster.settings.get('port', '5432')}"
            return WorkloadInfo(
                location=normal_location(location, connection),
                description=f"PostgreSQL {version}, {cluster.size / 1e6:.1f} MB, cluster {cluster.system}, "
                f"{data_directory_sentence(cluster)}",
                default_name=name.replace("/", "-"),
            )

    def prepare(self, location: str) -> str:
        return f"perdure changes no server by itself; see what {shown(location)} lacks with --prepare"

    def open(self, source: DataSource) -> PostgresqlSession:
        return PostgresqlSession(source)

    def target_paths(self, names: Sequence[str], target: Path) -> dict[str, Path]:
        return dict.fromkeys(names, target)

    def live_paths(self, names: Sequence[str], location: str) -> dict[str, Path]:  # noqa: ARG002
        # Pages of a running cluster are consistent only together with its WAL.
        return {}

    def in_place_target(self, location: str) -> Path:
        raise refuse_in_place(shown(location))

    def spread(
        self, content: Callable[[str], bytes], directory: Path
    ) -> AbstractContextManager[Mapping[str, Callable[[int, memoryview], None]]]:
        return spread_image(content, directory)

    def apply_log(self, paths: Mapping[str, Path], log: LogReader, upto: Position) -> None:
        write_log(next(iter(paths.values())), log, upto)

    def join_log(self, log: LogReader) -> LogSegment:
        return join_segments(log)

    def verify(self, paths: Mapping[str, Path], thorough: bool) -> Verification:
        return verify_directory(next(iter(paths.values())), thorough=thorough)

    def find_mark(self, text: str, log: Iterable[StoredSegment]) -> Position | None:
        return find_mark(text, log)

    def drill(self, paths: Mapping[str, Path], checks: Sequence[str]) -> Iterator[DrillStep]:
        return drill_directory(next(iter(paths.values())), checks)

    def items(self, paths: Mapping[str, Path], within: str) -> list[RestoredItem]:  # noqa: ARG002
        return []

    # --- directories -----------------------------------------------------------------------------

    def arrange(
        self,
        source: DataSource,  # noqa: ARG002
        directory: Path,
        upto: Position | None,
        options: Mapping[str, str],
    ) -> Arranged:
        return arrange_directory(directory, upto, options)

    def start(self, directory: Path, options: Mapping[str, str]) -> tuple[str, ...]:
        return start_directory(directory, options)

    def in_place_folder(self, source: DataSource) -> Path:
        raise refuse_in_place(shown(source.location))

    def take_place(self, source: DataSource, directory: Path) -> tuple[tuple[Path, ...], tuple[str, ...]]:  # noqa: ARG002
        raise refuse_in_place(shown(source.location))
