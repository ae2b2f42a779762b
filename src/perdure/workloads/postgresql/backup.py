"""Taking an image from the data directory with the low-level backup functions."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import psycopg
from numpy.typing import NDArray

from perdure.model.errors import SourceUnusable
from perdure.model.positions import Position
from perdure.workloads.contract import BaseImage, Image
from perdure.workloads.postgresql.blocks import BLOCK, BlockChanges
from perdure.workloads.postgresql.chain import ChainToken, encode_token
from perdure.workloads.postgresql.changes import DIGEST, ChangedPages, all_virtual, digests_of, is_tracked
from perdure.workloads.postgresql.cluster import Cluster
from perdure.workloads.postgresql.connecting import Sql, connect, server_sentence
from perdure.workloads.postgresql.following import Follower
from perdure.workloads.postgresql.image import ClusterImage, Ended, PagesReader
from perdure.workloads.postgresql.layout import Allocation, pages_of, place_files
from perdure.workloads.postgresql.listing import (
    LISTING,
    VERSION,
    ListedFile,
    Listing,
    decode_listing,
    encode_listing,
)
from perdure.workloads.postgresql.lsn import history_name, parse_lsn, segment_name, segment_start
from perdure.workloads.postgresql.scanning import CONTROL, Found, FoundFile, scan
from perdure.workloads.postgresql.segment_index import decode_changes, decode_index, encode_changes, joined_changes
from perdure.workloads.postgresql.spooling import Spool

__all__ = ["LogHolder", "local_image"]

_Result = TypeVar("_Result")

_ANSWER_S = 1.0
_TICK_NS = 100_000_000

_CHECKPOINT = re.compile(r"CHECKPOINT LOCATION: (\S+)")
_TIMELINE = re.compile(r"START TIMELINE: (\d+)")


class LogHolder(Protocol):
    """What an image needs of the session that ships the log."""

    @property
    def follower(self) -> Follower: ...

    def wait_for(self, lsn: int, *, durable: bool) -> tuple[Position, ChainToken]: ...


@contextlib.contextmanager
def local_image(
    location: str, data: Path, cluster: Cluster, log: LogHolder, *, base: BaseImage | None, durable: bool
) -> Iterator[Image]:
    """An image of a running cluster; the backup ends when its listing is asked for, or with the context.

    Args:
        location: Where the server is.
        data: Its data directory.
        cluster: What it is.
        log: The session.
        base: The image that this one builds on.
        durable: Whether the log is shipped meanwhile, so that all before the image's end has to be in the pool first.

    Raises:
        SourceUnusable: The server refuses, or ends.
    """
    with contextlib.ExitStack() as held:
        # A connection of its own: the backup belongs to it.
        sql = held.enter_context(connect(location, options="-c statement_timeout=0 -c idle_session_timeout=0"))
        start = parse_lsn(_while_answering(log.follower, lambda: _start(sql)))
        timeline = log.follower.pending.token.timeline
        spool = Spool(*_first_wal(data, timeline, start, cluster.number("wal_segment_size"), log.follower))
        held.callback(spool.close)
        log.follower.attach(spool)
        held.callback(log.follower.detach, spool)
        # What the WAL up to here changes is known then: from the pool what is shipped, from memory the rest.
        log.follower.catch_up(start)
        draft = _Draft((data, cluster), start, sql, log, spool, durable=durable)
        yield _while_answering(log.follower, lambda: draft.image(base))


def _start(sql: Sql) -> str:
    row = sql.execute("SELECT pg_backup_start(%s, fast => true)", ("perdure express full",)).fetchall()[0]
    return str(row[0])


def _while_answering(follower: Follower, work: Callable[[], _Result]) -> _Result:
    """Do work in another thread, while this one tells the server that the stream is still wanted."""
    with ThreadPoolExecutor(1, thread_name_prefix="backup") as beside:
        future = beside.submit(work)
        while not wait([future], timeout=_ANSWER_S).done:
            follower.keep_alive()
        return future.result()


def _first_wal(data: Path, timeline: int, start: int, segment_size: int, follower: Follower) -> tuple[int, bytes]:
    """The beginning of the WAL file in which replay starts, up to where the stream goes on."""
    begin = segment_start(start, segment_size)
    known = max(follower.received, begin)
    path = data / "pg_wal" / segment_name(timeline, start, segment_size)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise SourceUnusable(f"the WAL file {path} is not there", code="no-data-directory") from error
    try:
        return begin, os.pread(descriptor, known - begin, 0)
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class _Look:
    """A data directory as an image is to have it."""

    found: Found
    allocation: Allocation
    digests: dict[str, bytes]
    changed: NDArray[np.int64] | None


@dataclass(frozen=True, slots=True)
class _Stopped:
    """The end of a backup: the control file before it, its LSN, the two files for recovery, the server's clock."""

    control: bytes
    stop: int
    label: str
    tablespace_map: str
    time_ns: int


