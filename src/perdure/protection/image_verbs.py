"""The verbs: protect, synchronize, express full and consistency check."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from perdure.model.errors import BadInput, Refused
from perdure.model.points import DataSource, RecoveryPoint
from perdure.model.positions import Position
from perdure.model.replica import ReplicaState
from perdure.protection.folder_verbs import check_folder, protect_folder
from perdure.protection.home import Home
from perdure.protection.live import LiveSource
from perdure.protection.live_results import Checked, Shipped
from perdure.protection.live_session import open_session, surviving_loss
from perdure.protection.progress import Progress, quiet
from perdure.protection.protected import Protected, Workload, workload_for
from perdure.protection.vault import Vault
from perdure.workloads.contract import ConfiguredWorkload, FolderWorkload

__all__ = ["CheckReport", "SyncResult", "check", "express_full", "open_session", "protect", "register", "synchronize"]

SHOWN_RANGES = 20

LONGEST_NAME = 200
"""Characters; longer names do not fit on a screen, nor, as part of a file name, on a disk."""


@dataclass(frozen=True, slots=True)
class SyncResult:
    """What a synchronization did.

    Args:
        segments: Log segments shipped.
        commits: Recoverable places in them.
        bytes: Payload bytes shipped; for folders the bytes that had changed.
        last: The last durable position, for databases.
        point: The recovery point, where one was made: always for folders, for databases after a loss of tracking.
        cause: Why a point was made; empty when log was shipped as usual.
    """

    segments: int
    commits: int
    bytes: int
    last: Position | None
    point: RecoveryPoint | None
    cause: str


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a consistency check found and did.

    Args:
        pages: Differing pages; 0 for folders.
        bytes: Differing bytes, in whole pages; for folders the content of differing files.
        ranges: The first differing ranges as ``(file, offset, length)``, at most 20.
        repaired_by: The recovery point that repaired the replica, if anything differed.
        read: Bytes read from the source.
    """

    pages: int
    bytes: int
    ranges: tuple[tuple[str, int, int], ...]
    repaired_by: RecoveryPoint | None
    read: int


def register(
    home: Home,
    vault: Vault,
    kind: str,
    location: str,
    *,
    name: str | None = None,
    options: Mapping[str, Sequence[str]] | None = None,
    prepare: bool = False,
    workload: Workload | None = None,
) -> Protected:
    """Register a data source; :func:`protect` or a watch then makes its first replica.

    A registration whose first replica was never completed is taken up again by the same call.

    Args:
        home: This machine's state.
        vault: The pool.
        kind: The workload's kind, for example ``sqlite``.
        location: Where the source lies, in the workload's form.
        name: What to call it; the workload proposes one.
        options: Workload and schedule options.
        prepare: Make the source protectable if that takes a change to it.
        workload: The workload, when it is not to be looked up by ``kind``.

    Raises:
        BadInput: There is no such kind, or the name cannot be one.
        SourceUnusable: The source cannot be protected as it is.
        Refused: The name is taken, or the source is protected in this pool already.
    """
    workload = workload or workload_for(kind)
    if prepare and not isinstance(workload, FolderWorkload):
        workload.prepare(location)
    given = {key: list(values) for key, values in (options or {}).items()}
    if isinstance(workload, ConfiguredWorkload):
        configured = workload.configure(location, given)
        info, given = configured.info, {key: list(values) for key, values in configured.options.items()}
    else:
        info = workload.discover(location)
    name = info.default_name if name is None else _checked_name(name)
    source = _unfinished(vault, kind, info.location, name)
    if source is None:
        _refuse_duplicate(home, vault, kind, info.location, name)
        source = DataSource(secrets.token_hex(16), name, kind, info.location, given, time.time_ns())
        vault.register(source)
    home.remember_source(source, vault.id)
    protected = Protected(home, vault, source, workload)
    protected.note_state(ReplicaState.INITIALIZING, "first replica")
    return protected


def protect(
    home: Home,
    vault: Vault,
    kind: str,
    location: str,
    *,
    name: str | None = None,
    options: Mapping[str, Sequence[str]] | None = None,
    prepare: bool = False,
    progress: Progress = quiet,
    workload: Workload | None = None,
) -> tuple[Protected, RecoveryPoint]:
    """Register a data source, as :func:`register` does, and make its first replica.

    A first replica that was interrupted is made again by the same call. ``progress`` is told of the bytes.

    Raises:
        BadInput, SourceUnusable, Refused: As :func:`register`.
    """
    protected = register(home, vault, kind, location, name=name, options=options, prepare=prepare, workload=workload)
    try:
        point = _first_replica(protected, progress)
    except BaseException as error:
        protected.note_state(ReplicaState.UNPROTECTED, f"the first replica failed: {error}")
        raise
    return protected, point


