"""The PostgreSQL workload."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import psycopg

from perdure.model.drills import DrillStep
from perdure.model.errors import Refused, SourceUnusable
from perdure.model.logs import LogSegment, StoredSegment
from perdure.model.points import DataSource, RecoveryPoint
from perdure.model.positions import Position
from perdure.workloads.contract import Arranged, Capabilities, LogReader, RestoredItem, Verification, WorkloadInfo
from perdure.workloads.postgresql.arranging import arrange_directory, check_recovery_options
from perdure.workloads.postgresql.cluster import Cluster, look_at_cluster, size_of, visible_data_directory
from perdure.workloads.postgresql.connecting import connect, normal_location, server_sentence, shown
from perdure.workloads.postgresql.dumping import ClusterItems, parsed_items
from perdure.workloads.postgresql.items import items_within
from perdure.workloads.postgresql.joining import join_segments
from perdure.workloads.postgresql.listing import WAL
from perdure.workloads.postgresql.locating import locate
from perdure.workloads.postgresql.overwriting import overwrite_image, refuse_unfit
from perdure.workloads.postgresql.preflight import Lack, advice, lacks, require_nothing_missing
from perdure.workloads.postgresql.replay import ASSUMED_RATE
from perdure.workloads.postgresql.segment_index import decode_index
from perdure.workloads.postgresql.serving import WalFiles
from perdure.workloads.postgresql.session import PostgresqlSession
from perdure.workloads.postgresql.spreading import Take, spread_image, write_log
from perdure.workloads.postgresql.starting import drill_directory, serving, start_server
from perdure.workloads.postgresql.verifying import verify_directory
from perdure.workloads.recovery_contract import ItemServer, LogChain, OverwrittenFile, ServedFile

__all__ = ["PostgresqlWorkload"]


class PostgresqlWorkload:
    """Implements the workload contract for PostgreSQL clusters."""

    kind = "postgresql"
    capabilities = Capabilities(log=True, items=True)
    recovery_options = frozenset(
        {
            "port",
            "start",
            "fetch-wal",
            "standby",
            "primary-conninfo",
            "delta",
            "load",
            "into-schema",
            "overwrite",
        }
    )
    assumed_replay_rate = ASSUMED_RATE
    companion_suffixes: tuple[str, ...] = ()

    def __init__(self) -> None:
        self._timeline: int | None = None
        self._programs = self._superuser = ""

    # --- the source ------------------------------------------------------------------------------

    def discover(self, location: str) -> WorkloadInfo:
        normal, cluster, missing, size = self._look(location)
        require_nothing_missing(location, missing)
        place = visible_data_directory(cluster)
        where = f"data directory {place}" if place else "images over the network"
        name = cluster.settings.get("cluster_name", "")
        spaces = f", {len(cluster.tablespaces)} tablespaces" if cluster.tablespaces else ""
        return WorkloadInfo(
            normal,
            f"PostgreSQL {cluster.settings.get('server_version', cluster.major)}, "
            f"cluster {cluster.system}, {size / 1e6:,.1f} MB{spaces}, {where}",
            name or f"postgresql-{cluster.settings.get('port', '5432')}",
        )

    def prepare(self, location: str) -> str:
        """What has to be executed; perdure itself changes nothing on a server."""
        return "\n".join(self.preparation(location))

    def preparation(self, location: str) -> list[str]:
        """The SQL that a superuser has to execute before the server can be protected, with comments."""
        _, cluster, missing, _ = self._look(location)
        lines: list[str] = []
        for title, found in (("needed", missing), ("advisable", advice(cluster))):
            for lack in found:
                lines.append(f"-- {title}: {lack.what}")
                lines += [each if each.startswith("--") else f"{each};" for each in lack.statements]
        return lines or [f"-- the server at {shown(location)} has everything that perdure needs"]

    def _look(self, location: str) -> tuple[str, Cluster, list[Lack], int]:
        with connect(location) as connection:
            try:
                normal = normal_location(location, connection)
                cluster = look_at_cluster(connection)
                return normal, cluster, lacks(location, connection, cluster), size_of(connection)
            except psycopg.Error as error:
                raise SourceUnusable(
                    f"the server at {shown(location)} does not answer: {server_sentence(error)}", code="server-gone"
                ) from error

    def open(self, source: DataSource) -> PostgresqlSession:
        return PostgresqlSession(source)

    def join_log(self, log: LogReader) -> LogSegment:
        return join_segments(log)

    # --- recovery --------------------------------------------------------------------------------

    def target_paths(self, names: Sequence[str], target: Path) -> dict[str, Path]:
        return dict.fromkeys(names, target)

    def live_paths(self, names: Sequence[str], location: str) -> dict[str, Path]:  # noqa: ARG002
        return {}

    def in_place_target(self, location: str) -> Path:  # noqa: ARG002
        raise _not_in_place()

    def in_place_folder(self, source: DataSource) -> Path:  # noqa: ARG002
        raise _not_in_place()

    def take_place(self, source: DataSource, directory: Path) -> tuple[tuple[Path, ...], tuple[str, ...]]:  # noqa: ARG002
        raise _not_in_place()

    def spread(self, content: Callable[[str], bytes], directory: Path) -> AbstractContextManager[Mapping[str, Take]]:
        self._timeline = None
        return spread_image(content, directory)

    def refuse_unfit(self, content: Callable[[str], bytes], directory: Path, *, confirmed: bool) -> None:
        refuse_unfit(content, directory, confirmed=confirmed)

    def overwrite(
        self, content: Callable[[str], bytes], directory: Path
    ) -> AbstractContextManager[Mapping[str, OverwrittenFile]]:
        self._timeline = None
        return overwrite_image(content, directory)

    def apply_log(self, paths: Mapping[str, Path], log: LogReader, upto: Position) -> None:
        self._timeline = write_log(next(iter(paths.values())), log, upto)

    def replayed_bytes(self, point: RecoveryPoint, upto: Position) -> int:
        during = sum(file.size for file in point.files if file.name == WAL)
        return during + (0 if point.position is None else max(0, upto.place - point.position.place))

    def check_recovery_options(self, options: Mapping[str, str]) -> None:
        check_recovery_options(options)

    def fetches_log(self, options: Mapping[str, str]) -> bool:
        return "fetch-wal" in options

    def leave_log(self, segments: Sequence[StoredSegment]) -> None:
        self._timeline = decode_index(segments[-1].index).timeline if segments else None

    def log_files(self, name: str, chain: LogChain) -> Iterator[ServedFile]:
        return WalFiles(chain).files(name)

    def arrange(
        self,
        source: DataSource,  # noqa: ARG002
        directory: Path,
        upto: Position | None,
        options: Mapping[str, str],
    ) -> Arranged:
        arranged = arrange_directory(directory, upto, self._timeline, options)
        self._programs, self._superuser = arranged.listing.bin, arranged.listing.superuser
        return Arranged(notes=arranged.notes, beside=arranged.beside)

    def verify(self, paths: Mapping[str, Path], thorough: bool) -> Verification:  # noqa: ARG002
        return verify_directory(next(iter(paths.values())), self._programs)

    def start(self, directory: Path) -> tuple[str, ...]:
        return start_server(directory, self._programs)

    def drill(self, paths: Mapping[str, Path], checks: Sequence[str]) -> Iterator[DrillStep]:
        return drill_directory(next(iter(paths.values())), self._programs, self._superuser or "postgres", checks)

    @contextlib.contextmanager
    def serving(self, directory: Path) -> Iterator[ItemServer]:
        with serving(directory, self._programs, self._superuser or "postgres") as server:
            yield ClusterItems(server)

    def check_items(self, items: Sequence[str], options: Mapping[str, str]) -> None:
        parsed_items(items, options.get("into-schema", ""))

    def items_within(self, items: Sequence[RestoredItem], within: str) -> list[RestoredItem]:
        return items_within(items, within)

    def locate(self, kind: str, text: str, segments: Iterable[StoredSegment]) -> Position:
        return locate(kind, text, segments)

    def items(self, paths: Mapping[str, Path], within: str) -> list[RestoredItem]:
        with self.serving(next(iter(paths.values()))) as server:
            return items_within(server.items(), within)


def _not_in_place() -> Refused:
    return Refused(
        "a PostgreSQL cluster is not recovered in place",
        code="not-in-place",
        hint="stop the server and recover onto its data directory with --target DIRECTORY --delta",
    )
