"""The engine's end of the writer protocol: serves a writer on a Unix-domain socket in its store's folder."""

from __future__ import annotations

import contextlib
import os
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from perdure.snapshots.writer import BackupKind, NonRetryable, StoreWriter
from perdure.snapshots.writer_messages import LONGEST_LINE, Answer, Request, failure_of, short_socket_path

__all__ = ["serve_writer"]


class _Prepare(msgspec.Struct, frozen=True):
    databases: list[str]
    kind: BackupKind


class _OfSet(msgspec.Struct, frozen=True):
    backup_set: str


class _Complete(msgspec.Struct, frozen=True):
    backup_set: str
    succeeded: list[str]


@contextmanager
def serve_writer(writer: StoreWriter, path: Path) -> Iterator[None]:
    """Serve a writer at ``path`` while the context is open; every requester has a thread of its own.

    Only the owner of the socket may connect. A socket that a dead server left is replaced.

    Raises:
        OSError: The socket cannot be made, or another server listens on it.
    """
    _remove_dead_socket(path)
    with short_socket_path(path) as name:
        server = _Server(name, writer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="writer", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.end_connections()
        server.server_close()
        path.unlink(missing_ok=True)


def _remove_dead_socket(path: Path) -> None:
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        try:
            with short_socket_path(path) as name:
                probe.connect(name)
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
    raise FileExistsError(f"another writer is served at {path}")


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    block_on_close = True

    def __init__(self, name: str, writer: StoreWriter) -> None:
        self.writer = writer
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(name, _Requester)

    def server_bind(self) -> None:
        previous = os.umask(0o177)
        try:
            super().server_bind()
        finally:
            os.umask(previous)

    def began(self, connection: socket.socket) -> None:
        with self._lock:
            self._connections.add(connection)

    def ended(self, connection: socket.socket) -> None:
        with self._lock:
            self._connections.discard(connection)

    def end_connections(self) -> None:
        """Cut off every requester; what each had prepared is aborted."""
        with self._lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


class _Requester(socketserver.StreamRequestHandler):
    """One connection: answers its calls, and aborts what it leaves behind."""

    server: _Server

    def handle(self) -> None:
        self._open_sets: set[str] = set()
        self.server.began(self.request)
        try:
            while (line := self.rfile.readline(LONGEST_LINE)).endswith(b"\n"):
                self.wfile.write(msgspec.json.encode(self._answer(line)) + b"\n")
        except OSError:
            # The requester is gone; what it had prepared is aborted below.
            pass
        finally:
            self.server.ended(self.request)
            for backup_set in self._open_sets:
                with contextlib.suppress(Exception):
                    self.server.writer.abort(backup_set)

    def _answer(self, line: bytes) -> Answer:
        try:
            request = msgspec.json.decode(line, type=Request)
            return Answer(msgspec.Raw(msgspec.json.encode(self._do(request))))
        except msgspec.DecodeError as error:
            return Answer(failure=failure_of(NonRetryable(f"the call is not of the writer protocol: {error}")))
        except Exception as error:  # noqa: BLE001 - whatever the writer raised is the requester's answer
            return Answer(failure=failure_of(error))

    def _do(self, request: Request) -> object:
        writer, arguments = self.server.writer, request.arguments
        match request.call:
            case "describe":
                return writer.describe()
            case "prepare":
                prepare = msgspec.json.decode(arguments, type=_Prepare)
                backup_set = writer.prepare(prepare.databases, prepare.kind)
                self._open_sets.add(backup_set)
                return backup_set
            case "freeze":
                return writer.freeze(self._set_in(arguments))
            case "thaw":
                writer.thaw(self._set_in(arguments))
                return None
            case "complete":
                complete = msgspec.json.decode(arguments, type=_Complete)
                completed = writer.complete(complete.backup_set, complete.succeeded)
                self._open_sets.discard(complete.backup_set)
                return completed
            case "abort":
                backup_set = self._set_in(arguments)
                self._open_sets.discard(backup_set)
                writer.abort(backup_set)
                return None
        raise NonRetryable(f"the writer protocol has no call {request.call!r}")

    @staticmethod
    def _set_in(arguments: msgspec.Raw) -> str:
        return msgspec.json.decode(arguments, type=_OfSet).backup_set
