"""The copies of a database on the nodes of an availability group: where they lie, and what their writers say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from perdure.ese.errors import EseDamaged, NotAnEseFile
from perdure.ese.headers.database import DatabaseHeader
from perdure.ese.structures import Signature
from perdure.model.errors import BadInput, SourceUnusable
from perdure.snapshots.writer import CopyRole, DatabaseState, DatabaseStatus, WriterError
from perdure.snapshots.writer_client import find_writer
from perdure.workloads.exchange.folders import FoundDatabase, LogFolder, databases_in, find_stream, read_header

__all__ = ["StoreCopy", "Survey", "lost_active", "survey"]

_ANSWER_S = 20.0


@dataclass(frozen=True, slots=True)
class StoreCopy:
    """One copy of the database.

    Args:
        folder: The folder of its node.
        node: The node's name.
        database: The ``.edb`` file.
        header: Its header.
        logs: Its log, ``None`` if there is none of its stream.
        status: What its writer says, ``None`` if no writer answers.
    """

    folder: Path
    node: str
    database: Path
    header: DatabaseHeader
    logs: LogFolder | None
    status: DatabaseStatus | None

    @property
    def name(self) -> str:
        """What the administrator calls the database."""
        return self.status.name if self.status is not None else self.database.stem

    @property
    def role(self) -> CopyRole:
        return self.status.role if self.status is not None else CopyRole.ACTIVE

    @property
    def in_use(self) -> bool:
        """Whether an engine has it open, as far as its writer says."""
        return self.status is not None and self.status.state is DatabaseState.MOUNTED

    @property
    def state_text(self) -> str:
        """For people: ``active, mounted, dirty shutdown``."""
        parts = (
            [str(self.role.value), str(self.status.state.value)] if self.status is not None else ["no writer answers"]
        )
        return ", ".join([*parts, self.header.state_text])


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found of one database.

    Args:
        copies: Its copies, in the order of the folders.
        others: Other databases in those folders.
        statuses: What the writers say of every database.
        problems: Folders and files that could not be looked at, a sentence each.
    """

    copies: tuple[StoreCopy, ...]
    others: tuple[FoundDatabase, ...]
    statuses: tuple[DatabaseStatus, ...]
    problems: tuple[str, ...]

    @property
    def active(self) -> StoreCopy | None:
        """The copy that is in service: the one whose writer says so, else the first of which none answers."""
        said = [one for one in self.copies if one.status is not None and one.role is CopyRole.ACTIVE]
        mounted = [one for one in said if one.in_use]
        silent = [one for one in self.copies if one.status is None]
        return next(iter([*mounted, *said, *silent]), None)

    def refreshed(self) -> Survey:
        """The same with the headers of the databases read again; the writers are not asked."""
        return replace(self, copies=tuple(_with_new_header(copy) for copy in self.copies))

    def for_log(self) -> list[StoreCopy]:
        """Copies with log, the active one first: it decides which log is the right one."""
        active = self.active
        rest = [one for one in self.copies if one is not active]
        return [one for one in [active, *rest] if one is not None and one.logs is not None]


def survey(folders: Sequence[Path], wanted: str = "", identity: Signature | None = None) -> Survey:
    """Look at every folder for copies of a database.

    Args:
        folders: Folders of nodes.
        wanted: Name, GUID or file name of the database; empty: the only one.
        identity: Its identity, once that is known; then it counts and not the name.

    Raises:
        SourceUnusable: There is none that can be read.
        BadInput: It is not clear which is meant.
    """
    copies: list[StoreCopy] = []
    others: list[FoundDatabase] = []
    statuses: list[DatabaseStatus] = []
    problems: list[str] = []
    for folder in folders:
        if not folder.is_dir():
            problems.append(
                f"{folder} is a file and no folder" if folder.exists() else f"the folder {folder} is not there"
            )
            continue
        said, problem = _described(folder)
        problems += [problem] if problem else []
        statuses += said
        found = databases_in(folder)
        problems += [one.problem for one in found if one.header is None]
        readable = [one for one in found if one.header is not None]
        mine = list(_matching(readable, said, wanted, identity or (copies[0].header.signature if copies else None)))
        if len(mine) > 1:
            raise _ambiguous(folder, mine)
        others += [one for one in readable if one not in mine]
        copies += [_copy(folder, one, said) for one in mine]
    if not copies:
        raise _nothing(folders, wanted, [one for one in others if one.header], statuses, problems)
    return Survey(tuple(copies), tuple(others), tuple(statuses), tuple(problems))


