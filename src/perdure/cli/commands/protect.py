"""``perdure protect``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from perdure.cli.commands.watch import watch_until_stopped
from perdure.cli.documents import point_document, source_document
from perdure.cli.intervals import seconds_of
from perdure.cli.options import DEFAULT_OPTIONS, CommonOptions
from perdure.cli.output import print_json, print_lines
from perdure.cli.progress_bar import progress_bar
from perdure.cli.sentences import about_point
from perdure.cli.session import Session

__all__ = ["protect"]


def protect(
    location: str,
    /,
    *,
    pool: str,
    name: Annotated[str | None, Parameter(name="--as")] = None,
    exclude: Annotated[tuple[str, ...], Parameter(metavar="GLOB")] = (),
    include: Annotated[tuple[str, ...], Parameter(metavar="GLOB")] = (),
    express_full_every: str | None = None,
    prepare: bool = False,
    watch: bool = False,
    database: str | None = None,
    copy: Annotated[tuple[str, ...], Parameter(metavar="FOLDER")] = (),
    full_copy: str | None = None,
    check: Literal["none", "logs", "all"] | None = None,
    truncate_every: str | None = None,
    snapshot_folder: Path | None = None,
    warn_at: str | None = None,
    give_up_at: str | None = None,
    standby_name: str | None = None,
    images: Literal["auto", "local", "remote"] | None = None,
    common: CommonOptions = DEFAULT_OPTIONS,
) -> int:
    """Register a data source in a pool and make its first replica.

    The source stays in use meanwhile. When the command ends, the first recovery point is durable.

    For example:

        perdure protect sqlite:/srv/app.db --pool /mnt/backup/pool
        perdure protect files:/srv/share --pool /mnt/backup/pool --as share --exclude '*.tmp' --exclude cache/
        perdure protect postgresql://backup@localhost/postgres --pool /mnt/backup/pool --as main
        perdure protect exchange:/srv/EX1 --copy /srv/EX2 --database 'Mailboxes 1' --pool /mnt/backup/pool

    Args:
        location: The kind of data source and where it lies, as sqlite:PATH, files:PATH, exchange:FOLDER,
            postgresql://USER@HOST:PORT/DATABASE or postgresql:service=NAME.
        pool: The directory that the storage pool lies in, or its URL.
        name: The name to call the data source by; without it the last part of its path is taken.
        exclude: Leave out what matches this pattern; may be given several times, written as in .gitignore (files only).
        include: Take only what matches this pattern; may be given several times (files only).
        express_full_every: The time between two express fulls while watching; an hour unless given (databases only).
        prepare: Make the source protectable where that takes a change, such as switching a SQLite database to WAL mode.
            For PostgreSQL nothing is changed and nothing protected: the SQL is printed that a superuser has to execute.
        watch: Go on protecting it continuously, as perdure watch does, with no moment between in which it is not held.
        database: Which database of the store is meant, by name, GUID or file name (Exchange only).
        copy: The folder of another node with a copy of the same database; may be given several times (Exchange only).
        full_copy: The node whose backups are full and let log be truncated; all others are copies (Exchange only).
        check: What is verified before it counts: none, the logs, or all, that is logs and pages (Exchange only).
        truncate_every: How often, between express fulls, the engine is told which log is durable; 15m unless given,
            images for only then, never for a database whose log another product truncates (Exchange only).
        snapshot_folder: Where a snapshot that has to be a copy is kept; beside the database unless given
            (Exchange only).
        warn_at: How much WAL a server may keep for perdure before status warns; 1GB unless given (PostgreSQL only).
        give_up_at: How much WAL a server may keep for perdure before the replication slot is dropped, rather than that
            its disk fills up; never unless given (PostgreSQL only).
        standby_name: The application name by which synchronous_standby_names may know perdure (PostgreSQL only).
        images: Where images come from: local, the data directory; remote, the replication protocol; auto, a standby if
            the location names several hosts, else the data directory where it can be seen (PostgreSQL only).
    """
    from perdure.protection import image_verbs
    from perdure.protection.pool_inside import refuse_pool_inside
    from perdure.protection.protected import parse_location

    kind, place = parse_location(location)
    options = {key: list(patterns) for key, patterns in (("exclude", exclude), ("include", include)) if patterns}
    given = {
        "database": database,
        "full-copy": full_copy,
        "check": check,
        "truncate-every": truncate_every,
        "snapshot-folder": None if snapshot_folder is None else str(snapshot_folder.absolute()),
        "warn-at": warn_at,
        "give-up-at": give_up_at,
        "application-name": standby_name,
        "images": images,
    }
    options |= {key: [value] for key, value in given.items() if value is not None}
    if copy:
        options["copy"] = list(copy)
    if express_full_every is not None:
        options["express-full-every"] = [f"{seconds_of(express_full_every, '--express-full-every'):g}s"]
    if prepare and (statements := _preparation(kind, place)) is not None:
        if common.json:
            print_json({"location": location, "sql": statements})
        else:
            print_lines(statements)
        return 0
    with Session(common) as session:
        vault = session.pool_at(pool)
        if kind == "files" and vault.storage.capabilities.local:
            refuse_pool_inside(Path(place), Path(vault.storage.url), exclude)
        if watch:
            watch_until_stopped(
                [image_verbs.register(session.home, vault, kind, place, name=name, options=options, prepare=prepare)],
                common,
            )
            return 0
        with progress_bar(common) as progress:
            protected, point = image_verbs.protect(
                session.home, vault, kind, place, name=name, options=options, prepare=prepare, progress=progress
            )
    if common.json:
        print_json({"source": source_document(protected.source), "point": point_document(point)})
        return 0
    source = protected.source
    print_lines(
        [
            f"Protected {source.workload}:{source.location} as {source.name!r}.",
            *about_point(point),
            f"Keep it protected with: perdure watch {source.name}",
        ]
    )
    return 0


def _preparation(kind: str, place: str) -> list[str] | None:
    """What a person has to do to the source, of a kind that perdure does not prepare itself."""
    from perdure.protection.protected import workload_for
    from perdure.workloads.contract import AdvisingWorkload

    workload = workload_for(kind)
    return workload.preparation(place) if isinstance(workload, AdvisingWorkload) else None
