"""Making a restored directory one that a server starts from, and that ends where it was asked to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from perdure.model.errors import BadInput, Damaged, Refused
from perdure.model.positions import Position
from perdure.workloads.contract import Arranged
from perdure.workloads.postgresql.configuration import add_settings, place_outside_files, recovery_settings
from perdure.workloads.postgresql.listing import Listing, decode_listing
from perdure.workloads.postgresql.lsn import format_lsn
from perdure.workloads.postgresql.manifest import write_manifest
from perdure.workloads.postgresql.programs import require_programs
from perdure.workloads.postgresql.provenance import provenance_lines, read_provenance
from perdure.workloads.postgresql.running import start_for_good
from perdure.workloads.postgresql.spreading import KEPT_LISTING

__all__ = ["RECOVERY_OPTIONS", "arrange_directory", "parse_port", "refuse_in_place", "start_directory"]

RECOVERY_OPTIONS = frozenset({"port", "start"})

_START_S = 24 * 3600.0
"""Replay may take long; what a server that hangs looks like is for a person to judge."""

NOTHING_MORE = "false"
"""All WAL that belongs to the target is in the directory: more must not be fetched."""


def arrange_directory(directory: Path, upto: Position | None, options: Mapping[str, str]) -> Arranged:
    """See :meth:`perdure.workloads.contract.DirectoryWorkload.arrange`.

    All WAL up to the target lies in ``pg_wal`` and ends there, so that replay ends there too, and needs no pool.

    Raises:
        BadInput: An option cannot be understood.
        Damaged: The directory was not restored from an image.
    """
    port = parse_port(options)
    kept = directory / KEPT_LISTING
    try:
        listing = decode_listing(kept.read_bytes())
    except FileNotFoundError as error:
        raise Damaged("the image holds no listing", code="damaged-listing") from error
    kept.unlink()
    place_outside_files(directory, listing)
    write_manifest(directory, listing)
    add_settings(directory, recovery_settings(NOTHING_MORE, port), provenance_lines(listing))
    (directory / "recovery.signal").touch(mode=0o600)
    owned = _give_to_owner(directory, listing)
    reached = format_lsn(listing.stop if upto is None else upto.place)
    notes = [
        f"a PostgreSQL {listing.major} data directory; the server replays its WAL up to {reached} when it starts",
        (
            "archive_mode, synchronous_standby_names and primary_conninfo are off in postgresql.auto.conf: "
            "set them again when this becomes the production server"
        ),
    ]
    if not owned:
        notes.append(
            f"the server's user has to own it: the files belonged to user {listing.owner[0]}, group {listing.owner[1]}"
        )
    return Arranged(notes=tuple(notes))


def start_directory(directory: Path, options: Mapping[str, str]) -> tuple[str, ...]:
    """See :meth:`perdure.workloads.contract.StartedWorkload.start`."""
    if not options.get("start"):
        return ()
    origin = read_provenance(directory)
    programs = require_programs(origin.major, origin.programs)
    seconds = start_for_good(programs, directory, _START_S)
    port = options.get("port") or "the port of its configuration"
    return (
        f"the server runs on port {port}; it took {seconds:.1f} s to replay its WAL and take writes",
        f"stop it with: {programs.path('pg_ctl')} -D {directory} stop",
    )


def parse_port(options: Mapping[str, str]) -> int | None:
    """The port that was asked for.

    Raises:
        BadInput: It is none.
    """
    text = options.get("port", "")
    if not text:
        return None
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise BadInput(f"{text!r} is not a port", code="bad-port", hint="give a number from 1 to 65535")
    return int(text)


def _give_to_owner(directory: Path, listing: Listing) -> bool:
    """The server runs as the owner of its files; only root can give them away."""
    user, group = listing.owner
    if os.geteuid() != 0:
        return os.geteuid() == user
    for parent, folders, files in os.walk(directory):
        for name in (*folders, *files):
            os.chown(Path(parent) / name, user, group, follow_symlinks=False)
    os.chown(directory, user, group)
    return user != 0


def refuse_in_place(location: str) -> Refused:
    """Why a cluster is not recovered in place."""
    return Refused(
        f"a PostgreSQL cluster is not recovered over its own data directory ({location})",
        code="no-in-place",
        hint="recover it to a new directory with --target, stop the old server, and let the new one take its place",
    )
