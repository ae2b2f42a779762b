"""Making a restored directory one that a server starts from: links, configuration, recovery settings, manifest."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict

from perdure.model.errors import BadInput, Refused
from perdure.model.positions import Position
from perdure.workloads.postgresql.connecting import server_sentence
from perdure.workloads.postgresql.listing import Listing, decode_listing
from perdure.workloads.postgresql.lsn import format_lsn
from perdure.workloads.postgresql.manifest import write_manifest
from perdure.workloads.postgresql.restoring import recovery_commands
from perdure.workloads.postgresql.spreading import KEPT_LISTING
from perdure.workloads.postgresql.tablespaces import keep_tablespaces_inside

__all__ = ["ArrangedCluster", "arrange_directory", "check_recovery_options"]

PARTIAL = ".perdure-partial"

_ELSEWHERE = re.compile(
    r"^\s*(data_directory|hba_file|ident_file|external_pid_file|include_dir|include_if_exists|include)\b", re.MULTILINE
)
_OTHER_FILES = re.compile(r"^\s*(data_directory|hba_file|ident_file|external_pid_file)\b", re.MULTILINE)
"""A server that is started with such a line would work on its origin's files."""

_NAME = re.compile(r"[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class ArrangedCluster:
    """A directory that a server starts from.

    Args:
        listing: The image's listing.
        notes: What a person should know.
        beside: What was made beside the directory; of one that was there before, all its tablespaces.
    """

    listing: Listing
    notes: tuple[str, ...]
    beside: tuple[Path, ...]


def check_recovery_options(options: Mapping[str, str]) -> None:
    """Look at the options of a recovery.

    Raises:
        BadInput: The port is none, or libpq does not understand how to connect to the primary.
    """
    port = options.get("port", "1")
    if not _NAME.fullmatch(port) or not 0 < int(port) < 65536:
        raise BadInput(f"{port!r} is not a port", code="bad-port", hint="give a number up to 65535")
    try:
        conninfo_to_dict(options.get("primary-conninfo", ""))
    except psycopg.Error as error:
        raise BadInput(
            f"{options['primary-conninfo']!r} does not say where the primary is: {server_sentence(error)}",
            code="bad-location",
            hint="write it as for psql, like 'host=db1 user=replica'",
        ) from error


def arrange_directory(
    directory: Path, upto: Position | None, timeline: int | None, options: Mapping[str, str]
) -> ArrangedCluster:
    """Finish a restored directory.

    Args:
        directory: The data directory; its name ends in ``.perdure-partial`` and will not.
        upto: Where its WAL ends.
        timeline: The timeline there; the image's if ``None``.
        options: ``port``, ``fetch-wal`` (the command that fetches), ``standby``, ``primary-conninfo``.

    Raises:
        Refused: The directory for its tablespaces exists.
    """
    kept = directory / KEPT_LISTING
    listing = decode_listing(kept.read_bytes())
    kept.unlink()
    notes: list[str] = []
    made = _place_tablespaces(listing, directory, notes, onto="delta" in options)
    spaces = made if "delta" not in options else (*made, *_linked(listing, directory))
    # A directory that was there has an owner of its own: the same user may have another number on this machine.
    owner = (directory.stat().st_uid, directory.stat().st_gid) if "delta" in options else listing.owner
    try:
        _take_out_created_tablespaces(listing, directory, upto, notes)
        _configuration(listing, directory, notes)
        _recovery_settings(directory, timeline or listing.timeline, upto, options)
        write_manifest(directory, listing)
        for place in (directory, *spaces):
            _give_to_owner(place, owner)
    except BaseException:
        for place in made if "delta" not in options else ():
            shutil.rmtree(place, ignore_errors=True)
        raise
    notes += _outlook(listing, upto, options)
    return ArrangedCluster(listing, tuple(notes), spaces)


def _outlook(listing: Listing, upto: Position | None, options: Mapping[str, str]) -> list[str]:
    end = format_lsn(upto.place if upto is not None else listing.stop)
    if "standby" in options:
        leader = " and its primary" if "primary-conninfo" in options else ""
        return [f"it is a standby: it follows the pool{leader}, until it is promoted"]
    if "fetch-wal" in options:
        return [f"it fetches WAL from the pool when it starts, up to {end}, and begins a timeline of its own there"]
    return [f"its WAL ends at {end}; when it starts, it begins a timeline of its own there"]


def _place_tablespaces(listing: Listing, directory: Path, notes: list[str], *, onto: bool) -> tuple[Path, ...]:
    """Tablespaces go beside the directory, never to where the source has its own; returns what was made."""
    final = directory.with_name(directory.name.removesuffix(PARTIAL))
    beside = final.with_name(f"{final.name}.tablespaces")
    links = directory / "pg_tblspc"
    there = sorted(links.iterdir()) if links.is_dir() else []
    found = [path for path in there if path.is_dir() and not path.is_symlink()]
    if not found:
        return ()
    new = not beside.exists()
    if not new and not onto:
        raise Refused(
            f"the directory {beside} for the tablespaces exists; nothing was written",
            code="target-exists",
            hint="move it away, or choose another target",
        )
    beside.mkdir(mode=0o700, exist_ok=True)
    made: list[Path] = []
    names = {str(oid): name for oid, name, _ in listing.tablespaces}
    for path in found:
        shutil.move(path, beside / path.name)
        path.symlink_to(beside / path.name)
        made.append(beside / path.name)
        notes.append(f"tablespace {names.get(path.name, path.name)} is in {beside / path.name}")
    return (beside,) if new else tuple(made)


def _linked(listing: Listing, directory: Path) -> list[Path]:
    """The directories of this version in all tablespaces, wherever they are."""
    return [directory / path for path, _ in listing.directories if re.fullmatch(r"pg_tblspc/\d+/[^/]+", path)]


def _take_out_created_tablespaces(listing: Listing, directory: Path, upto: Position | None, notes: list[str]) -> None:
    end = listing.stop if upto is None else upto.place
    notes += [
        f"a tablespace that its origin made in {named} will be below pg_tblspc in the directory itself"
        for named in keep_tablespaces_inside(directory, listing.start, end, listing.segment_size)
    ]


def _configuration(listing: Listing, directory: Path, notes: list[str]) -> None:
    """Configuration that the source keeps elsewhere goes into the directory, without leading elsewhere."""
    for name, content in listing.outside.items():
        text = content.decode("utf-8", "surrogateescape")
        if name == "postgresql.conf":
            text = _ELSEWHERE.sub(lambda match: f"#{match[0].lstrip()}", text)
        (directory / name).write_text(text, encoding="utf-8", errors="surrogateescape")
    main = directory / "postgresql.conf"
    if main.exists() and "postgresql.conf" not in listing.outside:
        before = main.read_text(encoding="utf-8", errors="surrogateescape")
        after = _OTHER_FILES.sub(lambda match: f"#{match[0].lstrip()}", before)
        if after != before:
            main.write_text(after, encoding="utf-8", errors="surrogateescape")
            notes.append("its postgresql.conf named files of its origin; those lines are comments now")
    if listing.outside:
        notes.append("its configuration lay elsewhere; a copy without includes is in the directory")


def _recovery_settings(directory: Path, timeline: int, upto: Position | None, options: Mapping[str, str]) -> None:
    standby = "standby" in options
    settings = {
        # All WAL that recovery needs is in pg_wal, and it ends at the target.
        "restore_command": "false",
        "recovery_target_timeline": str(timeline),
        "recovery_target": "",
        "recovery_target_lsn": "",
        "recovery_target_name": "",
        "recovery_target_time": "",
        "recovery_target_xid": "",
        "recovery_end_command": "",
        "archive_cleanup_command": "",
        # A copy must not write into the archive of its origin, follow its primary, or wait for its standbys.
        "archive_mode": "off",
        "primary_conninfo": "",
        "primary_slot_name": "",
        "synchronous_standby_names": "",
    }
    if "fetch-wal" in options:
        settings |= recovery_commands(options["fetch-wal"], None if standby else upto)
    if standby:
        settings |= {"recovery_target_timeline": "latest", "hot_standby": "on"}
        settings["primary_conninfo"] = options.get("primary-conninfo", "")
    if "port" in options:
        settings["port"] = options["port"]
    path = directory / "postgresql.auto.conf"
    before = path.read_text(encoding="utf-8", errors="surrogateescape") if path.exists() else ""
    lines = ["# written by perdure recover", *(f"{name} = {_quoted(value)}" for name, value in settings.items())]
    text = before + ("" if before.endswith("\n") or not before else "\n") + "\n".join(lines) + "\n"
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    path.chmod(0o600)
    for signal in ("standby.signal", "recovery.signal"):
        # One that is left would be found at a later start, when nothing is to be recovered any more.
        (directory / signal).unlink(missing_ok=True)
    (directory / ("standby.signal" if standby else "recovery.signal")).touch(mode=0o600)


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def _give_to_owner(place: Path, owner: tuple[int, int]) -> None:
    """Only root can; whoever else recovers is the owner."""
    if os.geteuid() != 0 or not place.exists():
        return
    os.chown(place, *owner)
    for folder, names, files in os.walk(place):
        for name in (*names, *files):
            os.chown(Path(folder) / name, *owner, follow_symlinks=False)
