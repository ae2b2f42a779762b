"""The replication protocol over libpq: psycopg has no interface for it, but its ``pq.PGconn`` is enough."""

from __future__ import annotations

import select
import struct
import time
from dataclasses import dataclass

import psycopg
from psycopg import generators, pq, waiting

from perdure.model.errors import SourceUnusable
from perdure.workloads.postgresql.connecting import conninfo, server_sentence, shown
from perdure.workloads.postgresql.history import History, parse_history
from perdure.workloads.postgresql.lsn import format_lsn, parse_lsn

__all__ = ["EPOCH_US", "Received", "Refusal", "Replication", "SystemIdentity", "WalGone"]

EPOCH_US = 946_684_800_000_000
"""PostgreSQL counts microseconds from 2000; this is that moment in microseconds since 1970 UTC."""

_DATA = struct.Struct("!cqqq")
_KEEPALIVE = struct.Struct("!cqqB")
_STATUS = struct.Struct("!cqqqqB")

_ANSWER_S = 60.0
"""No answer takes longer."""

STATUS_S = 5.0
"""The server ends a connection that says nothing for wal_sender_timeout (a minute)."""


class Refusal(SourceUnusable):
    """The server answered a replication command with an error, whose words are the message."""

    default_code = "server-refused"


class WalGone(Refusal):
    """The WAL that was asked for is not on the server any more."""


@dataclass(frozen=True, slots=True)
class SystemIdentity:
    """The answer to IDENTIFY_SYSTEM.

    Args:
        system: The system identifier.
        timeline: The present timeline.
        flushed: Up to where WAL is flushed.
    """

    system: str
    timeline: int
    flushed: int


@dataclass(frozen=True, slots=True)
class Received:
    """WAL as it came.

    Args:
        start: LSN of its first byte.
        data: The bytes.
        sent_ns: The server's clock when it was sent, nanoseconds since 1970 UTC.
        flushed: Up to where the server had WAL to send then.
    """

    start: int
    data: memoryview
    sent_ns: int
    flushed: int = 0

    @property
    def is_newest(self) -> bool:
        """Whether the server had nothing more when it sent this."""
        return self.start + len(self.data) >= self.flushed


