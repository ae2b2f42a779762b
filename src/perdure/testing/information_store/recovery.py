"""Recovery after a crash: redo by the replay library, then undo by the engine, which logs it as any other change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from perdure.ese.catalog import read_catalog
from perdure.ese.database import Database
from perdure.ese.editing import EditablePage
from perdure.testing.information_store import log_records as log
from perdure.testing.information_store.engine import Engine
from perdure.testing.information_store.header_fields import log_position_bytes, log_time_bytes
from perdure.testing.information_store.log_stream import log_position, place_of
from perdure.testing.information_store.mounted_database import MountedDatabase
from perdure.testing.information_store.page_records import Actor
from perdure.testing.information_store.redo_in_place import OpenSession, redo_in_place
from perdure.testing.information_store.schema import TableSchema
from perdure.testing.information_store.stream_end import close_stream_end, closed_logs, find_stream_end
from perdure.testing.information_store.tree_pages import DELETED, TreePage
from perdure.testing.information_store.versions import Session, Version

__all__ = ["DirtyDatabase", "recover"]


@dataclass(frozen=True, slots=True)
class DirtyDatabase:
    """A database that was not shut down in order.

    Args:
        name: The administrator's name for it.
        path: Its file.
        guid: Its identity in the directory.
        schemas: Describes those of the tables with these names that can be changed.
        log_ended: Called with the place at which the crash has cut off the log.
    """

    name: str
    path: Path
    guid: str
    schemas: Callable[[set[str]], dict[str, TableSchema]]
    log_ended: Callable[[int], None]


def recover(engine: Engine, dirty: Sequence[DirtyDatabase]) -> None:
    """Bring databases of one stream that were not shut down in order to a clean state; the engine goes on from there.

    The engine has not begun to write yet. It closes the last log as the crash has left it, redoes all logs on every
    database, begins the next log, and takes back in it what transactions had done that never ended.

    Raises:
        EseDamaged: A database and the log contradict each other, or logs are missing.
    """
    settings = engine.settings
    end = find_stream_end(settings.log_folder, settings.base)
    assert end is not None, f"{settings.log_folder} holds no log"
    previous = close_stream_end(engine.disk, settings.log_folder, settings.base, end)
    for one in dirty:
        one.log_ended(place_of(end.end))
    logs = list(closed_logs(settings.log_folder, settings.base).values())
    redone = [(one, redo_in_place(one.path, logs, settings.page_size)) for one in dirty]
    for one, found in redone:
        with Database(one.path) as database:
            tables = {table.name for table in read_catalog(database).tables}
        held = [_tree_page(page) for page in found.held.values()]
        engine.adopt(one.name, one.path, one.guid, one.schemas(tables), held)
    engine.resume(previous)
    engine.append(log.recovery_undo(log_time_bytes(engine.clock())))
    for process in sorted({session.process for _, found in redone for session in found.open_sessions}):
        _take_back(
            engine,
            [
                (engine.databases[one.name], session, found.pages)
                for one, found in redone
                for session in found.open_sessions
                if session.process == process
            ],
        )
    for one in dirty:
        engine.dismount(one.name)
    here = log_position_bytes(log_position(engine.stream.end))
    engine.append(log.recovery_quit(here, here, log_time_bytes(engine.clock())))
    engine.make_durable()
    engine.sessions.clear()


def _tree_page(page: EditablePage) -> TreePage:
    made = TreePage(
        page.number,
        page.size,
        page.object_id,
        flags=page.flags,
        dbtime=page.dbtime,
        external=page.external_header,
        nodes=[(node.key, node.data, node.flags & DELETED) for node in page.nodes],
    )
    made.previous, made.next = page.previous, page.next
    return made


def _take_back(engine: Engine, parts: Sequence[tuple[MountedDatabase, OpenSession, Mapping[int, int]]]) -> None:
    """Undo what one session had done, in all databases, level by level."""
    first = parts[0][1]
    begun = min(part.begun for _, part, _ in parts)
    depth = max(len(part.levels) for _, part, _ in parts)
    if not depth:
        return
    session = Session(first.process, engine)
    engine.sessions.append(session)
    session.continue_at(Actor(first.process, first.transaction, depth), begun << 32)
    for level in range(1, depth + 1):
        for database, part, pages in parts:
            trees = {tree.root: tree for tree in database.trees()}
            for change in part.levels[level - 1] if level <= len(part.levels) else ():
                tree = trees[change.root]
                data = b"" if change.unique else change.data
                version = Version(
                    number=change.version,
                    tree=tree,
                    bookmark=tree.bookmark(change.key, data),
                    key=change.key,
                    key_data=data,
                    operation=int(change.kind),
                    level=level,
                    before=change.before,
                    change=change.delta,
                    offset=change.offset,
                    page=pages.get(change.version, 0),
                )
                if version.page:
                    database.store.unlogged_before[version.number] = version
                session.versions.append(version)
                tree.locks[version.bookmark] = session
    while session.level:
        session.roll_back()
