"""Which files of a data directory belong to an image: just those that ``pg_basebackup`` takes."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["FileIdentity", "Found", "FoundFile", "relation_of", "scan"]

EMPTY_DIRECTORIES = frozenset(
    {"pg_stat_tmp", "pg_replslot", "pg_dynshmem", "pg_notify", "pg_serial", "pg_snapshots", "pg_subtrans", "pg_wal"}
)
"""Kept as empty directories; the WAL that an image needs travels with it in another way."""

_LEFT_OUT = frozenset(
    {
        "postgresql.auto.conf.tmp",
        "current_logfiles.tmp",
        "backup_label",
        "backup_label.old",
        "tablespace_map",
        "tablespace_map.old",
        "backup_manifest",
        "postmaster.pid",
        "postmaster.opts",
        "recovery.signal",
        "standby.signal",
        ".DS_Store",
    }
)
_LEFT_OUT_PREFIXES = ("pg_internal.init", "pgsql_tmp")

CONTROL = "global/pg_control"

_RELATION = re.compile(r"(\d+)(?:_(fsm|vm|init))?(?:\.(\d+))?")
_TEMPORARY = re.compile(r"t\d+_\d+(?:_(?:fsm|vm|init))?(?:\.\d+)?")
_DATABASE = re.compile(r"(?:base/(?P<base>\d+)|(?P<global>global)|pg_tblspc/(?P<space>\d+)/PG_[^/]+/(?P<database>\d+))")
_FORKS = {None: 0, "fsm": 1, "vm": 2, "init": 3}
_DEFAULT_SPACE, _GLOBAL_SPACE = 1663, 1664


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """Which part of which relation a file is.

    Args:
        space: OID of the tablespace.
        database: OID of the database; 0 for shared relations.
        relation: Relation file number.
        fork: 0 main, 1 free space, 2 visibility, 3 init.
        segment: Number of the 1 GiB piece.
    """

    space: int
    database: int
    relation: int
    fork: int
    segment: int


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file: its path below the data directory, size in bytes, mode and modification time."""

    path: str
    size: int
    mode: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Found:
    """A data directory: its directories with their modes, and its files."""

    directories: tuple[tuple[str, int], ...]
    files: tuple[FoundFile, ...]


def relation_of(path: str) -> FileIdentity | None:
    """Which relation a file of an image belongs to; ``None``: to none."""
    directory, _, name = path.rpartition("/")
    match = _RELATION.fullmatch(name)
    place = _DATABASE.fullmatch(directory)
    if match is None or place is None:
        return None
    relation, fork, segment = int(match[1]), _FORKS[match[2]], int(match[3] or 0)
    if place["global"]:
        return FileIdentity(_GLOBAL_SPACE, 0, relation, fork, segment)
    if place["base"]:
        return FileIdentity(_DEFAULT_SPACE, int(place["base"]), relation, fork, segment)
    return FileIdentity(int(place["space"]), int(place["database"]), relation, fork, segment)


def scan(data: Path) -> Found:
    """Look at every file that belongs to an image, ``global/pg_control`` left out; files may vanish meanwhile."""
    directories: list[tuple[str, int]] = []
    files: list[FoundFile] = []
    for path, entries, mode in _walk(data, ""):
        directories.append((path, mode))
        unlogged = {name[: -len("_init")] for name in entries if name.endswith("_init")}
        for name, status in sorted(entries.items()):
            full = f"{path}/{name}" if path else name
            if full == CONTROL or _is_left_out(name, unlogged):
                continue
            files.append(FoundFile(full, status.st_size, stat.S_IMODE(status.st_mode), status.st_mtime_ns))
    return Found(tuple(directories), tuple(files))


def _walk(data: Path, path: str) -> Iterator[tuple[str, dict[str, os.stat_result], int]]:
    """Every directory with its regular files; links are followed below ``pg_tblspc`` and for ``pg_wal`` only."""
    try:
        mode = stat.S_IMODE((data / path).stat().st_mode)
        entries = _entries(data / path, follow=path == "pg_tblspc")
    except FileNotFoundError:
        return
    if path in EMPTY_DIRECTORIES:
        yield path, {}, mode
        for name in ("archive_status", "summaries"):
            if path == "pg_wal" and name in entries:
                yield f"pg_wal/{name}", {}, stat.S_IMODE(entries[name].st_mode)
        return
    yield path, {name: status for name, status in entries.items() if stat.S_ISREG(status.st_mode)}, mode
    for name, status in sorted(entries.items()):
        # pg_wal may be a link to another disk.
        is_below = stat.S_ISDIR(status.st_mode) or (not path and name == "pg_wal")
        if is_below and not name.startswith(_LEFT_OUT_PREFIXES):
            yield from _walk(data, f"{path}/{name}" if path else name)


def _entries(directory: Path, *, follow: bool) -> dict[str, os.stat_result]:
    found: dict[str, os.stat_result] = {}
    with os.scandir(directory) as listing:
        for entry in listing:
            with contextlib.suppress(FileNotFoundError):
                found[entry.name] = entry.stat(follow_symlinks=follow)
    return found


def _is_left_out(name: str, unlogged: set[str]) -> bool:
    if name in _LEFT_OUT or name.startswith(_LEFT_OUT_PREFIXES) or _TEMPORARY.fullmatch(name):
        return True
    match = _RELATION.fullmatch(name)
    return match is not None and match[1] in unlogged and match[2] != "init"
