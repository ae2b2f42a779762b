"""The configuration of a recovered cluster: its own, but never that of the server that it was taken from."""

from __future__ import annotations

import re
from pathlib import Path

from perdure.workloads.postgresql.listing import Listing

__all__ = ["add_settings", "place_outside_files", "recovery_settings"]

_POINTS_ELSEWHERE = re.compile(
    r"^(\s*(?:data_directory|hba_file|ident_file|external_pid_file|include_dir)\b)", re.IGNORECASE | re.MULTILINE
)
"""Settings of postgresql.conf that would lead a recovered server to the original's files, or to none."""

_PASSED_THROUGH = "# changed by perdure when it recovered this directory: "


def place_outside_files(directory: Path, listing: Listing) -> None:
    """Put configuration files that lay outside of the data directory, as Debian has them, into it.

    ``postgresql.conf`` then names no file of the original server any more.
    """
    for name, content in listing.outside.items():
        path = directory / name
        path.parent.mkdir(exist_ok=True, mode=0o700)
        path.write_bytes(content)
        path.chmod(0o600)
    main = directory / "postgresql.conf"
    if not main.exists():
        return
    text = main.read_text(encoding="utf-8", errors="surrogateescape")
    changed = _POINTS_ELSEWHERE.sub(lambda match: _PASSED_THROUGH + match[1], text)
    if any(name.startswith("conf.d/") for name in listing.outside):
        changed += "\ninclude_dir = 'conf.d'\n"
    if changed != text:
        main.write_text(changed, encoding="utf-8", errors="surrogateescape")


def recovery_settings(restore_command: str, port: int | None) -> dict[str, str]:
    """Settings of a server that recovers what is in its directory and then is on its own.

    It must not archive into the original's archive, follow the original's primary, or wait for its standbys.
    """
    settings = {
        "restore_command": restore_command,
        "recovery_target": "",
        "recovery_target_lsn": "",
        "recovery_target_name": "",
        "recovery_target_time": "",
        "recovery_target_xid": "",
        "recovery_target_timeline": "latest",
        "recovery_end_command": "",
        "archive_cleanup_command": "",
        "primary_conninfo": "",
        "primary_slot_name": "",
        "synchronous_standby_names": "",
        "archive_mode": "off",
    }
    if port is not None:
        settings["port"] = str(port)
    return settings


def add_settings(directory: Path, settings: dict[str, str], comments: str) -> None:
    """Append settings to ``postgresql.auto.conf``, where the last of a name counts."""
    path = directory / "postgresql.auto.conf"
    before = path.read_bytes() if path.exists() else b""
    lines = [f"{name} = '{_quoted(value)}'" for name, value in settings.items()]
    text = "\n# Added by perdure when it recovered this directory:\n" + comments + "\n".join(lines) + "\n"
    path.write_bytes(before + text.encode())
    path.chmod(0o600)


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "''")
