"""The server's own programs on this machine, and the user that they have to run as."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from perdure.model.errors import PerdureError

__all__ = ["Programs", "find_programs", "owner_of", "require_programs", "running_server"]


class Programs:
    """The programs of one major version.

    Args:
        directory: Where they are.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def has(self, name: str) -> bool:
        """Whether a program is there."""
        return (self.directory / name).exists()

    def path(self, name: str) -> str:
        """A program's path."""
        return str(self.directory / name)

    def run(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        owner: Mapping[str, Any],
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end; it is not an error if it fails."""
        return subprocess.run(
            [self.path(name), *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            cwd="/",
            env={**os.environ, "LC_ALL": "C", **(environment or {})},
            **owner,
        )


def find_programs(major: int, hint: str = "") -> Programs | None:
    """The programs of a major version: where ``PERDURE_PG_BIN`` or the hint says, Debian's place, or the path."""
    named = os.environ.get("PERDURE_PG_BIN", "")
    places = [named, hint, f"/usr/lib/postgresql/{major}/bin", f"/usr/pgsql-{major}/bin"]
    if (found := shutil.which("postgres")) is not None:
        places.append(str(Path(found).resolve().parent))
    for place in places:
        if place and (Path(place) / "postgres").exists() and _major_of(Path(place)) == major:
            return Programs(Path(place))
    return None


def require_programs(major: int, hint: str = "") -> Programs:
    """The same.

    Raises:
        PerdureError: They are not installed here.
    """
    found = find_programs(major, hint)
    if found is None:
        raise PerdureError(
            f"the programs of PostgreSQL {major} are not on this machine",
            code="no-programs",
            hint=f"install PostgreSQL {major}, or name the directory of its programs with PERDURE_PG_BIN",
        )
    return found


def owner_of(directory: Path) -> dict[str, Any]:
    """What ``subprocess`` is to be told to run as the owner of a directory; servers refuse to run as root."""
    status = directory.stat()
    if os.geteuid() != 0 or status.st_uid == 0:
        return {}
    return {"user": status.st_uid, "group": status.st_gid, "extra_groups": []}


def running_server(directory: Path) -> int | None:
    """The process of the server that works on a directory; ``None`` if there is none.

    Another program may have got the number of one that crashed.
    """
    try:
        pid = int((directory / "postmaster.pid").read_text(encoding="utf-8", errors="replace").splitlines()[0])
        os.kill(pid, 0)
    except (OSError, ValueError, IndexError) as error:
        return pid if isinstance(error, PermissionError) else None
    with contextlib.suppress(OSError):
        if Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip() not in (
            "postgres",
            "postmaster",
        ):
            return None
    return pid


def _major_of(directory: Path) -> int:
    try:
        said = subprocess.run(
            [str(directory / "postgres"), "--version"], capture_output=True, text=True, check=False
        ).stdout.split()
        return int(said[2].split(".")[0])
    except (OSError, ValueError, IndexError):
        return 0
