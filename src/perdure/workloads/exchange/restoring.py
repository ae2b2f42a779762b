"""Restored files: applying log means putting log files beside the database, and then giving all the engine's form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from perdure.ese.headers.kinds import FileKind, kind_by_name
from perdure.ese.logs.files import log_name
from perdure.model.errors import BadInput, Damaged
from perdure.model.positions import Position
from perdure.workloads.contract import LogReader
from perdure.workloads.exchange.changed_map import log_names
from perdure.workloads.exchange.cutting import cut_log
from perdure.workloads.exchange.indexes import decode_index
from perdure.workloads.exchange.tokens import decode_token

__all__ = ["apply_log", "database_in", "logs_in", "name_current_log", "target_paths"]


def target_paths(names: Sequence[str], target: Path) -> dict[str, Path]:
    """Where the files of an image go: all into one folder, under their own names."""
    for name in names:
        if Path(name).name != name:
            raise BadInput(f"{name!r} cannot be the name of a file of an Exchange image", code="bad-input")
    return {name: target / name for name in names}


def database_in(names: Sequence[str]) -> str:
    """The database among the files of an image.

    Raises:
        Damaged: There is not exactly one.
    """
    found = [name for name in names if name not in log_names([name]).values()]
    if len(found) != 1:
        raise Damaged(f"an image holds {found or 'no database'} beside its logs", code="damaged-record")
    return found[0]


def apply_log(paths: Mapping[str, Path], log: LogReader, upto: Position) -> None:
    """Put the log files of the stored segments beside a restored database; the last one is cut where that is asked for.

    Raises:
        Damaged: A segment is not what was stored, or ends before the place.
    """
    folder = paths[database_in(list(paths))].parent
    for segment in log.segments():
        index, token = decode_index(segment.index), decode_token(segment.chain)
        content = b"".join(log.blocks(segment))
        if token is None:
            raise Damaged(f"{segment.span.name} is not log of an Exchange database", code="bad-segment-index")
        if segment.last > upto:
            if segment.last.generation != upto.generation:
                return
            content = cut_log(content, upto.place, index.file_name)
        (folder / index.file_name).write_bytes(content)


def logs_in(folder: Path) -> dict[int, Path]:
    """The numbered logs in a folder."""
    found = {log_name(path.name).generation: path for path in folder.iterdir() if _is_log(path)}
    return {generation: path for generation, path in found.items() if generation is not None}


def name_current_log(folder: Path) -> Path | None:
    """Give the newest log the name that the engine looks for last, ``E00.log``; returns its path, if there is a log."""
    logs = logs_in(folder)
    if not logs:
        return None
    newest = logs[max(logs)]
    current = newest.with_name(newest.name[:3] + newest.suffix)
    newest.rename(current)
    return current


def _is_log(path: Path) -> bool:
    return bool(log_name(path.name).base) and kind_by_name(path.name) is FileKind.LOG
