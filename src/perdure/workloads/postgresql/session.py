"""A session on a live PostgreSQL cluster: ships its WAL and makes images of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager

import psycopg

from perdure.model.errors import PerdureError, SourceUnusable, TrackingLost
from perdure.model.logs import LogEnd, LogSegment
from perdure.model.points import DataSource
from perdure.model.positions import Position
from perdure.workloads.contract import BaseImage, Image
from perdure.workloads.postgresql.backup import local_image
from perdure.workloads.postgresql.chain import ChainToken, decode_token
from perdure.workloads.postgresql.cluster import Cluster, look_at_cluster, visible_data_directory
from perdure.workloads.postgresql.connecting import connect, server_sentence, shown
from perdure.workloads.postgresql.copies import standby_among
from perdure.workloads.postgresql.following import Follower
from perdure.workloads.postgresql.options import Options
from perdure.workloads.postgresql.remote import remote_image
from perdure.workloads.postgresql.replication import Refusal, Replication
from perdure.workloads.postgresql.slot import Slot, drop_slot, look_at_slot, slot_name

__all__ = ["PostgresqlSession"]

_LOOK_S = 5.0
_DROP_S = 5.0
_SILENT_S = 60.0


class PostgresqlSession:
    """Implements :class:`perdure.workloads.contract.Session`.

    Args:
        source: The data source.

    Attributes:
        keeps_layout: Images keep the layout of the one before, even when the log was lost.
        warning: What a person should look at; empty if all is well.

    Raises:
        SourceUnusable: The server cannot be followed.
    """

    keeps_layout = True

    def __init__(self, source: DataSource) -> None:
        self._location = source.location
        self._options = Options.of(source)
        self._slot = slot_name(source.id)
        self._slot_cause = ""
        self._wanted = 0
        self._acknowledged = Position(0, 0)
        self._connected = True
        self._looked_at = self._polled_at = time.monotonic()
        self._failure: PerdureError | None = None
        self.warning = ""
        with ExitStack() as opened:
            self._sql = opened.enter_context(connect(self._location))
            self.cluster = self._looked_at_cluster()
            self._replication = Replication(self._location, self._options.application_name)
            opened.callback(self._replication.close)
            self._ensure_slot()
            self._follower = Follower(
                self._replication, self._slot, self.cluster.system, self.cluster.number("wal_segment_size")
            )
            self._closing = opened.pop_all()

    def __enter__(self) -> PostgresqlSession:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connections. The slot stays and keeps WAL."""
        self._closing.close()

    def _looked_at_cluster(self) -> Cluster:
        try:
            return look_at_cluster(self._sql)
        except psycopg.Error as error:
            raise SourceUnusable(
                f"the server at {shown(self._location)} does not answer: {server_sentence(error)}", code="server-gone"
            ) from error

    def _ensure_slot(self) -> None:
        """The slot is there before anything is read: from then on no WAL can be missed."""
        slot = look_at_slot(self._sql, self._slot)
        if slot is not None and slot.wal_status == "lost":
            self._slot_cause = (
                f"the server invalidated the replication slot {self._slot}, since it kept more WAL than "
                "max_slot_wal_keep_size allows"
            )
            drop_slot(self._sql, self._slot)
            slot = None
        if slot is None:
            self._slot_cause = self._slot_cause or f"the replication slot {self._slot} was gone"
            try:
                self._replication.create_slot(self._slot)
            except Refusal as refusal:
                raise SourceUnusable(
                    f"the server at {shown(self._location)} gives no replication slot: {refusal.message}",
                    code="no-slot",
                    hint="see: perdure protect --prepare",
                ) from refusal

    # --- log -------------------------------------------------------------------------------------

    def resume(self, end: LogEnd | None) -> None:
        if end is None:
            self._follower.begin_at_present(1)
            return
        token = decode_token(end.chain)
        if token is None:
            self._begin_anew(end, "the pool's continuity token cannot be read")
            return
        if token.system != self.cluster.system:
            raise SourceUnusable(
                f"the server at {shown(self._location)} is another cluster: its system identifier is "
                f"{self.cluster.system}, and the replica is one of {token.system}",
                code="another-cluster",
                hint="protect it under another name; the points of the old one stay recoverable",
            )
        try:
            self._follower.continue_after(end.position, token)
        except TrackingLost as lost:
            cause = f"{self._slot_cause}; {lost.message}" if self._slot_cause else lost.message
            self._begin_anew(end, cause, lost.code)
        self._acknowledged = end.position
        self._follower.confirm(end.position.place)

    def _begin_anew(self, end: LogEnd, cause: str, code: str | None = None) -> None:
        self._follow_from_present(end.position.generation + 2)
        raise TrackingLost(cause, code=code)

    def _follow_from_present(self, generation: int) -> None:
        self._replication.close()
        self._replication = Replication(self._location, self._options.application_name)
        self._closing.callback(self._replication.close)
        self._follower = Follower(
            self._replication, self._slot, self.cluster.system, self.cluster.number("wal_segment_size")
        )
        self._follower.begin_at_present(generation)
        self._connected = False

    def start_anew(self) -> None:
        if self._connected:
            # Not from where the log broke: it may be damaged there.
            self._follow_from_present(self._follower.pending.generation + 2)
        self._follower.backup_ends.clear()
        self._discard()

    def _discard(self) -> None:
        """What no image will stand before is not kept: nobody ships it."""
        if self._connected or self._follower.backup_ends:
            return
        pending = self._follower.pending
        if pending.walked > pending.position.place:
            pending.drop_before(pending.walked)
        if self._follower.at_switch and pending.walked <= pending.position.place:
            self._follower.cross_switch()

    def poll(self) -> bool:
        self._polled_at = time.monotonic()
        try:
            self._follower.receive()
            self._discard()
            if self._polled_at - self._looked_at >= _LOOK_S:
                self._looked_at = self._polled_at
                self._look_at_slot()
        except PerdureError as failure:
            self._failure = failure
            raise
        return self._connected and self._has_segment()

    def log(self) -> Iterator[LogSegment]:
        for run in self.log_runs():
            yield from run

    def log_runs(self) -> Iterator[Sequence[LogSegment]]:
        """As in :class:`perdure.workloads.contract.RunningSession`: of a backlog as much as is held in memory."""
        while True:
            pending = self._follower.pending
            if self._follower.at_switch and not pending.walked > pending.position.place:
                self._follower.cross_switch()
            run = self._run()
            if run:
                yield run
                self._follower.receive()
            elif self._follower.received < self._follower.goal and not self._follower.at_switch:
                self._follower.catch_up(self._follower.goal, bounded=True)
            else:
                return

    def _run(self) -> list[LogSegment]:
        """The segments that what is here makes; the caller keeps them until they are durable."""
        run: list[LogSegment] = []
        while (segment := self._cut()) is not None:
            token = decode_token(segment.chain)
            assert token is not None
            self._follower.pending.advance(segment, token)
            run.append(segment)
        return run

    def acknowledge(self, position: Position) -> None:
        pending = self._follower.pending
        if position.generation == pending.generation and position.place > pending.position.place:
            # An image that stands on no log of the pool: the log goes on from there.
            token = pending.token_at(position.place) or self._follower.token_behind(position.place)
            pending.drop_before(position.place)
            pending.token = token or pending.token
            self._connected = True
        self._acknowledged = max(self._acknowledged, position)
        self._follower.confirm(position.place)

    def maintain(self, ship: Callable[[LogSegment], None]) -> None:
        """Nothing: the server removes its WAL itself once it is confirmed."""

    @property
    def wal_bytes(self) -> int:
        """Bytes received and not shipped."""
        return self._follower.pending.size

    def _has_segment(self) -> bool:
        return self._follower.at_switch or self._follower.pending.has_segment(self._wanted)

    def _cut(self) -> LogSegment | None:
        pending = self._follower.pending
        if not self._has_segment():
            return None
        return pending.cut(everything=self._follower.at_switch or self._wanted > pending.position.place)

    # --- the slot --------------------------------------------------------------------------------

    def _look_at_slot(self) -> None:
        slot = look_at_slot(self._sql, self._slot)
        if slot is None:
            raise TrackingLost(f"the replication slot {self._slot} was dropped", code="slot-gone")
        self.warning = self._options.warning(self._slot, slot)
        if self._options.gives_up(slot):
            self._give_up(slot)

    def _give_up(self, slot: Slot) -> None:
        """Rather lose the log than fill the server's disk."""
        self._replication.close()
        deadline = time.monotonic() + _DROP_S
        while (now := look_at_slot(self._sql, self._slot)) is not None and time.monotonic() < deadline:
            if now.active:
                time.sleep(0.05)
            else:
                drop_slot(self._sql, self._slot)
        raise TrackingLost(
            f"the replication slot {self._slot} kept {slot.retained:,} bytes of WAL on the server, more than the limit "
            f"of {self._options.give_up_bytes:,}; it was dropped",
            code="gave-up",
        )

    # --- images ----------------------------------------------------------------------------------

    @contextmanager
    def image(self, base: BaseImage | None) -> Iterator[Image]:
        try:
            self._follower.backup_ends.clear()
            self._follower.record_ends.clear()
            self._follower.note_record_end()
            with self._taken(base) as image:
                yield image
        except psycopg.Error as error:
            raise SourceUnusable(
                f"the server at {shown(self._location)} does not answer: {server_sentence(error)}", code="server-gone"
            ) from error
        finally:
            self._wanted = 0

    def _taken(self, base: BaseImage | None) -> AbstractContextManager[Image]:
        """From a standby if there is one, else from the disk where that can be seen, else over the network."""
        durable, way = self._connected, self._options.images
        reached = base.position.place if base is not None else 0
        standby = standby_among(self._location, self.cluster.system, reached) if way != "local" else None
        if standby is not None:
            return remote_image(standby, self.cluster, self, base=base, durable=durable)
        directory = visible_data_directory(self.cluster) if way != "remote" else None
        if directory is not None:
            return local_image(self._location, directory, self.cluster, self, base=base, durable=durable)
        if way == "local":
            raise SourceUnusable(
                f"the data directory of the server at {shown(self._location)} cannot be read from here",
                code="no-data-directory",
                hint="run perdure on the server's machine as a user that may read it, or take images over the network",
            )
        return remote_image(self._location, self.cluster, self, base=base, durable=durable)

    @property
    def follower(self) -> Follower:
        """What receives the WAL."""
        return self._follower

    def wait_for(self, lsn: int, *, durable: bool, exactly: bool = True) -> tuple[Position, ChainToken]:
        """From another thread: wait until the record that ends at ``lsn`` is here, and in the pool if ``durable``.

        Args:
            lsn: Where a backup ended.
            durable: Whether it has to be in the pool.
            exactly: There is a record of the backup's end there. Else any end of a record there or behind will do.

        Returns:
            The position there and its continuity token.

        Raises:
            SourceUnusable: The thread that ships ended.
        """
        self._wanted = max(self._wanted, lsn)
        while True:
            known = self._follower.backup_ends if exactly else self._follower.record_ends
            end = min((end for end in list(known) if (end == lsn if exactly else end >= lsn)), default=None)
            if end is not None:
                self._wanted = max(self._wanted, end)
                if not durable or self._acknowledged.place >= end:
                    return Position(self._follower.pending.generation, end), known[end]
            if self._failure is not None:
                raise self._failure
            if time.monotonic() - self._polled_at > _SILENT_S:
                raise SourceUnusable("shipping the log stopped while an image was made", code="image-abandoned")
            time.sleep(0.005)
