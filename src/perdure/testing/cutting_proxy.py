"""A TCP proxy in front of an HTTP server that loses answers, answers itself, or is not there."""

from __future__ import annotations

import contextlib
import socket
import threading
from urllib.parse import urlsplit

__all__ = ["CuttingProxy"]


class CuttingProxy:
    """Forwards connections to a server on loopback. Use it as a context manager.

    Args:
        endpoint: The server's URL.
    """

    def __init__(self, endpoint: str) -> None:
        parts = urlsplit(endpoint)
        self._upstream = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._path = parts.path
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._port = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._losing = 0
        self._answers: list[bytes] = []
        self._open: set[socket.socket] = set()
        self.lost = 0
        """Answers that were lost so far."""

    def __enter__(self) -> CuttingProxy:
        self._serve()
        return self

    def __exit__(self, *exc: object) -> None:
        self.vanish()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._port}{self._path}"

    def lose_answers(self, count: int) -> None:
        """Let the server do what the next ``count`` PUT requests ask for, and cut the connection before it says so."""
        with self._lock:
            self._losing = count

    def answer_with(self, *answers: bytes) -> None:
        """Give these answers to the next requests, which the server does not see; their connections then end."""
        with self._lock:
            self._answers = list(answers)

    def vanish(self) -> None:
        """Refuse connections from now on, and cut those that are open."""
        # A listener in accept() is only woken by shutting it down.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def return_(self) -> None:
        """Listen again, on the same port."""
        self._listener = socket.create_server(("127.0.0.1", self._port))
        self._serve()

    def _serve(self) -> None:
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=self._connection, args=(client,), daemon=True).start()

    def _connection(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), socket.create_connection(self._upstream) as server:
            with self._lock:
                self._open |= {client, server}
            try:
                self._talk(client, server)
            finally:
                with self._lock:
                    self._open -= {client, server}

    def _talk(self, client: socket.socket, server: socket.socket) -> None:
        last: list[bytes] = [b""]
        answering = threading.Thread(target=self._return, args=(server, client, last), daemon=True)
        answering.start()
        try:
            while data := client.recv(1 << 16):
                if data.split(b" ", 1)[0] in (b"GET", b"PUT", b"HEAD", b"POST", b"DELETE"):
                    last[0] = data.split(b" ", 1)[0]
                    answer = self._own_answer()
                    if answer is not None:
                        client.sendall(answer)
                        return
                server.sendall(data)
        finally:
            for each in (client, server):
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
            answering.join()

    def _return(self, server: socket.socket, client: socket.socket, last: list[bytes]) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 16):
                # Interim answers (100 Continue) say nothing about the outcome.
                if last[0] == b"PUT" and not data.startswith(b"HTTP/1.1 1") and self._loses():
                    break
                client.sendall(data)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)

    def _own_answer(self) -> bytes | None:
        with self._lock:
            return self._answers.pop(0) if self._answers else None

    def _loses(self) -> bool:
        with self._lock:
            if not self._losing:
                return False
            self._losing -= 1
            self.lost += 1
            return True