class _Draft:
    """An image in the making."""

    def __init__(
        self, cluster: tuple[Path, Cluster], start: int, sql: Sql, log: LogHolder, spool: Spool, *, durable: bool
    ) -> None:
        self._data, self._cluster = cluster
        self._start = start
        self._sql, self._log, self._spool, self._durable = sql, log, spool, durable
        self._scanned_ns = 0

    @property
    def _checksums(self) -> bool:
        return self._cluster.settings.get("data_checksums") == "on"

    def image(self, base: BaseImage | None) -> ClusterImage:
        before = decode_listing(base.content(LISTING)) if base is not None else None
        look = self._look(base, before)
        sizes = {file.path: file.size for file in look.found.files}
        pages = PagesReader(
            self._data,
            sizes,
            look.allocation.runs,
            pages=look.allocation.pages,
            changed=look.changed,
            start=self._start if self._checksums else None,
        )
        return ClusterImage(pages, lambda: self._end(look, pages), lambda: self._accountable(look))

    # --- what is there ---------------------------------------------------------------------------

    def _look(self, base: BaseImage | None, before: Listing | None) -> _Look:
        self._scanned_ns = time.time_ns()
        found = scan(self._data)
        sizes = {file.path: file.size for file in found.files}
        old = {file.path: file for file in before.files} if before is not None else {}
        allocation = place_files(sizes, {path: file.runs for path, file in old.items()})
        digests = {file.path: self._digests(file) for file in found.files if not is_tracked(file.path)}
        changed = None
        if base is not None and before is not None and base.tracked and before.checksums == self._checksums:
            # (pg_checksums changes every page of a stopped cluster, and logs nothing.)
            since = [decode_changes(before.during)]
            since += [decode_changes(decode_index(segment.index).changes) for segment in base.log()]
            since.append(self._log.follower.pending.changes)
            changed = self._changed(found, allocation, digests, ChangedPages(joined_changes(since), old))
        return _Look(found, allocation, digests, changed)

    def _changed(
        self, found: Found, allocation: Allocation, digests: dict[str, bytes], changes: ChangedPages
    ) -> NDArray[np.int64]:
        return all_virtual(
            ((allocation.runs[file.path], changes.of(file, digests.get(file.path, b""))) for file in found.files),
            allocation.freed,
        )

    def _digests(self, file: FoundFile) -> bytes:
        try:
            descriptor = os.open(self._data / file.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return b""
        try:
            return digests_of(lambda at, length: os.pread(descriptor, length, at), file.size)
        finally:
            os.close(descriptor)

    def _accountable(self, look: _Look) -> NDArray[np.int64]:
        """Pages whose changes the log has to name, and that it does not say to have changed during the backup."""
        tracked = [file for file in look.found.files if is_tracked(file.path)]
        sizes = {file.path: ListedFile(file.path, file.size, 0, 0, []) for file in tracked}
        changes = ChangedPages(joined_changes(self._spool.changes), sizes)
        return all_virtual(
            (
                (
                    look.allocation.runs[file.path],
                    np.setdiff1d(np.arange(pages_of(file.size), dtype=np.int64), changes.of(file, b"")),
                )
                for file in tracked
            ),
            [],
        )

    # --- ending ----------------------------------------------------------------------------------

    def _end(self, look: _Look, pages: PagesReader) -> Ended:
        """End the backup; the control file is read last, as in every base backup."""
        pages.close()
        stopped = self._stop()
        position, token = self._log.wait_for(stopped.stop, durable=self._durable)
        listing = encode_listing(self._listing(look, pages, stopped))
        return Ended(position, encode_token(token), stopped.time_ns, listing, self._spool)

    def _stop(self) -> _Stopped:
        control = _stable(self._data / CONTROL)
        try:
            lsn, label, spaces = self._sql.execute(
                "SELECT * FROM pg_backup_stop(wait_for_archive => false)"
            ).fetchall()[0]
            (now_us,) = self._sql.execute(
                "SELECT (extract(epoch from clock_timestamp()) * 1000000)::bigint"
            ).fetchall()[0]
        except psycopg.Error as error:
            raise SourceUnusable(
                f"the server ended the backup: {server_sentence(error)}", code="server-gone"
            ) from error
        return _Stopped(control, parse_lsn(lsn), label, spaces or "", int(now_us) * 1000)

    def _listing(self, look: _Look, pages: PagesReader, stopped: _Stopped) -> Listing:
        checkpoint = _CHECKPOINT.search(stopped.label)
        timeline = _TIMELINE.search(stopped.label)
        status = self._data.stat()
        return Listing(
            version=VERSION,
            system=self._cluster.system,
            server=self._cluster.version,
            timeline=int(timeline[1]) if timeline else self._log.follower.pending.token.timeline,
            segment_size=self._cluster.number("wal_segment_size"),
            start=self._start,
            checkpoint=parse_lsn(checkpoint[1]) if checkpoint else self._start,
            stop=stopped.stop,
            wal_begin=self._spool.begin,
            stopped_ns=stopped.time_ns,
            checksums=self._checksums,
            label=stopped.label,
            tablespace_map=stopped.tablespace_map,
            control=stopped.control,
            directories=list(look.found.directories),
            files=[
                ListedFile(
                    file.path,
                    file.size,
                    file.mode,
                    file.mtime_ns,
                    look.allocation.runs[file.path],
                    self._settled(file, look.digests.get(file.path, b"")),
                )
                for file in look.found.files
                if file.path not in pages.vanished
            ],
            tablespaces=[(space.oid, space.name, space.directory) for space in self._cluster.tablespaces],
            outside=self._outside(),
            history=self._history(),
            during=encode_changes(joined_changes([BlockChanges(np.empty(0, BLOCK), (), ()), *self._spool.changes])),
            bin=_programs(self._data),
            owner=(status.st_uid, status.st_gid),
            superuser=self._cluster.owner,
        )

    def _settled(self, file: FoundFile, digests: bytes) -> bytes:
        """A file that changed while it was read has no digest that could be relied on."""
        if not digests:
            return b""
        try:
            status = (self._data / file.path).stat()
        except FileNotFoundError:
            return bytes(len(digests))
        unchanged = (status.st_size, status.st_mtime_ns) == (file.size, file.mtime_ns)
        # A clock that ticks slowly does not show a second write right after the first.
        unchanged = unchanged and file.mtime_ns < self._scanned_ns - _TICK_NS
        return digests if unchanged else bytes(len(digests) // DIGEST * DIGEST)

    def _outside(self) -> dict[str, bytes]:
        """Configuration files elsewhere, as Debian has them."""
        found: dict[str, bytes] = {}
        for setting, name in (
            ("config_file", "postgresql.conf"),
            ("hba_file", "pg_hba.conf"),
            ("ident_file", "pg_ident.conf"),
        ):
            named = self._cluster.settings.get(setting)
            if named and Path(named).parent.resolve() != self._data.resolve():
                with contextlib.suppress(OSError):
                    found[name] = Path(named).read_bytes()
        return found

    def _history(self) -> bytes:
        timeline = self._log.follower.pending.token.timeline
        with contextlib.suppress(FileNotFoundError):
            return (self._data / "pg_wal" / history_name(timeline)).read_bytes()
        return b""


def _stable(path: Path) -> bytes:
    """A small file that may be written at any moment: read until two looks agree."""
    seen = path.read_bytes()
    while (again := path.read_bytes()) != seen:
        seen = again
    return seen


def _programs(data: Path) -> str:
    """The directory of the programs that run the server."""
    try:
        pid = (data / "postmaster.pid").read_text(encoding="utf-8").splitlines()[0]
        return str(Path(f"/proc/{int(pid)}/exe").readlink().parent)
    except (OSError, ValueError, IndexError):
        return ""