def _checked_name(name: str) -> str:
    if name.strip() == name and name.isprintable() and 0 < len(name) <= LONGEST_NAME:
        return name
    raise BadInput(
        f"{name[:LONGEST_NAME]!r} cannot be the name of a data source",
        code="bad-name",
        hint=f"choose another with --as NAME: 1 to {LONGEST_NAME} printable characters, no space at either end",
    )


def _first_replica(protected: Protected, progress: Progress) -> RecoveryPoint:
    if isinstance(protected.workload, FolderWorkload):
        return protect_folder(protected, "first replica", progress, verb="protect")
    with open_session(protected, "protect") as live:
        point = live.express_full("first replica", progress).point
        live.ship()
        return point


def _unfinished(vault: Vault, kind: str, location: str, name: str) -> DataSource | None:
    """A registration of just this source whose first replica was never completed."""
    for source in vault.sources():
        if (source.workload, source.location, source.name) == (kind, location, name) and not vault.points(source.id):
            return source
    return None


def _refuse_duplicate(home: Home, vault: Vault, kind: str, location: str, name: str) -> None:
    for source in vault.sources():
        if source.name == name:
            raise Refused(
                f"the pool protects a data source called {name!r} already ({source.workload}:{source.location}); "
                "nothing was changed",
                code="name-taken",
                hint="choose another name with --as NAME",
            )
        if (source.workload, source.location) == (kind, location):
            raise Refused(
                f"{location} is protected in this pool already, as {source.name!r}; nothing was changed",
                code="already-protected",
                hint=f"use 'perdure sync {source.name}' or 'perdure express-full {source.name}'",
            )
    for known in home.sources():
        if known.name == name and known.pool_id != vault.id:
            raise Refused(
                f"another pool protects a data source called {name!r} already; nothing was changed",
                code="name-taken",
                hint="choose another name with --as NAME",
            )


def synchronize(p: Protected, progress: Progress = quiet) -> SyncResult:
    """Ship the log written since the last time; of a folder, make a file recovery point.

    When tracking was lost the replica is compared with the source and repaired, and ``cause`` says why.
    """
    if isinstance(p.workload, FolderWorkload):
        point = protect_folder(p, "on request", progress)
        return SyncResult(0, 0, point.changed, None, point, point.cause)

    def ship(live: LiveSource) -> SyncResult:
        shipped = live.ship()
        if not live.must_compare and live.newest_image() is not None:
            live.report_backup()
            return _sync_result(shipped, None)
        stored = live.express_full("first replica", progress)
        return _sync_result(shipped.joined(live.ship()), stored.point)

    return surviving_loss(p, "sync", ship)


def _sync_result(shipped: Shipped, point: RecoveryPoint | None) -> SyncResult:
    last = shipped.last or (point.position if point is not None else None)
    cause = point.cause if point is not None else ""
    return SyncResult(shipped.segments, shipped.commits, shipped.bytes, last, point, cause)


def express_full(p: Protected, *, cause: str = "on request", progress: Progress = quiet) -> RecoveryPoint:
    """Ship the log, then make a recovery point of the pages that changed.

    Where the changed pages are not known, or tracking was lost, source and replica are compared; the
    point's cause says so.
    """
    if isinstance(p.workload, FolderWorkload):
        return protect_folder(p, cause, progress, verb="express-full")
    return surviving_loss(p, "express-full", lambda live: live.express_full(cause, progress).point)


def check(p: Protected, progress: Progress = quiet) -> CheckReport:
    """Compare source and replica block by block and repair the replica."""
    if isinstance(p.workload, FolderWorkload):
        repair, scan = check_folder(p, progress)
        return CheckReport(0, scan.changed if repair is not None else 0, (), repair, scan.read)
    checked = surviving_loss(p, "check", lambda live: live.check(progress))
    return _check_report(checked)


def _check_report(checked: Checked) -> CheckReport:
    pages = size = 0
    ranges: list[tuple[str, int, int]] = []
    for name, found in checked.found.items():
        page_size = checked.page_sizes[name]
        pages += len(found.pages)
        size += len(found.pages) * page_size
        for page in found.pages.tolist():
            offset = page * page_size
            if ranges and ranges[-1][0] == name and ranges[-1][1] + ranges[-1][2] == offset:
                ranges[-1] = (name, ranges[-1][1], ranges[-1][2] + page_size)
            elif len(ranges) < SHOWN_RANGES:
                ranges.append((name, offset, page_size))
            else:
                break
    return CheckReport(pages, size, tuple(ranges), checked.repair, checked.read)
