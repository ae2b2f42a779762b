"""From the files of a cluster to an image: which pages are new, where they lie in it, and its listing."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from perdure.model.positions import Position
from perdure.workloads.contract import BaseImage
from perdure.workloads.postgresql.blocks import BLOCK, BlockChanges
from perdure.workloads.postgresql.chain import ChainToken, encode_token
from perdure.workloads.postgresql.changes import DIGEST, ChangedPages, all_virtual, digests_of, is_tracked
from perdure.workloads.postgresql.cluster import Cluster
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
from perdure.workloads.postgresql.lsn import parse_lsn
from perdure.workloads.postgresql.scanning import Found, FoundFile, scan
from perdure.workloads.postgresql.segment_index import decode_changes, decode_index, encode_changes, joined_changes
from perdure.workloads.postgresql.spooling import Spool

__all__ = ["Draft", "Files", "LogHolder", "Stopped", "changes_since"]

_TICK_NS = 100_000_000

_CHECKPOINT = re.compile(r"CHECKPOINT LOCATION: (\S+)")
_TIMELINE = re.compile(r"START TIMELINE: (\d+)")


class LogHolder(Protocol):
    """What an image needs of the session that ships the log."""

    @property
    def follower(self) -> Follower: ...

    def wait_for(self, lsn: int, *, durable: bool, exactly: bool = True) -> tuple[Position, ChainToken]: ...


@dataclass(frozen=True, slots=True)
class Files:
    """Where the files of a cluster are.

    Args:
        directory: A data directory, which need not be whole.
        blocks: For each file of which only some blocks are there, their sorted numbers.
        outside: Configuration files from elsewhere.
        bin: Where the server's programs are.
        owner: User and group of the server's data directory.
        history: The timeline's history file.
    """

    directory: Path
    blocks: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    outside: Mapping[str, bytes] = field(default_factory=dict)
    bin: str = ""
    owner: tuple[int, int] = (0, 0)
    history: bytes = b""


@dataclass(frozen=True, slots=True)
class Stopped:
    """The end of a backup: the control file before it, its LSN, the two files for recovery, the server's clock.

    Args:
        control: ``global/pg_control``.
        stop: LSN from which on the image is consistent.
        label: ``backup_label``.
        tablespace_map: ``tablespace_map``.
        time_ns: Nanoseconds since 1970 UTC.
        exact: A record ends at ``stop`` that says that the backup ended; on a standby there is none.
    """

    control: bytes
    stop: int
    label: str
    tablespace_map: str
    time_ns: int
    exact: bool = True


@dataclass(frozen=True, slots=True)
class _Look:
    """The files as an image is to have them."""

    found: Found
    allocation: Allocation
    digests: dict[str, bytes]
    changed: NDArray[np.int64] | None


def changes_since(base: BaseImage | None, follower: Follower) -> BlockChanges | None:
    """What the log says to have changed since an image: what is in the pool, and what is here and not shipped yet.

    Only while nothing is shipped, or what moves from here to the pool meanwhile would be in neither.

    Returns:
        ``None`` when that is not known, or there is no such image.
    """
    if base is None or not base.tracked:
        return None
    listing = decode_listing(base.content(LISTING))
    since = [decode_changes(listing.during)]
    since += [decode_changes(decode_index(segment.index).changes) for segment in base.log()]
    since.append(follower.pending.changes)
    return joined_changes(since)


class Draft:
    """An image in the making.

    Args:
        files: Where the files are.
        cluster: Whose they are.
        start: LSN from which replay starts.
        log: The session.
        spool: The WAL from there on.
        stop: Ends the backup.
        durable: Whether the log is shipped meanwhile, so that all before the image's end has to be in the pool first.
    """

    def __init__(
        self,
        files: Files,
        cluster: Cluster,
        *,
        start: int,
        log: LogHolder,
        spool: Spool,
        stop: Callable[[], Stopped],
        durable: bool,
    ) -> None:
        self._files, self._cluster, self._start = files, cluster, start
        self._log, self._spool, self._stop, self._durable = log, spool, stop, durable
        self._scanned_ns = 0

    @property
    def _checksums(self) -> bool:
        return self._cluster.settings.get("data_checksums") == "on"

    def image(self, base: BaseImage | None, changes: BlockChanges | None) -> ClusterImage:
        """The image of what is there now.

        Args:
            base: The image before.
            changes: What :func:`changes_since` told of it, after the backup had begun.
        """
        listing = decode_listing(base.content(LISTING)) if base is not None else None
        before = {file.path: file for file in listing.files} if listing is not None else {}
        look = self._look(listing, before, changes)
        sizes = {file.path: file.size for file in look.found.files}
        pages = PagesReader(
            self._files.directory,
            sizes,
            look.allocation.runs,
            pages=look.allocation.pages,
            changed=look.changed,
            start=self._start if self._checksums else None,
            sent={path: self._sent(path, sizes[path], before) for path in self._files.blocks if path in sizes},
        )
        return ClusterImage(pages, lambda: self._end(look, pages), lambda: self._accountable(look))

    # --- what is there ---------------------------------------------------------------------------

    def _look(self, listing: Listing | None, before: Mapping[str, ListedFile], changes: BlockChanges | None) -> _Look:
        self._scanned_ns = time.time_ns()
        found = scan(self._files.directory)
        sizes = {file.path: file.size for file in found.files}
        allocation = place_files(sizes, {path: file.runs for path, file in before.items()})
        digests = {file.path: self._digests(file) for file in found.files if not is_tracked(file.path)}
        changed = None
        if changes is not None and listing is not None and listing.checksums == self._checksums:
            # (pg_checksums changes every page of a stopped cluster, and logs nothing.)
            known = ChangedPages(changes, before)
            changed = all_virtual(
                (
                    (allocation.runs[file.path], self._changed_in(file, known, before, digests.get(file.path, b"")))
                    for file in found.files
                ),
                allocation.freed,
            )
        return _Look(found, allocation, digests, changed)

    def _changed_in(
        self, file: FoundFile, known: ChangedPages, before: Mapping[str, ListedFile], digests: bytes
    ) -> NDArray[np.int64]:
        if file.path in self._files.blocks:
            # The server itself knows what changed, and sent nothing else.
            return self._sent(file.path, file.size, before)
        return known.of(file, digests)

    def _sent(self, path: str, size: int, before: Mapping[str, ListedFile]) -> NDArray[np.int64]:
        """Pages of a file that came in part: those that were sent, and those behind its end in the image before."""
        had = before[path].size // PagesReader.page_size if path in before else 0
        return np.union1d(self._files.blocks[path], np.arange(had, pages_of(size), dtype=np.int64))

    def _digests(self, file: FoundFile) -> bytes:
        try:
            descriptor = os.open(self._files.directory / file.path, os.O_RDONLY | os.O_CLOEXEC)
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
        position, token = self._log.wait_for(stopped.stop, durable=self._durable, exactly=stopped.exact)
        listing = encode_listing(self._listing(look, pages, stopped, position.place))
        return Ended(position, encode_token(token), stopped.time_ns, listing, self._spool)

    def _listing(self, look: _Look, pages: PagesReader, stopped: Stopped, stop: int) -> Listing:
        checkpoint = _CHECKPOINT.search(stopped.label)
        timeline = _TIMELINE.search(stopped.label)
        return Listing(
            version=VERSION,
            system=self._cluster.system,
            server=self._cluster.version,
            timeline=int(timeline[1]) if timeline else self._log.follower.pending.token.timeline,
            segment_size=self._cluster.number("wal_segment_size"),
            start=self._start,
            checkpoint=parse_lsn(checkpoint[1]) if checkpoint else self._start,
            stop=stop,
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
            outside=dict(self._files.outside),
            history=self._files.history,
            during=encode_changes(joined_changes([BlockChanges(np.empty(0, BLOCK), (), ()), *self._spool.changes])),
            bin=self._files.bin,
            owner=self._files.owner,
            superuser=self._cluster.owner,
        )

    def _settled(self, file: FoundFile, digests: bytes) -> bytes:
        """A file that changed while it was read has no digest that could be relied on."""
        if not digests:
            return b""
        try:
            status = (self._files.directory / file.path).stat()
        except FileNotFoundError:
            return bytes(len(digests))
        unchanged = (status.st_size, status.st_mtime_ns) == (file.size, file.mtime_ns)
        # A clock that ticks slowly does not show a second write right after the first.
        unchanged = unchanged and file.mtime_ns < self._scanned_ns - _TICK_NS
        return digests if unchanged else bytes(len(digests) // DIGEST * DIGEST)