class Replication:
    """A replication connection, not for use by several threads.

    Args:
        location: Where the server is.
        name: Application name: what ``synchronous_standby_names`` knows it by.

    Raises:
        SourceUnusable: It cannot be had.
    """

    def __init__(self, location: str, name: str = "perdure") -> None:
        self._location = location
        self._streaming = False
        self._confirmed = 0
        self._received = 0
        self._status_at = 0.0
        self._owed = False
        text = conninfo(location, replication="true", application_name=name)
        try:
            # Not libpq's own blocking calls: those would stop every other thread of this process.
            self._connection = waiting.wait_conn(generators.connect(text), timeout=_ANSWER_S)
        except psycopg.Error as error:
            raise SourceUnusable(
                f"the PostgreSQL server at {shown(location)} allows no replication connection: "
                f"{server_sentence(error)}",
                code="no-replication",
                hint="pg_hba.conf needs a line 'host replication USER ADDRESS METHOD', the role REPLICATION",
            ) from error

    def close(self) -> None:
        """End the connection."""
        self._connection.finish()

    # --- commands --------------------------------------------------------------------------------

    def identify(self) -> SystemIdentity:
        """Who the server is."""
        row = self._rows("IDENTIFY_SYSTEM")[0]
        return SystemIdentity(row[0], int(row[1]), parse_lsn(row[2]))

    def setting(self, name: str) -> str:
        """A setting as SHOW tells it."""
        return self._rows(f"SHOW {name}")[0][0]

    def history(self, timeline: int) -> tuple[History, bytes]:
        """A timeline's history, and the file."""
        if timeline == 1:
            return History(1), b""
        result = self._execute(f"TIMELINE_HISTORY {timeline}")
        content = bytes(result.get_value(0, 1) or b"")
        return parse_history(timeline, content), content

    def create_slot(self, slot: str) -> None:
        """Create a physical slot that keeps WAL from now on.

        Raises:
            Refusal: The server does not.
        """
        self._rows(f'CREATE_REPLICATION_SLOT "{slot}" PHYSICAL RESERVE_WAL')

    def start(self, slot: str, lsn: int, timeline: int) -> None:
        """Begin to stream.

        Args:
            slot: The slot to use; empty for none.
            lsn: From where.
            timeline: On which timeline.

        Raises:
            WalGone: The server has this WAL no more.
            Refusal: It refuses for another reason.
        """
        using = f'SLOT "{slot}" ' if slot else ""
        result = self._execute(f"START_REPLICATION {using}PHYSICAL {format_lsn(lsn)} TIMELINE {timeline}")
        self._streaming = result.status == pq.ExecStatus.COPY_BOTH
        self._confirmed = self._received = 0
        self._status_at = time.monotonic()

    # --- streaming -------------------------------------------------------------------------------

    @property
    def streaming(self) -> bool:
        return self._streaming

    def receive(self, most: int) -> list[Received]:
        """What has arrived, without waiting; at most about ``most`` bytes. Streaming may have ended after it.

        Raises:
            SourceUnusable: The connection is gone.
            WalGone: The server has removed this WAL.
        """
        found: list[Received] = []
        size = 0
        if not self._streaming:
            return found
        while size < most:
            length, data = self._connection.get_copy_data(1)
            if length == 0:
                if not self._readable():
                    break
                try:
                    self._connection.consume_input()
                except Exception as error:
                    raise self._gone() from error
            elif length == -1:
                self._end_of_stream()
                break
            elif length < 0:
                raise self._gone()
            elif (received := self._message(data)) is not None:
                found.append(received)
                size += len(received.data)
        self.report()
        return found

    def wait(self, seconds: float) -> None:
        """Return when something can be received, at the latest after so many seconds."""
        select.select([self._connection.socket], [], [], seconds)

    def confirm(self, lsn: int) -> None:
        """Tell the server that everything before ``lsn`` is durable here."""
        self._confirmed = max(self._confirmed, lsn)
        self._owed = True
        self.report()

    def _message(self, data: memoryview) -> Received | None:
        view = memoryview(data)
        kind = bytes(view[:1])
        if kind == b"w":
            _, start, flushed, clock = _DATA.unpack_from(view)
            self._received = start + len(view) - _DATA.size
            return Received(start, view[_DATA.size :], (clock + EPOCH_US) * 1000, flushed)
        if kind == b"k":
            _, _, _, wanted = _KEEPALIVE.unpack_from(view)
            self._owed = self._owed or bool(wanted)
        return None

    def report(self) -> None:
        """Tell the server what is durable, if it is time for that."""
        if not self._streaming or not (self._owed or time.monotonic() - self._status_at > STATUS_S):
            return
        clock = time.time_ns() // 1000 - EPOCH_US
        status = _STATUS.pack(b"r", max(self._received, self._confirmed), self._confirmed, 0, clock, 0)
        try:
            self._connection.put_copy_data(status)
            self._connection.flush()
        except Exception as error:
            raise self._gone() from error
        self._status_at, self._owed = time.monotonic(), False

    def _end_of_stream(self) -> None:
        """The server ended the copy: the timeline is at its end, or the server stops."""
        self._streaming = False
        try:
            results = self._results()
            if results and results[-1].status == pq.ExecStatus.COPY_IN:
                self._connection.put_copy_end()
                results = self._results()
        except Exception as error:
            raise self._gone() from error
        failed = [result for result in results if result.status == pq.ExecStatus.FATAL_ERROR]
        failure = self._refusal(failed[-1]) if failed else None
        if isinstance(failure, WalGone):
            raise failure
        if failure is not None:
            raise SourceUnusable(
                f"the PostgreSQL server at {shown(self._location)} ended the stream: {failure.message}",
                code="stream-ended",
            )

    def _readable(self) -> bool:
        return bool(select.select([self._connection.socket], [], [], 0)[0])

    def _gone(self) -> SourceUnusable:
        words = " ".join(self._connection.error_message.decode("utf-8", "replace").split())
        return SourceUnusable(
            f"the connection to the PostgreSQL server at {shown(self._location)} is gone: {words}", code="server-gone"
        )

    # --- results ---------------------------------------------------------------------------------

    def _rows(self, command: str) -> list[list[str]]:
        result = self._execute(command)
        return [
            [(result.get_value(row, column) or b"").decode() for column in range(result.nfields)]
            for row in range(result.ntuples)
        ]

    def _execute(self, command: str) -> pq.abc.PGresult:
        try:
            self._connection.send_query(command.encode())
            result = self._results()[-1]
        except Exception as error:
            raise self._gone() from error
        if result.status == pq.ExecStatus.FATAL_ERROR:
            if self._connection.status != pq.ConnStatus.OK:
                raise self._gone()
            raise self._refusal(result)
        return result

    def _results(self) -> list[pq.abc.PGresult]:
        return waiting.wait(generators.execute(self._connection), self._connection.socket, timeout=_ANSWER_S)

    def _refusal(self, result: pq.abc.PGresult) -> Refusal:
        words = (result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b"").decode("utf-8", "replace")
        state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
        gone = "has already been removed" in words or state == "58P01"
        return (WalGone if gone else Refusal)(words)
