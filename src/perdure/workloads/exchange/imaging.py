"""An image of the database with everything that goes with it: map of changed pages, required logs, place in the log."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perdure.ese.chain import check_database, join_logs
from perdure.ese.findings import damage_in
from perdure.ese.headers.database import DatabaseHeader
from perdure.ese.structures import BackupMark, Signature
from perdure.model.errors import ImageFailed
from perdure.model.positions import Position
from perdure.model.truncation import TruncationLedger
from perdure.workloads.contract import BaseImage, ImageReader
from perdure.workloads.exchange.backup_set import BackupSet
from perdure.workloads.exchange.changed_map import changes_since, confirmed_pages, log_names
from perdure.workloads.exchange.choosing import backup_kind, copies_for_image
from perdure.workloads.exchange.copies import StoreCopy, Survey
from perdure.workloads.exchange.freezing import FrozenCopy, freeze_copy
from perdure.workloads.exchange.image import LOG_PAGE, DatabaseReader, ExchangeImage, LogFileReader
from perdure.workloads.exchange.indexes import PageChanges, changes_in
from perdure.workloads.exchange.next_logs import BATCH, next_logs
from perdure.workloads.exchange.options import SourceOptions
from perdure.workloads.exchange.shipping import LogFile, read_log_files
from perdure.workloads.exchange.tokens import StreamToken, segment_of
from perdure.workloads.exchange.watching import circular_now

__all__ = ["TakenImage", "take_image"]


@dataclass(frozen=True, slots=True)
class TakenImage:
    """An image that is open.

    Args:
        image: The image.
        token: Its place in the log.
        copy: The copy that it is of.
        frozen: The log that was being written then, ``None`` if the image ends with a complete log.
        backup: Its backup set, ``None`` for a database that was not in use.
        time_ns: When it was frozen.
        snapshot: The mark of the backup that the frozen header bears; empty if the engine makes none.
    """

    image: ExchangeImage
    token: StreamToken
    copy: StoreCopy
    frozen: LogFile | None
    backup: BackupSet | None
    time_ns: int
    snapshot: BackupMark


@contextmanager
def take_image(
    found: Survey,
    options: SourceOptions,
    base: BaseImage | None,
    *,
    token: StreamToken | None,
    beyond: Position | None,
    offset: int,
    ledger: TruncationLedger,
    clock: Callable[[], int],
) -> Iterator[TakenImage]:
    """Take an image from the best copy.

    Args:
        found: The copies.
        options: Of the source.
        base: The image before, if the log between the two is whole.
        token: Where the log ends that was shipped.
        beyond: The image must lie behind this position, with a gap between; ``None``: it continues the log.
        offset: What is added to log generations to make positions.
        ledger: Says which backups may be full.
        clock: Nanoseconds since 1970 UTC.

    Raises:
        ImageFailed: No image can be taken, or what was frozen is damaged.
    """
    copy = copies_for_image(found, options, token)[0]
    noted: list[str] = []
    name = _database_name(copy, base)
    choosing = _Choosing(found, base, token, name)
    with freeze_copy(
        copy,
        backup_kind(copy, options, ledger),
        name=name,
        choose=choosing.pages,
        check=options.checks_pages,
        folder=options.snapshot_folder,
        clock=clock,
        found=noted,
    ) as frozen:
        logs = _required_logs(frozen, base, options)
        place = _place(frozen, logs, offset, beyond, images_only=circular_now(copy))
        readers: list[ImageReader] = [frozen.database, *logs.readers]
        remarks = [f"taken from the copy on {copy.node} ({copy.role.value})"] if len(found.copies) > 1 else []
        image = ExchangeImage(place, frozen.time_ns, tuple(readers), noted, tuple(remarks))
        closed = place.closed or frozen.current is None
        current = None if closed else frozen.current
        mark = frozen.header.current_snapshot_backup
        yield TakenImage(image, place, copy, current, frozen.backup, frozen.time_ns, mark)


def _database_name(copy: StoreCopy, base: BaseImage | None) -> str:
    """The database keeps its name in the images even when its file is renamed, so that it stays the same file there."""
    before = [name for name in base.sizes if name not in log_names([name]).values()] if base is not None else []
    return before[0] if len(before) == 1 else copy.database.name


class _Choosing:
    """Chooses pages while a copy is frozen; what can be known before the freeze is found out before."""

    def __init__(self, found: Survey, base: BaseImage | None, token: StreamToken | None, name: str) -> None:
        self._base, self._token = base, token
        self._found = found
        self._later: list[PageChanges] = []
        if base is None or token is None:
            return
        self._database = Signature(token.database)
        self._base_needs = min(log_names(list(base.sizes)), default=base.position.generation - token.offset)
        self._known = changes_since(base, name, self._database)
        self._next = token.next_generation
        self._read_on()

    def pages(
        self, reader: DatabaseReader, header: DatabaseHeader, current: LogFile | None
    ) -> NDArray[np.int64] | None:
        """See :data:`~perdure.workloads.exchange.freezing.ChoosePages`."""
        base = self._base
        if base is None or self._token is None or self._known is None or header.signature != self._database:
            return None
        if base.page_sizes.get(reader.name) != reader.page_size:
            return None
        if header.required_generations and header.min_required < self._base_needs:
            # Another copy than before, which lags further behind: what it has not written yet must come from it.
            return None
        later = self._changes_up_to(current)
        pages = None if later is None else confirmed_pages(self._known, later, reader)
        if pages is None:
            return None
        grown = np.arange(base.sizes[reader.name] // reader.page_size, reader.size // reader.page_size, dtype=np.int64)
        return np.union1d(pages, grown)

    def _changes_up_to(self, current: LogFile | None) -> list[PageChanges] | None:
        """What the logs change that are not in the pool yet; ``None`` if one of them is not here."""
        self._read_on()
        if current is None:
            return self._later
        if current.log.header is None or current.header.generation != self._next:
            return None
        return [*self._later, changes_in(current.log, self._database)]

    def _read_on(self) -> None:
        while batch := next_logs(self._found.for_log(), self._next, self._database):
            self._later += [file.changes for file, _ in batch if file.changes is not None]
            self._next += len(batch)
            if len(batch) < BATCH:
                return


@dataclass(frozen=True, slots=True)
class _RequiredLogs:
    readers: Sequence[ImageReader]
    last: LogFile | None


def _required_logs(frozen: FrozenCopy, base: BaseImage | None, options: SourceOptions) -> _RequiredLogs:
    """The logs that the frozen database needs, checked; those that the older image has too are not read again."""
    if frozen.header.clean:
        return _RequiredLogs((), None)
    known = log_names(list(base.sizes)) if base is not None else {}
    # The newest log of the older image was being written then; all others never change.
    unchanged = {name for generation, name in known.items() if generation < max(known)}
    readers: list[ImageReader] = []
    files: list[LogFile] = []
    paths = [frozen.logs[generation] for generation in sorted(frozen.logs)]
    for start in range(0, len(paths), BATCH):
        for file in read_log_files(paths[start : start + BATCH]):
            files.append(file)
            readers.append(_log_reader(file.log.file, file, changed=file.log.file not in unchanged))
    closed = list(files)
    if frozen.current is not None and frozen.current.log.header is not None:
        files.append(frozen.current)
        assert frozen.copy.logs is not None
        name = frozen.copy.logs.closed(frozen.current.header.generation).name
        readers.append(_log_reader(name, frozen.current, changed=True))
    _check_logs(frozen, files, options)
    return _RequiredLogs(tuple(readers), closed[-1] if closed else None)


def _log_reader(name: str, file: LogFile, *, changed: bool) -> LogFileReader:
    pages = -(-len(file.content) // LOG_PAGE) if changed else 0
    return LogFileReader(name, file.content, np.arange(pages, dtype=np.int64))


def _check_logs(frozen: FrozenCopy, files: Sequence[LogFile], options: SourceOptions) -> None:
    chain = join_logs([file.log for file in files], frozen.header.log_signature)
    findings = [*chain.findings, *check_database(frozen.header, frozen.database.name, chain, logs_expected=True)]
    wrong = [file.problem for file in files if file.problem] if options.checks_logs else []
    wrong += [str(finding) for finding in damage_in(findings)]
    if wrong:
        raise ImageFailed(
            f"the image of {frozen.copy.name!r} cannot be recovered from its logs: {'; '.join(wrong[:3])}; it does not "
            "count, and the recovery points before it stay",
            code="image-needs-logs",
            hint="look at the store with: perdure ese verify FOLDER",
        )


def _place(
    frozen: FrozenCopy, logs: _RequiredLogs, offset: int, beyond: Position | None, *, images_only: bool
) -> StreamToken:
    """Where the log continues the image."""
    header = frozen.header
    closed = frozen.current is None or frozen.current.log.header is None
    file = frozen.current if not closed else logs.last or _last_complete(frozen)
    if file is None:
        raise ImageFailed(
            f"there is no log of the stream of {frozen.copy.name!r} in {frozen.copy.folder}, so nothing could be "
            "joined to this image later",
            code="no-log",
            hint="name a folder that holds the database and its logs",
        )
    generation, place = file.header.generation, int(file.places[-1])
    if beyond is not None:
        offset = max(offset, beyond.generation + 2 - generation)
    segments = file.log.segments
    whole = segments.checksums if segments is not None else 0
    return StreamToken(
        database=header.signature.raw,
        stream=header.log_signature.raw,
        offset=offset,
        generation=generation,
        created=file.header.created.raw,
        place=place,
        closed=closed,
        checksums=whole if closed else file.checksums_before(segment_of(place)[0]),
        repairs=header.repairs.count + header.repairs.before,
        images_only=images_only,
    )


def _last_complete(frozen: FrozenCopy) -> LogFile | None:
    """The newest complete log beside a clean database."""
    logs = frozen.copy.logs
    numbers = logs.generations() if logs is not None else []
    path: Path | None = logs.closed(numbers[-1]) if logs is not None and numbers else None
    return read_log_files([path])[0] if path is not None else None
