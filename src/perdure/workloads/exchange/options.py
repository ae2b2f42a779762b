"""What is protected, and how: the location and options of a data source in usable form."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from perdure.model.errors import BadInput
from perdure.model.points import DataSource

__all__ = ["CHECKS", "SourceOptions", "join_location", "options_of", "parse_options", "split_location"]

CHECKS = ("none", "logs", "all")
"""What is checked before anything counts, after DPM's setting for eseutil."""

_DEFAULT_TRUNCATE_S = 900.0
_INTERVAL = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd]?)")
_UNIT_S = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """A data source's options.

    Args:
        folders: Folders of the nodes with copies of the database, the one that was named first.
        database: Name of the database; empty: the only one.
        full_copy: Node of the copy whose backups are *full*; empty: whichever the image is taken from.
        check: One of :data:`CHECKS`.
        truncate_every_s: Seconds between incremental backups that let the engine truncate; ``None``: only images do.
        never_truncate: Whether every backup is a *copy*, so that another product may truncate.
        snapshot_folder: Where snapshots are kept that have to be copies; ``None``: beside the database.
    """

    folders: tuple[Path, ...]
    database: str = ""
    full_copy: str = ""
    check: str = "all"
    truncate_every_s: float | None = _DEFAULT_TRUNCATE_S
    never_truncate: bool = False
    snapshot_folder: Path | None = None

    @property
    def checks_logs(self) -> bool:
        return self.check != "none"

    @property
    def checks_pages(self) -> bool:
        return self.check == "all"


def split_location(location: str) -> tuple[Path, str]:
    """The folder and the database name in ``FOLDER#NAME``; the name is empty in ``FOLDER``."""
    whole = Path(location).expanduser().absolute()
    folder, mark, name = location.rpartition("#")
    if whole.is_dir() or not mark or not folder:
        return whole, ""
    return Path(folder).expanduser().absolute(), name


def join_location(folder: Path, name: str) -> str:
    """The location of one database of a store."""
    return f"{folder}#{name}"


def parse_options(location: str, options: Mapping[str, Sequence[str]]) -> SourceOptions:
    """Read a location and its options.

    Raises:
        BadInput: An option makes no sense.
    """
    folder, name = split_location(location)
    copies = [Path(each).expanduser().absolute() for each in options.get("copy", ())]
    check = _last(options, "check") or "all"
    if check not in CHECKS:
        raise BadInput(f"{check!r} is not a check", code="bad-check", hint="give --check none, logs or all")
    every = _last(options, "truncate-every")
    given = _last(options, "snapshot-folder")
    return SourceOptions(
        folders=tuple(dict.fromkeys([folder, *copies])),
        database=_last(options, "database") or name,
        full_copy=_last(options, "full-copy"),
        check=check,
        truncate_every_s=_interval(every) if every else _DEFAULT_TRUNCATE_S,
        never_truncate=every == "never",
        snapshot_folder=Path(given).expanduser().absolute() if given else None,
    )


def options_of(source: DataSource) -> SourceOptions:
    """The options of a registered source."""
    return parse_options(source.location, source.options)


def _last(options: Mapping[str, Sequence[str]], name: str) -> str:
    values = options.get(name) or [""]
    return values[-1]


def _interval(text: str) -> float | None:
    if text in ("never", "images"):
        return None
    match = _INTERVAL.fullmatch(text.strip())
    if match is None or float(match[1]) <= 0:
        raise BadInput(
            f"{text!r} is not an interval", code="bad-interval", hint="write it like 15m or 2h, or 'images' or 'never'"
        )
    return float(match[1]) * _UNIT_S[match[2]]
