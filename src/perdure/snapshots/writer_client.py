"""The requester's end of the writer protocol: a writer that lives in another process, behind a Unix-domain socket."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from perdure.snapshots.writer import (
    SOCKET_NAME,
    BackupKind,
    CompletedDatabase,
    DatabaseStatus,
    Frozen,
    NonRetryable,
    Retryable,
    WriterTimeout,
)
from perdure.snapshots.writer_messages import LONGEST_LINE, Answer, Request, raise_failure, short_socket_path

__all__ = ["SocketWriter", "find_writer"]

_Result = TypeVar("_Result")

_answers = msgspec.json.Decoder(Answer)


def find_writer(folder: Path, timeout_s: float = 60.0) -> SocketWriter | None:
    """Connect to the writer of a store's folder; ``None`` if no process serves one there.

    Raises:
        Retryable: A socket is there, and may not be used.
    """
    path = folder / SOCKET_NAME
    try:
        return SocketWriter(path, timeout_s)
    except (FileNotFoundError, ConnectionRefusedError):
        # A socket that nobody listens on was left by a writer that died.
        return None
    except OSError as error:
        raise Retryable(
            f"the writer at {path} cannot be reached: {error.strerror or error}",
            hint="perdure must run as a user that may use the socket",
        ) from error


class SocketWriter:
    """Implements :class:`perdure.snapshots.writer.StoreWriter` over a connection. Not for several threads at once.

    Sets that were prepared over a connection are aborted by the other side when it ends.

    Args:
        path: The socket.
        timeout_s: Seconds to wait for one answer.

    Raises:
        OSError: Nobody listens there.
    """

    def __init__(self, path: Path, timeout_s: float = 60.0) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_s)
        try:
            with short_socket_path(path) as name:
                self._socket.connect(name)
        except BaseException:
            self._socket.close()
            raise
        self._lines = self._socket.makefile("rb")

    def __enter__(self) -> SocketWriter:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection, and with it every set that is not complete."""
        self._lines.close()
        self._socket.close()

    def describe(self) -> tuple[DatabaseStatus, ...]:
        return self._call("describe", {}, tuple[DatabaseStatus, ...])

    def prepare(self, databases: Sequence[str], kind: BackupKind) -> str:
        return self._call("prepare", {"databases": list(databases), "kind": kind}, str)

    def freeze(self, backup_set: str) -> Frozen:
        return self._call("freeze", {"backup_set": backup_set}, Frozen)

    def thaw(self, backup_set: str) -> None:
        self._call("thaw", {"backup_set": backup_set}, type(None))

    def complete(self, backup_set: str, succeeded: Sequence[str]) -> tuple[CompletedDatabase, ...]:
        done = {"backup_set": backup_set, "succeeded": list(succeeded)}
        return self._call("complete", done, tuple[CompletedDatabase, ...])

    def abort(self, backup_set: str) -> None:
        self._call("abort", {"backup_set": backup_set}, type(None))

    def _call(self, name: str, arguments: Mapping[str, object], result: type[_Result]) -> _Result:
        request = msgspec.json.encode(Request(name, msgspec.Raw(msgspec.json.encode(arguments))))
        try:
            self._socket.sendall(request + b"\n")
            line = self._lines.readline(LONGEST_LINE)
        except TimeoutError as error:
            # An answer that comes late would be taken for that of the next call.
            self.close()
            raise WriterTimeout(f"the writer at {self._path} did not answer {name!r} in time") from error
        except (OSError, ValueError) as error:
            raise Retryable(f"the connection to the writer at {self._path} broke at {name!r}: {error}") from error
        if not line.endswith(b"\n"):
            raise Retryable(f"the writer at {self._path} ended the connection at {name!r}")
        try:
            answer = _answers.decode(line)
            if answer.failure is not None:
                raise_failure(answer.failure)
            return msgspec.json.decode(answer.result, type=result)
        except msgspec.DecodeError as error:
            raise NonRetryable(
                f"the writer at {self._path} answered {name!r} with something that is not of the protocol: {error}",
                hint="perdure and the writer must be of versions that fit together",
            ) from error
