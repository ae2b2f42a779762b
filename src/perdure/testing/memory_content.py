"""A pool in memory, for tests of folder workloads."""

from __future__ import annotations

import threading

from blake3 import blake3

from perdure.model.errors import Damaged
from perdure.model.points import StreamRef

__all__ = ["MemoryContent"]

_MOST = 4 * 1024 * 1024


class MemoryContent:
    """A content sink and listing source that keeps everything in a dictionary. Thread-safe.

    Attributes:
        chunks: Content by chunk id; tests may damage it.
        stored: Bytes of chunks that were new.
    """

    def __init__(self) -> None:
        self.chunks: dict[bytes, bytes] = {}
        self.stored = 0
        self._lock = threading.Lock()

    def put(self, data: bytes | bytearray | memoryview) -> bytes:
        """Keep one chunk; returns its BLAKE3 id."""
        content = bytes(data)
        if not 0 < len(content) <= _MOST:
            raise ValueError(f"a chunk of {len(content)} bytes")
        chunk = blake3(content).digest()
        with self._lock:
            if chunk not in self.chunks:
                self.chunks[chunk] = content
                self.stored += len(content)
        return chunk

    def put_stream(self, data: bytes) -> StreamRef:
        """Keep a byte string in chunks of at most 4 MiB."""
        return StreamRef(tuple(self.put(data[at : at + _MOST]) for at in range(0, len(data), _MOST)), len(data))

    def read_chunk(self, chunk: bytes) -> bytes:
        """Read a chunk back.

        Raises:
            Damaged: There is none of that id, or its content is another.
        """
        content = self.chunks.get(chunk)
        if content is None or blake3(content).digest() != chunk:
            raise Damaged(f"chunk {chunk.hex()[:16]} is missing or damaged")
        return content

    def read_stream(self, ref: StreamRef) -> bytes:
        """Read a byte string back."""
        return b"".join(self.read_chunk(chunk) for chunk in ref.chunks)
