"""Options that every command has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

__all__ = ["DEFAULT_OPTIONS", "CommonOptions"]

_EVERYWHERE = Group("Options of every command", sort_key=90)
_JSON_HELP = "Print JSON on standard output instead of text, also for errors."
_FILE_HELP = (
    "Read the pool's passphrase, or its recovery key, from the first line of this file, or take this key file. "
    "Without it the file named by PERDURE_PASSPHRASE_FILE is read, else the terminal is asked."
)


@Parameter(name="*")
@dataclass(frozen=True)
class CommonOptions:
    """What every command understands."""

    json: Annotated[bool, Parameter(group=_EVERYWHERE, help=_JSON_HELP)] = False
    passphrase_file: Annotated[Path | None, Parameter(name="--passphrase-file", group=_EVERYWHERE, help=_FILE_HELP)] = (
        None
    )


DEFAULT_OPTIONS = CommonOptions()
