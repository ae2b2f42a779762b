"""Where the files of a store lie, and what is remembered about its databases from one start to the next."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path

import msgspec

__all__ = ["DatabasePlace", "LogLayout", "StorePlan", "read_plan", "write_plan"]

_PLAN = "store.json"


class LogLayout(StrEnum):
    """Where logs lie."""

    BESIDE = "beside"
    """In the folder of their database."""

    APART = "apart"
    """In a folder of their own for every database, as on another volume."""

    SHARED = "shared"
    """One stream for all databases, as the storage groups of old had it."""


class DatabasePlace(msgspec.Struct, frozen=True):
    """One database: all paths are below the store's folder.

    Args:
        name: The administrator's name for it.
        guid: Its identity in the directory.
        file: Its file.
        log_folder: Where its log lies.
        base: First three letters of the names of its logs.
        mounted: Whether it is mounted when the store starts.
    """

    name: str
    guid: str
    file: str
    log_folder: str
    base: str
    mounted: bool = True

    def moved(self, *, file: str | None = None, log_folder: str | None = None) -> DatabasePlace:
        """The same database at other paths."""
        return msgspec.structs.replace(self, file=file or self.file, log_folder=log_folder or self.log_folder)


class StorePlan(msgspec.Struct, frozen=True):
    """All databases of a store, and how its engines are set up.

    Args:
        databases: The databases.
        page_size: Of all of them, bytes.
        circular: Whether logs are deleted without a backup.
        was_circular: Whether they once were.
        layout: Where logs of new databases go.
        seed: Decides everything that is random.
    """

    databases: tuple[DatabasePlace, ...] = ()
    page_size: int = 32768
    circular: bool = False
    was_circular: bool = False
    layout: LogLayout = LogLayout.APART
    seed: int = 0

    def place_for(self, name: str, guid: str) -> DatabasePlace:
        """Where a new database goes."""
        number = len(self.databases)
        match self.layout:
            case LogLayout.BESIDE:
                return DatabasePlace(name, guid, f"{name}/{name}.edb", name, f"E{number:02}")
            case LogLayout.APART:
                return DatabasePlace(name, guid, f"Databases/{name}/{name}.edb", f"Logs/{name}", f"E{number:02}")
            case LogLayout.SHARED:
                return DatabasePlace(name, guid, f"Databases/{name}.edb", "Logs", "E00")

    def with_place(self, place: DatabasePlace) -> StorePlan:
        """The plan with one database added or changed."""
        others = tuple(other for other in self.databases if other.name != place.name)
        ordered = sorted((*others, place), key=lambda one: one.name)
        return msgspec.structs.replace(self, databases=tuple(ordered))


def read_plan(folder: Path) -> StorePlan | None:
    """What a store's folder remembers, ``None`` if it holds no store."""
    path = folder / _PLAN
    return msgspec.json.decode(path.read_bytes(), type=StorePlan) if path.exists() else None


def write_plan(folder: Path, plan: StorePlan) -> None:
    """Remember a plan."""
    temporary = folder / f"{_PLAN}.new"
    temporary.write_bytes(msgspec.json.format(msgspec.json.encode(plan), indent=1))
    os.replace(temporary, folder / _PLAN)  # noqa: PTH105 - Path.replace says the same
