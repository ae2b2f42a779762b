"""The forms in which a restored database is handed over, and what an administrator does with each."""

from __future__ import annotations

from pathlib import Path

from perdure.ese.chain import check_database, join_logs
from perdure.ese.findings import damage_in
from perdure.ese.headers.database import DatabaseHeader
from perdure.ese.headers.kinds import FileKind, kind_by_name
from perdure.ese.logs.files import Log, read_logs
from perdure.model.errors import BadInput, Damaged
from perdure.workloads.exchange.folders import read_header
from perdure.workloads.exchange.restoring import name_current_log

__all__ = ["LAYOUTS", "RESTORED_LOGS", "arrange_folder", "restored_database"]

LAYOUTS = ("alternate", "recovery-database")
RESTORED_LOGS = "_restoredLogs"
"""Folder in which Exchange expects the logs of a database that was restored to be a recovery database."""


def arrange_folder(folder: Path, layout: str) -> tuple[str, ...]:
    """Name the last log as the engine expects it, see that all needed logs are there, and give the layout its form.

    Args:
        folder: The restored files.
        layout: One of :data:`LAYOUTS`.

    Returns:
        What a person does next.

    Raises:
        BadInput: There is no such layout.
        Damaged: The database needs logs that are not there.
    """
    if layout not in LAYOUTS:
        raise BadInput(
            f"there is no layout {layout!r}", code="bad-layout", hint="the layouts are: " + ", ".join(LAYOUTS)
        )
    database = restored_database(folder)
    header = read_header(database)
    current = name_current_log(folder)
    logs = sorted(path for path in folder.iterdir() if kind_by_name(path.name) is FileKind.LOG)
    _refuse_incomplete(database, header, logs)
    base = current.name[:3] if current is not None else "E00"
    if layout == "alternate":
        return _how_to_use(database, header, base)
    place = folder / RESTORED_LOGS
    place.mkdir(mode=0o700)
    for path in logs:
        path.rename(place / path.name)
    return _how_to_mount(database, header, base)


def restored_database(folder: Path) -> Path:
    """The one database in a folder.

    Raises:
        Damaged: There is none, or more than one.
    """
    found = [path for path in folder.iterdir() if path.suffix.lower() not in (".log", ".jtx", ".chk")]
    databases = [path for path in found if path.is_file()]
    if len(databases) != 1:
        raise Damaged(f"{folder} holds {len(databases)} databases, not one", code="damaged-record")
    return databases[0]


def _refuse_incomplete(database: Path, header: DatabaseHeader, logs: list[Path]) -> None:
    known: list[Log] = [log.without_content() for log in read_logs(logs)]
    chain = join_logs(known, header.log_signature)
    wrong = damage_in([*chain.findings, *check_database(header, database.name, chain, logs_expected=True)])
    if wrong:
        raise Damaged(
            f"what was restored of {database.name} cannot be recovered: {wrong[0]}",
            code="ese-required-log-missing",
            hint="recover another point; perdure verify shows which are whole",
        )


def _how_to_use(database: Path, header: DatabaseHeader, base: str) -> tuple[str, ...]:
    if header.clean:
        return (f"{database.name} is in clean shutdown: it can be mounted as it is",)
    state = f"{database.name} is in {header.state_text}, as every image of a mounted database"
    return (
        f"{state}: the engine makes it consistent from the logs beside it",
        f"in the folder, on an Exchange server: eseutil /r {base} /d . /l . /s .",
        f"then it is in clean shutdown: eseutil /mh {database.name}",
    )


def _how_to_mount(database: Path, header: DatabaseHeader, base: str) -> tuple[str, ...]:
    name = f"RDB-{database.stem}"
    recover = () if header.clean else (f'eseutil /r {base} /d "FOLDER" /l "FOLDER\\{RESTORED_LOGS}" /s "FOLDER"',)
    files = f'-EdbFilePath "FOLDER\\{database.name}" -LogFolderPath "FOLDER"'
    target = '-TargetMailbox ALIAS -TargetRootFolder "Recovered"'
    return (
        "in the Exchange Management Shell, with FOLDER being the recovered folder on SERVER:",
        *recover,
        f'New-MailboxDatabase -Recovery -Name "{name}" -Server SERVER {files}',
        f'Mount-Database "{name}"',
        f'Get-MailboxStatistics -Database "{name}" | Format-Table DisplayName, MailboxGuid, ItemCount',
        f'New-MailboxRestoreRequest -SourceDatabase "{name}" -SourceStoreMailbox MAILBOXGUID {target}',
        f'Get-MailboxRestoreRequest | Get-MailboxRestoreRequestStatistics; then Remove-MailboxDatabase "{name}"',
    )
