"""The Exchange workload."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from perdure.model.drills import DrillStep
from perdure.model.errors import BadInput, Refused
from perdure.model.logs import LogSegment
from perdure.model.points import DataSource
from perdure.model.positions import Position
from perdure.workloads.contract import (
    Arranged,
    Capabilities,
    Configured,
    LogReader,
    RestoredItem,
    Verification,
    WorkloadInfo,
)
from perdure.workloads.exchange.copies import Survey, survey
from perdure.workloads.exchange.in_place import original_place
from perdure.workloads.exchange.inspecting import items_of, verify_restored
from perdure.workloads.exchange.joining import join_segments
from perdure.workloads.exchange.layouts import arrange_folder, restored_database
from perdure.workloads.exchange.options import SourceOptions, join_location, options_of, parse_options
from perdure.workloads.exchange.replayed import drill_steps, readable_copy, replay_in_folder
from perdure.workloads.exchange.restoring import apply_log, database_in, target_paths
from perdure.workloads.exchange.session import ExchangeSession
from perdure.workloads.exchange.surviving import roll_forward

__all__ = ["ExchangeWorkload"]


class ExchangeWorkload:
    """Implements :class:`perdure.workloads.contract.ImageWorkload` for Exchange mailbox databases."""

    kind = "exchange"
    capabilities = Capabilities(log=True, items=True)
    recovery_options = frozenset({"layout", "roll-forward", "clean"})

    def discover(self, location: str) -> WorkloadInfo:
        options = parse_options(location, {})
        return _info(options, survey(options.folders, options.database))

    def configure(self, location: str, options: Mapping[str, Sequence[str]]) -> Configured:
        parsed = parse_options(location, options)
        found = survey(parsed.folders, parsed.database)
        folders = {copy.folder for copy in found.copies}
        for folder in parsed.folders:
            if folder not in folders:
                raise BadInput(
                    f"there is no copy of {found.copies[0].name!r} in {folder}",
                    code="copy-not-found",
                    hint="name the folder of a node that has a copy of the same database, or leave it out",
                )
        if parsed.full_copy and parsed.full_copy not in {copy.node for copy in found.copies}:
            raise BadInput(
                f"there is no copy on a node called {parsed.full_copy!r}",
                code="copy-not-found",
                hint="the nodes are: " + ", ".join(copy.node for copy in found.copies),
            )
        kept = {key: list(values) for key, values in options.items() if key != "database"}
        if len(parsed.folders) > 1:
            kept["copy"] = [str(folder) for folder in parsed.folders[1:]]
        return Configured(_info(parsed, found), kept)

    def prepare(self, location: str) -> str:
        return f"{location} needs no preparation; nothing was changed"

    def open(self, source: DataSource) -> ExchangeSession:
        return ExchangeSession(options_of(source))

    def target_paths(self, names: Sequence[str], target: Path) -> dict[str, Path]:
        return target_paths(names, target)

    def live_paths(self, names: Sequence[str], location: str) -> dict[str, Path]:  # noqa: ARG002
        # A mounted database is never read but from a snapshot.
        return {}

    def in_place_target(self, location: str) -> Path:
        options = parse_options(location, {})
        return original_place(options, ()).database

    def apply_log(self, paths: Mapping[str, Path], log: LogReader, upto: Position) -> None:
        apply_log(paths, log, upto)

    def join_log(self, log: LogReader) -> LogSegment:
        return join_segments(log)

    def verify(self, paths: Mapping[str, Path], thorough: bool) -> Verification:
        return verify_restored(paths[database_in(list(paths))], thorough=thorough)

    def items(self, paths: Mapping[str, Path], within: str) -> list[RestoredItem]:
        return items_of(readable_copy(paths[database_in(list(paths))]), within)

    def drill(self, paths: Mapping[str, Path], checks: Sequence[str]) -> Iterator[DrillStep]:
        if checks:
            raise BadInput(
                "an Exchange database has nothing that could run checks of your own",
                code="no-checks",
                hint="run the drill without --check",
            )
        return drill_steps(paths[database_in(list(paths))])

    def arrange(
        self, source: DataSource, directory: Path, upto: Position | None, options: Mapping[str, str]
    ) -> Arranged:
        if options.get("clean") and options.get("layout", "alternate") != "alternate":
            raise BadInput(
                "a database that is replayed to clean shutdown needs no logs, and so no layout",
                code="bad-layout",
                hint="leave out --layout or --clean",
            )
        arranged = Arranged()
        if options.get("roll-forward"):
            arranged = roll_forward(options_of(source), directory, upto)
        notes = arrange_folder(directory, options.get("layout", "alternate"))
        if options.get("clean"):
            notes = replay_in_folder(restored_database(directory))
        return Arranged(arranged.position, arranged.time_ns, (*arranged.notes, *notes))

    def in_place_folder(self, source: DataSource) -> Path:
        place = original_place(options_of(source), ())
        if not place.database.parent.is_dir():
            raise Refused(
                f"the folder {place.database.parent} does not exist; nothing was written",
                code="target-unusable",
                hint="make it, or recover to another folder with --target",
            )
        return place.database.parent / f".perdure-recovery-{source.id[:8]}"

    def take_place(self, source: DataSource, directory: Path) -> tuple[tuple[Path, ...], tuple[str, ...]]:
        name = restored_database(directory).name
        return original_place(options_of(source), (name,)).take(directory, name)


def _info(options: SourceOptions, found: Survey) -> WorkloadInfo:
    copy = found.active or found.copies[0]
    size = copy.database.stat().st_size
    nodes = f", copies on {', '.join(one.node for one in found.copies)}" if len(found.copies) > 1 else ""
    stream = f", log {copy.logs.base}" if copy.logs is not None else ", no log found"
    return WorkloadInfo(
        location=join_location(options.folders[0], copy.name),
        description=f"Exchange database {copy.name!r}, {size / 1e6:.1f} MB, {copy.header.page_size >> 10} KiB pages"
        f"{stream}, {copy.state_text}{nodes}",
        default_name=copy.name,
    )
