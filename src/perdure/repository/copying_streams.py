"""Reading many small maps and listings: on an object store a request takes as long as a megabyte."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from perdure.model.errors import Damaged
from perdure.model.points import StreamRef
from perdure.storage.contract import ObjectMissing, StorageFailed

__all__ = ["AheadStreams", "taken"]

_COUNT = 512
_BYTES = 32 << 20

_Item = TypeVar("_Item")


def taken(waiting: list[_Item], ref: Callable[[_Item], StreamRef]) -> list[_Item]:
    """Take items from the end of a list, as many as are read together: some hundreds, of some tens of MiB.

    Args:
        waiting: The items; those that are taken are removed.
        ref: The stream that belongs to an item.
    """
    batch: list[_Item] = []
    size = 0
    while waiting and len(batch) < _COUNT and size < _BYTES:
        batch.append(waiting.pop())
        size += ref(batch[-1]).size
    return batch


class AheadStreams:
    """Reads streams, and holds those that will be wanted next. Implements ``StreamReader``.

    Args:
        read: Reads one chunk.
        read_many: Reads chunks in the order that is cheapest; yields ``(index, content)``.
    """

    def __init__(
        self, read: Callable[[bytes], bytes], read_many: Callable[[Sequence[bytes]], Iterator[tuple[int, bytes]]]
    ) -> None:
        self._read = read
        self._read_many = read_many
        self._held: dict[bytes, bytes] = {}

    def hold(self, refs: Sequence[StreamRef]) -> None:
        """Read streams that will be wanted next, and let go of those before. What fails will fail when it is wanted."""
        chunks = list(dict.fromkeys(chunk for ref in refs for chunk in ref.chunks))
        self._held = {}
        with contextlib.suppress(Damaged, ObjectMissing, StorageFailed):
            for number, content in self._read_many(chunks):
                self._held[chunks[number]] = content

    def read_stream(self, ref: StreamRef) -> bytes:
        """A stream's content.

        Raises:
            Damaged: It cannot be read.
        """
        data = b"".join(self._held[chunk] if chunk in self._held else self._read(chunk) for chunk in ref.chunks)
        if len(data) != ref.size:
            raise Damaged(f"a stream has {len(data)} bytes instead of {ref.size}", code="damaged-object")
        return data
