"""A session on a live SQLite database: follows the WAL, ships it, freezes images, lets SQLite recycle it.

What keeps a commit from being lost between the WAL and the pool is in :mod:`~perdure.workloads.sqlite.hold`; what
makes an image exact in :mod:`~perdure.workloads.sqlite.image`. The order of every step here follows from three rules:

1. A hold moves to frame U only after everything up to U was handed to ``ship`` and is durable; the old hold is
released last.
2. Salts may change under a hold only if everything sampled is shipped and nothing lies behind the hold's frame.
   Anything else means that the hold was lost, and the chain with it.
3. Only frames up to mxFrame of the WAL-index exist. What lies behind may be rolled back.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from perdure.model.errors import PerdureError, SourceUnusable, TrackingLost
from perdure.model.logs import MARK, LogEnd, LogSegment
from perdure.model.positions import Position
from perdure.workloads.contract import BaseImage, Image
from perdure.workloads.sqlite.chain import ChainToken, decode_token, encode_token, identity_of
from perdure.workloads.sqlite.changes import ChangedPages, pages_of_log
from perdure.workloads.sqlite.files import SourceFiles
from perdure.workloads.sqlite.header import read_database_header
from perdure.workloads.sqlite.hold import Connections, require_safe_library
from perdure.workloads.sqlite.image import DATABASE, DatabaseReader, SqliteImage, newest_frames
from perdure.workloads.sqlite.payload import SegmentIndex, encode_index
from perdure.workloads.sqlite.recycling import Recycling
from perdure.workloads.sqlite.resuming import how_to_continue
from perdure.workloads.sqlite.shipping import CutSegment, WalDamaged, cut_segment
from perdure.workloads.sqlite.wal import WAL_HEADER, WalHeader, parse_header
from perdure.workloads.sqlite.walindex import IndexHeader

__all__ = ["SqliteSession"]

_CHECK_EVERY_NS = 1_000_000_000


class SqliteSession:
    """Implements :class:`perdure.workloads.contract.Session`.

    Args:
        location: The database's path.
        clock: Nanoseconds since 1970 UTC.
        recycle_bytes: The WAL is checkpointed when more than this is in it, and more than 1000 pages.

    Attributes:
        wal_bytes: Size of the WAL's live part at the last poll.
        warning: Why the WAL cannot be recycled and grows; empty if all is well.

    Raises:
        SourceUnusable: The database cannot be followed.
        Refused: Another perdure process holds it.
    """

    # The place in the present WAL: shipped, sampled, and the frame beyond which the hold lets nothing be checkpointed.
    _place: int
    _sampled: int
    _hold_frame: int
    # The database at the shipped place.
    _page_size: int
    _pages: int
    _shipped: Position
    _acknowledged: Position
    _checked_ns: int
    _hold_seen: tuple[int, int]

    def __init__(self, location: str, *, clock: Callable[[], int] = time.time_ns, recycle_bytes: int = 4 << 20) -> None:
        require_safe_library()
        self._location = Path(location)
        self._clock = clock
        self._recycling = Recycling(recycle_bytes)
        self._open_images = 0
        self._detached = False
        self._last_time = 0
        self._header: WalHeader | None = None
        self._pending: tuple[LogSegment, CutSegment] | None = None
        self._attach()
        self._begin_at_present(1)

    def __enter__(self) -> SqliteSession:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End the hold. The WAL stays as it is."""
        # Connections first: closing a descriptor of the database drops the locks of connections that still live.
        self._connections.close()
        self._files.close()
        self._detached = True

    @property
    def position(self) -> Position:
        """End of what was shipped."""
        return self._shipped

    @property
    def wal_bytes(self) -> int:
        return self._sampled * (self._page_size + 24) + WAL_HEADER if self._sampled else 0

    @property
    def warning(self) -> str:
        return self._recycling.warning(self._location, self.wal_bytes)

    # --- following ---------------------------------------------------------------------------------

    def resume(self, end: LogEnd | None) -> None:
        self._reattach_if_needed()
        if end is None:
            self._begin_at_present(1)
            return
        token = decode_token(end.chain)
        index = self._wait_for_index()
        status = os.fstat(self._files.database)
        verdict = how_to_continue(end.position.place, token, index, self._files.wal, identity_of(status))
        if verdict.cause or token is None:
            self._lose(f"{self._location}: {verdict.cause}", end.position.generation)
        assert token is not None
        self._begin_at_present(end.position.generation + (1 if verdict.restarted and end.position.place else 0))
        self._shipped = end.position
        self._chain = end.chain
        self._place = 0 if verdict.restarted else end.position.place
        self._checksum = token.checksum
        self._pages = token.pages or self._pages
        self._sampled = self._place
        self._changes = ChangedPages(end.position)
        self._acknowledged = end.position

    def poll(self) -> bool:
        self._reattach_if_needed()
        now = self._clock()
        if abs(now - self._checked_ns) >= _CHECK_EVERY_NS:
            self._checked_ns = now
            try:
                self._files.check()
            except TrackingLost as replaced:
                self._lose(replaced.message)
            except SourceUnusable:
                self._detached = True
                raise
        index = self._files.index()
        if index is not None:
            # The time is taken after the look: a commit must never seem earlier than it was.
            self._take_in(index, self._clock())
        return self._sampled > self._place

    def _take_in(self, index: IndexHeader, now: int) -> None:
        if index.salts != self._salts:
            self._follow_restart(index)
        if index.last_frame < self._sampled:
            self._lose(f"{self._location}: its WAL went back from frame {self._sampled} to {index.last_frame}")
        if self._overtaken(index):
            self._lose(
                f"{self._location}: another process checkpointed frames that were not shipped yet; "
                "the read lock that forbids it was lost"
            )
        if index.last_frame > self._sampled:
            self._last_time = max(now, self._last_time)
            self._samples.append((index.last_frame, self._last_time))
            self._sampled = index.last_frame

    def _overtaken(self, index: IndexHeader) -> bool:
        """Whether frames behind the hold were copied into the database, which only a lost hold allows."""
        if not index.last_frame or index.backfilled <= self._hold_frame:
            return False
        # The count is not part of the double header: look again before believing a value from amid a restart.
        again = self._files.index()
        return again is not None and again.salts == self._salts and again.backfilled > self._hold_frame

    def _follow_restart(self, index: IndexHeader) -> None:
        """Rule 2: the old generation must end exactly at the hold, and be shipped."""
        if self._place != self._sampled or self._place != self._hold_frame:
            self._lose(f"{self._location}: another process restarted its WAL before everything in it was shipped")
        if self._place:
            self._generation += 1
        self._salts = index.salts
        self._place = self._sampled = self._hold_frame = 0
        self._header = None
        self._recycling.restarted()

    # --- shipping ----------------------------------------------------------------------------------

    def log(self) -> Iterator[LogSegment]:
        while self._place < self._sampled:
            segment, cut = self._next_segment()
            self._pending = (segment, cut)
            yield segment
            # Asked for more: the contract says that this one is durable now.
            self._advance()

    def acknowledge(self, position: Position) -> None:
        if self._pending is not None and self._pending[0].last <= position:
            self._advance()
        self._acknowledged = max(self._acknowledged, position)

    def _next_segment(self) -> tuple[LogSegment, CutSegment]:
        try:
            header = self._wal_header()
            cut = cut_segment(self._files.wal, header, self._place, self._checksum, self._sampled)
        except WalDamaged as damage:
            index = self._files.index()
            if index is not None and index.salts != self._salts:
                self._lose(f"{self._location}: another process restarted its WAL before everything in it was shipped")
            self._lose(f"{self._location}: {damage}")
        index_bytes = encode_index(SegmentIndex(header.page_size, cut.pages, cut.commits, cut.sizes))
        token = ChainToken(self._salts, cut.checksum, header.page_size, int(cut.sizes[-1]))
        return (
            LogSegment(
                after=self._shipped,
                last=Position(self._generation, cut.last),
                marks=self._marks(cut),
                chain=encode_token(token),
                index=index_bytes,
                blocks=cut.blocks,
            ),
            cut,
        )

    def _marks(self, cut: CutSegment) -> NDArray[np.void]:
        """Every commit with the time of the first sample that showed it."""
        marks = np.empty(len(cut.commits), MARK)
        marks["place"] = cut.commits.astype(np.uint64) + np.uint64(self._place + 1)
        frames = np.array([frame for frame, _ in self._samples], np.uint64)
        times = np.array([seen for _, seen in self._samples], np.int64)
        marks["time_ns"] = times[np.searchsorted(frames, marks["place"], side="left")]
        return marks

    def _wal_header(self) -> WalHeader:
        if self._header is None:
            header = parse_header(os.pread(self._files.wal, WAL_HEADER, 0))
            if header is None or header.salts != self._salts:
                raise WalDamaged(0)
            self._header, self._page_size = header, header.page_size
        if self._place == 0:
            self._checksum = self._header.checksum
        return self._header

    def _advance(self) -> None:
        if self._pending is None:
            return
        segment, cut = self._pending
        self._pending = None
        self._changes.add(segment.last, np.unique(cut.pages).astype(np.int64) - 1)
        self._shipped, self._chain = segment.last, segment.chain
        self._place, self._checksum, self._pages = cut.last, cut.checksum, int(cut.sizes[-1])
        self._shipped_ns = int(segment.marks["time_ns"][-1])
        while self._samples and self._samples[0][0] <= self._place:
            self._samples.popleft()

    def _ship_all(self, ship: Callable[[LogSegment], None]) -> None:
        self.poll()
        for segment in self.log():
            ship(segment)
            self.acknowledge(segment.last)

    # --- recycling ---------------------------------------------------------------------------------

    def maintain(self, ship: Callable[[LogSegment], None]) -> None:
        self._reattach_if_needed()
        if self._open_images or self._acknowledged < self._shipped:
            return
        self._give_way(ship)
        if not self._recycling.due(self._sampled, self._page_size, self._clock()):
            return
        # Most of the copying happens without the write lock; the hold's read mark forbids a restart meanwhile.
        self._move_hold(ship)
        self._connections.checkpoint()
        with self._connections.write_lock() as locked:
            complete = locked and self._finish_checkpoint(ship)
        self._recycling.tried(self._sampled, self._clock(), complete=complete)

    def _give_way(self, ship: Callable[[LogSegment], None]) -> None:
        """Move the hold up whenever the WAL moved.

        An application's own FULL, RESTART or TRUNCATE checkpoint waits for readers with the write lock in its hand, and
        all other writers wait behind it. It needs us at the last frame, then (all is copied) at read lock 0: two moves
        let it pass.
        """
        index = self._files.index()
        if index is not None and (index.last_frame, index.backfilled) != self._hold_seen:
            self._move_hold(ship)
            self._hold_seen = (index.last_frame, index.backfilled)

    def _finish_checkpoint(self, ship: Callable[[LogSegment], None]) -> bool:
        """With writers kept out: ship and copy the rest, and hold the database file frozen."""
        self._move_hold(ship)
        if not self._connections.checkpoint():
            return False
        self._move_hold(ship)
        return True

    def _move_hold(self, ship: Callable[[LogSegment], None]) -> None:
        """Rule 1. The next hold is at most at the frame sampled after it began; that much is shipped first."""
        self._connections.take_next_hold()
        try:
            index = self._files.index()
            if index is None:
                # A commit is just being written, so nothing says how far the next hold reaches. The old one is as good.
                self._connections.drop_next_hold()
                return
            self._take_in(index, self._clock())
            self._ship_all(ship)
        except BaseException:
            self._connections.drop_next_hold()
            raise
        self._connections.release_old_hold()
        self._hold_frame = self._place

    # --- images ------------------------------------------------------------------------------------

    @contextmanager
    def image(self, base: BaseImage | None) -> Iterator[Image]:
        self._reattach_if_needed()
        if self._place < self._hold_frame:
            raise PerdureError(
                f"an image of {self._location} was asked for at {self._shipped}, before its log was shipped",
                code="log-not-shipped",
            )
        self._open_images += 1
        try:
            yield self._freeze(base)
        finally:
            self._open_images -= 1

    def _freeze(self, base: BaseImage | None) -> SqliteImage:
        now = self._clock()
        index = self._wait_for_index()
        nothing_since = index.salts == self._salts and index.last_frame == self._place
        # Once the file holds everything up to here only it is frozen: the next commit may restart the WAL. A checkpoint
        # that stops at our hold leaves out every page that has a newer frame behind it, although it counts the older
        # one as copied: with frames behind this place the file is not the image, and the WAL cannot restart.
        complete = index.backfilled == index.last_frame == self._place
        in_file = self._place == self._hold_frame and (index.salts != self._salts or complete)
        newest = newest_frames(self._files.wal, self._page_size, 0 if in_file else self._place, self._pages)
        if not in_file and self._wait_for_index().salts != self._salts:
            # It restarted under the look above; it could only because the file holds everything.
            newest = newest_frames(self._files.wal, self._page_size, 0, self._pages)
        reader = DatabaseReader(
            database=self._files.database,
            wal=self._files.wal,
            page_size=self._page_size,
            pages=self._pages,
            newest=newest,
            changed=self._changed_since(base),
        )
        chain = self._settled_chain(now) if nothing_since and index.backfilled == self._place else self._chain
        time_ns = max(now, self._last_time) if nothing_since else self._shipped_ns
        return SqliteImage(self._shipped, chain, time_ns, (reader,))

    def _settled_chain(self, now: int) -> bytes:
        """The chain token with the database file's identity, if that can prove anything later."""
        identity = identity_of(os.fstat(self._files.database))
        token = decode_token(self._chain)
        assert token is not None
        if not identity.settled_before(now):
            return self._chain
        settled = ChainToken(token.salts, token.checksum, token.page_size, token.pages, identity)
        return encode_token(settled)

    def _changed_since(self, base: BaseImage | None) -> NDArray[np.int64] | None:
        if base is None or base.page_sizes.get(DATABASE) != self._page_size or base.position > self._shipped:
            return None
        changed = self._changes.since(base.position)
        if changed is None:
            changed = pages_of_log(base.log(), base.position, self._shipped)
        self._changes.forget_before(base.position)
        return None if changed is None else changed[changed < self._pages]

    # --- beginning and losing ----------------------------------------------------------------------

    def _attach(self) -> None:
        path = self._location.resolve()
        self._files = SourceFiles(path)
        try:
            head = read_database_header(path)
            self._connections = Connections(path)
        except BaseException:
            self._files.close()
            raise
        try:
            self._files.attach()
        except BaseException:
            self._connections.close()
            self._files.close()
            raise
        self._file_page_size = head.page_size
        self._checked_ns = self._clock()
        self._detached = False

    def _reattach_if_needed(self) -> None:
        """After the files were replaced: follow those that are there now."""
        if self._detached:
            self._connections.close()
            self._files.close()
            self._detached = True
            self._attach()
            self._begin_at_present(self._generation)

    def _wait_for_index(self) -> IndexHeader:
        deadline = time.monotonic() + 5
        while (index := self._files.index()) is None:
            if time.monotonic() > deadline:
                raise TrackingLost(f"{self._location}: its WAL-index stays unreadable", code="wal-index-damaged")
            # Left half-written by a crashed writer: any new reader repairs it.
            self._connections.take_next_hold()
            self._connections.drop_next_hold()
        return index

    def _begin_at_present(self, generation: int) -> None:
        """Start a generation at the last committed frame, connected to nothing before."""
        index = self._wait_for_index()
        self._generation = generation
        self._salts = index.salts
        self._place = self._sampled = self._hold_frame = index.last_frame
        self._hold_seen = (-1, -1)
        self._checksum = index.checksum
        self._page_size = index.page_size if index.last_frame else self._file_page_size
        # An empty WAL does not know the size; the database file is complete then, and frozen by the hold.
        known = index.pages if index.last_frame else 0
        self._pages = known or os.fstat(self._files.database).st_size // self._page_size
        self._header = None
        self._samples: deque[tuple[int, int]] = deque()
        self._pending = None
        self._shipped = self._acknowledged = Position(generation, index.last_frame)
        self._chain = encode_token(ChainToken(self._salts, self._checksum, self._page_size, self._pages))
        self._shipped_ns = max(self._clock(), self._last_time)
        self._changes = ChangedPages(self._shipped)
        self._recycling.restarted()

    def _lose(self, cause: str, generation: int | None = None) -> NoReturn:
        """Skip a generation, so that the gap shows in the numbers, and say why."""
        if generation is not None:
            self._begin_at_present(generation + 2)
        else:
            # The hold cannot be trusted any more, perhaps not even the files: the next call starts afresh.
            self._detached = True
            self._generation += 2
            self._sampled = self._place
            self._pending = None
            self._samples.clear()
        raise TrackingLost(cause, hint="the next consistency check compares the replica with the source and repairs it")
