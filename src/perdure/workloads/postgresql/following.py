"""Following a server's WAL: from where, on which timeline, and over a promotion.

A *stretch* is the WAL of one generation: one timeline, from where the log continues on it. When the server ends a
timeline, what is left of it is shipped first, up to where the next one branched off; then that one is followed.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

from perdure.model.errors import Damaged, SourceUnusable, TrackingLost
from perdure.model.positions import Position
from perdure.workloads.postgresql.chain import ChainToken
from perdure.workloads.postgresql.cutting import PendingWal
from perdure.workloads.postgresql.lsn import format_lsn
from perdure.workloads.postgresql.record_checks import verify_checks
from perdure.workloads.postgresql.records import Records, RecordWalker
from perdure.workloads.postgresql.replication import Received, Refusal, Replication, WalGone
from perdure.workloads.postgresql.spooling import Spool
from perdure.workloads.postgresql.transactions import backup_ends
from perdure.workloads.postgresql.wal_pages import PAGE

__all__ = ["Follower"]

MOST_PENDING = 64 << 20
"""No more WAL than this is held in memory; the server keeps the rest."""

_AT_ONCE = 8 << 20
_SILENCE_S = 60.0
_SLACK_NS = 1_000_000_000
"""A transaction gets its time a little before its record gets its place in the log; never this much."""


@dataclass(frozen=True, slots=True)
class _Switch:
    """The end of a timeline: where, what comes next, and its history file."""

    place: int
    timeline: int
    history: bytes


class Follower:
    """Receives WAL over a replication connection into :attr:`pending`.

    Args:
        replication: The connection.
        slot: The slot to use.
        system: The cluster's system identifier.
        segment_size: Bytes of a WAL file.

    Attributes:
        pending: What is not in the pool yet.
        received: LSN up to which bytes have come in.
        goal: LSN that was flushed when following began: whoever ships the log ships it at least up to there.
        backup_ends: Continuity tokens at the ends of backups, by LSN, while an image is made.
        record_ends: The same at ends of some other records.
    """

    pending: PendingWal

    def __init__(self, replication: Replication, slot: str, system: str, segment_size: int) -> None:
        self._replication = replication
        self._slot = slot
        self._system = system
        self._segment_size = segment_size
        self._walker = RecordWalker(segment_size, 0, synchronized=True)
        self._switch: _Switch | None = None
        self._expected: tuple[int, ChainToken] | None = None
        self.received = self.goal = 0
        self._spools: list[Spool] = []
        self.backup_ends: dict[int, ChainToken] = {}
        self.record_ends: dict[int, ChainToken] = {}

    # --- beginning -------------------------------------------------------------------------------

    def begin_at_present(self, generation: int) -> None:
        """Follow from the first record that begins after what is flushed now."""
        identity = self._replication.identify()
        page = identity.flushed // PAGE * PAGE
        self._walker = RecordWalker(self._segment_size, page, synchronized=False)
        self._switch = self._expected = None
        self.received, self.goal = page, identity.flushed
        identified = time.monotonic_ns()
        _, history = self._replication.history(identity.timeline)
        self._start(page, identity.timeline)
        raw: list[Received] = []
        deadline = time.monotonic() + _SILENCE_S
        while self._walker.next_record is None:
            self._replication.wait(0.1)
            raw += self._take_raw()
            if time.monotonic() > deadline:
                raise SourceUnusable("the server sent no WAL record for a minute", code="server-gone")
        # What follows was committed after this moment on the server's clock.
        begun_ns = raw[0].sent_ns - (time.monotonic_ns() - identified) - _SLACK_NS
        token = ChainToken(self._system, identity.timeline, 0, 0, begun_ns)
        first = self._walker.next_record
        assert first is not None
        self.pending = PendingWal(Position(generation, first), token, self._segment_size, history)
        for received in raw:
            self.pending.add_bytes(received.start, received.data)
        self._describe(0)

    def continue_after(self, position: Position, token: ChainToken) -> None:
        """Follow from a place that is durable in the pool.

        Raises:
            TrackingLost: The server cannot continue there; the message is the cause.
        """
        identity = self._replication.identify()
        history, _ = self._replication.history(identity.timeline)
        if not history.contains(token.timeline, position.place):
            end = history.end_of(token.timeline)
            where = f"at {format_lsn(end)}, before {format_lsn(position.place)}" if end is not None else "elsewhere"
            raise TrackingLost(
                f"the server is on timeline {identity.timeline}, which branched off timeline {token.timeline} {where}, "
                "up to where the log is in the pool",
                code="timeline-branched",
            )
        if identity.timeline == token.timeline and identity.flushed < position.place:
            raise TrackingLost(
                f"the server's WAL ends at {format_lsn(identity.flushed)}, before {format_lsn(position.place)}, up to "
                "where the log is in the pool: it was set back without beginning a new timeline",
                code="server-set-back",
            )
        begin = token.record or position.place
        self.received = begin
        self._walker = RecordWalker(self._segment_size, begin, synchronized=True)
        self._expected = (position.place, token) if token.record else None
        self._switch = None
        self.pending = PendingWal(position, token, self._segment_size)
        self._start(begin, token.timeline)
        # Only what comes shows whether the server still has this WAL.
        self.catch_up(min(identity.flushed, position.place))
        self.goal = identity.flushed

    def catch_up(self, lsn: int, *, bounded: bool = False) -> None:
        """Receive until everything up to an LSN is here.

        Args:
            lsn: Flushed on the server already.
            bounded: Stop sooner when there is enough for a segment.
        """
        deadline = time.monotonic() + _SILENCE_S
        while self.received < lsn and self._switch is None:
            if bounded and self.pending.size >= MOST_PENDING // 2:
                return
            before = self.received
            self.receive(bounded=bounded)
            if self.received > before:
                deadline = time.monotonic() + _SILENCE_S
            elif self._switch is None:
                self._replication.wait(0.1)
            if time.monotonic() > deadline:
                raise SourceUnusable("the server sent no WAL for a minute", code="server-gone")

    def _start(self, lsn: int, timeline: int) -> None:
        try:
            self._replication.start(self._slot, lsn, timeline)
        except WalGone as gone:
            raise _wal_gone(gone) from gone
        except Refusal as refusal:
            raise SourceUnusable(
                f"the server does not stream from {format_lsn(lsn)}: {refusal.message}",
                code="stream-refused",
                hint="if the replication slot is active, another perdure process or an old connection uses it",
            ) from refusal

    # --- following -------------------------------------------------------------------------------

    def receive(self, *, bounded: bool = True) -> None:
        """Take in what has arrived.

        Args:
            bounded: Hold no more than so much in memory.

        Raises:
            TrackingLost: The WAL that comes next is gone, or is not what belongs there.
            SourceUnusable: The server is gone.
        """
        if (bounded and self.pending.size >= MOST_PENDING) or self._switch is not None:
            return
        raw = self._take_raw()
        for received in raw:
            self.pending.add_bytes(received.start, received.data)
            for spool in self._spools:
                spool.add(received)
        if raw:
            # Behind, the server's clock says nothing of when this was written: what follows may be much older.
            self._describe(raw[-1].sent_ns - _SLACK_NS if raw[-1].is_newest else 0)
        if not self._replication.streaming and self._switch is None:
            self._switch = self._find_switch()

    def keep_alive(self) -> None:
        """Tell the server that this end is still there, without receiving anything."""
        self._replication.report()

    def confirm(self, lsn: int) -> None:
        """Tell the server what is durable."""
        self._replication.confirm(lsn)

    def _take_raw(self) -> list[Received]:
        try:
            raw = self._replication.receive(_AT_ONCE)
        except WalGone as gone:
            raise _wal_gone(gone) from gone
        for received in raw:
            with _naming_damage():
                self._walker.feed(received.data)
            self.received = received.start + len(received.data)
        return raw

    def _describe(self, seen_ns: int) -> None:
        with _naming_damage():
            records = self._walker.records()
            if records is None:
                return
            verify_checks(records)
        if self._expected is not None:
            self._check_continuation(records)
        changes = self.pending.add_records(records, seen_ns)
        for spool in self._spools:
            spool.changes.append(changes)
        self._note_backup_ends(records)

    def _check_continuation(self, records: Records) -> None:
        assert self._expected is not None
        place, token = self._expected
        self._expected = None
        first = (int(records.starts[0]), int(records.ends[0]), int(records.checks[0]))
        if first != (token.record, place, token.check):
            raise TrackingLost(
                f"the server's WAL record at {format_lsn(token.record)} is not the one that is in the pool: "
                "the server was replaced by an older or other copy",
                code="server-replaced",
            )

    def _note_backup_ends(self, records: Records) -> None:
        if not self._spools:
            return
        for row in backup_ends(records):
            end = int(records.ends[row])
            token = self.pending.token_at(end)
            if token is not None:
                self.backup_ends[end] = token
        self.note_record_end()

    def token_behind(self, lsn: int) -> ChainToken | None:
        """The token at an end that was noted while an image was made."""
        return self.backup_ends.get(lsn) or self.record_ends.get(lsn)

    def note_record_end(self) -> None:
        """Note where the last record ends that is here."""
        end = self.pending.walked
        token = self.pending.token_at(end) or (self.pending.token if end == self.pending.position.place else None)
        if token is not None:
            self.record_ends[end] = token

    # --- promotion -------------------------------------------------------------------------------

    def _find_switch(self) -> _Switch:
        """Which timeline follows the one that has ended, and where."""
        identity = self._replication.identify()
        history, _ = self._replication.history(identity.timeline)
        here = self.pending.token.timeline
        end = history.end_of(here)
        if end is None:
            raise SourceUnusable("the server ended the stream", code="stream-ended")
        following = history.after(here)
        _, content = self._replication.history(following)
        return _Switch(end, following, content)

    @property
    def at_switch(self) -> bool:
        """Whether this timeline has ended, and all of it is here."""
        return self._switch is not None

    def cross_switch(self) -> None:
        """Go on with the next timeline; everything of this one was shipped.

        Raises:
            TrackingLost: What was shipped goes beyond where the next one branched off.
        """
        assert self._switch is not None
        switch, position, token = self._switch, self.pending.position, self.pending.token
        if position.place != switch.place:
            raise TrackingLost(
                f"timeline {switch.timeline} branched off at {format_lsn(switch.place)}, and the log is in the pool up "
                f"to {format_lsn(position.place)}",
                code="timeline-branched",
            )
        self._switch = None
        self._walker = RecordWalker(self._segment_size, switch.place, synchronized=True)
        following = ChainToken(self._system, switch.timeline, token.record, token.check, token.newest_ns)
        self.pending = PendingWal(position, following, self._segment_size, switch.history, position.generation + 1)
        self._start(switch.place, switch.timeline)

    # --- spooling --------------------------------------------------------------------------------

    def attach(self, spool: Spool) -> None:
        """Keep a copy of everything received from now on."""
        self._spools.append(spool)

    def detach(self, spool: Spool) -> None:
        """End that."""
        self._spools.remove(spool)


@contextlib.contextmanager
def _naming_damage() -> Iterator[None]:
    """Damage on the way is gone at the next attempt; damage on the server's disk breaks the log."""
    try:
        yield
    except Damaged as damage:
        raise TrackingLost(
            f"{damage.message}: it was damaged on the server's disk or on the way", code=damage.code, hint=damage.hint
        ) from damage


def _wal_gone(gone: WalGone) -> TrackingLost:
    return TrackingLost(f"the server has removed WAL that is not in the pool: {gone.message}", code="wal-removed")
