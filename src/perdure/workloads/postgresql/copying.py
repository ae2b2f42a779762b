"""A replication connection for commands that answer with a copy: BASE_BACKUP and what goes with it."""

from __future__ import annotations

import select
from collections.abc import Iterator

from psycopg import generators, pq, waiting

from perdure.workloads.postgresql.replication import Replication

__all__ = ["Copying"]

_BEGIN_S = 3600.0
"""The server makes a checkpoint first, and from 17 on may wait for its WAL summaries."""

_PIECE = 1 << 20


class Copying(Replication):
    """A replication connection that is used for one command with a copy at a time."""

    def send_copy(self, command: str, content: bytes) -> None:
        """Give a command what it wants to have copied in.

        Raises:
            Refusal: The server does not take it.
            SourceUnusable: The connection is gone.
        """
        self._checked(self._sent(command))
        try:
            for at in range(0, len(content), _PIECE):
                waiting.wait(
                    generators.copy_to(self._connection, content[at : at + _PIECE]), self._connection.socket, _BEGIN_S
                )
            self._connection.put_copy_end()
            results = waiting.wait(generators.execute(self._connection), self._connection.socket, _BEGIN_S)
        except Exception as error:
            raise self._gone() from error
        self._checked(results)

    def begin_copy(self, command: str) -> list[list[str]]:
        """Begin a command that copies out; the rows that it tells before."""
        results = self._checked(self._sent(command))
        return self._texts(results[0])

    def copied(self) -> Iterator[memoryview]:
        """The messages of the copy."""
        while True:
            length, data = self._connection.get_copy_data(1)
            if length > 0:
                yield memoryview(data)
            elif length == 0:
                select.select([self._connection.socket], [], [])
                try:
                    self._connection.consume_input()
                except Exception as error:
                    raise self._gone() from error
            elif length == -1:
                return
            else:
                raise self._gone()

    def end_copy(self) -> list[list[str]]:
        """The rows that a command tells after its copy."""
        try:
            results = waiting.wait(generators.fetch_many(self._connection), self._connection.socket, _BEGIN_S)
        except Exception as error:
            raise self._gone() from error
        rows = [self._texts(result) for result in self._checked(results) if result.ntuples]
        return rows[-1]

    def _sent(self, command: str) -> list[pq.abc.PGresult]:
        try:
            self._connection.send_query(command.encode())
            return waiting.wait(generators.execute(self._connection), self._connection.socket, _BEGIN_S)
        except Exception as error:
            raise self._gone() from error

    def _checked(self, results: list[pq.abc.PGresult]) -> list[pq.abc.PGresult]:
        failed = [result for result in results if result.status == pq.ExecStatus.FATAL_ERROR]
        if failed and self._connection.status != pq.ConnStatus.OK:
            raise self._gone()
        if failed:
            raise self._refusal(failed[-1])
        return results

    @staticmethod
    def _texts(result: pq.abc.PGresult) -> list[list[str]]:
        return [
            [(result.get_value(row, column) or b"").decode() for column in range(result.nfields)]
            for row in range(result.ntuples)
        ]