def lost_active(folders: Sequence[Path], wanted: str) -> DatabaseStatus | None:
    """What the writers say of the active copy of a database whose file is gone from its place; ``None`` if it is there.

    Args:
        folders: Folders of nodes.
        wanted: Name or GUID of the database; empty: the only one.
    """
    said = [status for folder in folders if folder.is_dir() for status in _described(folder)[0]]
    active = [one for one in said if one.role is CopyRole.ACTIVE and _means(wanted, one)]
    places = [Path(one.database_path) for one in active]
    lost = [
        status
        for status, place in zip(active, places, strict=True)
        if place.is_absolute() and not place.exists() and any(_is_below(str(place), folder) for folder in folders)
    ]
    return lost[0] if len(active) == len(lost) == 1 else None


def _means(wanted: str, status: DatabaseStatus) -> bool:
    return not wanted or wanted.lower() in (status.name.lower(), status.guid.lower())


def _described(folder: Path) -> tuple[list[DatabaseStatus], str]:
    try:
        writer = find_writer(folder, _ANSWER_S)
        if writer is None:
            return [], ""
        with writer:
            return list(writer.describe()), ""
    except WriterError as error:
        return [], error.message


def _matching(
    found: Sequence[FoundDatabase], said: Sequence[DatabaseStatus], wanted: str, identity: Signature | None
) -> Iterator[FoundDatabase]:
    for one in found:
        assert one.header is not None
        status = _status_of(one, said)
        names = {one.name, one.path.name} | ({status.name, status.guid} if status is not None else set())
        if identity is not None and identity:
            if one.header.signature == identity:
                yield one
        elif not wanted or wanted.lower() in {name.lower() for name in names}:
            yield one


def _status_of(found: FoundDatabase, said: Sequence[DatabaseStatus]) -> DatabaseStatus | None:
    same = [status for status in said if _same_file(Path(status.database_path), found.path)]
    return next(iter(same), None)


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one == other or one.samefile(other)
    except OSError:
        return False


def _copy(folder: Path, found: FoundDatabase, said: Sequence[DatabaseStatus]) -> StoreCopy:
    assert found.header is not None
    status = _status_of(found, said)
    logs = find_stream(folder, found.header.log_signature)
    node = (status.node if status is not None else "") or folder.name
    return StoreCopy(folder, node, found.path, found.header, logs, status)


def _with_new_header(copy: StoreCopy) -> StoreCopy:
    try:
        return replace(copy, header=read_header(copy.database))
    except (EseDamaged, NotAnEseFile, OSError):
        # Gone, or not whole at this moment; the next survey says which.
        return copy


def _is_below(path: str, folder: Path) -> bool:
    return Path(path).resolve().is_relative_to(folder.resolve())


def _ambiguous(folder: Path, mine: Sequence[FoundDatabase]) -> BadInput:
    return BadInput(
        f"{folder} holds several databases: {', '.join(str(one.path.relative_to(folder)) for one in mine)}",
        code="ambiguous-database",
        hint="say which with --database NAME; protect each as a data source of its own",
    )


def _nothing(
    folders: Sequence[Path],
    wanted: str,
    others: Sequence[FoundDatabase],
    statuses: Sequence[DatabaseStatus],
    problems: Sequence[str],
) -> SourceUnusable | BadInput:
    places = ", ".join(str(folder) for folder in folders)
    meant = [status for status in statuses if _means(wanted, status)]
    moved = [status for status in meant if not any(_is_below(status.database_path, folder) for folder in folders)]
    if meant and not moved:
        return SourceUnusable(
            f"{meant[0].database_path} is not there, where the writer says that the database {meant[0].name!r} lies",
            code="source-missing",
            hint="recover it with: perdure recover NAME --to latest --in-place --yes",
        )
    if moved:
        return SourceUnusable(
            f"the database {moved[0].name!r} was moved: its writer says that it lies at {moved[0].database_path}, "
            f"which is not below {places}",
            code="database-moved",
            hint="protect it at its new place; the recovery points that there are stay",
        )
    if others and wanted:
        return SourceUnusable(
            f"there is no database {wanted!r} in {places}; there are: {', '.join(one.name for one in others)}",
            code="source-missing",
            hint="look at the folder with: perdure ese header FOLDER/*.edb",
        )
    return SourceUnusable(
        f"there is no Exchange database (.edb) in {places}" + (f": {'; '.join(problems)}" if problems else ""),
        code="source-missing",
        hint="name the folder that holds the database and its logs, or a folder above it",
    )
