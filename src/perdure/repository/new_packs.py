"""New packs for content that is moved inside a pool, read back before anybody relies on them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from perdure.model.errors import Damaged
from perdure.repository.packs import PackWriter, pack_name
from perdure.repository.pool import Pool
from perdure.repository.whole_reading import read_pack
from perdure.storage.contract import Pending

__all__ = ["NewPacks"]

_AT_ONCE = 8
"""So many complete packs are made durable together."""


class NewPacks:
    """Writes chunks into new packs. Use it as a context manager; what is not durable at its end is dropped.

    Args:
        pool: The pool.
        still_at_work: Called now and then, to renew a lease.

    Attributes:
        names: Names of the packs that are durable.
        written: Bytes in them.
    """

    def __init__(self, pool: Pool, still_at_work: Callable[[], None] = lambda: None) -> None:
        self._pool = pool
        self._still_at_work = still_at_work
        self._writer: PackWriter | None = None
        self._finished: list[tuple[bytes, Pending, NDArray[np.void], int]] = []
        self._fresh: set[bytes] = set()
        self.names: list[str] = []
        self.written = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.discard()

    def add_if_new(self, chunk: bytes, content: bytes) -> None:
        """Add a chunk that lies in no pack that may be relied on."""
        if chunk not in self._fresh and not self._pool.index.has(chunk):
            self.add(chunk, content)

    def add(self, chunk: bytes, content: bytes) -> None:
        """Add a chunk."""
        self._still_at_work()
        self._writer = self._writer or PackWriter(self._pool.storage, self._pool.keys)
        self._writer.add(chunk, content)
        self._fresh.add(chunk)
        if self._writer.full:
            self._finish()
            if len(self._finished) >= _AT_ONCE:
                self._settle()

    def make_durable(self) -> None:
        """Return when everything that was added is durable, was read back, and is in the index.

        Raises:
            Damaged: What was written cannot be read back; the packs stay behind as garbage.
        """
        self._finish()
        self._settle()

    def _finish(self) -> None:
        if self._writer is not None:
            writer, self._writer = self._writer, None
            self._finished.append((writer.pack, *writer.finish()))

    def _settle(self) -> None:
        finished, self._finished = self._finished, []
        storage, keys = self._pool.storage, self._pool.keys
        if finished:
            storage.barrier([pending for _, pending, _, _ in finished])
        for pack, _, rows, size in finished:
            self._still_at_work()
            if not read_pack(storage, keys, pack, size, known=partial(_as_written, rows)).sound:
                raise Damaged(
                    f"{pack_name(pack)} was written just now and cannot be read back: "
                    "the storage is failing, and nothing was replaced",
                    code="damaged-object",
                )
            self._pool.index.add_pack(pack, size, rows)
            self.names.append(pack_name(pack))
            self.written += size


def _as_written(rows: NDArray[np.void]) -> NDArray[np.void]:
    return rows
